"""The output picture, painted over and over: pictures are scaled straight into their cell of it.

The native extension copies, halves and scales by up to 2, which is what cells need, in a third of the time that a
general scaler takes (docs/decisions/0028). Everything else is swscale's: larger steps, other formats than 4:2:0, and
all where the extension is not installed. It is called by its C interface (stable since FFmpeg 0.5), as PyAV's own call
allocates a picture each time and cannot write into a part of another one. It is the very library that PyAV loaded;
where that cannot be found, PyAV scales and numpy copies. Nothing here may be used by two threads at once.
"""

from __future__ import annotations

import ctypes
import functools
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from relay.mix.layout import Box
from relay.stage.layout import STEP, Fit

try:
    from relay.plane._native import Scaling
except ImportError:
    Scaling = None  # type: ignore[assignment,misc]

Plane = npt.NDArray[np.uint8]
BLACK = (16, 128, 128)
SAME_SHAPE = 0.02
"""A picture whose shape differs from its cell's by less than this is stretched."""
_BILINEAR = 2
_CONTEXTS = 48
_PLANAR = ("yuv420p", "yuvj420p")


class Bitmap(NamedTuple):
    """An opaque picture, 4:2:0: luma (height, width), chroma of half the size."""

    luma: Plane
    blue: Plane
    red: Plane

    @property
    def size(self) -> tuple[int, int]:
        return self.luma.shape[1], self.luma.shape[0]


