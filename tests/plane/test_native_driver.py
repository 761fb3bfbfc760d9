"""The native plane on real sockets: what the reference's driver does, and what only a thread can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.errors import SettingsError, UsageError
from relay.plane import driver, open_plane
from relay.plane.contract import (
    AddressSelected,
    AddSlot,
    AddTap,
    AddTrack,
    BindSlot,
    CloseSession,
    DtlsReceived,
    Event,
    Feedback,
    Kind,
    LayerSpec,
    LayerStarted,
    MoveTrack,
    OpenSession,
    PlaneConfig,
    RemoveTrack,
    SendDtls,
    SlotSwitched,
)
from relay.plane.reference import rtp
from tests.plane.test_driver import OPUS, PATIENCE, Client, audio, run
from tests.plane.test_driver import Host as AnyHost

native = pytest.importorskip("relay.plane.native", reason="the native plane is not built: see rust/README.md")

__all__ = ["run"]

from relay.plane import _native  # noqa: E402

EVENTS = 16_384  # places of the event ring: EVENTS of rust/src/shard.rs
INJECTED = AddTrack(1, None, Kind.AUDIO, "", OPUS, (LayerSpec(),))


class Host(AnyHost):
    kind = "native"

    async def taps(self, count: int) -> list[bytes]:
        async with asyncio.timeout(PATIENCE):
            while len(self.tapped) < count:
                await asyncio.sleep(0.001)
        return [packet for _, packet, _ in self.tapped]


async def play(host: Host, viewers: int) -> tuple[Client, list[Client]]:
    """One audio publisher that everyone listens to."""
    publisher = await host.client(100)
    host.plane.submit(AddTrack(1, 100, Kind.AUDIO, "0", OPUS, (LayerSpec(),)))
    clients = [await host.client(number) for number in range(viewers)]
    for number in range(viewers):
        host.plane.submit(
            AddSlot(number, number, Kind.AUDIO, "0", 55, None, OPUS, Feedback(), "c"), BindSlot(number, 1)
        )
    return publisher, clients


async def payloads(client: Client, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        datagram = await client.receive()
        plain = client.srtp.unprotect_rtp(datagram) if datagram[1] & 0x7F == 111 else None
        packet = rtp.parse(plain, 0) if plain is not None else None
        if packet is not None:
            got.append(packet.payload)
    return got


def test_from_check_to_media(run: Callable[[Any], Any]) -> None:
    async def story() -> None:
        async with Host() as host:
            publisher, (viewer,) = await play(host, 1)
            assert await host.event(AddressSelected) == AddressSelected(100, publisher.socket.getsockname())
            viewer.socket.send(b"\x16hello")
            assert await host.event(DtlsReceived) == DtlsReceived(0, b"\x16hello")
            host.plane.submit(SendDtls(0, b"\x16answer"))
            assert await viewer.receive() == b"\x16answer"
            host.plane.submit(AddTap(9, 1, 0))
            for seq in range(100, 120):
                publisher.socket.send(publisher.srtp.protect_rtp(audio(seq)) or b"")
            assert await payloads(viewer, 20) == [b"sound of 20 ms"] * 20
            assert (await host.event(SlotSwitched)).track == 1
            assert await host.taps(20) == [audio(seq) for seq in range(100, 120)]
            assert all(abs(arrival - driver.now_us()) < PATIENCE * 1e6 for _, _, arrival in host.tapped)
            # The first sender report is due 20 ms after the splice: the timer works.
            while (datagram := await viewer.receive())[1] != 200:
                pass
            assert viewer.srtp.unprotect_rtcp(datagram) is not None
            assert host.plane.stats().tracks[1][0].packets == 20

    run(story())


def test_every_viewer_gets_a_burst_whole_and_in_order() -> None:
    async def story() -> None:
        async with Host() as host:
            publisher, viewers = await play(host, 20)
            for seq in range(100, 150):
                packet = rtp.build_header(111, False, seq, seq * 960, 7) + b"%03d" % seq
                publisher.socket.send(publisher.srtp.protect_rtp(packet) or b"")
            for viewer in viewers:
                assert await payloads(viewer, 50) == [b"%03d" % seq for seq in range(100, 150)]
            host.plane.stats()
            counters = host.plane.counters()
            assert counters["datagrams_out"] >= 20 * 50
            assert counters["out_errors"] == {}
            assert counters["events_lost"] == counters["taps_lost"] == counters["socket_full"] == 0

    asyncio.run(story())


def test_dual_stack_speaks_both_and_writes_mapped_addresses_as_ipv4() -> None:
    async def story() -> None:
        async with Host("::") as host:
            four = await host.client(1)
            assert (await host.event(AddressSelected)).address == four.socket.getsockname()
            if driver._has_ipv6():
                six = await host.client(2, "::1")
                assert (await host.event(AddressSelected)).address == six.socket.getsockname()[:2]

    asyncio.run(story())


def test_garbage_and_vanished_peers_never_stop_it() -> None:
    async def story() -> None:
        async with Host() as host:
            gone = await host.client(1)
            gone.socket.send(b"")
            gone.socket.send(bytes(1900))
            gone.socket.send(bytes(3000))
            gone.close()
            for _ in range(20):
                host.plane.submit(SendDtls(1, b"\x16into the void"))
                await asyncio.sleep(0)
            living = await host.client(2)
            living.socket.send(b"\x16still here")
            assert (await host.event(DtlsReceived)) == DtlsReceived(2, b"\x16still here")
            drops = host.plane.stats().drops
            assert drops["empty"] == 1
            assert drops["oversize"] == 2

    asyncio.run(story())


def test_callbacks_may_submit_and_may_close() -> None:
    async def story() -> None:
        async with Host() as host:
            closed = asyncio.Event()

            def on_events(events: list[Event]) -> None:
                for event in events:
                    if isinstance(event, DtlsReceived):
                        host.plane.submit(SendDtls(event.session, event.datagram), CloseSession(event.session))
                        host.plane.close()
                        closed.set()

            client = await host.client(1)
            host.plane.on_events = on_events
            client.socket.send(b"\x16echo and close")
            await asyncio.wait_for(closed.wait(), PATIENCE)
            assert host.plane.stats().sessions == {}
            assert await client.receive() == b"\x16echo and close"
            host.plane.close()

    asyncio.run(story())


def test_wrong_command_raises_and_those_before_it_are_done() -> None:
    async def story() -> None:
        async with Host() as host:
            with pytest.raises(UsageError):
                host.plane.submit(OpenSession(1, "a", "b"), OpenSession(1, "c", "d"), OpenSession(2, "e", "f"))
            assert list(host.plane.stats().sessions) == [1]
            with pytest.raises(UsageError):
                host.plane.submit(OpenSession(3, "g", "h"), RemoveTrack("eleven"))  # type: ignore[arg-type]
            assert list(host.plane.stats().sessions) == [1, 3]

    asyncio.run(story())


def test_only_a_track_without_session_takes_injected_packets() -> None:
    async def story() -> None:
        async with Host() as host:
            plane = host.plane
            with pytest.raises(UsageError):
                plane.inject(1, 0, b"")
            plane.submit(OpenSession(1, "a", "b"), INJECTED)
            plane.inject(1, 0, audio(1))
            plane.inject(1, 0, b"not RTP")
            stats = plane.stats()
            assert stats.tracks[1][0].packets == 1
            assert stats.drops["inject_malformed"] == 1
            for layer in (-1, 1):
                with pytest.raises(UsageError, match="does not take injected"):
                    plane.inject(1, layer, audio(2))
            with pytest.raises(UsageError):
                plane.submit(RemoveTrack(7), RemoveTrack(1))
            plane.inject(1, 0, audio(2))
            plane.submit(MoveTrack(1, 1, "0", OPUS, (LayerSpec(),)))
            with pytest.raises(UsageError):
                plane.inject(1, 0, audio(3))
            assert "inject_refused" not in plane.stats().drops

    asyncio.run(story())


def test_before_start_and_after_close_it_still_keeps_its_books() -> None:
    async def story() -> None:
        plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0)
        plane.submit(OpenSession(1, "a", "b"), INJECTED)
        plane.inject(1, 0, audio(1))
        assert plane.stats().tracks[1][0].packets == 1
        plane.start()
        plane.inject(1, 0, audio(2))
        assert plane.stats().tracks[1][0].packets == 2
        assert plane.healthy
        address = plane.addresses[0]
        plane.close()
        plane.close()
        plane.submit(CloseSession(1))
        with pytest.raises(UsageError):
            plane.submit(CloseSession(1))
        assert plane.stats().sessions == {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(address)

    asyncio.run(story())


def test_settings_that_cannot_be() -> None:
    plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0)
    assert plane.name == "native"
    with pytest.raises(SettingsError, match="cannot be opened"):
        open_plane("native", PlaneConfig(), "127.0.0.1", plane.addresses[0][1])
    plane.close()
    with pytest.raises(SettingsError, match="cannot be opened"):
        open_plane("native", PlaneConfig(), "not an address", 0)
    with pytest.raises(UsageError):
        open_plane("native", PlaneConfig(max_addresses=0), "127.0.0.1", 0)


def test_it_says_how_it_sends() -> None:
    plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
    assert isinstance(plane, native.NativePlane)
    assert "recvmmsg" in plane.ways
    plane.close()


def test_a_missing_extension_is_an_error_only_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay.plane._native", None)
    with pytest.raises(SettingsError, match="not installed"):
        open_plane("native", PlaneConfig(), "127.0.0.1", 0)
    plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
    assert plane.name == "reference"
    plane.close()


class Spread(Host):
    """A plane of two shards; sessions take turns."""

    shards = 2


def test_publisher_and_viewers_on_different_shards(run: Callable[[Any], Any]) -> None:
    async def story() -> None:
        async with Spread() as host:
            assert len({port for _, port in host.plane.addresses}) == 2
            publisher, viewers = await play(host, 6)
            host.plane.submit(AddTap(9, 1, 0))
            for seq in range(100, 150):
                packet = rtp.build_header(111, False, seq, seq * 960, 7) + b"%03d" % seq
                publisher.socket.send(publisher.srtp.protect_rtp(packet) or b"")
            for viewer in viewers:
                assert await payloads(viewer, 50) == [b"%03d" % seq for seq in range(100, 150)]
            assert len(await host.taps(50)) == 50
            switched = {(await host.event(SlotSwitched)).slot for _ in viewers}
            assert switched == set(range(6))
            stats = host.plane.stats()
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
                assert await payloads(viewer, 10) == [b"sound of 20 ms"] * 10

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
            assert plane.healthy
            plane.stats()
            _native.testing.break_shard(plane._shards, 1)
            async with asyncio.timeout(PATIENCE):
                while plane.healthy:
                    await asyncio.sleep(0.01)
            assert set(plane.stats().sessions) == {0, 1}  # what was known last
            before = time.monotonic()
            plane.close()
            assert time.monotonic() - before < PATIENCE

    asyncio.run(story())


def test_events_that_did_not_fit_are_made_up_for() -> None:
    async def story() -> None:
        async with Host() as host:
            publisher = await host.client(1)
            host.plane.submit(AddTrack(1, 1, Kind.AUDIO, "0", OPUS, (LayerSpec(),)))
            # Nobody takes events meanwhile: more come than the ring holds, and those that matter come last.
            for number in range(EVENTS // 100 + 1):
                for _ in range(100):
                    publisher.socket.send(b"\x16%05d" % number)
                host.plane.stats()
            publisher.socket.send(publisher.srtp.protect_rtp(audio(1)) or b"")
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
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (task / "comm").read_text().startswith("plane-"):
                found.add(tuple(os.sched_getaffinity(int(task.name))))
    return found
