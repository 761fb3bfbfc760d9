"""One output stream out of many inputs: continuous sequence numbers, timestamps and picture ids across splices.

A splice is the moment a slot goes over to another publication, layer or codec. The caller feeds packets of the current
input only. Inside, sequence numbers are unwrapped integers, so distinct input packets never share an output number.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from relay.plane.reference.descriptors import Descriptor

MAX_GAP = 3000  # packets (RFC 3550 A.1 MAX_DROPOUT): a longer hole cannot be repaired, so it is closed
MAX_LATE = 1024  # packets: the sender's SRTP window, beyond which a packet could not be sealed
MAX_DROPS = 256  # remembered holes that were closed; a packet from before them all comes too late
MIN_STEP_US = 20_000  # the least distance of the frames at a splice: one Opus packet, or a frame at 50/s
MAX_STEP_US = 3_600_000_000  # below half the 32-bit range for every clock up to 596 kHz

_M16 = 0xFFFF
_M32 = 0xFFFFFFFF
_HALF16 = 0x8000
_HALF32 = 0x80000000


class Rewriter:
    """Maps sequence numbers and timestamps of the current input to those of one output stream. Splice first."""

    __slots__ = (
        "_drops",
        "_extra",
        "_extra_until",
        "_floor",
        "_high",
        "_last_now",
        "_last_ts",
        "_offset",
        "_ts_offset",
    )

    def __init__(self, first_seq: int, first_timestamp: int) -> None:
        """The first packet after the first splice gets these; the caller draws them at random (RFC 3550 5.1)."""
        self._high = 0  # newest input sequence number, unwrapped
        self._floor = 1  # oldest input sequence number that still maps
        self._offset = first_seq + _M16  # output = input + offset; the newest output is one before first_seq
        self._drops: deque[tuple[int, int]] = deque(maxlen=MAX_DROPS)  # (input number, offset of those before it)
        self._ts_offset = 0
        self._last_ts = first_timestamp  # newest output timestamp
        self._last_now = -1  # when it was first sent; -1 before the first packet
        self._extra = 0  # ticks added until the aligned timestamps have overtaken the output
        self._extra_until = -1  # the input timestamp from which on `_extra` no longer counts; -1: not reached

    @property
    def last_seq(self) -> int:
        """The newest output sequence number (before the first packet: one less than the first will be)."""
        return (self._high + self._offset) & _M16

    @property
    def last_timestamp(self) -> int:
        """The newest output timestamp."""
        return self._last_ts

    def splice(self, first_seq: int, first_timestamp: int, now: int, clock: int, alignment: int | None = None) -> None:
        """Go over to another input, whose first packet is (`first_seq`, `first_timestamp`).

        Its output number is the last one plus 1. Its output timestamp is the last one plus the time since then by
        `clock` (Hz), within MIN_STEP_US..MAX_STEP_US. With `alignment`, what must be added to a timestamp of the new
        input to have that of the same instant in the old one (from sender reports), timestamps stay exact; a first
        frame that is not later than the output so far is sent 1 tick after it, and those that follow are exact
        again as soon as they are later.
        """
        last_out = self._high + self._offset
        self._high = first_seq - 1
        self._floor = self._high + 1
        self._offset = last_out - self._high
        self._drops.clear()
        last_ts = self._last_ts
        self._extra = 0
        self._extra_until = -1
        if self._last_now < 0:
            self._ts_offset = last_ts - first_timestamp
        elif alignment is None:
            elapsed = min(max(now - self._last_now, MIN_STEP_US), MAX_STEP_US)
            self._ts_offset = last_ts + elapsed * clock // 1_000_000 - first_timestamp
        else:
            self._ts_offset += alignment
            ahead = (first_timestamp + self._ts_offset - last_ts) & _M32
            if not 0 < ahead < _HALF32:
                self._extra = (1 - ahead) & _M32
        self._ts_offset &= _M32

    def rewrite(self, seq: int, timestamp: int, now: int) -> tuple[int, int] | None:
        """Return the output (sequence number, timestamp) of an input packet; a duplicate maps as before.

        None for what must not be sent: from before the splice, dropped, or too late.
        """
        high = self._high
        delta = (seq - high) & _M16
        if not 0 < delta < _HALF16:
            return self._rewrite_late(seq, timestamp)
        if delta > MAX_GAP:
            self._close_gap(delta)
        high += delta
        self._high = high
        out_ts = (timestamp + self._ts_offset) & _M32
        if self._extra:
            out_ts = self._with_extra(timestamp, out_ts)
        if 0 < (out_ts - self._last_ts) & _M32 < _HALF32 or self._last_now < 0:
            self._last_ts = out_ts
            self._last_now = now
        return (high + self._offset) & _M16, out_ts

    def drop(self, seq: int) -> None:
        """Leave out an input packet. Later packets close up, unless one has been sent already: then a hole stays."""
        delta = (seq - self._high) & _M16
        if not 0 < delta < _HALF16:
            return
        if delta > MAX_GAP:
            self._close_gap(delta)
        self._high += delta
        drops = self._drops
        if len(drops) == MAX_DROPS:
            self._floor = max(self._floor, drops[0][0] + 1)
        drops.append((self._high, self._offset))
        self._offset -= 1

    def timestamp_out(self, timestamp: int) -> int:
        """Return the output timestamp of an input instant, e.g. for the sender report of the output stream."""
        return (timestamp + self._ts_offset) & _M32

    def timestamp_in(self, timestamp: int) -> int:
        """Return the input instant of an output timestamp."""
        return (timestamp - self._ts_offset) & _M32

    def _close_gap(self, delta: int) -> None:
        self._floor = self._high + delta
        self._offset -= delta - 1
        self._drops.clear()

    def _with_extra(self, timestamp: int, exact: int) -> int:
        if self._extra_until < 0 and 0 < (exact - self._last_ts) & _M32 < _HALF32:
            self._extra_until = timestamp
        return self._late_extra(timestamp, exact)

    def _rewrite_late(self, seq: int, timestamp: int) -> tuple[int, int] | None:
        high = self._high
        unwrapped = high - ((high - seq) & _M16)
        if unwrapped < self._floor or unwrapped < high - MAX_LATE:
            return None
        offset = self._offset
        for dropped, before in reversed(self._drops):
            if unwrapped > dropped:
                break
            if unwrapped == dropped:
                return None
            offset = before
        out_ts = (timestamp + self._ts_offset) & _M32
        if self._extra:
            out_ts = self._late_extra(timestamp, out_ts)
        return (unwrapped + offset) & _M16, out_ts

    def _late_extra(self, timestamp: int, exact: int) -> int:
        if self._extra_until >= 0 and (timestamp - self._extra_until) & _M32 < _HALF32:
            return exact
        return (exact + self._extra) & _M32


_WIDE = Struct("!H")
_WIDE_TL0 = Struct("!HB")
_NARROW_TL0 = Struct("!BB")
_WIDE_LAYER_TL0 = Struct("!HBB")
_NARROW_LAYER_TL0 = Struct("!BBB")


class PictureIds:
    """Keeps VP8 and VP9 picture ids and TL0PICIDX of one output stream continuous across splices.

    A patch has the width that the input has: a payload never grows. So an input of 7-bit ids gives 7-bit ids.
    """

    __slots__ = ("_id_offset", "_last_id", "_last_tl0", "_started", "_tl0_offset")

    def __init__(self) -> None:
        self._id_offset = 0
        self._tl0_offset = 0
        self._last_id = 0
        self._last_tl0 = 0
        self._started = False

    def splice(self, descriptor: Descriptor) -> None:
        """Make the frame of `descriptor`, the first of another input, follow the newest one that was patched."""
        if not self._started:
            return
        if descriptor.picture_id >= 0:
            self._id_offset = self._last_id + 1 - descriptor.picture_id
        if descriptor.tl0_pic_idx >= 0:
            self._tl0_offset = self._last_tl0 + 1 - descriptor.tl0_pic_idx

    def patch(self, descriptor: Descriptor) -> bytes:
        """Return the bytes to put at `descriptor.patch_offset` of the payload; b"" when there is nothing to patch."""
        bits = descriptor.picture_id_bits
        tl0 = descriptor.tl0_pic_idx
        if not bits and tl0 < 0:
            return b""
        if tl0 >= 0:
            tl0 = (tl0 + self._tl0_offset) & 0xFF
            if not self._started or 0 < (tl0 - self._last_tl0) & 0xFF < 0x80:
                self._last_tl0 = tl0
        if not bits:
            self._started = True
            return bytes((tl0,))
        mask = 0x7FFF if bits == 15 else 0x7F
        picture_id = (descriptor.picture_id + self._id_offset) & mask
        if not self._started or 0 < (picture_id - self._last_id) & mask <= mask >> 1:
            self._last_id = picture_id
        self._started = True
        return _pack(picture_id, bits == 15, descriptor.layer_octet, tl0)


def _pack(picture_id: int, wide: bool, layer_octet: int, tl0: int) -> bytes:
    """Lay out picture id, VP9's layer octet when it stands between, and TL0PICIDX, each where present (>= 0)."""
    if wide:
        picture_id |= 0x8000
        if tl0 < 0:
            return _WIDE.pack(picture_id)
        if layer_octet < 0:
            return _WIDE_TL0.pack(picture_id, tl0)
        return _WIDE_LAYER_TL0.pack(picture_id, layer_octet, tl0)
    if tl0 < 0:
        return bytes((picture_id,))
    if layer_octet < 0:
        return _NARROW_TL0.pack(picture_id, tl0)
    return _NARROW_LAYER_TL0.pack(picture_id, layer_octet, tl0)
