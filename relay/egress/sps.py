"""What egress needs of an H264 sequence parameter set (ITU-T H.264, 7.3.2.1.1): profile, level, size in pixels."""

from __future__ import annotations

from typing import NamedTuple

from relay.errors import PeerError

MAX_SIDE = 8192
_CHROMA_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class Sps(NamedTuple):
    """`profile`, `compatibility` and `level` as in the NAL unit's bytes 1 to 3; width and height after cropping."""

    profile: int
    compatibility: int
    level: int
    width: int
    height: int


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise PeerError("a sequence parameter set ends too early")
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """An Exp-Golomb code (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise PeerError("a sequence parameter set holds a number that is too great")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def parse_sps(nal: bytes) -> Sps:
    """Read an SPS NAL unit. PeerError when it is cut short or its numbers cannot be."""
    if len(nal) < 5 or nal[0] & 31 != 7:
        raise PeerError("not a sequence parameter set")
    data = nal[1:].replace(b"\0\0\3", b"\0\0")  # emulation prevention (7.3.1)
    bits = _Bits(data[:256])
    profile, compatibility, level = bits.take(8), bits.take(8), bits.take(8)
    bits.unsigned()  # its id
    chroma = 1
    if profile in _CHROMA_PROFILES:
        chroma = bits.unsigned()
        if chroma == 3:
            bits.take(1)
        bits.unsigned(), bits.unsigned(), bits.take(1)  # bit depths, transform bypass
        if bits.take(1):
            _skip_scaling(bits, 12 if chroma == 3 else 8)
    bits.unsigned()  # log2_max_frame_num
    _skip_order(bits)
    bits.unsigned(), bits.take(1)  # reference frames, gaps
    width = 16 * (bits.unsigned() + 1)
    height_units = bits.unsigned() + 1
    frames_only = bits.take(1)
    height = 16 * height_units * (2 - frames_only)
    if not frames_only:
        bits.take(1)
    bits.take(1)  # direct_8x8_inference
    if bits.take(1):
        unit_x = 2 if chroma in (1, 2) else 1
        unit_y = (2 if chroma == 1 else 1) * (2 - frames_only)
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
        width -= unit_x * (left + right)
        height -= unit_y * (top + bottom)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise PeerError(f"a picture of {width}x{height}")
    return Sps(profile, compatibility, level, width, height)


def _skip_scaling(bits: _Bits, count: int) -> None:
    """scaling_list (7.3.2.1.1.1)."""
    for index in range(count):
        if bits.take(1):
            last = following = 8
            for _ in range(16 if index < 6 else 64):
                if following:
                    following = (last + bits.signed()) % 256
                last = following or last


def _skip_order(bits: _Bits) -> None:
    """pic_order_cnt_type and what belongs to it."""
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.take(1)
        bits.signed(), bits.signed()
        for _ in range(min(bits.unsigned(), 255)):
            bits.signed()
    elif kind > 2:
        raise PeerError("a sequence parameter set with an unknown order of pictures")
