"""How a program's picture is asked for: layouts, overlays, and from which output frame on each of them holds.

`SyncLog` says which of several changes holds at an output frame: the last one whose sync id is not above the frame's,
and so all of a change or nothing of it. A worker is rebuilt from such logs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

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
    of "speaker" and the large picture of "picture_in_picture"; where a room's program has a "speaker" without an order,
    it is who speaks. "side_by_side" (PK) shows `left` and `right`, each as a grid in its half, and nobody else;
    "custom" shows its `rectangles` only.
    """

    kind: Kind = "grid"
    order: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    rectangles: tuple[Rectangle, ...] = ()
    fit: Fit = "letterbox"


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """From the first output frame on whose sync id is at least `at`; the cells take `animate` frames to move there.

    `number` counts the changes of a program, so that whoever reads its log again knows which of them are new.
    """

    at: int
    layout: Layout
    animate: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """A PK's score, drawn as a bar whose parts are the sides' shares. Below 0 when points were taken away."""

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
    """From the first output frame on whose sync id is at least `at`. `number` as for a `LayoutChange`."""

    at: int
    overlays: Overlays
    number: int = 0


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
        if max(abs(score.left), abs(score.right)) >= 1 << 53:
            raise BadRequest("a score has to be between -2^53 and 2^53")
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
