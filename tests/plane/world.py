"""A virtual-time world for the packet plane: publishers and viewers with real SRTP keys on a seeded network."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct

from relay.plane.contract import (
    Address,
    Command,
    Event,
    Feedback,
    OpenSession,
    PayloadType,
    PlaneConfig,
    SetKeys,
    SrtpProfile,
)
from relay.plane.reference import rtcp, rtp, stun
from relay.plane.reference.forwarder import Forwarder
from relay.plane.reference.srtp import Srtp

MS = 1_000
SECOND = 1_000_000
WALL = 1_700_000_000 * SECOND

OPUS = PayloadType(111, "opus", 48_000)
VP8 = PayloadType(96, "vp8", 90_000)
VP8_RTX = PayloadType(97, "rtx", 90_000, apt=96)
H264 = PayloadType(102, "h264", 90_000, profile="42e01f/1")
H264_RTX = PayloadType(103, "rtx", 90_000, apt=102)
ALL_FEEDBACK = Feedback(nack=True, pli=True, fir=True, remb=True, transport_cc=True)
PUBLISHER_EXTENSIONS = (
    ("mid", 4),
    ("rid", 10),
    ("rrid", 11),
    ("audio_level", 1),
    ("abs_send_time", 2),
    ("transport_cc", 3),
    ("orientation", 13),
)
VIEWER_EXTENSIONS = (("mid", 9), ("audio_level", 6), ("abs_send_time", 8), ("transport_cc", 5), ("orientation", 7))
MARK = Struct("!IIHH")  # publisher's stream id, frame, packet in frame, packets of frame


@dataclass
class Path:
    """One direction of a peer's network."""

    delay: int = 5 * MS
    jitter: int = 0
    loss: float = 0.0
    duplicate: float = 0.0


