"""Datagrams with the kernel's time of arrival, so that the reader's own delays do not count."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; CLOCK_REALTIME, as `time.time_ns` reads it
_TIMESPEC = struct.Struct("@qq")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram and when it came, in nanoseconds since the epoch."""

    at: int
    datagram: bytes

    @property
    def is_media(self) -> bool:
        """RTP rather than RTCP, STUN or DTLS (RFC 5761 4, RFC 7983)."""
        return len(self.datagram) > 12 and self.datagram[0] >> 6 == 2 and not 192 <= self.datagram[1] <= 223

    @property
    def timestamp(self) -> int:
        """Of the RTP header, which SRTP leaves readable."""
        return int.from_bytes(self.datagram[4:8], "big")

    @property
    def payload_type(self) -> int:
        return self.datagram[1] & 0x7F


def stamp(socket_: socket.socket) -> None:
    """Ask the kernel to note the time of every arrival from now on."""
    socket_.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def read_all(socket_: socket.socket, into: list[Arrival]) -> None:
    """Take what a non-blocking, stamped socket holds."""
    while True:
        try:
            datagram, ancillary, _, _ = socket_.recvmsg(2048, 64)
        except (BlockingIOError, ConnectionRefusedError):  # refused: what we sent found no one; senders notice
            return
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(data)
                into.append(Arrival(seconds * 1_000_000_000 + nanoseconds, datagram))
