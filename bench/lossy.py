"""A viewer's path that loses packets: a UDP relay between one viewer and its server, in this process."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import Counter
from types import TracebackType
from typing import Self

from bench.stamps import Arrival

_CANDIDATE = re.compile(r"^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host.*$", re.M | re.I)
_ANY_CANDIDATE = re.compile(r"^a=candidate:.*\r?\n", re.M)


class LossyPath:
    """Delays every datagram by `delay_s`, and drops the share `loss` of the RTP packets on their way to the viewer."""

    def __init__(self, address: str, delay_s: float, seed: int) -> None:
        self.loss = 0.0
        self.dropped: Counter[int] = Counter()
        """RTP packets by their payload type."""
        self.passed: Counter[int] = Counter()
        self._address, self._delay = address, delay_s
        self._random = random.Random(seed)
        self._viewer: tuple[str, int] | None = None
        self._server = ("", 0)

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._inside, self._outside = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for each, read in ((self._inside, self._from_viewer), (self._outside, self._from_server)):
            each.bind((self._address, 0))
            each.setblocking(False)
            self._loop.add_reader(each.fileno(), read)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in (self._inside, self._outside):
            self._loop.remove_reader(each.fileno())
            each.close()

    def through(self, sdp: str) -> str:
        """The server's description with this path as the only way to it."""
        found = _CANDIDATE.search(sdp)
        if found is None:
            raise RuntimeError(f"no IPv4 candidate in\n{sdp}")
        self._server = (found[1], int(found[2]))
        ours = f"a=candidate:1 1 udp 2130706431 {self._address} {self._inside.getsockname()[1]} typ host\r\n"
        bare = _ANY_CANDIDATE.sub("", sdp)
        return re.sub(r"^(a=mid:.*\n)", lambda mid: mid[1] + ours, bare, flags=re.M)

    @property
    def candidate(self) -> str:
        """How the server sees the viewer."""
        return f"candidate:1 1 udp 2130706431 {self._address} {self._outside.getsockname()[1]} typ host"

    def _from_viewer(self) -> None:
        while (got := _read(self._inside)) is not None:
            datagram, self._viewer = got
            self._loop.call_later(self._delay, _send, self._outside, datagram, self._server)

    def _from_server(self) -> None:
        while (got := _read(self._outside)) is not None:
            packet = Arrival(0, got[0])
            if packet.is_media:
                lost = self._random.random() < self.loss
                (self.dropped if lost else self.passed)[packet.payload_type] += 1
                if lost:
                    continue
            if self._viewer is not None:
                self._loop.call_later(self._delay, _send, self._inside, packet.datagram, self._viewer)


def _read(from_: socket.socket) -> tuple[bytes, tuple[str, int]] | None:
    try:
        return from_.recvfrom(2048)
    except (BlockingIOError, ConnectionRefusedError):
        return None


def _send(from_: socket.socket, datagram: bytes, to: tuple[str, int]) -> None:
    if from_.fileno() != -1:  # what is under way at the end is lost
        from_.sendto(datagram, to)
