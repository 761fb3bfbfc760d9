"""Taps and injected packets of both planes by shared-memory rings, with a real worker process at the other end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from relay.errors import UsageError
from relay.plane import Kind as PlaneKind
from relay.plane import native_missing
from relay.plane.contract import (
    AddTap,
    AddTrack,
    Kind,
    LayerSpec,
    LayerStarted,
    OpenSession,
    RemoveTap,
    RemoveTrack,
)
from relay.plane.ring_words import HEAD, TAIL
from relay.plane.rings import Gone, InjectRing, RingCounts, TapRing
from relay.plane.shared_ring import SharedRing
from tests.plane.sockets import OPUS, PATIENCE, Client, Host, audio, opened

needs_native = pytest.mark.skipif(bool(native_missing()), reason="the native plane is not built: see rust/README.md")
INJECTED = AddTrack(2, None, Kind.AUDIO, "", OPUS, (LayerSpec(),))


@pytest.fixture(params=["reference", pytest.param("native", marks=needs_native)])
def kind(request: pytest.FixtureRequest) -> PlaneKind:
    plane: PlaneKind = request.param
    return plane


def attach(ring: TapRing | InjectRing) -> SharedRing:
    """Be the worker in this process."""
    theirs = SharedRing.attach([os.dup(fd) for fd in ring.fds])
    ring.passed()
    return theirs


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():
            await asyncio.sleep(0.002)


class Rings:
    """A pair of rings with one worker, and why each went."""

    def __init__(self, host: Host) -> None:
        self.gone: list[Gone] = []
        self.tap = host.plane.open_tap_ring(on_gone=self.gone.append)
        self.inject = host.plane.open_inject_ring(on_gone=self.gone.append)


@asynccontextmanager
async def worker(rings: Rings) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The worker, ready."""
    fds = [*rings.tap.fds, *rings.inject.fds]
    words = [",".join(map(str, ring.fds)) for ring in (rings.tap, rings.inject)]
    command = [sys.executable, "-m", "tests.plane.ring_worker", *words]
    process = subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE)  # noqa: ASYNC220  a fork of milliseconds
    try:
        rings.tap.passed()
        rings.inject.passed()
        assert process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), PATIENCE)
        assert line == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def echo(host: Host, rings: Rings) -> tuple[Client, Client]:
    """Track 1 goes to the worker, which injects it as track 2. Its publisher, and a listener of track 2."""
    publisher, _ = await host.play(0)
    host.plane.submit(INJECTED, AddTap(9, 1, 0, ring=rings.tap.number, canonical=True))
    rings.inject.bind(7, 2, 0)
    return publisher, await host.listener(5, 2)


