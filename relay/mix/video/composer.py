"""The picture of a program, of which only what changed is painted again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from relay.mix.layout import Box, Cell
from relay.mix.video import tiles
from relay.mix.video.pictures import Bitmap, Canvas
from relay.stage.layout import Overlays


class Content(NamedTuple):
    """What an input shows: its picture, or a tile when that is None. `version` is another one for another picture."""

    name: str
    picture: Any
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """An overlay in its place. Compared by identity."""

    bitmap: Bitmap
    box: Box


class Composer:
    """Draws one program of one size."""

    def __init__(self, width: int, height: int) -> None:
        self.canvas = Canvas(width, height)
        self.drawn = 0
        """Cells that were painted so far."""
        self._cells: tuple[Cell, ...] = ()
        self._versions: dict[str, tuple[str, int, bool]] = {}
        self._names = True
        self._pieces: tuple[_Piece, ...] = ()
        self._early: dict[str, Box] = {}
        """Cells that were painted since the last `draw`."""

    def paint(self, identity: str, content: Content) -> None:
        """Paint a cell's new picture before the next `draw`: while it is in the cache, just decoded, that costs less.

        Nothing happens where the last `draw` had no such cell.
        """
        version = _version(content)
        for cell in self._cells:
            if cell.identity == identity and self._versions[identity] != version:
                self._cell(cell, content, self._names)
                self._versions[identity], self._early[identity] = version, cell.box

    def draw(self, cells: Sequence[Cell], contents: Mapping[str, Content], overlays: Overlays, wall_ms: int) -> bool:
        """Bring the canvas up to date; say whether anything changed."""
        cells = tuple(cell for cell in cells if cell.identity in contents)
        pieces = self._overlay(overlays, wall_ms)
        versions = {cell.identity: _version(contents[cell.identity]) for cell in cells}
        if cells != self._cells or overlays.names != self._names:
            self.canvas.clear(Box(0, 0, self.canvas.width, self.canvas.height))
            dirty = set(versions)
            torn: list[Box] = [Box(0, 0, self.canvas.width, self.canvas.height)]
        else:
            dirty = {name for name, version in versions.items() if self._versions.get(name) != version}
            torn = [] if pieces == self._pieces else self._tear(pieces)
        self._cells, self._versions, self._names = cells, versions, overlays.names
        painted, early, self._early = list(torn), self._early, {}
        for cell in cells:
            below = (box for name, box in early.items() if name != cell.identity)
            if cell.identity in dirty or any(_meet(cell.box, box) for box in (*painted, *below)):
                self._cell(cell, contents[cell.identity], overlays.names)
                painted.append(cell.box)
        painted += early.values()
        self._pieces = pieces
        for piece in pieces:
            if any(_meet(piece.box, box) for box in painted):
                self.canvas.paste(piece.bitmap, piece.box.x, piece.box.y)
        return bool(painted)

    def _tear(self, pieces: tuple[_Piece, ...]) -> list[Box]:
        """Clear what was below overlays that go, move or change."""
        boxes = [piece.box for piece in self._pieces if piece not in pieces]
        for box in boxes:
            self.canvas.clear(box)
        return boxes + [piece.box for piece in pieces if piece not in self._pieces]

    def _cell(self, cell: Cell, content: Content, names: bool) -> None:
        self.drawn += 1
        box = cell.box
        if content.picture is None:
            self.canvas.paste(tiles.avatar(content.name, box.width, box.height), box.x, box.y)
        else:
            self.canvas.place(content.picture, box, cell.fit)
        if names and content.name:
            written = tiles.label(content.name, box.width, box.height)
            if written.size[1] < box.height:
                self.canvas.paste(written, box.x, box.y + box.height - written.size[1])

    def _overlay(self, overlays: Overlays, wall_ms: int) -> tuple[_Piece, ...]:
        width, height = self.canvas.width, self.canvas.height
        line = max(16, height // 18 // 2 * 2)
        pieces, top = [], 0
        if overlays.score is not None:
            pieces.append(self._piece(tiles.score_bar(overlays.score, width, line), 0, 0))
            top = line
        if overlays.timer is not None:
            left = max(0, -(-(overlays.timer.ends_ms - wall_ms) // 1000))
            bitmap = tiles.clock(min(left, 359_999), line)
            pieces.append(self._piece(bitmap, (width - bitmap.size[0]) // 4 * 2, top))
        return tuple(pieces)

    def _piece(self, bitmap: Bitmap, x: int, y: int) -> _Piece:
        """The same object again for the same bitmap at the same place, so that pieces compare by identity."""
        for held in self._pieces:
            if held.bitmap is bitmap and held.box[:2] == (x, y):
                return held
        width, height = bitmap.size
        return _Piece(bitmap, Box(x, y, min(width, self.canvas.width - x), height))


def _version(content: Content) -> tuple[str, int, bool]:
    return content.name, content.version, content.picture is None


def _meet(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height
