"""Scaling into cells, tiles, and what is painted again."""

from __future__ import annotations

import random
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costream.painting import Painted, TestPicture, read
from relay.mix.layout import Box, Cell
from relay.mix.video import pictures, tiles
from relay.mix.video.composer import Composer, Content
from relay.mix.video.pictures import BLACK, Canvas, inner
from relay.stage.layout import Fit, Overlays, Score, Timer

try:
    from relay.plane import _native
except ImportError:
    _native = None  # type: ignore[assignment]

native = pytest.mark.skipif(_native is None, reason="the native extension is not built: see rust/README.md")

GUARD = 77


def picture(width: int = 320, height: int = 180, publisher: int = 5, counter: int = 9) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(TestPicture(width, height, publisher).frame(counter, 0), format="yuv420p")


boxes = st.builds(
    lambda x, y, w, h: Box(2 * x, 2 * y, 2 * w, 2 * h),
    st.integers(0, 60), st.integers(0, 40), st.integers(16, 100), st.integers(10, 60),
)  # fmt: skip


@pytest.mark.parametrize("direct", [True, False])
@given(
    box=boxes, fit=st.sampled_from(["crop", "letterbox"]), size=st.sampled_from([(320, 180), (240, 320), (322, 242)])
)
@settings(max_examples=25, deadline=None)
def test_a_picture_never_leaves_its_cell(direct: bool, box: Box, fit: Fit, size: tuple[int, int]) -> None:
    canvas = Canvas(320, 200, direct=direct)
    for plane in canvas.planes:
        plane[:] = GUARD
    canvas.place(picture(*size), box, fit)
    for plane, part in zip(canvas.planes, (1, 2, 2), strict=True):
        outside = np.ones(plane.shape, bool)
        outside[box.y // part : (box.y + box.height) // part, box.x // part : (box.x + box.width) // part] = False
        assert (plane[outside] == GUARD).all()
        assert not (plane[~outside] == GUARD).all()


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("box", [Box(0, 0, 320, 180), Box(160, 90, 160, 90), Box(34, 18, 200, 112)])
def test_a_mark_is_read_back_from_its_cell(direct: bool, box: Box) -> None:
    canvas = Canvas(320, 200, direct=direct)
    canvas.place(picture(640, 360), box, "letterbox")
    region = (box.x / 320, box.y / 200, box.width / 320, box.height / 200)
    assert read(canvas.planes[0], region) == Painted(5, 9, 0)


@pytest.mark.parametrize("fit", ["crop", "letterbox"])
@pytest.mark.parametrize("name", ["yuv422p", "yuv444p", "yuv420p10le", "gray", "gray10le"])
def test_pictures_of_every_format_and_shape_have_their_place(name: str, fit: Fit) -> None:
    """H264 has them all, and one that cannot be drawn would end the program."""
    large = Canvas(1280, 720)
    for width, height in ((18, 4096), (4096, 18), (100, 2046), (2046, 100)):
        large.place(av.VideoFrame(width, height, name), Box(0, 0, 1280, 720), fit)
    canvas, box = Canvas(640, 360), Box(0, 0, 640, 360)
    canvas.place(picture(640, 480).reformat(format=name), box, fit)
    shown = 480 if fit == "letterbox" else 640
    whole = Canvas(shown, 480 if fit == "crop" else 360)
    whole.place(picture(640, 480), Box(0, 0, whole.width, whole.height), "letterbox")
    left, top = (640 - shown) // 2, (whole.height - 360) // 2
    got, meant = canvas.planes[0][:, left : left + shown], whole.planes[0][top : top + 360]
    assert np.abs(got.astype(int) - meant).mean() <= 4


@given(boxes, st.integers(16, 2000), st.integers(16, 2000), st.sampled_from(["crop", "letterbox"]))
def test_aspect_is_kept_and_all_is_even(box: Box, width: int, height: int, fit: Fit) -> None:
    target, part = inner(box, width, height, fit)
    assert not any(value % 2 for value in (*target, *part))
    assert target.x >= box.x
    assert target.y >= box.y
    assert target.x + target.width <= box.x + box.width
    assert target.y + target.height <= box.y + box.height
    assert part.x + part.width <= width
    assert part.y + part.height <= height
    if min(target.width, target.height, part.width, part.height) >= 50:
        ratio = target.width * part.height / (target.height * part.width)
        assert abs(ratio - 1) < 0.07


def test_only_what_changed_is_painted_again() -> None:
    composer = Composer(320, 192)
    cells = (Cell("a", Box(0, 0, 160, 90), "letterbox"), Cell("b", Box(160, 0, 160, 90), "letterbox"))
    contents = {"a": Content("Ann", picture(), 1), "b": Content("Bob", None, 0)}
    assert composer.draw(cells, contents, Overlays(), 0)
    assert composer.drawn == 2
    before = [plane.copy() for plane in composer.canvas.planes]
    assert not composer.draw(cells, contents, Overlays(), 1000)
    assert composer.drawn == 2
    contents["a"] = Content("Ann", picture(counter=10), 2)
    assert composer.draw(cells, contents, Overlays(), 0)
    assert composer.drawn == 3
    contents["a"] = Content("Ann", picture(), 3)
    composer.draw(cells, contents, Overlays(), 0)
    assert all((a == b).all() for a, b in zip(before, composer.canvas.planes, strict=True))


def test_what_lies_below_is_painted_again_when_an_overlay_goes() -> None:
    composer = Composer(320, 192)
    cells = (Cell("a", Box(0, 0, 320, 180), "letterbox"), Cell("b", Box(192, 100, 96, 54), "letterbox"))
    contents = {"a": Content("", picture(), 1), "b": Content("", picture(publisher=6), 1)}
    composer.draw(cells, contents, Overlays(), 0)
    before = [plane.copy() for plane in composer.canvas.planes]
    for overlays in (Overlays(score=Score(1, 2)), Overlays(timer=Timer(9000)), Overlays()):
        composer.draw(cells, contents, overlays, 0)
    assert all((a == b).all() for a, b in zip(before, composer.canvas.planes, strict=True))
    composer.draw(cells, contents, Overlays(timer=Timer(9000)), 0)
    drawn = composer.drawn
    composer.draw(cells, contents, Overlays(timer=Timer(9000)), 400)
    assert composer.drawn == drawn
    composer.draw(cells, contents, Overlays(timer=Timer(9000)), 2000)
    assert composer.drawn > drawn


def test_tiles_have_even_sizes_and_initials() -> None:
    assert [tiles.initials(name) for name in ("Ann Able", "bob", "x_y-z", "", " ")] == ["AA", "B", "XZ", "?", "?"]
    for bitmap in (tiles.avatar("连麦", 96, 54), tiles.label("n" * 500, 96, 54), tiles.clock(61, 20)):
        width, height = bitmap.size
        assert bitmap.blue.shape == bitmap.red.shape == (height // 2, width // 2)
    assert tiles.label("n" * 500, 96, 54).size[0] <= 96
    canvas = Canvas(64, 64)
    canvas.paste(tiles.avatar("a", 96, 96), 32, 32)
    assert canvas.planes[0][0, 0] == BLACK[0]
    with pytest.raises(OSError):
        tiles.use_font("/nowhere.ttf")


CELLS = {
    "apart": (Cell("a", Box(0, 0, 160, 90), "crop"), Cell("b", Box(160, 90, 160, 90), "crop")),
    "nested": (Cell("a", Box(0, 0, 320, 180), "crop"), Cell("b", Box(32, 90, 96, 54), "crop")),
    "alone": (Cell("b", Box(64, 0, 160, 90), "letterbox"),),
}
steps = st.tuples(
    st.sampled_from(sorted(CELLS)), st.booleans(), st.permutations(["a", "b"]), st.integers(0, 2), st.integers(0, 1)
)


@given(st.lists(steps, max_size=8))
@settings(max_examples=40, deadline=None)
def test_cells_that_are_painted_early_make_no_difference(
    stories: list[tuple[str, bool, list[str], int, int]],
) -> None:
    early, late = Composer(320, 180), Composer(320, 180)
    contents = {name: Content(name, picture(publisher=number), 0) for number, name in enumerate("ab")}
    for number, (kind, scored, order, painted, changed) in enumerate(stories, 1):
        for name in order[: painted + changed]:
            contents[name] = Content(name, picture(publisher=ord(name), counter=number), number)
        for name in order[:painted]:
            early.paint(name, contents[name])
        overlays = Overlays(score=Score(number, 1, "", "")) if scored else Overlays()
        for composer in (early, late):
            composer.draw(CELLS[kind], contents, overlays, 0)
        assert all((a == b).all() for a, b in zip(early.canvas.planes, late.canvas.planes, strict=True))


def test_a_cell_that_was_painted_early_is_not_painted_twice() -> None:
    composer = Composer(320, 180)
    contents = {name: Content(name, picture(), 0) for name in "ab"}
    composer.draw(CELLS["apart"], contents, Overlays(), 0)
    drawn = composer.drawn
    contents["a"] = Content("a", picture(), 1)
    composer.paint("a", contents["a"])
    composer.paint("c", contents["a"])
    assert composer.draw(CELLS["apart"], contents, Overlays(), 0)
    assert composer.drawn == drawn + 1


sides = st.integers(1, 40).map(lambda n: 2 * n)


@native
@given(sides, sides, st.integers(0, 3), st.integers(0, 9), st.randoms(use_true_random=False))
def test_halves_are_the_means_of_four_and_nothing_beside_is_written(
    width: int, height: int, before: int, beside: int, dice: random.Random
) -> None:
    source = np.frombuffer(dice.randbytes((2 * width + beside) * 2 * height + before), np.uint8)
    wide = source[before:].reshape(2 * height, -1)[:, : 2 * width].astype(int)
    goal = np.full((width + beside) * height + before, GUARD, np.uint8)
    _native.halve((source, before, 2 * width + beside), (goal, before, width + beside), width, height)
    found = goal[before:].reshape(height, -1)
    wanted = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) // 4
    assert (found[:, :width] == wanted).all()
    assert (found[:, width:] == GUARD).all()
    assert (goal[:before] == GUARD).all()


@native
@pytest.mark.parametrize(
    ("source", "target", "width", "height"),
    [
        ((bytes(31), 0, 8), (bytearray(8), 0, 4), 4, 2),
        ((bytes(32), 1, 8), (bytearray(8), 0, 4), 4, 2),
        ((bytes(32), 0, 7), (bytearray(8), 0, 4), 4, 2),
        ((bytes(32), 0, 8), (bytearray(7), 0, 4), 4, 2),
        ((bytes(32), 0, 8), (bytes(8), 0, 4), 4, 2),
        ((bytes(32), 2**63, 8), (bytearray(8), 0, 4), 4, 2),
        ((bytes(32), 0, 2**63), (bytearray(8), 0, 4), 4, 2),
        ((bytes(32), 0, 8), (bytearray(8), 0, 4), 2**63, 2),
        ((bytes(32), 0, 8), (bytearray(8), 0, 4), 4, 2**63),
        ((np.zeros((8, 8), np.uint8)[:, ::2], 0, 4), (bytearray(4), 0, 2), 2, 2),
        ((same := np.zeros(64, np.uint8), 0, 8), (same[32:], 0, 4), 4, 4),
    ],
)
def test_planes_that_are_not_there_are_not_halved(
    source: tuple[Any, int, int], target: tuple[Any, int, int], width: int, height: int
) -> None:
    before = bytes(target[0])
    with pytest.raises((ValueError, BufferError)):
        _native.halve(source, target, width, height)
    assert bytes(target[0]) == before


@native
def test_a_half_looks_as_what_swscale_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = picture(640, 360)
    quick = Canvas(640, 360)
    monkeypatch.setattr(pictures, "_halve", None)
    usual = Canvas(640, 360)
    monkeypatch.undo()
    for canvas in (quick, usual):
        canvas.place(shown, Box(160, 90, 320, 180), "letterbox")
    for a, b in zip(quick.planes, usual.planes, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    assert read(quick.planes[0], (0.25, 0.25, 0.5, 0.5)) == Painted(5, 9, 0)
