"""Shows on a cluster for the tests of faults: who publishes and watches where, and what the viewers missed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from drills.cluster import Cluster
from drills.leases import Tenure, check
from relay.cluster.leases import RedisLeases
from tests.drills.fabrics import eventually

_serials = itertools.count(1)
PATIENCE_S = 120.0
"""A machine that does much else at the same time gets there, too."""
_ANYWHERE = ("signaling-1", "signaling-2")


class Show:
    """A room of its own. Publishers are known by their numbers, which viewers read from the pictures."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.room = f"show-{next(_serials)}"
        self.hosts: dict[str, str] = {}
        self._running: dict[str, Any] = {}
        self._publishers = itertools.count(1)
        cluster.make_room(self.room)

    def publish(self, name: str, at: str, *others: str) -> str:
        """A host who begins at one member and knows `others` (both signaling services); returns his identity."""
        identity = f"{self.room}-{name}"
        self.hosts[name] = self.cluster.add_client(identity)
        number = next(self._publishers)
        self._running[identity] = self.cluster.publish(
            self.room,
            identity,
            host=self.hosts[name],
            via=(at, *(others or _ANYWHERE)),
            publisher=number,
            tone=220.0 + number * 110,
        )
        return identity

    def watch(self, name: str, at: str, *others: str, videos: int = 2) -> str:
        """A viewer, likewise. All of a room's viewers are on one host."""
        identity = f"{self.room}-{name}"
        if "viewers" not in self.hosts:
            self.hosts["viewers"] = self.cluster.add_client(f"{self.room}-viewers")
        self._running[identity] = self.cluster.watch(
            self.room, identity, host=self.hosts["viewers"], via=(at, *(others or _ANYWHERE)), videos=videos, audios=2,
            stall_s=0.0,
        )  # fmt: skip
        return identity

    def stop(self, *identities: str) -> None:
        """SIGKILL for clients; all without names."""
        for identity in identities or tuple(self._running):
            self._running.pop(identity).kill()

    # --- what was seen ------------------------------------------------------------------------------------------------

    def frames(self, viewer: str, publisher: int, since: float = 0.0) -> list[float]:
        """When pictures of a publisher came."""
        lines = self.cluster.lines(viewer)
        return [
            line["at"]
            for line in lines
            if line["event"] == "frame" and line["publisher"] == publisher and line["at"] > since
        ]

    def plays(self, viewer: str, publishers: Iterable[int], since: float, count: int = 10) -> bool:
        return all(len(self.frames(viewer, publisher, since)) >= count for publisher in publishers)

    def playing(self, viewers: Iterable[str], publishers: Sequence[int], seconds: float = PATIENCE_S) -> None:
        """Wait until all of them show ten more pictures of each publisher."""
        now = time.monotonic()
        for viewer in viewers:
            eventually(lambda who=viewer: self.plays(who, publishers, now), seconds)  # type: ignore[misc]

    def gap(self, viewer: str, publisher: int, since: float) -> float:
        """The longest time without a new picture, in seconds, beginning with the last one before `since`."""
        frames = self.frames(viewer, publisher)
        times = [*[at for at in frames if at <= since][-1:], *(at for at in frames if at > since), time.monotonic()]
        return max((after - before for before, after in itertools.pairwise(times)), default=float("nan"))

    def happened(self, identity: str, *events: str, since: float = 0.0) -> list[dict[str, Any]]:
        return [line for line in self.cluster.lines(identity) if line["event"] in events and line["at"] > since]

    def told(self, title: str, since: float, viewers: Iterable[str], publishers: Sequence[int]) -> None:
        """Print the gaps; they decide nothing."""
        for viewer in viewers:
            gaps = ", ".join(f"{n}: {1000 * self.gap(viewer, n, since):.0f} ms" for n in publishers)
            print(f"{title}: {viewer.rsplit('-', 1)[1]} longest time without a picture of {gaps}")

    # --- what the cluster says ----------------------------------------------------------------------------------------

    def publications(self, member: str = "signaling-1") -> dict[str, dict[str, Any]]:
        """By id."""
        with self.cluster.api(member, PATIENCE_S) as api:
            found = api.get(f"/v1/rooms/{self.room}/publications").raise_for_status().json()["publications"]
        return {each["id"]: each for each in found}

    def nodes(self, identity: str) -> set[str]:
        """The nodes of an identity's live publications."""
        return {
            each["node"]
            for each in self.publications().values()
            if (each["identity"], each["state"]) == (identity, "live")
        }

    def slots(self, viewer: str, member: str) -> list[tuple[str, str | None]]:
        """The sessions of a viewer on a node, with what its slots are bound to."""
        with self.cluster.api(member, PATIENCE_S) as api:
            found = api.get(f"/v1/rooms/{self.room}/sessions").raise_for_status().json()["sessions"]
        mine = [each for each in found if each["identity"] == viewer and each["kind"] == "viewer"]
        return [(each["id"], slot["publication"]) for each in mine for slot in each["slots"]]

    def tenures(self) -> list[Tenure]:
        """Who was the origin of what and when. Raises TwoOwners."""

        async def read() -> list[Tenure]:
            leases = RedisLeases(self.cluster.store_url)
            try:
                return check(await leases.history(self.room))
            finally:
                await leases.close()

        return asyncio.run(read())

    def owners(self) -> dict[str, tuple[str, int]]:
        """The last owner and epoch of each publication, by the history."""
        return {each.publication: (each.node, each.epoch) for each in self.tenures()}


@contextmanager
def show(cluster: Cluster) -> Iterator[Show]:
    """A show; afterwards its clients are gone, and every member of the cluster runs and is reached."""
    made = Show(cluster)
    try:
        yield made
    finally:
        made.stop()
        cluster.fabric.heal()
        for member in cluster.members.values():
            if member.state != "running":
                member.start()
        eventually(cluster.store_answers)
        cluster.wait_until_healthy(PATIENCE_S)
