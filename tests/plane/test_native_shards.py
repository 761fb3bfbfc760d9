"""Several shards as one plane: the stories of the forwarder's tests, with the sessions on different shards.

Whoever publishes and whoever watches live on different shards for the most part. Each destination must get the
reference's datagrams, byte for byte and in the reference's order, and everything is told once.
"""

from __future__ import annotations

import importlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from relay.errors import UsageError
from relay.plane.contract import Address, Command, Event, LoudnessMeasured, OpenSession, PlaneConfig, PlaneStats
from relay.plane.reference import rtcp
from tests.plane import world

core = pytest.importorskip("tests.plane.test_native_core", reason="the native plane is not built: see rust/README.md")

SHARDS = 3
OF_MIRRORS = "mirror_"  # what copies of packets were dropped for


def kinds(datagrams: list[bytes]) -> list[tuple[int, int]]:
    """Type and length of control packets, sorted. Media must not come here."""
    assert all(rtcp.is_rtcp(datagram) for datagram in datagrams)
    return sorted((datagram[1], len(datagram)) for datagram in datagrams)


def but_loudness(events: list[Event]) -> list[Event]:
    """Loudness of other shards' tracks is told some milliseconds later, so it is compared by a test of its own."""
    return [event for event in events if not isinstance(event, LoudnessMeasured)]


def still(tables: dict[int, list[Any]]) -> dict[int, list[Any]]:
    """Statistics without bitrates."""
    return {handle: [replace(each, bitrate=0) for each in table] for handle, table in tables.items()}


class ShardTwin(core.Twin):  # type: ignore[misc, name-defined]
    """The reference, and the cores of several shards that take turns with the sessions."""

    def __init__(self, config: PlaneConfig) -> None:
        super().__init__(config)
        self.now = 0
        self.native = core.native.testing.Cluster(config, SHARDS)

    def apply(self, command: Command, now: int) -> None:
        spread = command
        if isinstance(command, OpenSession) and not command.shard and command.session < 1 << 32:
            spread = replace(command, shard=command.session % SHARDS)
        self.now = now
        try:
            self.reference.apply(command, now)
        except UsageError:
            with pytest.raises(UsageError):
                self.native.apply(spread, now)
            raise
        self.native.apply(spread, now)

    def handle_timeout(self, now: int) -> None:
        self.now = now
        super().handle_timeout(now)

    def next_timeout(self) -> int | None:
        """The earlier of both: a shard has timers for its mirrors too."""
        due = [at for at in (self.reference.next_timeout(), self.native.next_timeout()) if at is not None]
        return min(due, default=None)

    def transmit(self) -> list[tuple[bytes, Address]]:
        expected: list[tuple[bytes, Address]] = self.reference.transmit()
        sent = []
        for out in (expected, self.native.transmit()):
            sent.append(defaultdict(list))
            for datagram, address in out:
                sent[-1][address].append(datagram)
        for address in sent[0].keys() | sent[1].keys():
            if sent[1][address] != sent[0][address]:
                # What is due on two shards in one microsecond may change places: control packets to a publisher.
                assert kinds(sent[1][address]) == kinds(sent[0][address])
        return expected

    def events(self) -> list[Event]:
        expected: list[Event] = self.reference.events()
        found = self.native.events()
        assert Counter(map(repr, but_loudness(found))) == Counter(map(repr, but_loudness(expected)))
        return expected

    def stats(self) -> PlaneStats:
        stats: PlaneStats = self.reference.stats()
        sessions, tracks, slots, drops, (datagrams_in, datagrams_out) = self.native.stats()
        assert sessions == stats.sessions
        # A bitrate is that of a shard's latest turn, which may have been a while ago.
        assert still(tracks) == still(dict(stats.tracks))
        assert still({handle: [one] for handle, one in slots.items()}) == still(
            {handle: [one] for handle, one in stats.slots.items()}
        )
        assert {reason: count for reason, count in drops.items() if not reason.startswith(OF_MIRRORS)} == stats.drops
        assert (datagrams_in, datagrams_out) == (stats.datagrams_in, stats.datagrams_out)
        return stats

    def table_sizes(self) -> dict[str, int]:
        expected: dict[str, int] = self.reference.table_sizes()
        if not any(expected.values()):
            self.native.handle_timeout(self.now + world.SECOND)  # the loudness of those who are gone is told once more
            assert not any(self.native.table_sizes().values()), "a mirror or a packet is kept for nobody"
        return expected


@pytest.fixture(autouse=True, scope="module")
def twins() -> Iterator[None]:
    """Worlds of this module run both planes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Forwarder", ShardTwin)
        for story in core.STORIES:
            module: Any = importlib.import_module(f"tests.plane.test_forwarder_{story}")
            if hasattr(module, "Forwarder"):
                patch.setattr(module, "Forwarder", ShardTwin)
        yield


# An address that another session proves belongs to it from then on, which a shard cannot know of another shard's port.
# In storms a mirror's wish for a keyframe may wait some milliseconds longer: test_native_shards_alone.py tells them.
# Shards divide the slab, so which packets find no place is not what one shard's would be: test_native_shards_slab.py.
EXCEPT = ("test_storms_", "test_slab_", "test_connect_address_that_another_session_proves_moves_there")

for _name, _test in vars(core).items():
    if _name.startswith(tuple(f"test_{story}_" for story in core.STORIES)) and not _name.startswith(EXCEPT):
        globals()[_name] = _test
