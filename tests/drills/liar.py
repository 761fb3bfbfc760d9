"""A node that lies: it has a valid certificate and the store's password, says that it has no load, publishes a track of
its own so that others link to it, and then claims a publication that another node holds.

`python -m tests.drills.liar PLAN.json`; it writes what became of it to standard output, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from relay.cluster import open_store
from relay.cluster.directory import RedisDirectory
from relay.cluster.leases import RedisLeases
from relay.errors import LeaseHeld
from relay.ids import HybridClock
from relay.link import messages as m
from relay.link.history import FlowSpec
from relay.link.hooks import LayerSource, LinkEvent
from relay.link.quic import identity_of, open_endpoint
from relay.link.quic.h3 import ALPN as H3_ALPN
from relay.link.roq import ALPN as ROQ_ALPN
from relay.link.serve import LinkServer
from relay.plane.contract import Kind
from relay.plane.reference.descriptors import Codec
from relay.ports import NodeRecord
from relay.settings import LinkSettings
from relay.stage.document import RoomChange, RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.publications import start_publication
from relay.stage.room import changing

NAME, OWN = "relay-m", "liars-own"
VP8 = m.Codec(number=96, codec="vp8", clock_hz=90_000)


class Hooks:
    """See `relay.link.hooks.OriginHooks`."""

    def __init__(self) -> None:
        self.tapped: dict[int, str] = {}

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        self.tapped[flow] = publication
        return LayerSource(FlowSpec(Kind.VIDEO, {96: Codec.VP8}), 90_000, {})

    def untap(self, flow: int) -> None:
        self.tapped.pop(flow, None)

    def request_keyframe(self, publication: str, layer: int) -> None:
        pass

    def watch_room(self, room: str, watched: bool) -> None:
        pass

    def link_changed(self, event: LinkEvent) -> None:
        pass


def claim(ident: str, epoch: int, room: str) -> m.Publication:
    return m.Publication(id=ident, epoch=epoch, room=room, kind="video", codecs=(VP8,), layers=(m.Layer(),))


def publish(state: RoomState) -> RoomChange:
    """What puts a track of this node into a room's document."""
    return start_publication(
        state, Actor("mallory", Role.GUEST), time.time(), publication=OWN, kind="video", source="camera", codec="vp8",
        node=NAME, session=f"{NAME}~1", layers=("",), epoch=1,
    )  # fmt: skip


async def take(plan: dict[str, Any]) -> str:
    """Ask for the lease of what another node publishes; returns who has it."""
    leases = RedisLeases(plan["store"])
    try:
        await leases.acquire(plan["room"], plan["stolen"], NAME, 2.0)
    except LeaseHeld as error:
        return error.owner
    finally:
        await leases.close()
    return NAME


async def lie(plan: dict[str, Any]) -> None:
    """Until killed."""
    settings = LinkSettings(**plan["link"])
    identity = identity_of(settings)
    assert identity is not None
    endpoint, hooks = open_endpoint(settings, identity, alpns=(H3_ALPN, ROQ_ALPN)), Hooks()
    server = LinkServer(endpoint, NAME, hooks, HybridClock())
    server.start()
    claims = [claim(plan["stolen"], epoch, plan["room"]) for epoch in (1, plan["epoch"], plan["epoch"] + 1000)]
    directory, store = RedisDirectory(plan["store"]), await open_store(plan["store"])
    record = NodeRecord(
        NAME, plan["control_url"], "local", "0", max_sessions=1000, link=tuple(plan["link"]["advertise"])
    )
    print(json.dumps({"owner": await take(plan)}), flush=True)
    await directory.announce(record, 5.0)
    await store.change(plan["room"], changing(publish))
    for turn in range(10_000):
        await directory.announce(record, 5.0)
        server.set_catalog([claim(OWN, 1, plan["room"]), claims[turn // 4 % len(claims)]])
        garbage = bytes([0x80, 96, 0, turn % 256]) + bytes(8) + b"no picture"
        server.feed([(flow, garbage) for flow in hooks.tapped])
        told = {"links": len(server.links), "refused": server.refused, "tapped": sorted(set(hooks.tapped.values()))}
        print(json.dumps(told), flush=True)
        await asyncio.sleep(0.25)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(lie(json.loads(Path(sys.argv[1]).read_text())))
