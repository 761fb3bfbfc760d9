"""Storms on several shards without the reference beside them: what the stories demand of a plane holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from relay.plane.contract import Command, LoudnessMeasured, OpenSession, PlaneConfig, PlaneStats
from relay.plane.reference.forwarder import Forwarder
from tests.plane import world
from tests.plane.peers import Publisher
from tests.plane.test_forwarder_storms import *  # noqa: F403
from tests.plane.world import MS, SECOND, World

native = pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md").testing

SHARDS = 2


class Shards:
    """The cores of several shards as one forwarder; sessions take turns."""

    def __init__(self, config: PlaneConfig) -> None:
        self._cluster = native.Cluster(replace(config, slab_packets=SHARDS * config.slab_packets), SHARDS)
        self._commanded = Forwarder(config)  # the stories ask what a slot is bound to
        self._now = 0

    @property
    def _core(self) -> Any:
        return self._commanded._core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def apply(self, command: Command, now: int) -> None:
        self._commanded.apply(command, now)
        self._now = now
        if isinstance(command, OpenSession):
            command = replace(command, shard=command.session % SHARDS)
        self._cluster.apply(command, now)

    def table_sizes(self) -> dict[str, int]:
        self._cluster.handle_timeout(self._now + SECOND)  # the loudness of those who are gone is told once more
        sizes: dict[str, int] = self._cluster.table_sizes()
        return sizes

    def stats(self) -> PlaneStats:
        sessions, tracks, slots, drops, (datagrams_in, datagrams_out) = self._cluster.stats()
        drops = {reason: count for reason, count in drops.items() if not reason.startswith("mirror_")}
        return PlaneStats(sessions, tracks, slots, drops, datagrams_in, datagrams_out)


@pytest.fixture(autouse=True, scope="module")
def shards() -> Iterator[None]:
    """Worlds of this module have several shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Forwarder", Shards)
        yield


def test_loudness_of_all_shards_is_told_as_one() -> None:
    stage = World()
    tracks = []
    for _ in range(4):
        publisher = Publisher(stage)
        tracks.append(publisher.audio().start().track)
    stage.run(2 * SECOND)
    told = [event for at, event in stage.event_times if isinstance(event, LoudnessMeasured) and at > SECOND + 500 * MS]
    assert len(told) >= 10
    assert all(sorted(track for track, _ in event.levels) == sorted(tracks) for event in told)
