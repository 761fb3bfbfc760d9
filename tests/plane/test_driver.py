"""The reference plane on real sockets: loopback, both loops, full buffers, ICMP errors, closing."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from relay.errors import SettingsError, UsageError
from relay.plane import Kind as PlaneKind
from relay.plane import Plane, driver, open_plane
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
    OpenSession,
    PayloadType,
    PlaneConfig,
    SendDtls,
    SetKeys,
    SlotSwitched,
    SrtpProfile,
)
from relay.plane.reference import rtp, stun
from relay.plane.reference.srtp import Srtp

PASSWORD = "password-of-twenty-two"
OPUS = (PayloadType(111, "opus", 48_000),)
KEYS = bytes(range(28)), bytes(range(28, 56))
PATIENCE = 10.0  # seconds: only a hang takes so long


class Client:
    """A peer on a real socket."""

    def __init__(self, host: str, port: int, ufrag: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.setblocking(False)
        self.ufrag = ufrag
        self.srtp = Srtp(SrtpProfile.AES_128_GCM, KEYS[1], KEYS[0])

    def check(self) -> None:
        self.socket.send(stun.binding_request(b"t" * 12, f"{self.ufrag}:x", PASSWORD.encode(), use_candidate=True))

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.socket, 2048), PATIENCE)

    def close(self) -> None:
        self.socket.close()


class Host:
    """A started plane whose events can be awaited."""

    kind: PlaneKind = "reference"
    shards = 1

    def __init__(self, host: str = "127.0.0.1", **config: int) -> None:
        self.plane: Plane = open_plane(self.kind, PlaneConfig(**config), host, 0, shards=self.shards)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.tapped: list[tuple[int, bytes, int]] = []
        self.plane.on_events = lambda events: [self.events.put_nowait(event) for event in events] and None
        self.plane.on_taps = self.tapped.extend
        self.plane.start()
        self.clients: list[Client] = []

    async def event(self, kind: type) -> Any:
        while True:
            event = await asyncio.wait_for(self.events.get(), PATIENCE)
            if isinstance(event, kind):
                return event

    async def client(self, session: int, host: str = "127.0.0.1") -> Client:
        client = Client(host, self.plane.addresses[session % self.shards][1], f"ufrag{session}")
        self.clients.append(client)
        self.plane.submit(OpenSession(session, client.ufrag, PASSWORD, shard=session % self.shards))
        client.check()
        assert (await client.receive())[:2] == b"\x01\x01"
        self.plane.submit(SetKeys(session, SrtpProfile.AES_128_GCM, *KEYS))
        return client

    async def __aenter__(self) -> Host:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.plane.close()
        for client in self.clients:
            client.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run


def audio(seq: int) -> bytes:
    return rtp.build_header(111, False, seq, seq * 960, 7) + b"sound of 20 ms"


def test_from_check_to_media(run: Callable[[Any], Any]) -> None:
    async def story() -> None:
        async with Host() as host:
            publisher, viewer = await host.client(1), await host.client(2)
            selected = await host.event(AddressSelected)
            assert selected == AddressSelected(1, publisher.socket.getsockname())
            viewer.socket.send(b"\x16hello")
            assert await host.event(DtlsReceived) == DtlsReceived(2, b"\x16hello")
            host.plane.submit(SendDtls(2, b"\x16answer"))
            assert await viewer.receive() == b"\x16answer"
            host.plane.submit(AddTrack(1, 1, Kind.AUDIO, "0", OPUS, (LayerSpec(),)), AddTap(9, 1, 0))
            host.plane.submit(AddSlot(1, 2, Kind.AUDIO, "0", 55, None, OPUS, Feedback(), "c"), BindSlot(1, 1))
            for seq in range(100, 120):
                publisher.socket.send(publisher.srtp.protect_rtp(audio(seq)) or b"")
            payloads = []
            while len(payloads) < 20:
                datagram = await viewer.receive()
                plain = viewer.srtp.unprotect_rtp(datagram) if datagram[1] & 0x7F == 111 else None
                packet = rtp.parse(plain, 0) if plain is not None else None
                if packet is not None:
                    payloads.append(packet.payload)
            assert payloads == [b"sound of 20 ms"] * 20
            assert (await host.event(SlotSwitched)).track == 1
            assert [packet for _, packet, _ in host.tapped] == [audio(seq) for seq in range(100, 120)]
            # The first sender report is due 20 ms after the splice: the timer works.
            while (datagram := await viewer.receive())[1] != 200:
                pass
            assert viewer.srtp.unprotect_rtcp(datagram) is not None

    run(story())


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
            gone.close()
            for _ in range(20):
                host.plane.submit(SendDtls(1, b"\x16into the void"))
                await asyncio.sleep(0)
            living = await host.client(2)
            living.socket.send(b"\x16still here")
            assert (await host.event(DtlsReceived)) == DtlsReceived(2, b"\x16still here")
            drops = host.plane.stats().drops
            assert drops["empty"] == 1
            assert drops["oversize"] == 1

    asyncio.run(story())


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


def test_full_socket_keeps_a_frame_and_drops_the_rest() -> None:
    async def story() -> None:
        async with Host() as host:
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
            host.plane.close()

    asyncio.run(story())


def test_wrong_command_raises_and_those_before_it_are_done() -> None:
    async def story() -> None:
        async with Host() as host:
            with pytest.raises(UsageError):
                host.plane.submit(OpenSession(1, "a", "b"), OpenSession(1, "c", "d"), OpenSession(2, "e", "f"))
            assert list(host.plane.stats().sessions) == [1]
            with pytest.raises(UsageError):
                host.plane.inject(1, 0, b"")
            host.plane.submit(AddTrack(1, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
            host.plane.inject(1, 0, audio(1))
            assert host.plane.stats().tracks[1][0].packets == 1

    asyncio.run(story())


def test_settings_that_cannot_be() -> None:
    plane = open_plane("reference", PlaneConfig(), "127.0.0.1", 0)
    with pytest.raises(SettingsError, match="cannot be opened"):
        open_plane("reference", PlaneConfig(), "127.0.0.1", plane.addresses[0][1])
    plane.close()
    with pytest.raises(SettingsError, match="must be auto"):
        open_plane("fast", PlaneConfig(), "127.0.0.1", 0)  # type: ignore[arg-type]
    with pytest.raises(SettingsError):
        open_plane("reference", PlaneConfig(), "not an address", 0)


def test_clock_is_monotonic_microseconds() -> None:
    before = time.monotonic_ns() // 1000
    assert before <= driver.now_us() <= time.monotonic_ns() // 1000
