"""Layouts: where each input of a program is in the picture, frame by frame.

`cells` turns a layout, the inputs and an output size into rectangles. A cell's width is a multiple of 32 pixels (what
scales into the picture writes in such steps, and would else overwrite the neighbour), its place and height are even
(4:2:0), and nothing leaves the picture. Cells of grids, strips and corners have the shape of 16:9 pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.stage.layout import MAX_INPUTS, STEP, Fit, Layout, LayoutChange, Rectangle, SyncLog

SHAPE = (16, 9)


class Box(NamedTuple):
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int


class Cell(NamedTuple):
    """Where an input is shown. Later cells cover earlier ones."""

    identity: str
    box: Box
    fit: Fit


# --- arranging ------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def cells(layout: Layout, inputs: tuple[str, ...], width: int, height: int) -> tuple[Cell, ...]:
    """Return the cells of those `inputs` that the layout shows, in drawing order.

    A cell that would be narrower than one step is left out.
    """
    whole = Box(0, 0, width, height)
    present = inputs[:MAX_INPUTS]
    if layout.kind == "custom":
        places = [(one.identity, _of_share(one, whole)) for one in layout.rectangles if one.identity in present]
    elif layout.kind == "side_by_side":
        half = width // 2
        left = [name for name in layout.left if name in present]
        right = [name for name in layout.right if name in present]
        places = _grid(left, Box(0, 0, half, height)) + _grid(right, Box(half, 0, half, height))
    else:
        first = [name for name in layout.order if name in present]
        names = first + [name for name in present if name not in first]
        places = _ARRANGE[layout.kind](names, whole)
    return tuple(Cell(name, box, layout.fit) for name, box in places if box.width >= STEP and box.height >= 2)


def _grid(names: Sequence[str], area: Box) -> list[tuple[str, Box]]:
    """As large as they can be; a last row that is not full stands in the middle."""
    if not names:
        return []
    columns = max(range(1, len(names) + 1), key=lambda count: (_fitted(names, area, count), count))
    rows = -(-len(names) // columns)
    tile = _shaped(area.width // columns, area.height // rows)
    top = area.y + (area.height - rows * tile.height) // 2
    places = []
    for row in range(rows):
        these = names[row * columns : (row + 1) * columns]
        left = area.x + (area.width - len(these) * tile.width) // 2
        for column, name in enumerate(these):
            places.append((name, _even(Box(left + column * tile.width, top + row * tile.height, *tile[2:]))))
    return places


def _speaker(names: Sequence[str], whole: Box) -> list[tuple[str, Box]]:
    """The speaker at the left, the others in a strip at the right, of two columns when they are many."""
    if len(names) < 2:
        return _grid(names, whole)
    others = names[1:]
    columns = 1 if len(others) <= 5 else 2
    strip = max(_floor(whole.width // 4), STEP * columns)
    rows = -(-len(others) // columns)
    tile = _shaped(strip // columns, whole.height // rows)
    top = (whole.height - rows * tile.height) // 2
    places = _grid(names[:1], Box(0, 0, whole.width - strip, whole.height))
    for index, name in enumerate(others):
        row, column = divmod(index, columns)
        x = whole.width - strip + column * (strip // columns)
        places.append((name, _even(Box(x, top + row * tile.height, *tile[2:]))))
    return places


def _corner(names: Sequence[str], whole: Box) -> list[tuple[str, Box]]:
    """One fills the picture; the others lie over it from the lower right corner to the left, then upwards."""
    places = _grid(names[:1], whole)
    tile = _shaped(whole.width // 5, whole.height // 5)
    margin = min(whole.width, whole.height) // 45 * 2
    in_row = max(1, (whole.width - margin) // (tile.width + margin))
    for index, name in enumerate(names[1:]):
        row, column = divmod(index, in_row)
        x = whole.width - (column + 1) * (tile.width + margin)
        y = whole.height - (row + 1) * (tile.height + margin)
        if y >= 0:
            places.append((name, _even(Box(x, y, *tile[2:]))))
    return places


_ARRANGE = {"grid": _grid, "speaker": _speaker, "picture_in_picture": _corner}


def _fitted(names: Sequence[str], area: Box, columns: int) -> int:
    tile = _shaped(area.width // columns, area.height // -(-len(names) // columns))
    return tile.width * tile.height


def _shaped(width: int, height: int) -> Box:
    """The largest tile of `SHAPE` in this space."""
    wide = _floor(min(width, height * SHAPE[0] // SHAPE[1]))
    return Box(0, 0, wide, wide * SHAPE[1] // SHAPE[0] // 2 * 2)


def _of_share(one: Rectangle, whole: Box) -> Box:
    """The width comes down to a step, in the middle of what was asked for."""
    asked = round(one.width * whole.width)
    width = _floor(asked)
    x = round(one.x * whole.width) + (asked - width) // 2
    height = round(one.height * whole.height) // 2 * 2
    y = min(round(one.y * whole.height), whole.height - height)
    return _even(Box(min(x, whole.width - width), y, width, height))


def _floor(width: int) -> int:
    return width // STEP * STEP


def _even(box: Box) -> Box:
    return Box(box.x // 2 * 2, box.y // 2 * 2, box.width, box.height)


# --- moving ---------------------------------------------------------------------------------------------------------


def moved(before: Sequence[Cell], after: Sequence[Cell], progress: float) -> tuple[Cell, ...]:
    """The cells on their way, `progress` 0 to 1. Their sizes are even. Newcomers grow, who goes is gone at once."""
    if progress >= 1:
        return tuple(after)
    share = progress * progress * (3 - 2 * progress)
    start = {cell.identity: cell.box for cell in before}
    found = []
    for cell in after:
        box = cell.box
        middle = Box(box.x + box.width // 2, box.y + box.height // 2, 0, 0)
        mixed = (
            round(a + (b - a) * share) // 2 * 2 for a, b in zip(start.get(cell.identity, middle), box, strict=True)
        )
        between = Box(*mixed)
        if between.width and between.height:
            found.append(cell._replace(box=between))
    return tuple(found)


class LayoutState:
    """Which cells are in the picture at each output frame, animation included."""

    def __init__(self, changes: Iterable[LayoutChange], width: int, height: int) -> None:
        first, *others = changes
        self.log = SyncLog(first, *others)
        self.width, self.height = width, height
        self._before: Layout | None = None
        self._frames = self._shown = 0

    def frame(self, sync_id: int, inputs: tuple[str, ...]) -> tuple[Cell, ...]:
        """The cells of the frame with this sync id. Call once per output frame, in order."""
        old = self.log.holds.layout
        if effective := self.log.advance(sync_id):
            self._before, self._frames, self._shown = old, effective[-1].animate, 0
        after = cells(self.log.holds.layout, inputs, self.width, self.height)
        if self._before is None:
            return after
        if self._shown >= self._frames:
            self._before = None
            return after
        self._shown += 1
        before = cells(self._before, inputs, self.width, self.height)
        return moved(before, after, self._shown / (self._frames + 1))
