"""Scaling into cells, tiles, and what is painted again."""

from __future__ import annotations

import random
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costream.painting import Painted, TestPicture, read
from relay.mix.layout import Box, Cell
from relay.mix.video import tiles
from relay.mix.video.composer import Composer, Content
from relay.mix.video.pictures import BLACK, Canvas, inner
from relay.stage.layout import Fit, Overlays, Score, Timer

try:
    from relay.plane import _native
except ImportError:
    _native = None  # type: ignore[assignment]

native = pytest.mark.skipif(_native is None, reason="the native extension is not built: see rust/README.md")

GUARD = 77
WAYS = {
    "native": {},
    "swscale": {"native": False},
    "PyAV": {"native": False, "direct": False},
}
by_all = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def picture(width: int = 320, height: int = 180, publisher: int = 5, counter: int = 9) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(TestPicture(width, height, publisher).frame(counter, 0), format="yuv420p")


boxes = st.builds(
    lambda x, y, w, h: Box(2 * x, 2 * y, 2 * w, 2 * h),
    st.integers(0, 60), st.integers(0, 40), st.integers(16, 100), st.integers(10, 60),
)  # fmt: skip


@by_all
@given(
    box=boxes, fit=st.sampled_from(["crop", "letterbox"]), size=st.sampled_from([(320, 180), (240, 320), (322, 242)])
)
@settings(max_examples=25, deadline=None)
def test_a_picture_never_leaves_its_cell(way: dict[str, bool], box: Box, fit: Fit, size: tuple[int, int]) -> None:
    canvas = Canvas(320, 200, **way)
    for plane in canvas.planes:
        plane[:] = GUARD
    canvas.place(picture(*size), box, fit)
    for plane, part in zip(canvas.planes, (1, 2, 2), strict=True):
        outside = np.ones(plane.shape, bool)
        outside[box.y // part : (box.y + box.height) // part, box.x // part : (box.x + box.width) // part] = False
        assert (plane[outside] == GUARD).all()
        assert not (plane[~outside] == GUARD).all()


@by_all
@pytest.mark.parametrize("box", [Box(0, 0, 320, 180), Box(160, 90, 160, 90), Box(34, 18, 200, 112)])
def test_a_mark_is_read_back_from_its_cell(way: dict[str, bool], box: Box) -> None:
    canvas = Canvas(320, 200, **way)
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


sizes = st.builds(lambda w, h: (2 * w, 2 * h), st.integers(4, 30), st.integers(4, 30))


@native
@given(sizes, sizes, st.integers(0, 3), st.integers(0, 9), st.randoms(use_true_random=False))
def test_scaling_does_what_its_filter_says_and_writes_nothing_beside(
    size: tuple[int, int], goal: tuple[int, int], before: int, beside: int, dice: random.Random
) -> None:
    """Each plane by itself; the luma against the means that it has to be near to."""
    try:
        scaling = _native.Scaling(*size, *goal)
    except ValueError:
        assume(False)
    halves = [size, (size[0] // 2, size[1] // 2)], [goal, (goal[0] // 2, goal[1] // 2)]
    stored = [
        np.frombuffer(dice.randbytes((w + beside) * h + before), np.uint8)
        for w, h in (halves[0][i > 0] for i in range(3))
    ]
    made = [np.full((w + beside) * h + before, GUARD, np.uint8) for w, h in (halves[1][i > 0] for i in range(3))]
    scaling.run(
        [(plane, before, halves[0][i > 0][0] + beside) for i, plane in enumerate(stored)],
        [(plane, before, halves[1][i > 0][0] + beside) for i, plane in enumerate(made)],
    )
    for index, (source, found) in enumerate(zip(stored, made, strict=True)):
        (width, height), (wide, tall) = halves[0][index > 0], halves[1][index > 0]
        source, rows = (plane[before:].reshape(lines, -1) for plane, lines in ((source, height), (found, tall)))
        shift = 0.25 if index else 0.5
        wanted = weights(height, tall, 0.5) @ source[:, :width] @ weights(width, wide, shift).T
        if (width, height) == (2 * wide, 2 * tall):
            wanted = source[:, :width].reshape(tall, 2, wide, 2).mean(axis=(1, 3))
        assert np.abs(rows[:, :wide] - wanted).max() <= 5  # weights are in 1/128
        assert (rows[:, wide:] == GUARD).all()
        assert (found[:before] == GUARD).all()


def weights(source: int, target: int, shift: float) -> npt.NDArray[np.float64]:
    """The triangle filter: for each target sample its shares of the source's."""
    step = source / target
    found = np.zeros((target, source))
    for sample in range(target):
        centre = (sample + shift) * step - shift
        for tap in range(int(centre - 3), int(centre + 4)):
            share = max(0.0, 1 - abs(tap - centre) / max(step, 1.0))
            found[sample, min(max(tap, 0), source - 1)] += share
    return found / found.sum(axis=1, keepdims=True)


LUMA, CHROMA = (bytes(64), 0, 8), (bytes(16), 0, 4)


@native
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((bytes(63), 0, 8), (bytearray(16), 0, 4)),
        ((bytes(64), 1, 8), (bytearray(16), 0, 4)),
        ((bytes(64), 0, 7), (bytearray(16), 0, 4)),
        (LUMA, (bytearray(15), 0, 4)),
        (LUMA, (bytes(16), 0, 4)),
        ((bytes(64), 2**63, 8), (bytearray(16), 0, 4)),
        ((bytes(64), 0, 2**63), (bytearray(16), 0, 4)),
        ((np.zeros((16, 16), np.uint8)[:, ::2], 0, 8), (bytearray(16), 0, 4)),
        ((same := np.zeros(128, np.uint8), 0, 8), (same[32:], 0, 4)),
    ],
)
def test_planes_that_are_not_there_are_not_scaled(source: tuple[Any, int, int], target: tuple[Any, int, int]) -> None:
    before = bytes(target[0])
    with pytest.raises((ValueError, BufferError)):
        _native.Scaling(8, 8, 4, 4).run([source, CHROMA, CHROMA], [target, (bytearray(4), 0, 2), (bytearray(4), 0, 2)])
    assert bytes(target[0]) == before


@native
@pytest.mark.parametrize(
    "sizes", [(9, 8, 8, 8), (8, 8, 8, 9), (20, 8, 8, 8), (4, 8, 8, 8), (8, 8, 0, 8), (2**40, 8, 2**40, 8)]
)
def test_sizes_that_are_not_for_the_extension_are_refused(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no scaling"):
        _native.Scaling(*sizes)


@native
@pytest.mark.parametrize("box", [Box(160, 90, 320, 180), Box(34, 18, 426, 240), Box(0, 0, 600, 338)])
def test_a_scaled_picture_looks_as_what_swscale_makes_of_it(box: Box) -> None:
    shown = picture(640, 360)
    quick, usual = Canvas(640, 360), Canvas(640, 360, native=False)
    for canvas in (quick, usual):
        canvas.place(shown, box, "letterbox")
    for a, b in zip(quick.planes, usual.planes, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    part = (box.x / 640, box.y / 360, box.width / 640, box.height / 360)
    assert read(quick.planes[0], part) == Painted(5, 9, 0)
