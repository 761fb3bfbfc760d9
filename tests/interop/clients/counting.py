"""Viewers that decode nothing while they watch: they keep each packet with the kernel's time of its arrival.

So what they find missing does not depend on how much of the machine they get: nothing waits for them, their sockets'
buffers hold seconds, and what overflows even there is counted by the kernel. What the packets say is read afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.peer import Peer
from costream.painting import Painted, read
from costream.whip import Endpoint
from relay.edge.dtls import Certificate
from relay.mix.video.assembly import Assembler
from relay.mix.video.decoder import Decoder
from relay.plane.reference import rtp

_VP8 = 96  # as `Peer` offers it
_BUFFER = 4 << 20  # bytes
_CONSENT_S = 4.0
_UDP = ("/proc/net/udp", "/proc/net/udp6")


@dataclass(slots=True)
class Stream:
    """One SSRC's packets, opened, in the order of their sequence numbers."""

    packets: list[tuple[int, rtp.Packet]] = field(default_factory=list)
    """Extended sequence number and packet; its `arrival` is microseconds of the wall clock."""

    @property
    def holes(self) -> list[int]:
        """Sequence numbers between the first and the last that never came."""
        numbers = {number for number, _ in self.packets}
        return [number for number in range(min(numbers), max(numbers)) if number not in numbers]

    def missing_ticks(self, ticks: int) -> int:
        """How many packets of `ticks` timestamp units were never made: the numbers go on, the timestamps leap."""
        pairs = itertools.pairwise(packet.timestamp for _, packet in self.packets)
        return sum(max(0, rtp.timestamp_delta(after, before) // ticks - 1) for before, after in pairs)

    def painted(self) -> list[Painted]:
        """The marks of all pictures that can be decoded, if these are packets of VP8 pictures (payload type `_VP8`)."""
        assembler, decoder = Assembler("vp8"), Decoder("vp8")
        packets = [packet for _, packet in self.packets if packet.payload_type == _VP8]
        units = [unit for packet in packets for unit in assembler.receive(bytes(packet.data), packet.arrival)]
        pictures = [picture for unit in units for picture in decoder.decode(unit.data, unit.timestamp)]
        marks = [read(picture.to_ndarray(format="yuv420p")[: picture.height]) for picture in pictures]
        return [mark for mark in marks if mark is not None]


class Counter:
    """One session, made from a `Peer` that is connected and records."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name, self._peer = name, peer

    @property
    def count(self) -> int:
        """Datagrams so far."""
        return len(self._peer.arrivals)

    @property
    def port(self) -> int:
        return int(self._peer.socket.getsockname()[1])

    def streams(self) -> dict[int, Stream]:
        """What was received, by SSRC. Call it once: packets open once."""
        assert self._peer.srtp is not None
        found: dict[int, Stream] = {}
        newest: dict[int, int] = {}
        for arrival in self._peer.arrivals:
            data = self._peer.srtp.unprotect_rtp(arrival.datagram) if arrival.is_media else None
            packet = rtp.parse(data, arrival.at // 1000) if data is not None else None
            if packet is None:
                continue
            before = newest.setdefault(packet.ssrc, packet.seq)
            number = before + rtp.seq_delta(packet.seq, before & rtp.SEQ_MASK)
            newest[packet.ssrc] = max(before, number)
            found.setdefault(packet.ssrc, Stream()).packets.append((number, packet))
        for stream in found.values():
            stream.packets.sort(key=lambda pair: pair[0])
        return found


async def connected(url: str, token: str, kinds: str, *, publish: bool = False) -> Peer:
    """A `Peer` with these m-lines (see there), its media connected."""
    peer = Peer(Certificate.make(), kinds, publish=publish)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    try:
        async with Endpoint(url, token) as endpoint:
            resource = await endpoint.offer(peer.offer())
        await peer.establish(resource.answer, time.perf_counter())
    except BaseException:
        peer.close()
        raise
    return peer


@contextlib.asynccontextmanager
async def counting(url: str, token: str, kinds: str, name: str) -> AsyncIterator[Counter]:
    """A viewer that counts from now on, and is there until the end."""
    peer = await connected(url, token, kinds)
    peer.record()
    consent = asyncio.create_task(_consent(peer))
    try:
        yield Counter(name, peer)
    finally:
        consent.cancel()
        await asyncio.gather(consent, return_exceptions=True)
        peer.close()


async def _consent(peer: Peer) -> None:
    while True:
        await asyncio.sleep(_CONSENT_S)
        peer.keep_alive()


def dropped_by_kernel(*ports: int) -> int:
    """Datagrams that came to sockets on these UDP ports and found their buffers full."""
    return sum(drops for port, drops in _sockets() if port in ports)


def dropped_on_the_way() -> int:
    """Datagrams of anybody on this machine that were dropped before any socket: a core's backlog was full."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def _sockets() -> Iterator[tuple[int, int]]:
    for path in map(Path, _UDP):
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            words = line.split()
            yield int(words[1].rsplit(":", 1)[1], 16), int(words[-1])
