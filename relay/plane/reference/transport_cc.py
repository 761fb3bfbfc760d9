"""Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).

`Recorder` notes arrivals and writes the feedback packets that a publisher's estimator wants; `parse_feedback` reads
those that a viewer sends. Arrival times travel in ticks of 250 µs against a reference in steps of 64 ms (256 ticks).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from struct import Struct

from relay.plane.reference.rtcp import build_transport_cc

TICK_US = 250
REFERENCE_US = 64_000
REFERENCE_WRAP_US = (1 << 24) * REFERENCE_US
MAX_STATUSES = 8192  # per feedback read; a claim of more is a lie that would cost us time
MAX_FCI_BYTES = 1100  # of chunks and deltas per feedback written: with headers and SRTCP it stays within an MTU
WINDOW = 8192  # sequence numbers remembered; a jump by more is a restart
MAX_LATE = 1024  # how far behind the newest a packet may be and still be reported
_MASK = WINDOW - 1
_MAX_RUN = 8191
_NONE = -1

_FCI = Struct("!HHI")
_INT16 = Struct("!h")


@dataclass(frozen=True, slots=True)
class Feedback:
    """One feedback packet as read. `count` is its 8-bit number, `reference_us` modulo 2**24 * 64 ms.

    `packets` are (16-bit sequence number, arrival relative to `reference_us` in µs or None when not received).
    """

    count: int
    reference_us: int
    packets: list[tuple[int, int | None]]


class Recorder:
    """Arrivals of one transport (all SSRCs of a session together). `record` per packet, `feedback` every 50–100 ms."""

    __slots__ = ("_base", "_count", "_highest", "_ticks")

    def __init__(self) -> None:
        self._ticks = array("q", [_NONE]) * WINDOW  # arrival in ticks, by extended sequence modulo WINDOW
        self._highest = -1  # extended sequence number, -1 before the first packet
        self._base = 0  # first one the next feedback speaks about
        self._count = 0

    def record(self, seq16: int, arrival_us: int) -> None:
        """Note one arrival, `arrival_us` ≥ 0. Duplicates and packets more than MAX_LATE behind are ignored."""
        highest = self._highest
        delta = (seq16 - highest) & 0xFFFF
        if delta == 1 and highest >= 0:
            self._highest = highest = highest + 1
            self._ticks[highest & 8191] = arrival_us // 250
            return
        self._irregular(seq16, delta, arrival_us // 250)

    def _irregular(self, seq16: int, delta: int, tick: int) -> None:
        highest, ticks = self._highest, self._ticks
        if highest < 0 or (WINDOW <= delta < 0x8000):
            self._highest = self._base = highest = seq16 + 0x10000  # room for late packets before the first
            for at in range(WINDOW):
                ticks[at] = _NONE
            ticks[highest & _MASK] = tick
        elif delta < 0x8000:
            if delta:
                for seq in range(highest + 1, highest + delta):
                    ticks[seq & _MASK] = _NONE
                self._highest = highest = highest + delta
                ticks[highest & _MASK] = tick
        else:
            self._late(highest + delta - 0x10000, tick)

    def _late(self, seq: int, tick: int) -> None:
        """Report again from a late packet on: its first report said lost."""
        if self._highest - seq <= MAX_LATE and self._ticks[seq & _MASK] == _NONE:
            self._ticks[seq & _MASK] = tick
            if seq < self._base:
                self._base = seq

    @property
    def pending(self) -> bool:
        """Whether a feedback would say anything."""
        return self._highest >= self._base

    def feedback(self, now: int, sender_ssrc: int, media_ssrc: int) -> list[bytes]:
        """RTPFB packets (FMT 15) about everything since the last call; empty when nothing arrived.

        `now` is not part of the format; it is there for the symmetry of all timed calls.
        """
        out: list[bytes] = []
        end = self._highest + 1
        base = max(self._base, end - WINDOW)  # older arrivals were overwritten
        while base < end:
            fci, base = self._one(base, end)
            if not fci:
                break
            out.append(build_transport_cc(sender_ssrc, media_ssrc, fci))
        self._base = end
        return out

    def _one(self, base: int, end: int) -> tuple[bytes, int]:
        """FCI of one packet that starts at `base`, and where the next one starts."""
        ticks = self._ticks
        first = base
        while first < end and ticks[first & _MASK] < 0:
            first += 1
        if first == end:
            return b"", end
        reference = ticks[first & _MASK] >> 8
        last = reference << 8
        symbols = bytearray(first - base)
        deltas = bytearray()
        seq = first
        while seq < end and len(deltas) + (seq - first) // 7 * 2 < MAX_FCI_BYTES:
            tick = ticks[seq & _MASK]
            if tick < 0:
                symbols.append(0)
            else:
                delta = tick - last
                if 0 <= delta <= 255:
                    symbols.append(1)
                    deltas.append(delta)
                elif -32768 <= delta <= 32767:
                    symbols.append(2)
                    deltas += _INT16.pack(delta)
                else:
                    break
                last = tick
            seq += 1
        head = _FCI.pack(base & 0xFFFF, len(symbols), (reference & 0xFFFFFF) << 8 | self._count)
        self._count = (self._count + 1) & 0xFF
        return head + _chunks(symbols) + bytes(deltas), seq


def _chunks(symbols: bytearray) -> bytes:
    """Status chunks (section 3.1.3, 3.1.4): a run where it is at least as long as a vector would be."""
    out = bytearray()
    at, size = 0, len(symbols)
    while at < size:
        symbol = symbols[at]
        run = 1
        while at + run < size and run < _MAX_RUN and symbols[at + run] == symbol:
            run += 1
        few = symbols[at : at + 14]
        if run >= 14 or run >= len(few) or (run >= 7 and 2 in few):
            word, taken = symbol << 13 | run, run
        elif 2 in few:
            word, taken = 0xC000, min(7, len(few))
            for index in range(taken):
                word |= few[index] << (12 - 2 * index)
        else:
            word, taken = 0x8000, len(few)
            for index in range(taken):
                word |= few[index] << (13 - index)
        out += word.to_bytes(2, "big")
        at += taken
    return bytes(out)


def parse_feedback(fci: bytes) -> Feedback | None:
    """Read the FCI of one feedback packet; None when it is truncated, empty, too long or uses the reserved symbol.

    Bytes after the last delta are padding and ignored, with or without the padding bit.
    """
    if len(fci) < 10:
        return None
    base, count, word = _FCI.unpack_from(fci)
    if not 0 < count <= MAX_STATUSES:
        return None
    symbols = bytearray()
    at, size = 8, len(fci)
    while len(symbols) < count:
        if at + 2 > size:
            return None
        chunk = fci[at] << 8 | fci[at + 1]
        at += 2
        if not chunk & 0x8000:
            run = min(chunk & 0x1FFF, count - len(symbols))
            if not run:
                return None
            symbols += _RUNS[chunk >> 13] * run
        elif chunk & 0x4000:
            symbols += bytes((chunk >> shift) & 3 for shift in (12, 10, 8, 6, 4, 2, 0))
        else:
            symbols += bytes((chunk >> shift) & 1 for shift in range(13, -1, -1))
    del symbols[count:]
    packets = _arrivals(fci, at, base, symbols)
    return None if packets is None else Feedback(word & 0xFF, (word >> 8) * REFERENCE_US, packets)


_RUNS = (b"\0", b"\1", b"\2", b"\3")


def _arrivals(fci: bytes, at: int, base: int, symbols: bytearray) -> list[tuple[int, int | None]] | None:
    """Walk the deltas that start at `at`; None when they are short or a symbol is reserved."""
    if at + symbols.count(1) + 2 * symbols.count(2) > len(fci) or 3 in symbols:
        return None
    packets: list[tuple[int, int | None]] = []
    tick = 0
    seq = base
    for symbol in symbols:
        if symbol == 1:
            tick += fci[at]
            at += 1
            packets.append((seq & 0xFFFF, tick * 250))
        elif symbol:
            tick += _INT16.unpack_from(fci, at)[0]
            at += 2
            packets.append((seq & 0xFFFF, tick * 250))
        else:
            packets.append((seq & 0xFFFF, None))
        seq += 1
    return packets
