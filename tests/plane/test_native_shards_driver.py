"""Several shards on real sockets, and what only threads can get wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.errors import Overloaded, UsageError
from relay.plane import open_plane
from relay.plane.contract import (
    AddSlot,
    AddTap,
    AddTrack,
    BindSlot,
    CloseSession,
    Feedback,
    Kind,
    LayerSpec,
    LayerStarted,
    OpenSession,
    PlaneConfig,
    RemoveTrack,
    SlotSwitched,
)
from relay.plane.reference import rtp
from relay.plane.urgency import plane_threads
from tests.plane.sockets import OPUS, PATIENCE, Host, audio
from tests.plane.test_driver import INJECTED, run

native = pytest.importorskip("relay.plane.native", reason="the native plane is not built: see rust/README.md")
_native = pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md")

__all__ = ["run"]

EVENTS = 16_384  # places of the event ring: EVENTS of rust/src/shard.rs


class Spread(Host):
    """A plane of two shards; sessions take turns."""

    def __init__(self) -> None:
        super().__init__("native", shards=2)


def test_publisher_and_viewers_on_different_shards(run: Callable[[Any], Any]) -> None:
    async def story() -> None:
        async with Spread() as host:
            assert len({port for _, port in host.plane.addresses}) == 2
            publisher, viewers = await host.play(6)
            host.plane.submit(AddTap(9, 1, 0))
            for seq in range(100, 150):
                packet = rtp.build_header(111, False, seq, seq * 960, 7) + b"%03d" % seq
                publisher.publish(packet)
            for viewer in viewers:
                assert await viewer.payloads(50) == [b"%03d" % seq for seq in range(100, 150)]
            assert len(await host.taps(50)) == 50
            switched = {(await host.event(SlotSwitched)).slot for _ in viewers}
            assert switched == set(range(6))
            stats = host.plane.stats()
            kept, total = (sum(both) for both in zip(*host.plane.slabs, strict=True))
            assert (stats.slab_free, stats.slab_total) == host.plane.slab == (kept, total)
            assert [places for _, places in host.plane.slabs] == [total // 2] * 2
            # The viewers' histories hold them, on the publisher's shard and, as copies, on the other one.
            assert [places - free for free, places in host.plane.slabs] == [50, 50]
            assert {handle: layers[0].packets for handle, layers in stats.tracks.items()} == {1: 50}
            assert set(stats.sessions) == {*range(6), 100}
            assert [stats.slots[slot].packets for slot in range(6)] == [50] * 6
            host.plane.submit(RemoveTrack(1))
            assert {stats.track for stats in host.plane.stats().slots.values()} == {-1}

    run(story())


def test_an_injected_track_is_heard_on_every_shard() -> None:
    async def story() -> None:
        async with Spread() as host:
            viewers = [await host.client(number) for number in range(2)]
            host.plane.submit(replace(INJECTED, track=7))
            for number in range(2):
                host.plane.submit(
                    AddSlot(number, number, Kind.AUDIO, "0", 55, None, OPUS, Feedback(), "c"), BindSlot(number, 7)
                )
            for seq in range(10):
                host.plane.inject(7, 0, audio(seq))
            for viewer in viewers:
                assert await viewer.payloads(10) == [b"sound of 20 ms"] * 10

    asyncio.run(story())


def test_a_wrong_command_across_shards_changes_nothing() -> None:
    async def story() -> None:
        async with Spread() as host:
            await host.client(0)
            await host.client(1)
            host.plane.submit(AddTrack(1, 0, Kind.AUDIO, "0", OPUS, (LayerSpec(),)))
            host.plane.submit(AddSlot(1, 1, Kind.AUDIO, "0", 55, None, OPUS, Feedback(), "c"))
            with pytest.raises(UsageError, match="payload type 5"):
                host.plane.submit(BindSlot(1, 1, 0, 5), CloseSession(0))
            with pytest.raises(UsageError, match="no shard 2"):
                host.plane.submit(OpenSession(9, "x", "y", shard=2))
            assert set(host.plane.stats().sessions) == {0, 1}
            host.plane.submit(BindSlot(1, 1), RemoveTrack(1), CloseSession(1), CloseSession(0))
            assert host.plane.stats().sessions == {}

    asyncio.run(story())


def test_a_panic_in_one_shard_fails_the_plane_and_closing_takes_bounded_time() -> None:
    async def story() -> None:
        async with Spread() as host:
            plane = host.plane
            assert isinstance(plane, native.NativePlane)
            await host.client(0)
            await host.client(1)
            failed: asyncio.Queue[str] = asyncio.Queue()
            plane.on_failed = failed.put_nowait
            ring = plane.open_inject_ring()
            assert plane.healthy
            plane.stats()
            with capture_logs() as lines:
                _native.testing.break_shard(plane._shards, 1)
                async with asyncio.timeout(PATIENCE):
                    why = await failed.get()
            assert "as a test wished" in why
            assert "shard.rs" in why, "where it was"
            assert not plane.healthy
            [line] = [line for line in lines if line["log_level"] == "error"]
            assert (line["shard"], f"shard 1: {line['reason']}") == (1, why)
            assert set(plane.stats().sessions) == {0, 1}  # what was known last
            # Who cleans up is not hindered, and what is told to the other shard is done.
            plane.submit(CloseSession(1), CloseSession(0))
            assert plane._shards.sessions() == [0, 0]
            with pytest.raises(UsageError):
                plane.submit(CloseSession(0))
            ring.close()
            before = time.monotonic()
            plane.close()
            assert time.monotonic() - before < PATIENCE
            assert failed.empty()

    asyncio.run(story())


def test_rings_of_a_lost_shard_are_closed_without_a_word() -> None:
    async def story() -> None:
        async with Spread() as host:
            plane = host.plane
            assert isinstance(plane, native.NativePlane)
            taps, injects = plane.open_tap_ring(), plane.open_inject_ring()
            for shard in (0, 1):
                _native.testing.break_shard(plane._shards, shard)
            async with asyncio.timeout(PATIENCE):
                while len(plane._shards.failures) < 2:
                    await asyncio.sleep(0.01)
            injects.bind(1, 1, 0)
            assert (taps.counts(), injects.counts()) == ((0, 0), (0, 0))
            with pytest.raises(Overloaded, match="has failed"):
                plane.open_tap_ring()
            for ring in (taps, injects):
                ring.close()
                assert ring.closed

    asyncio.run(story())


def test_events_that_did_not_fit_are_made_up_for() -> None:
    async def story() -> None:
        async with Host("native") as host:
            publisher = await host.client(1)
            host.plane.submit(AddTrack(1, 1, Kind.AUDIO, "0", OPUS, (LayerSpec(),)))
            # Nobody takes events meanwhile: more come than the ring holds, and those that matter come last.
            for number in range(EVENTS // 100 + 1):
                for _ in range(100):
                    publisher.socket.send(b"\x16%05d" % number)
                host.plane.stats()
            publisher.publish(audio(1))
            deadline = time.monotonic() + PATIENCE
            while not host.plane.stats().tracks[1][0].active:
                assert time.monotonic() < deadline
            counters = host.plane.counters()
            assert isinstance(counters["events_lost"], int)
            assert counters["events_lost"] > 0
            assert (await host.event(LayerStarted)).track == 1

    asyncio.run(story())


def test_threads_stay_on_their_cpus() -> None:
    async def story() -> None:
        plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0, shards=2, pin=True)
        plane.start()
        try:
            assert len(plane.cpus) == 2
            assert set(plane.cpus) <= os.sched_getaffinity(0)
            plane.stats()  # an order behind that to stay there
            assert {(cpu,) for cpu in plane.cpus} <= pinned_threads()
        finally:
            plane.close()

    asyncio.run(story())


def pinned_threads() -> set[tuple[int, ...]]:
    """The CPUs of each thread of a plane."""
    return {tuple(os.sched_getaffinity(thread)) for thread in plane_threads()}


def test_a_plane_that_was_let_go_leaves_its_memory_at_once() -> None:
    async def story() -> weakref.ref[native.NativePlane]:
        plane = native.NativePlane(PlaneConfig(), "127.0.0.1", 0)
        plane.start()
        plane.close()
        return weakref.ref(plane)

    gc.disable()  # a slab is large, and the collector sees a few small objects
    try:
        assert asyncio.run(story())() is None
    finally:
        gc.enable()
