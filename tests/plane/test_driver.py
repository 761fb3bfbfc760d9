"""Both planes on real sockets: loopback, both loops, full buffers, ICMP errors, closing. One story, told to each."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from relay.errors import SettingsError, UsageError
from relay.plane import Kind as PlaneKind
from relay.plane import driver, native_missing, open_plane
from relay.plane.contract import (
    AddressSelected,
    AddTap,
    AddTrack,
    CloseSession,
    DtlsReceived,
    Event,
    Kind,
    LayerSpec,
    MoveTrack,
    OpenSession,
    PlaneConfig,
    RemoveTrack,
    SendDtls,
    SlotSwitched,
)
from tests.plane.sockets import OPUS, PATIENCE, Host, audio

INJECTED = AddTrack(1, None, Kind.AUDIO, "", OPUS, (LayerSpec(),))
needs_native = pytest.mark.skipif(bool(native_missing()), reason="the native plane is not built: see rust/README.md")


@pytest.fixture(params=["reference", pytest.param("native", marks=needs_native)])
def kind(request: pytest.FixtureRequest) -> PlaneKind:
    plane: PlaneKind = request.param
    return plane


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def test_from_check_to_media(kind: PlaneKind, run: Callable[[Any], Any]) -> None:
    async def story() -> None:
        async with Host(kind) as host:
            publisher, (viewer,) = await host.play(1)
            assert await host.event(AddressSelected) == AddressSelected(100, publisher.socket.getsockname())
            viewer.socket.send(b"\x16hello")
            assert await host.event(DtlsReceived) == DtlsReceived(0, b"\x16hello")
            host.plane.submit(SendDtls(0, b"\x16answer"))
            assert await viewer.receive() == b"\x16answer"
            host.plane.submit(AddTap(9, 1, 0))
            for seq in range(100, 120):
                publisher.publish(audio(seq))
            assert await viewer.payloads(20) == [b"sound of 20 ms"] * 20
            assert (await host.event(SlotSwitched)).track == 1
            assert await host.taps(20) == [audio(seq) for seq in range(100, 120)]
            assert all(abs(arrival - driver.now_us()) < PATIENCE * 1e6 for _, _, arrival in host.tapped)
            # The first sender report is due 20 ms after the splice: the timer works.
            while (datagram := await viewer.receive())[1] != 200:
                pass
            assert viewer.srtp.unprotect_rtcp(datagram) is not None
            assert host.plane.stats().tracks[1][0].packets == 20

    run(story())


async def test_every_viewer_gets_a_burst_whole_and_in_order(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        publisher, viewers = await host.play(20)
        for seq in range(100, 150):
            publisher.publish(audio(seq, b"%03d" % seq))
        for viewer in viewers:
            assert await viewer.payloads(50) == [b"%03d" % seq for seq in range(100, 150)]
        assert host.plane.stats().datagrams_out >= 20 * 50
        if kind == "native":
            counters = host.plane.counters()
            assert isinstance(counters["datagrams_out"], int)
            assert counters["datagrams_out"] >= 20 * 50
            assert counters["out_errors"] == {}
            assert counters["events_lost"] == counters["taps_lost"] == counters["socket_full"] == 0


async def test_dual_stack_speaks_both_and_writes_mapped_addresses_as_ipv4(kind: PlaneKind) -> None:
    async with Host(kind, "::") as host:
        four = await host.client(1)
        assert (await host.event(AddressSelected)).address == four.socket.getsockname()
        if driver._has_ipv6():
            six = await host.client(2, "::1")
            assert (await host.event(AddressSelected)).address == six.socket.getsockname()[:2]


async def test_garbage_and_vanished_peers_never_stop_it(kind: PlaneKind) -> None:
    async with Host(kind) as host:
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


async def test_callbacks_may_submit_and_may_close(kind: PlaneKind) -> None:
    async with Host(kind) as host:
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
        if kind == "native":  # the reference closes its socket before it comes to send
            assert await client.receive() == b"\x16echo and close"
        host.plane.close()


async def test_wrong_command_raises_and_those_before_it_are_done(kind: PlaneKind) -> None:
    async with Host(kind) as host:
        plane = host.plane
        with pytest.raises(UsageError):
            plane.submit(OpenSession(1, "a", "b"), OpenSession(1, "c", "d"), OpenSession(2, "e", "f"))
        assert list(plane.stats().sessions) == [1]
        with pytest.raises(UsageError):
            plane.submit(OpenSession(3, "g", "h"), RemoveTrack("eleven"))  # type: ignore[arg-type]
        assert list(plane.stats().sessions) == [1, 3]
        with pytest.raises(UsageError, match="ring"):
            plane.submit(OpenSession(4, "i", "j"), AddTap(1, 1, 0, ring=9), OpenSession(5, "k", "l"))
        assert list(plane.stats().sessions) == [1, 3, 4]


async def test_only_a_track_without_session_takes_injected_packets(kind: PlaneKind) -> None:
    async with Host(kind) as host:
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


async def test_before_start_and_after_close_it_still_keeps_its_books(kind: PlaneKind) -> None:
    plane = open_plane(kind, PlaneConfig(), "127.0.0.1", 0)
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


def test_settings_that_cannot_be(kind: PlaneKind) -> None:
    plane = open_plane(kind, PlaneConfig(), "127.0.0.1", 0)
    assert plane.name == kind
    with pytest.raises(SettingsError, match="cannot be opened"):
        open_plane(kind, PlaneConfig(), "127.0.0.1", plane.addresses[0][1])
    plane.close()
    with pytest.raises(SettingsError):
        open_plane(kind, PlaneConfig(), "not an address", 0)
    with pytest.raises(UsageError):
        open_plane(kind, PlaneConfig(max_addresses=0), "127.0.0.1", 0)
    with pytest.raises(SettingsError, match="must be auto"):
        open_plane("fast", PlaneConfig(), "127.0.0.1", 0)  # type: ignore[arg-type]


def test_clock_is_monotonic_microseconds() -> None:
    before = time.monotonic_ns() // 1000
    assert before <= driver.now_us() <= time.monotonic_ns() // 1000


# --- what only one of them can do -----------------------------------------------------------------------------------


class FullSocket:
    """A socket whose buffer is full, or whose route is gone, when told so: the kernel will not do it on demand."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.error: OSError | None = None

    def sendto(self, datagram: bytes, address: tuple[str, int]) -> int:
        if self.error is not None:
            raise self.error
        return self.real.sendto(datagram, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


async def test_full_socket_keeps_a_frame_and_drops_the_rest() -> None:
    async with Host("reference") as host:
        client = await host.client(1)
        plane = host.plane
        assert isinstance(plane, driver.ReferencePlane)
        full = FullSocket(plane._socket)
        plane._socket = full  # type: ignore[assignment]
        full.error = BlockingIOError(errno.EAGAIN, "full")
        for number in range(driver.BACKLOG + 10):
            plane.submit(SendDtls(1, b"\x16%03d" % number))
        assert plane.stats().drops["out_socket_full"] == 10
        full.error = None
        got = [await client.receive() for _ in range(driver.BACKLOG)]
        assert got == [b"\x16%03d" % number for number in range(driver.BACKLOG)]
        plane.submit(SendDtls(1, b"\x16after"))
        assert await client.receive() == b"\x16after"
        full.error = OSError(errno.EHOSTUNREACH, "no route")
        plane.submit(SendDtls(1, b"\x16lost"))
        assert plane.stats().drops["out_ehostunreach"] == 1
        full.error = None
        plane.submit(SendDtls(1, b"\x16back"))
        assert await client.receive() == b"\x16back"


@needs_native
def test_the_native_plane_says_how_it_sends() -> None:
    plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
    assert plane.name == "native"
    assert "recvmmsg" in plane.ways
    plane.close()


def test_a_missing_extension_is_an_error_only_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay.plane._native", None)
    with pytest.raises(SettingsError, match="not installed"):
        open_plane("native", PlaneConfig(), "127.0.0.1", 0)
    plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
    assert plane.name == "reference"
    plane.close()