async def test_a_worker_reads_a_track_and_injects_it_as_another(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        before = opened()
        rings = Rings(host)
        async with worker(rings) as process:
            publisher, listener = await echo(host, rings)
            for seq in range(100, 400):
                publisher.publish(audio(seq, b"%03d" % seq))
                if seq % 50 == 0:  # all sleep now and then
                    assert (await listener.payloads(seq - 99 if seq == 100 else 50))[-1] == b"%03d" % seq
            assert (await listener.payloads(49))[-1] == b"399"
            await until(lambda: rings.inject.counts().packets == 300)
            assert rings.tap.counts() == RingCounts(300, 0)
            assert rings.inject.counts() == RingCounts(300, 0)
            assert {(await host.event(LayerStarted)).track for _ in range(2)} == {1, 2}
            assert host.tapped == []
            rings.tap.close()  # the worker's reader ends, and with it the worker
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0
        await until(lambda: rings.inject.closed)
        assert rings.gone == ["closed"]
        assert rings.inject.counts() == RingCounts(300, 0)
        with pytest.raises(UsageError):
            host.plane.submit(RemoveTap(9))
        assert opened() == (before[0] + 2, before[1])  # two clients


async def test_a_killed_worker_costs_its_rings_and_nothing_else(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        before = opened()
        rings = Rings(host)
        async with worker(rings) as process:
            publisher, echoed = await echo(host, rings)
            direct = await host.listener(6, 1)
            publisher.publish(audio(100))
            await echoed.payloads(1)
            process.send_signal(signal.SIGKILL)
            for seq in range(101, 200):
                publisher.publish(audio(seq, b"%03d" % seq))
            assert (await direct.payloads(100))[-1] == b"199"
            await until(lambda: len(rings.gone) == 2)
        assert rings.gone == ["died", "died"]
        assert opened() == (before[0] + 3, before[1])
        with pytest.raises(UsageError):
            rings.inject.bind(8, 2, 0)
        with pytest.raises(UsageError):
            host.plane.submit(AddTap(10, 1, 0, ring=rings.tap.number))
        host.plane.submit(AddTap(9, 1, 0))  # its tap went with the ring
        publisher.publish(audio(200))
        assert await host.taps(1) == [audio(200)]
        assert host.plane.healthy


async def test_many_taps_share_a_ring_which_drops_what_does_not_fit(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        ring = host.plane.open_tap_ring(slots=4, slot_size=64)
        theirs = attach(ring)
        reader = theirs.reader()
        assert reader.read() == []
        host.plane.submit(OpenSession(1, "a", "b"), INJECTED)
        host.plane.submit(AddTap(1, 2, 0, ring=ring.number), AddTap(2, 2, 0, ring=ring.number), AddTap(3, 2, 0))
        host.plane.inject(2, 0, audio(1))
        host.plane.inject(2, 0, audio(2, bytes(64)))
        host.plane.inject(2, 0, audio(3))
        host.plane.inject(2, 0, audio(4))
        assert await host.taps(4) == [audio(1), audio(2, bytes(64)), audio(3), audio(4)]
        assert [tap for tap, _, _ in host.tapped] == [3] * 4
        assert ring.counts() == RingCounts(4, 4)
        found = [(packet.stream, bytes(packet.data)) for packet in reader.read()]
        assert found == [(1, audio(1)), (2, audio(1)), (1, audio(3)), (2, audio(3))]
        assert reader.dropped == 4
        assert reader.wait(0) is False
        host.plane.inject(2, 0, audio(5))
        assert await asyncio.to_thread(reader.wait, PATIENCE)
        arrivals = {packet.arrival for packet in reader.read()}
        assert arrivals == {host.tapped[-1][2]}
        ring.close()
        ring.close()
        assert ring.counts() == RingCounts(6, 4)
        reader.close()


async def test_only_bound_streams_are_injected(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        ring = host.plane.open_inject_ring(slots=8, slot_size=2048)
        theirs = attach(ring)
        writer = theirs.writer()
        host.plane.submit(INJECTED)
        ring.bind(7, 2, 0)
        ring.bind(8, 3, 0)  # no such track: it may be there later
        for stream, packet in [(7, audio(1)), (6, audio(2)), (8, audio(3)), (7, b"x"), (7, audio(4, bytes(1600)))]:
            assert writer.put(stream, 0, packet)
        await until(lambda: sum(ring.counts()) == 5)
        assert ring.counts() == RingCounts(3, 2)
        stats = host.plane.stats()
        assert stats.tracks[2][0].packets == 1
        assert {name: stats.drops[name] for name in ("inject_malformed", "inject_oversize", "inject_refused")} == {
            "inject_malformed": 1,
            "inject_oversize": 1,
            "inject_refused": 1,
        }
        ring.unbind(7)
        host.plane.submit(RemoveTrack(2))
        writer.put(7, 0, audio(5))
        await until(lambda: ring.counts() == RingCounts(3, 3))
        theirs.close()
        await until(lambda: ring.closed)


@pytest.mark.parametrize("spoilt", [1 << 63, 9, 3])
async def test_a_worker_that_spoils_an_inject_ring_loses_it(kind: PlaneKind, spoilt: int) -> None:
    async with Host(kind) as host:
        before = opened()
        gone: list[Gone] = []
        ring = host.plane.open_inject_ring(slots=8, on_gone=gone.append)
        theirs = attach(ring)
        writer = theirs.writer()
        host.plane.submit(INJECTED)
        ring.bind(7, 2, 0)
        writer.put(7, 0, audio(1))
        await until(lambda: ring.counts().packets == 1)
        theirs.words.store(HEAD, spoilt)  # beyond the ring, or slots that were never written
        theirs.wake.send(b"x")
        await until(lambda: bool(gone))
        assert gone == ["corrupt"]
        assert theirs.gone
        writer.close()
        assert opened() == before
        host.plane.inject(2, 0, audio(2))
        assert host.plane.stats().tracks[2][0].packets == 2
        assert host.plane.healthy


async def test_a_worker_that_spoils_a_tap_ring_loses_packets(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        ring = host.plane.open_tap_ring(slots=4)
        theirs = attach(ring)
        host.plane.submit(INJECTED, AddTap(1, 2, 0, ring=ring.number))
        for tail in (1 << 63, 99, (1 << 64) - 1):
            theirs.words.store(TAIL, tail)
            for seq in range(10):
                host.plane.inject(2, 0, audio(tail % 1000 + seq))
        await until(lambda: sum(ring.counts()) == host.plane.stats().tracks[2][0].packets)
        assert ring.counts().packets <= 8
        assert host.plane.healthy
        theirs.close()


async def test_a_flood_of_wake_ups_or_their_end_does_not_keep_the_plane_from_its_work(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        ring = host.plane.open_inject_ring()
        theirs = attach(ring)
        theirs.wake.setblocking(False)
        host.plane.submit(INJECTED)
        for seq in range(50):
            try:
                theirs.wake.send(bytes(8192))
            except BlockingIOError:
                pass
            host.plane.inject(2, 0, audio(seq))
            await asyncio.sleep(0)
        theirs.wake.close()  # but `life` goes on
        await until(lambda: host.plane.stats().tracks[2][0].packets == 50)
        assert not ring.closed
        theirs.life.close()
        await until(lambda: ring.closed)
        theirs.wake, theirs.life = (os.fdopen(os.dup(0)) for _ in range(2))  # type: ignore[assignment]
        theirs._closed = True
        os.close(theirs.memory_fd)
        theirs.wake.close()
        theirs.life.close()


async def test_closing_the_plane_frees_its_rings(kind: PlaneKind) -> None:
    async with Host(kind):
        pass  # what the first plane of a process opens for good is open now
    before = opened()
    gone: list[Gone] = []
    async with Host(kind) as host:
        tap = host.plane.open_tap_ring(on_gone=gone.append)
        inject = host.plane.open_inject_ring(on_gone=gone.append)
        ends = attach(tap), attach(inject)
        host.plane.submit(INJECTED, AddTap(1, 2, 0, ring=tap.number))
        inject.bind(7, 2, 0)
        assert opened()[1] > before[1]
    assert tap.closed
    assert inject.closed
    for end in ends:
        assert end.gone
        end.close()
    assert opened() == before
    assert gone == []
    with pytest.raises(UsageError):
        host.plane.open_tap_ring()


async def test_a_shape_that_cannot_be_opens_nothing(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        before = opened()
        with pytest.raises(UsageError):
            host.plane.open_inject_ring(slots=0)
        assert opened() == before
