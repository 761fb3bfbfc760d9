"""RTP over QUIC framing (draft-ietf-avtcore-rtp-over-quic-14), without I/O.

A DATAGRAM frame holds a flow id (varint) and one RTP or RTCP packet (section 5.2). A unidirectional stream holds
the flow id once, then packets, each behind its length as a varint (section 5.1). Both kinds of packet begin with
version 2 in the upper two bits; RFC 5761 section 4 tells them apart by the second byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.errors import UsageError
from relay.link import varint
from relay.link.varint import Malformed

ALPN = "roq-14"
MAX_PACKET = 65_535  # bytes; RTP has no limit of its own, a UDP payload does, and nobody may make us buffer more
_RTP_HEADER = 12  # bytes, RFC 3550 section 5.1
_RTCP_HEADER = 8  # bytes: the smallest useful packet is an empty RR or a feedback header with one SSRC
_VERSION = 2
ERROR_PACKET = 0x02  # ROQ_PACKET_ERROR, section 9.2
ERROR_FLOW = 0x04  # ROQ_UNKNOWN_FLOW_ID


def is_rtcp(packet: bytes) -> bool:
    """Say whether a packet is RTCP: types 192 to 223 (RFC 5761 section 4). `packet` has at least two bytes."""
    return 192 <= packet[1] <= 223


def frame(flow: int, packet: bytes) -> bytes:
    """Return the payload of a DATAGRAM frame."""
    return varint.encode(flow) + packet


def parse(datagram: bytes) -> tuple[int, bytes]:
    """Return flow id and packet of a DATAGRAM frame's payload. Raises Malformed unless it is RTP or RTCP, version 2."""
    flow, start = varint.decode(datagram)
    packet = datagram[start:]
    _check(packet)
    return flow, packet


def stream_header(flow: int) -> bytes:
    """Return the first bytes of a unidirectional stream."""
    return varint.encode(flow)


def stream_packet(packet: bytes) -> bytes:
    """Return a packet as it stands on a stream. Raises UsageError above MAX_PACKET bytes."""
    if len(packet) > MAX_PACKET:
        raise UsageError(f"a packet of {len(packet)} bytes is longer than {MAX_PACKET}")
    return varint.encode(len(packet)) + packet


@dataclass(frozen=True, slots=True)
class FlowPacket:
    """A packet arrived on a stream."""

    flow: int
    packet: bytes


class StreamReader:
    """Reads one unidirectional stream piece by piece. Holds at most one unfinished packet."""

    def __init__(self) -> None:
        self.flow: int | None = None
        self._rest = b""

    def receive(self, data: bytes, ended: bool = False) -> list[FlowPacket]:
        """Take the next bytes. Raises Malformed for what is no RTP or RTCP, too long, or cut off by the end."""
        rest = self._rest + data
        at = 0
        found: list[FlowPacket] = []
        if self.flow is None and (head := _complete(rest, at)):
            self.flow, at = head
        while self.flow is not None and (head := _complete(rest, at)):
            length, start = head
            if length > MAX_PACKET:
                raise Malformed(f"a packet of {length} bytes on flow {self.flow} is longer than {MAX_PACKET}")
            if len(rest) < start + length:
                break
            packet = rest[start : start + length]
            _check(packet)
            found.append(FlowPacket(self.flow, packet))
            at = start + length
        self._rest = rest[at:]
        if ended and (self._rest or self.flow is None):
            raise Malformed(f"a stream ended {len(self._rest)} bytes into a packet or its flow id")
        return found


def _complete(data: bytes, start: int) -> tuple[int, int] | None:
    """The varint at `start`, or None while bytes of it are to come."""
    if start >= len(data) or len(data) - start < 1 << (data[start] >> 6):
        return None
    return varint.decode(data, start)


def _check(packet: bytes) -> None:
    if len(packet) < 2 or packet[0] >> 6 != _VERSION:
        raise Malformed(f"{len(packet)} bytes are neither RTP nor RTCP of version 2")
    least = _RTCP_HEADER if is_rtcp(packet) else _RTP_HEADER
    if len(packet) < least:
        raise Malformed(f"{len(packet)} bytes are too short for {'RTCP' if is_rtcp(packet) else 'RTP'}")
