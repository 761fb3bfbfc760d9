"""A plane of either kind on real sockets, and peers that talk to it."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from relay.plane import Kind as PlaneKind
from relay.plane import Plane, open_plane
from relay.plane.contract import (
    AddSlot,
    AddTrack,
    BindSlot,
    Event,
    Feedback,
    Kind,
    LayerSpec,
    OpenSession,
    PayloadType,
    PlaneConfig,
    SetKeys,
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

    def publish(self, packet: bytes) -> None:
        sealed = self.srtp.protect_rtp(packet)
        assert sealed is not None
        self.socket.send(sealed)

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.socket, 2048), PATIENCE)

    async def payloads(self, count: int) -> list[bytes]:
        """The next audio packets' payloads."""
        got: list[bytes] = []
        while len(got) < count:
            datagram = await self.receive()
            plain = self.srtp.unprotect_rtp(datagram) if datagram[1] & 0x7F == 111 else None
            packet = rtp.parse(plain, 0) if plain is not None else None
            if packet is not None:
                got.append(packet.payload)
        return got

    def close(self) -> None:
        self.socket.close()


class Host:
    """A started plane whose events can be awaited."""

    def __init__(self, kind: PlaneKind, host: str = "127.0.0.1", shards: int = 1, **config: int) -> None:
        self.plane: Plane = open_plane(kind, PlaneConfig(**config), host, 0, shards=shards)
        self.shards = shards
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.tapped: list[tuple[int, bytes, int]] = []
        self.plane.on_events = self._on_events
        self.plane.on_taps = self.tapped.extend
        self.plane.start()
        self.clients: list[Client] = []

    def _on_events(self, events: list[Event]) -> None:
        for event in events:
            self.events.put_nowait(event)

    async def event(self, kind: type) -> Any:
        while True:
            event = await asyncio.wait_for(self.events.get(), PATIENCE)
            if isinstance(event, kind):
                return event

    async def taps(self, count: int) -> list[bytes]:
        """The tapped packets, once there are as many."""
        async with asyncio.timeout(PATIENCE):
            while len(self.tapped) < count:
                await asyncio.sleep(0.001)
        return [packet for _, packet, _ in self.tapped]

    async def client(self, session: int, host: str = "127.0.0.1") -> Client:
        client = Client(host, self.plane.addresses[session % self.shards][1], f"ufrag{session}")
        self.clients.append(client)
        self.plane.submit(OpenSession(session, client.ufrag, PASSWORD, shard=session % self.shards))
        client.check()
        assert (await client.receive())[:2] == b"\x01\x01"
        self.plane.submit(SetKeys(session, SrtpProfile.AES_128_GCM, *KEYS))
        return client

    async def listener(self, number: int, track: int) -> Client:
        """A viewer, session and slot `number`, of an audio track."""
        client = await self.client(number)
        slot = AddSlot(number, number, Kind.AUDIO, "0", 55, None, OPUS, Feedback(), "c")
        self.plane.submit(slot, BindSlot(number, track))
        return client

    async def play(self, viewers: int) -> tuple[Client, list[Client]]:
        """One audio publisher, session 100 and track 1, that everyone listens to."""
        publisher = await self.client(100)
        self.plane.submit(AddTrack(1, 100, Kind.AUDIO, "0", OPUS, (LayerSpec(),)))
        return publisher, [await self.listener(number, 1) for number in range(viewers)]

    async def __aenter__(self) -> Host:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.plane.close()
        for client in self.clients:
            client.close()


def audio(seq: int, payload: bytes = b"sound of 20 ms") -> bytes:
    return rtp.build_header(111, False, seq, seq * 960, 7) + payload


def opened() -> tuple[int, int]:
    """Open sockets and memories, and mapped rings, of this process."""
    links = []
    for entry in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
    mapped = Path("/proc/self/maps").read_text().count("memfd:costream-ring")
    return sum("socket:" in link or "memfd:" in link for link in links), mapped
