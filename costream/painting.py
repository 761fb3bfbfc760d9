"""A test picture that says, in a way no lossy codec or scaler can rub out, who painted it, which frame it is and when.

The mark is a strip of 20 x 4 black and white cells across the top of the picture. Its place is a fraction of the
picture (the whole width, 16/45 of the height), so it is found again at any size; in a 16:9 picture the cells are square
and, in widths that are multiples of 320, aligned with the 16 x 16 blocks of the codecs.

The 80 cells hold, row by row and most significant bit first, white being 1:
publisher (16 bits), counter (24 bits), clock in ms (24 bits, wraps after 4.6 hours), CRC-16/CCITT of these 8 bytes.

`painting.js`, beside this file, is the same mark for browsers; a test compares the two.
"""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

JAVASCRIPT_FILE = Path(__file__).with_name("painting.js")
"""Defines `painting` in a page: {paint, read, readVideo, cells, crc16}."""

COLUMNS = 20
ROWS = 4
STRIP_HEIGHT = 16 / 45  # of the picture
COUNTER_MODULUS = 1 << 24
CLOCK_MODULUS = 1 << 24
MIN_WIDTH = 2 * COLUMNS  # pixels: below two pixels a cell, scalers mix neighbours

# Luma of the limited range that decoders hand out. A browser's canvas maps its black and white to the same values.
_BLACK, _WHITE = 16, 235
# Of 255: a strip with less contrast than this is no strip (a black, grey or frozen-out picture).
_MIN_CONTRAST = 48

# 5 x 7 glyphs, a row per byte, the leftmost pixel in bit 4.
_GLYPHS = {
    "0": "0e11131519110e", "1": "040c040404040e", "2": "0e11010204081f", "3": "1f02040201110e",
    "4": "02060a121f0202", "5": "1f101e0101110e", "6": "0608101e11110e", "7": "1f010204080808",
    "8": "0e11110e11110e", "9": "0e11110f01020c", ":": "000c0c000c0c00", ".": "00000000000c0c",
    "-": "0000001f000000", "#": "0a0a1f0a1f0a0a", " ": "00000000000000", "A": "0e11111f111111",
    "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1c12111111121c", "E": "1f10101e10101f",
    "F": "1f10101e101010", "G": "0e11101711110f", "H": "1111111f111111", "I": "0e04040404040e",
    "J": "0702020202120c", "K": "11121418141211", "L": "1010101010101f", "M": "111b1515111111",
    "N": "11111915131111", "O": "0e11111111110e", "P": "1e11111e101010", "Q": "0e11111115120d",
    "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404", "U": "1111111111110e",
    "V": "11111111110a04", "W": "1111111515150a", "X": "11110a040a1111", "Y": "1111110a040404",
    "Z": "1f01020408101f",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Painted:
    """What a picture says: publisher 0..65535, counter and clock (ms) modulo 2**24."""

    publisher: int
    counter: int
    clock_ms: int


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, initial value 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def cells(painted: Painted) -> Bytes:
    """The mark as an array of 4 x 20 zeros and ones. Values are taken modulo their width."""
    body = b"".join(
        (
            (painted.publisher % (1 << 16)).to_bytes(2, "big"),
            (painted.counter % COUNTER_MODULUS).to_bytes(3, "big"),
            (painted.clock_ms % CLOCK_MODULUS).to_bytes(3, "big"),
        )
    )
    whole = np.frombuffer(body + crc16(body).to_bytes(2, "big"), dtype=np.uint8)
    return np.unpackbits(whole).reshape(ROWS, COLUMNS)


def paint(luma: Bytes, painted: Painted) -> None:
    """Draw the mark into a luma plane of shape (height, width), in place.

    Raises ValueError below MIN_WIDTH or with fewer than two lines a cell.
    """
    height, width = luma.shape
    edges_x, edges_y = _edges(width, height)
    levels = np.where(cells(painted), _WHITE, _BLACK).astype(np.uint8)
    widths, heights = np.diff(edges_x), np.diff(edges_y)
    luma[: edges_y[-1]] = np.repeat(np.repeat(levels, widths, axis=1), heights, axis=0)


def read(picture: Bytes, region: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)) -> Painted | None:
    """What the picture says, or None if it has no intact mark.

    `picture` is a luma plane (height, width) or pixels (height, width, channels). `region` is where the painted picture
    lies in it, as fractions (left, top, width, height): a cell of a mixed program, for example. A region that
    leaves the picture has no mark.
    """
    grey = picture if picture.ndim == 2 else picture[..., :3].mean(axis=2)
    height, width = grey.shape
    left, top = region[0] * width, region[1] * height
    cell_w = region[2] * width / COLUMNS
    cell_h = region[3] * height * STRIP_HEIGHT / ROWS
    inside = left >= 0 and top >= 0 and left + region[2] * width <= width + 1 and top + ROWS * cell_h <= height + 1
    if cell_w < 2 or cell_h < 2 or not inside:
        return None
    means = np.empty((ROWS, COLUMNS))
    for row in range(ROWS):
        ys = _middle(top + row * cell_h, cell_h)
        for column in range(COLUMNS):
            means[row, column] = grey[ys, _middle(left + column * cell_w, cell_w)].mean()
    low, high = means.min(), means.max()
    if high - low < _MIN_CONTRAST:
        return None
    data = np.packbits(means > (low + high) / 2).tobytes()
    if crc16(data[:8]) != int.from_bytes(data[8:], "big"):
        return None
    return Painted(*(int.from_bytes(data[a:b], "big") for a, b in ((0, 2), (2, 5), (5, 8))))