class World:
    """Owns the plane, the clock and the network. Everything follows from `seed`."""

    def __init__(self, seed: int = 1, **config: int) -> None:
        self.random = random.Random(seed)
        self.plane = Forwarder(PlaneConfig(seed=seed, wall_offset_us=WALL, **config))
        self.now = SECOND
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.peers: dict[Address, Peer] = {}
        self.owners: dict[Address, Peer] = {}  # with the addresses that peers had earlier
        self.events: list[Event] = []
        self.event_times: list[tuple[int, Event]] = []
        self.tapped: list[tuple[int, bytes, int]] = []
        self.strays: list[tuple[bytes, Address]] = []
        self.handles = 0
        self.ssrcs = 0x1000

    def handle(self) -> int:
        self.handles += 1
        return self.handles

    def ssrc(self) -> int:
        self.ssrcs += 1
        return self.ssrcs

    def at(self, when: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (max(when, self.now), self.count, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def apply(self, *commands: Command) -> None:
        for command in commands:
            self.plane.apply(command, self.now)
        self.pump()

    def receive(self, datagram: bytes, source: Address) -> None:
        self.plane.receive(datagram, source, self.now)
        self.pump()

    def pump(self) -> None:
        for datagram, address in self.plane.transmit():
            peer = self.peers.get(address)
            if address in self.owners:
                self.owners[address].witness(datagram)
            if peer is None:
                self.strays.append((datagram, address))
            else:
                self.travel(peer.down, datagram, peer.arrive)
        for event in self.plane.events():
            self.events.append(event)
            self.event_times.append((self.now, event))
        self.tapped += self.plane.taps()

    def travel(self, path: Path, datagram: bytes, deliver: Callable[[bytes], None]) -> None:
        if path.loss and self.random.random() < path.loss:
            return
        for _ in range(2 if path.duplicate and self.random.random() < path.duplicate else 1):
            self.after(
                path.delay + (self.random.randrange(path.jitter) if path.jitter else 0), lambda: deliver(datagram)
            )

    def run(self, duration: int) -> None:
        end = self.now + duration
        while True:
            timeout = self.plane.next_timeout()
            when = self.queue[0][0] if self.queue else end + 1
            if timeout is not None and timeout <= when and timeout <= end:
                self.now = max(self.now, timeout)
                self.plane.handle_timeout(self.now)
                self.pump()
            elif when <= end:
                when, _, action = heapq.heappop(self.queue)
                self.now = max(self.now, when)
                action()
            else:
                break
        self.now = end

    def of(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def check_conservation(self) -> None:
        stats = self.plane.stats()
        dropped = sum(n for reason, n in stats.drops.items() if not reason.startswith(("out_", "inject_")))
        assert stats.datagrams_in == self.plane.handled + dropped


class Peer:
    """One end: an address, ICE credentials, SRTP keys that mirror the session's."""

    def __init__(self, world: World, extensions: tuple[tuple[str, int], ...], connect: bool = True) -> None:
        self.world = world
        self.session = world.handle()
        self.address: Address = (f"10.0.{self.session >> 8}.{self.session & 255}", 4000)
        world.peers[self.address] = world.owners[self.address] = self
        self.up, self.down = Path(), Path()
        self.extensions = dict(extensions)
        self.ufrag, self.password = f"u{self.session:04d}", f"password-of-{self.session:012d}"
        self.checks = 0
        self.answers: list[bytes] = []
        self.dtls: list[bytes] = []
        self.control: list[rtcp.Packet] = []
        self.control_times: list[tuple[int, rtcp.Packet]] = []
        self.refused = 0
        profile = list(SrtpProfile)[self.session % 3]
        size = profile.key_length + profile.salt_length
        keys = world.random.randbytes(2 * size)
        self.srtp = Srtp(profile, keys[:size], keys[size:])
        world.apply(OpenSession(self.session, self.ufrag, self.password, extensions))
        self.set_keys = SetKeys(self.session, profile, keys[size:], keys[:size])
        if connect:
            self.check(nominate=True)
            world.run(20 * MS)
            world.apply(self.set_keys)

    def check(self, nominate: bool = False, source: Address | None = None, password: str | None = None) -> None:
        self.checks += 1
        transaction = self.checks.to_bytes(12, "big")
        key = (self.password if password is None else password).encode()
        datagram = stun.binding_request(transaction, f"{self.ufrag}:peer", key, use_candidate=nominate)
        self.send(datagram, source)

    def send(self, datagram: bytes, source: Address | None = None) -> None:
        where = source or self.address
        self.world.travel(self.up, datagram, lambda data: self.world.receive(data, where))

    def move_to(self, address: Address) -> None:
        """The NAT gave us another address; what goes to the old one is lost."""
        del self.world.peers[self.address]
        self.address = address
        self.world.peers[address] = self.world.owners[address] = self

    def send_rtp(self, plain: bytes) -> None:
        sealed = self.srtp.protect_rtp(plain)
        assert sealed is not None
        self.send(sealed)

    def send_rtcp(self, plain: bytes) -> None:
        sealed = self.srtp.protect_rtcp(plain)
        assert sealed is not None
        self.send(sealed)

    def arrive(self, datagram: bytes) -> None:
        if stun.is_stun(datagram):
            self.answers.append(datagram)
        elif 20 <= datagram[0] < 64:
            self.dtls.append(datagram)
        elif rtcp.is_rtcp(datagram):
            plain = self.srtp.unprotect_rtcp(datagram)
            if plain is None:
                self.refused += 1
                return
            compound = rtcp.parse(plain)
            assert not compound.error
            for packet in compound.packets:
                self.control.append(packet)
                self.control_times.append((self.world.now, packet))
                self.on_control(packet)
        else:
            plain = self.srtp.unprotect_rtp(datagram)
            if plain is None:
                self.refused += 1
                return
            packet = rtp.parse(plain, self.world.now)
            assert packet is not None
            self.on_media(packet)

    def witness(self, datagram: bytes) -> None:
        """Sees what the plane sends here, before the network."""

    def on_control(self, packet: rtcp.Packet) -> None:
        pass

    def on_media(self, packet: rtp.Packet) -> None:
        raise AssertionError("media for a publisher")

    def control_of(self, kind: type) -> list[rtcp.Packet]:
        return [packet for packet in self.control if isinstance(packet, kind)]
