"""A node without media: keeps sessions in memory and answers as `NodeControl` says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from relay.egress.feed import Feed
from relay.egress.manager import EgressManager
from relay.errors import BadOffer, NotFound, Overloaded, PreconditionFailed, PreconditionRequired, UnacceptableOffer
from relay.ports import Answer, IceFragment, Offer, RoomEvent, SlotChange
from relay.settings import EgressSettings
from signaling.nodes import NodeEgress
from tests.egress.local import LocalEgress

ANSWER = "v=0\r\ns=answer\r\n"


def link_end(link: str) -> dict[str, Any]:
    """The origin's end of a link whose media is on the primary path."""
    path = {"remote": ["192.0.2.2", 7444], "rtt_us": 900, "verdict": "good", "window": 12000, "max_datagram": 1200}
    return {
        "link": link,
        "peer": "n2",
        "role": "origin",
        "breaker": "closed",
        "carrying": ["primary"],
        "flows": 3,
        "paths": {"primary": path},
    }


class NoFeeds:
    """Nobody sends anything."""

    async def open(self, room: str, source: str, on_end: object) -> Feed:
        raise NotFound(f"nobody sends {source}", code="publication-not-found")


class MemoryNode:
    """Offers decide by their text: `bad` and `unanswerable` fail, everything else is answered."""

    def __init__(self, node_id: str = "n1") -> None:
        self.node_id = node_id
        self.full = False
        self.offers: list[Offer] = []
        self.documents: dict[str, dict[str, Any]] = {}
        self.speakers: dict[str, str] = {}
        self.queues: dict[str, asyncio.Queue[RoomEvent]] = {}
        self.healthy = True
        nothing = EgressManager(EgressSettings(), Path("nowhere"), NoFeeds(), node=node_id)
        self.egress: NodeEgress = LocalEgress(nothing)
        self.served_links: dict[str, dict[str, Any]] = {}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._tags: dict[str, int] = {}

    def admit(self, room: str, identity: str, publishing: bool) -> None:
        if self.full:
            raise Overloaded("all sessions of this node are taken", 7)

    def knows(self, room: str) -> dict[str, Any] | None:
        return self.documents.get(room)

    def active_speaker(self, room: str) -> str | None:
        return self.speakers.get(room)

    async def publish(self, offer: Offer) -> Answer:
        return self._open(offer, "publisher")

    async def watch(self, offer: Offer) -> Answer:
        return self._open(offer, "viewer")

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        self.session(session)
        if "bad" in fragment:
            raise BadOffer("no m-line")
        if etag not in {None, "*", f"ice-{self._tags[session]}"}:
            raise PreconditionFailed("the ICE generation has changed")
        if "ice-ufrag" not in fragment:
            return None
        if etag is None:
            raise PreconditionRequired("an ICE restart needs If-Match")
        self._tags[session] += 1
        return IceFragment("a=ice-ufrag:new\r\n", f"ice-{self._tags[session]}")

    async def close(self, session: str) -> None:
        self.session(session)
        del self._sessions[session]

    def session(self, session: str) -> dict[str, Any]:
        if session not in self._sessions:
            raise NotFound(f"no session {session!r}")
        return self._sessions[session]

    def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        return [facts for facts in self._sessions.values() if room in {None, facts["room"]}]

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        slots = self.session(session)["slots"]
        if index >= len(slots):
            raise NotFound(f"no slot {index}", code="slot-not-found")
        if change.changes.get("publication") == "nobody":
            raise NotFound("no such publication", code="publication-not-found")
        if "layer" in change.changes:
            slots[index] |= {"pinned": True, "pinned_layer": change.changes["layer"]}
        slots[index] |= {name: value for name, value in change.changes.items() if name != "layer"}
        slot: dict[str, Any] = slots[index]
        return slot

    async def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        self.session(session)
        queue = self.queues.setdefault(session, asyncio.Queue())
        while True:
            yield await queue.get()

    def links(self) -> list[dict[str, Any]]:
        return list(self.served_links.values())

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        if link not in self.served_links:
            raise NotFound(f"no link {link}", code="link-not-found")
        self.served_links[link]["carrying"] = ["backup" if action == "open" else "primary"]
        return self.served_links[link]

    def status(self) -> dict[str, Any]:
        return {
            "id": self.node_id,
            "region": "local",
            "version": "0",
            "plane": "reference",
            "healthy": self.healthy,
            "sessions": len(self._sessions),
            "publishers": 0,
            "viewers": 0,
            "max_sessions": 10,
            "bitrate_out_bps": 0,
            "packets_in": 0,
            "packets_out": 0,
            "cpu_percent": 0.0,
            "memory_bytes": 0,
            "draining": False,
            "started_at": "2026-01-01T00:00:00Z",
        }

    def _open(self, offer: Offer, kind: str) -> Answer:
        if "bad" in offer.sdp:
            raise BadOffer("line 1 is not SDP")
        if "unanswerable" in offer.sdp:
            raise UnacceptableOffer("no common codec")
        self.offers.append(offer)
        name = f"{self.node_id}~s{len(self.offers)}"
        self._tags[name] = 1
        self._sessions[name] = {
            "id": name,
            "room": offer.room,
            "identity": offer.identity,
            "role": offer.role,
            "kind": kind,
            "state": "connecting",
            "address": None,
            "since": "2026-01-01T00:00:00Z",
            "bitrate_in_bps": 0,
            "bitrate_out_bps": 0,
            "packets_in": 0,
            "packets_out": 0,
            "loss": 0.0,
            "rtt_ms": None,
            "estimate_bps": None,
            "publications": [],
            "slots": [_slot(0)] if kind == "viewer" else [],
        }
        return Answer(name, ANSWER, "ice-1")


def _slot(index: int) -> dict[str, Any]:
    return {
        "index": index,
        "mid": str(index),
        "kind": "video",
        "publication": None,
        "identity": None,
        "layer": None,
        "pinned": False,
        "pinned_layer": None,
        "max_layer": None,
        "paused": False,
        "bitrate_bps": 0,
    }
