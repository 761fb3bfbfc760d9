"""H264 from RTP packets (RFC 6184, packetization modes 0 and 1) to access units. Sans-IO.

Parameter sets are taken out of the pictures and kept, as MP4 (`avc1`) and FLV want them. After a loss nothing comes
until the next IDR picture: one that refers to a missing picture would decode to rubbish, in a recording for ever.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.egress.picture import MAX_PICTURE, Picture
from relay.egress.reorder import Ordered
from relay.egress.sps import Sps, parse_sps
from relay.errors import PeerError

_IDR, _SEI, _SPS, _PPS, _AUD, _FILLER = 5, 6, 7, 8, 9, 12
_STAP_A, _FU_A = 24, 28
_SINGLE = range(1, 24)


class Parameters(NamedTuple):
    """The active parameter sets, and what the SPS says."""

    sps: bytes
    pps: tuple[bytes, ...]
    facts: Sps

    @property
    def width(self) -> int:
        return self.facts.width

    @property
    def height(self) -> int:
        return self.facts.height


class Depacketiser:
    """One stream's. `damaged` counts pictures dropped because of loss or nonsense, `bad` packets that are nonsense."""

    def __init__(self) -> None:
        self.damaged = 0
        self.bad = 0
        self.parameters: Parameters | None = None
        self.waits = True
        """For an IDR picture."""
        self._sps = b""
        self._pps: dict[bytes, bytes] = {}
        """Those of the SPS."""
        self._begin(0, 0)

    def push(self, ordered: Ordered) -> list[Picture]:
        """Take a packet in its place; return the pictures that it completes (at most two)."""
        packet = ordered.packet
        found: list[Picture] = []
        payload = packet.payload
        if ordered.lost:
            self._spoil()
        if not payload:  # padding that probes for bandwidth
            return found
        if packet.timestamp != self._timestamp:
            found += self._end()
            self._begin(packet.timestamp, packet.arrival)
            # Whether what was lost belongs to this picture shows only where one begins with its parameter sets.
            self._broken = ordered.lost and not _begins_picture(payload)
        try:
            self._take(payload)
        except PeerError:
            self.bad += 1
            self._spoil()
        if packet.marker:
            found += self._end()
            self._begin(packet.timestamp, packet.arrival)
        return found

    def _begin(self, timestamp: int, arrival: int) -> None:
        self._timestamp, self._arrival = timestamp, arrival
        self._nals: list[bytes] = []
        self._brought: set[bytes] = set()
        """Which PPS came with this picture."""
        self._size = 0
        self._fragment: bytearray | None = None
        self._broken = False

    def _spoil(self) -> None:
        """What came so far of this picture, or belongs to it, is of no use, nor is what refers to it."""
        self._broken = True
        self.waits = True

    def _end(self) -> list[Picture]:
        nals, self._nals = self._nals, []
        if self._fragment is not None:
            self._spoil()
        if not nals and not self._broken:
            return []
        keyframe = any(nal[0] & 31 == _IDR for nal in nals)
        if self._broken or not any(nal[0] & 31 in (1, 2, 5) for nal in nals):
            self.damaged += self._broken
            self.waits = self.waits or self._broken
            return []
        if keyframe and self._activate():
            self.waits = False
        if self.waits:
            return []
        data = b"".join(len(nal).to_bytes(4, "big") + nal for nal in nals)
        return [Picture(self._timestamp, self._arrival, keyframe, data)]

    def _take(self, payload: bytes) -> None:
        kind = payload[0] & 31
        if kind == _FU_A:
            self._take_fragment(payload)
            return
        if self._fragment is not None:
            raise PeerError("a fragmented NAL unit has no end")
        if kind in _SINGLE:
            self._add(payload)
        elif kind == _STAP_A:
            position = 1
            while position < len(payload):
                size = int.from_bytes(payload[position : position + 2], "big")
                position += 2
                if not size or position + size > len(payload):
                    raise PeerError("an aggregated NAL unit runs over its packet's end")
                self._add(payload[position : position + size])
                position += size
        else:
            raise PeerError(f"packet type {kind} is not of packetization mode 0 or 1")

    def _take_fragment(self, payload: bytes) -> None:
        """RFC 6184 section 5.8."""
        if len(payload) < 3:
            raise PeerError("a fragment without a byte of its NAL unit")
        header = payload[1]
        if header & 0x80:
            if self._fragment is not None or header & 0x40:
                raise PeerError("a NAL unit starts within another one, or ends where it starts")
            self._fragment = bytearray([(payload[0] & 0xE0) | (header & 31)])
        if self._fragment is None:
            raise PeerError("a fragment of a NAL unit whose start is missing")
        self._fragment += payload[2:]
        if len(self._fragment) > MAX_PICTURE:
            self._fragment = None
            raise PeerError("a NAL unit is too long")
        if header & 0x40:
            whole, self._fragment = bytes(self._fragment), None
            self._add(whole)

    def _add(self, nal: bytes) -> None:
        kind = nal[0] & 31
        if kind == _SPS:
            if nal != self._sps:  # the PPS of the former one are void
                self._pps = {key: pps for key, pps in self._pps.items() if key in self._brought}
            self._sps = nal
        elif kind == _PPS:
            key = _pps_key(nal)
            self._brought.add(key)
            self._pps[key] = nal
            while len(self._pps) > 16:
                self._pps.pop(next(iter(self._pps)))
        elif kind not in (_AUD, _FILLER):
            self._size += len(nal)
            if self._size > MAX_PICTURE or len(self._nals) > 4096:
                raise PeerError("a picture is too long")
            self._nals.append(nal)

    def _activate(self) -> bool:
        """An IDR picture brings the parameter sets into force. False while there are none that can be read."""
        active = self.parameters
        pps = tuple(self._pps.values())
        if active is not None and active.sps == self._sps and active.pps == pps:
            return True
        if not self._sps or not pps:
            return False
        try:
            facts = parse_sps(self._sps)
        except PeerError:
            self.bad += 1
            return False
        self.parameters = Parameters(self._sps, pps, facts)
        return True


def _begins_picture(payload: bytes) -> bool:
    kind = payload[0] & 31
    if kind == _STAP_A and len(payload) > 3:
        kind = payload[3] & 31
    return kind in (_SPS, _AUD)


def _pps_key(nal: bytes) -> bytes:
    """What tells a PPS from others: its id stands in the first bits; two with one id replace each other."""
    bits = int.from_bytes(nal[1:3].ljust(2, b"\0"), "big")
    zeros = 16 - bits.bit_length()
    return bytes([bits >> max(0, 15 - 2 * zeros) & 0xFF]) if zeros < 8 else b"\xff"
