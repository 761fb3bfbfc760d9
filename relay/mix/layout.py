"""Layouts: where each input of a program is in the picture, and from which output frame on.

`cells` turns a layout, the inputs and an output size into rectangles. A cell's width is a multiple of 32 pixels (what
scales into the picture writes in such steps, and would else overwrite the neighbour), its place and height are even
(4:2:0), and nothing leaves the picture. Cells of grids, strips and corners have the shape of 16:9 pictures.

`SyncLog` says which of several changes holds at an output frame: the last one whose sync id is not above the frame's,
and so all of a change or nothing of it. A worker is rebuilt from such logs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from relay.errors import BadRequest

MAX_INPUTS = 16
STEP = 32
MIN_SIZE, MAX_SIZE = 64, 3840
MAX_ANIMATION = 120
"""Frames that a move from one layout to another may take."""
MAX_CHANGES = 64
"""Of one log, of those that are to come."""
MAX_TEXT = 64
"""Characters of a name in the picture."""
SHAPE = (16, 9)

Kind = Literal["grid", "speaker", "side_by_side", "picture_in_picture", "custom"]
Fit = Literal["crop", "letterbox"]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A place of a custom layout, in shares of the picture (0 to 1). Later ones cover earlier ones."""

    identity: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """How inputs are arranged.

    `order` names those that come first; the others follow in the order in which they came. The first one is the speaker
    of "speaker" and the large picture of "picture_in_picture". "side_by_side" (PK) shows `left` and `right`, each as a
    grid in its half, and nobody else; "custom" shows its `rectangles` only.
    """

    kind: Kind = "grid"
    order: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    rectangles: tuple[Rectangle, ...] = ()
    fit: Fit = "letterbox"


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """From the first output frame on whose sync id is at least `at`; the cells take `animate` frames to move there."""

    at: int
    layout: Layout
    animate: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """A PK's score, drawn as a bar whose parts are the sides' shares."""

    left: int
    right: int
    left_name: str = ""
    right_name: str = ""


@dataclass(frozen=True, slots=True)
class Timer:
    """Counts down to `ends_ms`, a wall time in ms since the epoch; never below zero."""

    ends_ms: int


@dataclass(frozen=True, slots=True)
class Overlays:
    """What is drawn above the cells: names in their corner, a score on top, a timer below it."""

    names: bool = True
    score: Score | None = None
    timer: Timer | None = None


@dataclass(frozen=True, slots=True)
class OverlayChange:
    """From the first output frame on whose sync id is at least `at`."""

    at: int
    overlays: Overlays


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


# --- what may be asked for ------------------------------------------------------------------------------------------


def check_size(width: int, height: int) -> None:
    """Raise BadRequest for an output size that cannot be."""
    if width % STEP or not MIN_SIZE <= width <= MAX_SIZE:
        raise BadRequest(f"a program's width has to be a multiple of {STEP} from {MIN_SIZE} to {MAX_SIZE}, not {width}")
    if height % 2 or not MIN_SIZE <= height <= MAX_SIZE:
        raise BadRequest(f"a program's height has to be even and from {MIN_SIZE} to {MAX_SIZE}, not {height}")


def check_layout(layout: Layout, animate: int = 0) -> None:
    """Raise BadRequest, which names the field, for a layout that cannot be."""
    if not 0 <= animate <= MAX_ANIMATION:
        raise BadRequest(f"animate has to be from 0 to {MAX_ANIMATION} frames, not {animate}")
    for name in ("order", "left", "right"):
        _check_identities(name, getattr(layout, name))
    if layout.kind == "side_by_side":
        if not (layout.left and layout.right):
            raise BadRequest("side_by_side needs somebody on the left and somebody on the right")
        if both := set(layout.left) & set(layout.right):
            raise BadRequest(f"{min(both)!r} cannot be on the left and on the right")
    if layout.kind == "custom":
        if not layout.rectangles:
            raise BadRequest("custom needs at least one of rectangles")
        _check_identities("rectangles", tuple(one.identity for one in layout.rectangles))
        for one in layout.rectangles:
            _check_rectangle(one)


def check_overlays(overlays: Overlays) -> None:
    """Raise BadRequest for overlays that cannot be drawn."""
    if (score := overlays.score) is not None:
        if min(score.left, score.right) < 0 or max(score.left, score.right) >= 1 << 53:
            raise BadRequest("a score has to be from 0 to 2^53")
        if max(len(score.left_name), len(score.right_name)) > MAX_TEXT:
            raise BadRequest(f"a name of the score has more than {MAX_TEXT} characters")
    if overlays.timer is not None and not 0 <= overlays.timer.ends_ms < 1 << 48:
        raise BadRequest("a timer's ends_ms has to be a wall time in ms since the epoch")


def _check_identities(field: str, identities: tuple[str, ...]) -> None:
    if len(identities) > MAX_INPUTS:
        raise BadRequest(f"{field} names {len(identities)} inputs, and a program shows {MAX_INPUTS}")
    if len(set(identities)) != len(identities):
        raise BadRequest(f"{field} names an input twice")


def _check_rectangle(one: Rectangle) -> None:
    values = (one.x, one.y, one.width, one.height)
    inside = all(map(math.isfinite, values)) and min(one.x, one.y) >= 0
    if not (inside and one.x + one.width <= 1 + 1e-9 and one.y + one.height <= 1 + 1e-9):
        raise BadRequest(f"the rectangle of {one.identity!r} leaves the picture: x, y, width, height are shares of it")
    if min(one.width, one.height) <= 0:
        raise BadRequest(f"the rectangle of {one.identity!r} is empty")


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


# --- the log --------------------------------------------------------------------------------------------------------

C = TypeVar("C", bound=LayoutChange | OverlayChange)


class SyncLog(Generic[C]):
    """Changes by sync id: the one that holds and those to come."""

    def __init__(self, first: C, *others: C) -> None:
        self._changes: list[C] = [first]
        for change in others:
            self.add(change)

    @property
    def changes(self) -> tuple[C, ...]:
        """What a worker is rebuilt from: the one that holds, then those to come."""
        return tuple(self._changes)

    def add(self, change: C) -> None:
        """Note a change. One for the same sync id is replaced; one that is overdue holds from the next frame on.

        Raises BadRequest when too many are waiting.
        """
        held = self._changes[0]
        later: list[C] = [one for one in self._changes[1:] if one.at != change.at]
        if len(later) >= MAX_CHANGES:
            raise BadRequest(f"{MAX_CHANGES} changes are waiting for their time already")
        # Never before the one that holds: it was told later, so it has to win at the next frame.
        position = sum(1 for one in later if one.at <= change.at)
        later.insert(position, change)
        self._changes = [held, *later]

    def advance(self, sync_id: int) -> tuple[C, ...]:
        """Go on to an output frame; return the changes that took effect with it, the last of which holds now."""
        taken = 0
        while taken + 1 < len(self._changes) and self._changes[taken + 1].at <= sync_id:
            taken += 1
        effective = tuple(self._changes[1 : taken + 1])
        del self._changes[:taken]
        return effective

    @property
    def holds(self) -> C:
        return self._changes[0]


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
