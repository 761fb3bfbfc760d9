"""The native plane on real sockets: what the reference's driver does, and what only a thread can get wrong."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
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