def inner(box: Box, width: int, height: int, fit: Fit) -> tuple[Box, Box]:
    """Where in the cell a picture of this size goes, and which part of it. Aspect is kept; all is even."""
    whole = Box(0, 0, width // 2 * 2, height // 2 * 2)
    ratio = width * box.height / (height * box.width)
    if abs(ratio - 1) < SAME_SHAPE:
        return box, whole
    if fit == "crop":
        if ratio > 1:
            kept = max(2, round(width / ratio) // 2 * 2)
            return box, Box((width - kept) // 4 * 2, 0, kept, whole.height)
        kept = max(2, round(height * ratio) // 2 * 2)
        return box, Box(0, (height - kept) // 4 * 2, whole.width, kept)
    if ratio > 1:
        tall = max(2, round(box.height / ratio) // 2 * 2)
        return Box(box.x, box.y + (box.height - tall) // 4 * 2, box.width, tall), whole
    wide = max(2, round(box.width * ratio) // 2 * 2)
    return Box(box.x + (box.width - wide) // 4 * 2, box.y, wide, box.height), whole


class Canvas:
    """A picture of the program. `frame` goes to the encoder."""

    def __init__(self, width: int, height: int, *, native: bool = True, direct: bool = True) -> None:
        """`native` false: as where the extension is not installed; `direct` false: where swscale cannot be called."""
        self.width, self.height = width, height
        self.frame: Any = av.VideoFrame(width, height, "yuv420p")
        self.planes = _views(self.frame)
        self._scaler = _Swscale() if direct and _library() is not None else None
        self._native = native and Scaling is not None
        self._scratch: Any = None
        self.clear(Box(0, 0, width, height))

    def clear(self, box: Box) -> None:
        """Make a part black."""
        for plane, value, part in zip(self.planes, BLACK, (1, 2, 2), strict=True):
            _cut(plane, box, part)[:] = value

    def paste(self, bitmap: Bitmap, x: int, y: int) -> None:
        """Copy a bitmap; x and y are even. What leaves the picture is cut off."""
        width, height = min(bitmap.size[0], self.width - x), min(bitmap.size[1], self.height - y)
        if width <= 0 or height <= 0:
            return
        box = Box(x, y, width, height)
        for plane, source, part in zip(self.planes, bitmap, (1, 2, 2), strict=True):
            target = _cut(plane, box, part)
            target[:] = source[: target.shape[0], : target.shape[1]]

    def place(self, picture: Any, box: Box, fit: Fit) -> None:
        """Scale a decoded picture into a cell."""
        target, part = inner(box, picture.width, picture.height, fit)
        if target != box:
            self.clear(box)
        if part[:2] != (0, 0) and picture.format.name not in _PLANAR:
            picture = picture.reformat(format="yuv420p", threads=1)
        scaling = None
        if self._native and picture.format.name == "yuv420p":
            scaling = _scaling(part.width, part.height, target.width, target.height)
        if scaling is not None:
            scaling.run(_places(picture.planes, part), _places(self.frame.planes, target))
        elif self._scaler is None:
            self._copy(picture, target, part)
        elif target.width % STEP:
            # swscale writes whole steps: beside the picture, so that no neighbour is hit.
            scratch = self._beside(target)
            self._scaler.scale(picture, part, scratch, Box(0, 0, target.width, target.height))
            for plane, source, share in zip(self.planes, _views(scratch), (1, 2, 2), strict=True):
                cut = _cut(plane, target, share)
                cut[:] = source[: cut.shape[0], : cut.shape[1]]
        else:
            self._scaler.scale(picture, part, self.frame, target)

    def _beside(self, box: Box) -> Any:
        held = self._scratch
        if held is None or held.width < box.width + STEP or held.height < box.height:
            width = max(box.width + 2 * STEP, held.width if held is not None else 0)
            self._scratch = av.VideoFrame(width // STEP * STEP, max(box.height, self.height), "yuv420p")
        return self._scratch

    def _copy(self, picture: Any, target: Box, part: Box) -> None:
        wide = round(picture.width * target.width / part.width)
        tall = round(picture.height * target.height / part.height)
        scaled = picture.reformat(wide, tall, "yuv420p", interpolation="BILINEAR", threads=1)
        left, top = part.x * wide // picture.width // 2 * 2, part.y * tall // picture.height // 2 * 2
        for plane, source, share in zip(self.planes, _views(scaled), (1, 2, 2), strict=True):
            cut = _cut(plane, target, share)
            found = source[top // share :, left // share :][: cut.shape[0], : cut.shape[1]]
            cut[: found.shape[0], : found.shape[1]] = found


@functools.lru_cache(maxsize=_CONTEXTS)
def _scaling(width: int, height: int, wide: int, tall: int) -> Scaling | None:
    """The extension's, or None where that is not for it."""
    try:
        return Scaling(width, height, wide, tall)
    except ValueError:
        return None


def _places(planes: Any, box: Box) -> list[tuple[Any, int, int]]:
    """A part of each plane: its buffer, where in it the part begins, bytes from one line to the next."""
    luma, blue, red = planes
    stride, half = luma.line_size, blue.line_size
    start = box.y // 2 * half + box.x // 2
    return [(luma, box.y * stride + box.x, stride), (blue, start, half), (red, start, red.line_size)]


def _views(frame: Any) -> tuple[Plane, Plane, Plane]:
    """The planes of a 4:2:0 frame as arrays."""
    found = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8)
        found.append(rows[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)[:, : plane.width])
    return found[0], found[1], found[2]


def _cut(plane: Plane, box: Box, part: int) -> Plane:
    top, left = box.y // part, box.x // part
    return plane[top : top + box.height // part, left : left + box.width // part]


# --- swscale --------------------------------------------------------------------------------------------------------

_Pointers = ctypes.c_void_p * 4
_Strides = ctypes.c_int * 4
_libraries: list[Any] = []


def _library() -> Any:
    """The libswscale that PyAV uses, or None."""
    if not _libraries:
        _libraries.append(_load())
    return _libraries[0]


def _load() -> Any:
    av.VideoFrame(16, 16, "yuv420p").reformat(32, 32, threads=1)
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {name: line.split()[-1] for line in lines for name in ("libswscale", "libavutil") if f"/{name}" in line}
    try:
        swscale, util = ctypes.CDLL(paths["libswscale"]), ctypes.CDLL(paths["libavutil"])
        get, scale, free = swscale.sws_getContext, swscale.sws_scale, swscale.sws_freeContext
        name = util.av_get_pix_fmt
    except (KeyError, OSError, AttributeError):
        return None
    get.restype = ctypes.c_void_p
    get.argtypes = [ctypes.c_int] * 7 + [ctypes.c_void_p] * 3
    pointer = ctypes.c_void_p
    scale.argtypes = [pointer, pointer, pointer, ctypes.c_int, ctypes.c_int, pointer, pointer]
    free.argtypes, free.restype = [pointer], None
    name.argtypes, name.restype = [ctypes.c_char_p], ctypes.c_int
    return get, scale, free, name


class _Swscale:
    """Scaling contexts by shape: the least recently used ones go."""

    def __init__(self) -> None:
        self._get, self._scale, self._free, self._format = _library()
        self._contexts: OrderedDict[tuple[int, int, str, int, int], int] = OrderedDict()
        self._target = self._format(b"yuv420p")

    def scale(self, picture: Any, part: Box, target: Any, box: Box) -> None:
        """Scale `part` of a picture into `box` of the target. Parts that do not begin at 0, 0: 4:2:0 only."""
        context = self._context(part.width, part.height, picture.format.name, box.width, box.height)
        source, strides = _addresses(picture, part)
        into, steps = _addresses(target, box)
        self._scale(context, source, strides, 0, part.height, into, steps)

    def _context(self, width: int, height: int, name: str, wide: int, tall: int) -> int:
        key = (width, height, name, wide, tall)
        context = self._contexts.get(key)
        if context is not None:
            self._contexts.move_to_end(key)
            return context
        number = self._format(name.encode())
        context = self._get(width, height, number, wide, tall, self._target, _BILINEAR, None, None, None)
        if not context:
            raise MemoryError(f"no scaling from {width}x{height} {name} to {wide}x{tall}")
        self._contexts[key] = context
        if len(self._contexts) > _CONTEXTS:
            self._free(self._contexts.popitem(last=False)[1])
        return int(context)

    def __del__(self) -> None:
        for context in self._contexts.values():
            self._free(context)


def _addresses(frame: Any, box: Box) -> tuple[Any, Any]:
    pointers, strides = _Pointers(), _Strides()
    for index, plane in enumerate(frame.planes[:4]):
        part = 1 if index == 0 else 2
        offset = box.y // part * plane.line_size + box.x // part
        pointers[index], strides[index] = plane.buffer_ptr + offset, plane.line_size
    return pointers, strides