def read_i420(data: bytes | bytearray | memoryview, width: int, height: int, stride: int = 0) -> Painted | None:
    """`read` for a buffer that starts with a luma plane, as I420 and NV12 do. `stride` defaults to the width."""
    stride = stride or width
    return read(np.frombuffer(data, np.uint8, stride * height).reshape(height, stride)[:, :width])


def _middle(start: float, size: float) -> slice:
    """The middle half of a cell: its rim is where scaling and ringing mix it with the neighbours."""
    first = int(start + size / 4)
    return slice(first, max(first + 1, round(start + size * 3 / 4)))


@functools.lru_cache(maxsize=64)
def _edges(width: int, height: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if width < MIN_WIDTH or height * STRIP_HEIGHT < 2 * ROWS:
        raise ValueError(f"a picture of {width}x{height} is too small to carry a mark")
    xs = np.rint(np.arange(COLUMNS + 1) * width / COLUMNS).astype(np.int64)
    ys = np.rint(np.arange(ROWS + 1) * height * STRIP_HEIGHT / ROWS).astype(np.int64)
    return xs, ys


class TestPicture:
    """Paints I420 pictures of one publisher: the mark, a coloured background, a moving bar, a name, counter and clock.

    Width and height must be even. One object serves one publisher; it is not thread-safe.
    """

    __test__ = False  # the name starts with Test, and pytest would collect it

    def __init__(self, width: int, height: int, publisher: int, label: str = "") -> None:
        if width % 2 or height % 2:
            raise ValueError(f"I420 needs an even width and height, not {width}x{height}")
        _edges(width, height)
        self.width, self.height, self.publisher = width, height, publisher
        self._label = (label or f"#{publisher}").upper()
        self._base = self._background()
        self._scale = max(1, width // 160)

    def frame(self, counter: int, clock_ms: int, text: str | None = None) -> Bytes:
        """An I420 picture of shape (height * 3 / 2, width). `text` stands for the running clock, HH:MM:SS.mmm."""
        picture = self._base.copy()
        luma = picture[: self.height]
        paint(luma, Painted(self.publisher, counter, clock_ms))
        top = round(self.height * STRIP_HEIGHT)
        bar = max(2, self.width // 40)
        x = (counter * max(1, self.width // 160)) % (self.width - bar)
        luma[top + (self.height - top) * 7 // 8 :, x : x + bar] = _WHITE
        line = 9 * self._scale
        for row, words in enumerate((self._label, text or clock_text(clock_ms), f"{counter % COUNTER_MODULUS:07d}")):
            _write(luma, words, top + self._scale * 2 + row * line, self._scale)
        return picture

    def _background(self) -> Bytes:
        red, green, blue = colorsys.hsv_to_rgb((self.publisher * 0.381966) % 1.0, 0.7, 0.5)  # the golden angle
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        shade = np.linspace(0.8, 1.2, self.width) * (16 + 219 * luma)
        base = np.empty((self.height * 3 // 2, self.width), np.uint8)
        base[: self.height] = np.clip(shade, 16, 235).astype(np.uint8)
        quarter = (self.height // 2) * (self.width // 2)
        chroma = base[self.height :].reshape(-1)
        chroma[:quarter] = int(128 + 224 * 0.564 * (blue - luma))
        chroma[quarter:] = int(128 + 224 * 0.713 * (red - luma))
        return base


def clock_text(clock_ms: int) -> str:
    """HH:MM:SS.mmm of a count of milliseconds, modulo a day."""
    seconds, ms = divmod(clock_ms % 86_400_000, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"


def _write(luma: Bytes, text: str, top: int, scale: int) -> None:
    """White letters in the middle of the line that starts at `top`; what does not fit the picture is left out."""
    mask = _text_mask(text[: luma.shape[1] // (6 * scale)], scale)
    height, width = min(mask.shape[0], luma.shape[0] - top), mask.shape[1]
    if height <= 0:
        return
    left = (luma.shape[1] - width) // 2
    luma[top : top + height, left : left + width][mask[:height]] = _WHITE


def _text_mask(text: str, scale: int) -> npt.NDArray[np.bool_]:
    if not text:
        return np.zeros((7 * scale, 0), np.bool_)
    return np.concatenate([_glyph(letter, scale) for letter in text], axis=1)


@functools.lru_cache(maxsize=256)
def _glyph(letter: str, scale: int) -> npt.NDArray[np.bool_]:
    rows = np.frombuffer(bytes.fromhex(_GLYPHS.get(letter, _GLYPHS["-"])), np.uint8)
    pixels = np.unpackbits(rows[:, None], axis=1)[:, 3:].astype(np.bool_)
    spaced = np.concatenate([pixels, np.zeros((7, 1), np.bool_)], axis=1)
    return np.repeat(np.repeat(spaced, scale, axis=0), scale, axis=1)
