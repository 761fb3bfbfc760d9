"""What is drawn and not filmed: avatar tiles, names, the score and the timer. Pillow draws, a cache keeps."""

from __future__ import annotations

import colorsys
import functools
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relay.mix.video.pictures import Bitmap
from relay.stage.layout import MAX_TEXT, Score

_DARK, _WHITE = (24, 24, 28), (245, 245, 245)
_SIDES = ((214, 54, 92), (46, 110, 220))
_FACE = "sans"
_fonts: dict[str, str] = {}


def use_font(path: str) -> None:
    """Draw with this TrueType or OpenType file from now on; empty: Pillow's own, which knows Latin letters only.

    Raises OSError when it cannot be read.
    """
    if path:
        ImageFont.truetype(path, 12)
        _fonts[_FACE] = path
    else:
        _fonts.pop(_FACE, None)
    for cached in (avatar, label, score_bar, clock):
        cached.cache_clear()


@functools.lru_cache(maxsize=64)
def avatar(name: str, width: int, height: int) -> Bitmap:
    """A tile with the initials in a circle, in a colour of the name."""
    hue = zlib.crc32(name.encode()) / (1 << 32)
    back, front = _rgb(hue, 0.45, 0.22), _rgb(hue, 0.6, 0.62)
    image = Image.new("RGB", (width, height), back)
    draw = ImageDraw.Draw(image)
    radius = min(width, height) * 0.3
    x, y = width / 2, height / 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=front)
    draw.text((x, y), initials(name), font=_font(max(8, int(radius * 0.9))), fill=_WHITE, anchor="mm")
    return bitmap(image)


@functools.lru_cache(maxsize=128)
def label(name: str, cell_width: int, cell_height: int) -> Bitmap:
    """A name for the lower left corner of a cell."""
    size = max(10, cell_height // 18)
    font = _font(size)
    text = name[:MAX_TEXT]
    most = cell_width - size
    while len(text) > 1 and font.getlength(text) > most:
        text = text[:-2] + "…" if len(text) > 2 else text[:1]
    width = min(cell_width, int(font.getlength(text)) + size)
    image = Image.new("RGB", (_even(width), _even(int(size * 1.5))), _DARK)
    ImageDraw.Draw(image).text((size / 2, image.height / 2), text, font=font, fill=_WHITE, anchor="lm")
    return bitmap(image)


@functools.lru_cache(maxsize=16)
def score_bar(score: Score, width: int, height: int) -> Bitmap:
    """A bar whose two parts are the sides' shares, with names and points. Points below 0 have no share."""
    shares = max(score.left, 0), max(score.right, 0)
    share = shares[0] / sum(shares) if sum(shares) else 0.5
    edge = int(width * min(max(share, 0.08), 0.92))
    image = Image.new("RGB", (_even(width), _even(height)), _SIDES[1])
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, edge, height), fill=_SIDES[0])
    font = _font(max(10, height * 5 // 9))
    margin, middle = height // 3, image.height / 2
    left, right = f"{score.left} {score.left_name}".strip(), f"{score.right_name} {score.right}".strip()
    draw.text((margin, middle), left, font=font, fill=_WHITE, anchor="lm")
    draw.text((width - margin, middle), right, font=font, fill=_WHITE, anchor="rm")
    return bitmap(image)


@functools.lru_cache(maxsize=16)
def clock(seconds: int, height: int) -> Bitmap:
    """What is left, m:ss."""
    font = _font(max(10, height * 6 // 9))
    image = Image.new("RGB", (_even(int(font.getlength("00:00")) + height), _even(height)), _DARK)
    text = f"{seconds // 60}:{seconds % 60:02d}"
    ImageDraw.Draw(image).text((image.width / 2, image.height / 2), text, font=font, fill=_WHITE, anchor="mm")
    return bitmap(image)


def initials(name: str) -> str:
    """The first letters of the first and the last word; a question mark for nothing."""
    words = [word for word in name.replace("_", " ").replace("-", " ").split() if word]
    if not words:
        return "?"
    return (words[0][0] + (words[-1][0] if len(words) > 1 else "")).upper()


def bitmap(image: Any) -> Bitmap:
    """4:2:0 of the limited range, by BT.601, as cameras' pictures come from browsers. Even sizes only."""
    ycc = np.asarray(image.convert("YCbCr"), np.float32)
    luma = ycc[..., 0] * (219 / 255) + 16
    height, width = luma.shape
    chroma = ycc[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).mean(axis=(1, 3))
    chroma = (chroma - 128) * (224 / 255) + 128
    planes = (luma, chroma[..., 0], chroma[..., 1])
    return Bitmap(*(np.ascontiguousarray(np.rint(plane).astype(np.uint8)) for plane in planes))


@functools.lru_cache(maxsize=64)
def _sized(path: str, size: int) -> Any:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


def _font(size: int) -> Any:
    return _sized(_fonts.get(_FACE, ""), size)


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))


def _even(size: int) -> int:
    return max(2, size // 2 * 2)
