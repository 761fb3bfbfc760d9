"""The other side of `bench.native_plane`: publishers and viewers with real SRTP on loopback, told what to do by lines.

Everything that a viewer reads is authenticated with that viewer's key, after the measured time, and must end in what
the publisher put there. Each command answers with a line of JSON:

    start                   a keyframe in each room
    bursts SIZE COUNT       COUNT times a burst of SIZE packets in each room, when all viewers have those before
    prepare SIZE COUNT      seal COUNT frames of SIZE packets, in rooms at random
    frames RATE             send them at random times (Poisson), RATE a second; one viewer of each room is watched
    dropped                 what the kernel lost of it, at the plane and at those who are watched
    check                   how many packets were authentic
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.processes import going_first
from bench.report import percentile
from bench.stamps import Arrival, read_all, stamp
from relay.plane.contract import SrtpProfile
from relay.plane.reference import rtp, stun
from relay.plane.reference.srtp import Srtp

PROFILE = SrtpProfile.AES_128_GCM
PAYLOAD = 1100  # bytes, a full video packet
_UDP_SEGMENT = 103  # linux/udp.h: one call's datagrams come to the plane together
_HEAD = b"\x90\xe0\x80\x01\x01\x20"
_KEY = _HEAD + b"\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01"  # VP8: a keyframe of 640x360 begins (RFC 7741 4)
_DELTA = _HEAD + b"\x11\x00\x00"
_FILL = b"bench" * (PAYLOAD // 5)
_TAIL = struct.Struct("!I")
_CHECKED = _FILL[64 + _TAIL.size :]  # after the descriptor, which the plane rewrites
_LATE_S = 0.5  # a burst that has not come by then is lost
_BEHIND_S = 0.002  # as far as the sender of frames may be behind its times
_UNREAD = 4096  # bytes that the kernel keeps for a viewer who only makes load


@dataclass(frozen=True, slots=True)
class Rooms:
    """`rooms` publishers with `viewers` each; sessions are numbered, publishers first."""

    rooms: int
    viewers: int

    @property
    def sessions(self) -> int:
        return self.rooms * (self.viewers + 1)

    def viewer(self, room: int, number: int) -> int:
        return self.rooms + room * self.viewers + number

    def room(self, session: int) -> int:
        """Of a viewer."""
        return (session - self.rooms) // self.viewers


def key(session: int, *, incoming: bool) -> bytes:
    """The SRTP master key and salt of what the plane gets from a session (`incoming`), or sends to it."""
    return (session * 2 + incoming).to_bytes(PROFILE.key_length + PROFILE.salt_length, "little")


def ufrag(session: int) -> str:
    return f"bench{session}"


def password(session: int) -> str:
    return f"password-of-bench-peer-{session}"


class Publisher:
    """Sends VP8 packets whose last bytes are a number."""

    def __init__(self, session: int, socket_: socket.socket) -> None:
        self._socket = socket_
        self._srtp = Srtp(PROFILE, key(session, incoming=True), key(session, incoming=False))
        self._seq = 0
        self._frame = 0

    def seal(self, size: int, number: int, *, keyframe: bool = False) -> list[bytes]:
        """A frame of so many packets."""
        self._frame += 1
        return [self._seal(number, keyframe and not index, index == size - 1) for index in range(size)]

    def _seal(self, number: int, keyframe: bool, last: bool) -> bytes:
        self._seq += 1
        elements = ((2, (self._seq & 0xFFFF).to_bytes(2, "big")),)
        header = rtp.build_header(96, last, self._seq & 0xFFFF, self._frame * 3000 & 0xFFFFFFFF, 1, elements)
        head = _KEY if keyframe else _DELTA
        sealed = self._srtp.protect_rtp(header + head + _FILL[len(head) + _TAIL.size :] + _TAIL.pack(number))
        assert sealed is not None
        return sealed

    def send(self, packets: list[bytes]) -> None:
        """All at once, so that the plane cannot meet half of them."""
        if len(packets) == 1:
            self._socket.send(packets[0])
            return
        size = struct.pack("=H", len(packets[0]))
        self._socket.sendmsg([b"".join(packets)], [(socket.IPPROTO_UDP, _UDP_SEGMENT, size)])


def number_of(packet: bytes | None) -> int | None:
    """The number in a packet of a publisher; None for one that is not authentic or not whole."""
    if packet is None or packet[-_TAIL.size - len(_CHECKED) : -_TAIL.size] != _CHECKED:
        return None
    return int(_TAIL.unpack(packet[-_TAIL.size :])[0])


class Peers:
    """All of them. Making one proves every session's address to the plane."""

    def __init__(self, port: int, rooms: Rooms) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        self._rooms, self._port = rooms, port
        sockets = [_proved(port, session) for session in range(rooms.sessions)]
        self._publishers = [Publisher(room, sockets[room]) for room in range(rooms.rooms)]
        self._viewers = dict(enumerate(sockets))
        for room in range(rooms.rooms):
            del self._viewers[room]
        self._got: dict[int, list[bytes]] = {session: [] for session in self._viewers}
        self._srtp: dict[int, Srtp] = {}
        self._poll = select.epoll()
        self._by_descriptor = {each.fileno(): (each, self._got[number]) for number, each in self._viewers.items()}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._prepared: list[tuple[int, list[bytes]]] = []
        self._watched: dict[int, list[Arrival]] = {}

    def start(self) -> dict[str, Any]:
        for publisher in self._publishers:
            publisher.send(publisher.seal(1, 0, keyframe=True))
        return {"arrived": self._collect(len(self._viewers))}

    def bursts(self, size: int, count: int) -> dict[str, Any]:
        """What the plane gets is sealed before, so that it is not left to sleep for longer than the viewers need."""
        arrived = 0
        sealed = [[publisher.seal(size, 0) for publisher in self._publishers] for _ in range(count)]
        for bursts in sealed:
            for publisher, packets in zip(self._publishers, bursts, strict=True):
                publisher.send(packets)
            arrived += self._collect(size * len(self._viewers))
        return {"arrived": arrived}

    def _collect(self, wanted: int) -> int:
        arrived = 0
        while arrived < wanted and (ready := self._poll.poll(_LATE_S)):
            for descriptor, _ in ready:
                viewer, got = self._by_descriptor[descriptor]
                try:
                    while True:
                        datagram = viewer.recv(2048)
                        if not 192 <= datagram[1] <= 223:
                            got.append(datagram)
                            arrived += 1
                except BlockingIOError:
                    pass
        return arrived

    def check(self) -> dict[str, Any]:
        """Every packet that came: once, with the right key, with what was sent."""
        authentic = 0
        for session, got in self._got.items():
            opened = self._opened(session)
            authentic += sum(number_of(opened.unprotect_rtp(datagram)) is not None for datagram in got)
            got.clear()
        return {"authentic": authentic}

    def _opened(self, session: int) -> Srtp:
        if session not in self._srtp:
            self._srtp[session] = Srtp(PROFILE, key(session, incoming=True), key(session, incoming=False))
        return self._srtp[session]

    # --- frames at random times ---------------------------------------------------------------------------------------

    def prepare(self, size: int, count: int) -> dict[str, Any]:
        choice = random.Random(count)
        self._prepared = []
        for number in range(count):
            room = choice.randrange(self._rooms.rooms)
            self._prepared.append((room, self._publishers[room].seal(size, number)))
        return {"prepared": count}

    def frames(self, rate: float) -> dict[str, Any]:
        """Milliseconds from just before the publisher's `sendmsg` to the kernel's time of arrival at the viewer."""
        self._watch()
        sent: list[int] = []
        wait = random.Random(len(self._prepared))
        with going_first():
            begin = due = time.perf_counter()
            turn = cycle(self._watched)
            for room, packets in self._prepared:
                # Who stood still for 50 ms (others want this core too) does not make up for it: that would be a load
                # many times the one that was asked for.
                due = max(due, time.perf_counter() - _BEHIND_S) + wait.expovariate(rate)
                while time.perf_counter() < due:
                    session = next(turn)
                    read_all(self._viewers[session], self._watched[session])
                sent.append(time.time_ns())
                self._publishers[room].send(packets)
            seconds = time.perf_counter() - begin
        time.sleep(0.1)
        delays = [delay for session in self._watched for delay in self._delays(session, sent)]
        wanted = sum(len(packets) for _, packets in self._prepared)  # one viewer of each room is watched
        shares = {name: percentile(delays, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))}
        counts = {"arrived": len(delays), "wanted": wanted}
        return {"seconds": seconds, "lost": 1 - len(delays) / wanted, **counts, **shares}

    def dropped(self) -> dict[str, Any]:
        """What the kernel dropped at the plane's socket (messages, of several datagrams with UDP_GRO) and at those of
        watched viewers (datagrams): the network's loss."""
        viewers = {self._viewers[session].getsockname()[1] for session in self._watched}
        rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
        drops = [(int(row[1].rsplit(":", 1)[1], 16), int(row[-1])) for row in rows]
        return {
            "plane": sum(count for port, count in drops if port == self._port),
            "viewers": sum(count for port, count in drops if port in viewers),
        }

    def _watch(self) -> None:
        if not self._watched:
            for session, viewer in self._viewers.items():
                room = self._rooms.room(session)
                # a different place in the fan-out of each room
                if session == self._rooms.viewer(room, room % self._rooms.viewers):
                    self._watched[session] = []
                    stamp(viewer)
                else:
                    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _UNREAD)
        for session, arrivals in self._watched.items():
            read_all(self._viewers[session], arrivals)
            arrivals.clear()

    def _delays(self, session: int, sent: list[int]) -> list[float]:
        arrivals = self._watched[session]
        read_all(self._viewers[session], arrivals)
        opened = self._opened(session)
        numbers = ((each.at, number_of(opened.unprotect_rtp(each.datagram))) for each in arrivals if each.is_media)
        return [(at - sent[number]) / 1e6 for at, number in numbers if number is not None]


def _proved(port: int, session: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.connect(("127.0.0.1", port))
    opened.settimeout(5)
    check = stun.binding_request(bytes(12), f"{ufrag(session)}:x", password(session).encode(), use_candidate=True)
    opened.send(check)
    opened.recv(2048)
    opened.setblocking(False)
    return opened


def main() -> None:
    """Do as standard input says until it ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.native_peers", description=__doc__)
    for name in ("port", "rooms", "viewers"):
        parser.add_argument(name, type=int)
    chosen = parser.parse_args()
    peers = Peers(chosen.port, Rooms(chosen.rooms, chosen.viewers))
    print(json.dumps({"proved": True}), flush=True)
    for line in sys.stdin:
        name, *numbers = line.split()
        values = [float(number) if name == "frames" else int(number) for number in numbers]
        print(json.dumps(getattr(peers, name)(*values)), flush=True)


if __name__ == "__main__":
    main()
