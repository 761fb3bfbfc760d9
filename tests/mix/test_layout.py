"""Cells, layouts, their checks and their log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import BadRequest
from relay.mix.layout import Box, Cell, LayoutState, cells, moved
from relay.stage.layout import (
    MAX_ANIMATION,
    MAX_CHANGES,
    MAX_INPUTS,
    STEP,
    Layout,
    LayoutChange,
    Overlays,
    Rectangle,
    Score,
    SyncLog,
    Timer,
    check_layout,
    check_overlays,
    check_size,
)

NAMES = tuple(f"p{number}" for number in range(20))
sizes = st.tuples(st.integers(10, 60).map(lambda n: n * STEP), st.integers(90, 540).map(lambda n: n * 2))
counts = st.integers(0, 20)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    kind = draw(st.sampled_from(["grid", "speaker", "side_by_side", "picture_in_picture", "custom"]))
    names = draw(st.permutations(NAMES[:MAX_INPUTS]))
    if kind == "side_by_side":
        cut = draw(st.integers(1, 15))
        return Layout(kind, left=tuple(names[:cut]), right=tuple(names[cut:]))
    if kind == "custom":
        share = st.floats(0, 1)
        count = draw(st.integers(1, 6))
        made = []
        for name in names[:count]:
            x, y = draw(share), draw(share)
            width, height = draw(st.floats(0.01, 1)), draw(st.floats(0.01, 1))
            if x + width <= 1 and y + height <= 1:
                made.append(Rectangle(name, x, y, width, height))
        return Layout(kind, rectangles=tuple(made) or (Rectangle(names[0], 0, 0, 1, 1),))
    return Layout(kind, order=tuple(names[: draw(st.integers(0, 16))]))


def overlap(a: Box, b: Box) -> bool:
    return a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height


@given(layouts(), counts, sizes)
def test_cells_stay_inside_in_whole_steps_and_show_each_at_most_once(
    layout: Layout, count: int, size: tuple[int, int]
) -> None:
    check_layout(layout)
    width, height = size
    found = cells(layout, NAMES[:count], width, height)
    for cell in found:
        box = cell.box
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= width
        assert box.y + box.height <= height
        assert box.width % STEP == 0
        assert box.width > 0
        assert not box.x % 2
        assert not box.y % 2
        assert not box.height % 2
    names = [cell.identity for cell in found]
    assert len(set(names)) == len(names) <= MAX_INPUTS
    assert set(names) <= set(NAMES[:count])


@given(st.sampled_from(["grid", "speaker"]), st.integers(1, 16), sizes)
def test_cells_of_grids_and_strips_do_not_overlap_and_show_all(kind: str, count: int, size: tuple[int, int]) -> None:
    width, height = max(size[0], 640), max(size[1], 640)
    found = cells(Layout(kind), NAMES[:count], width, height)  # type: ignore[arg-type]
    assert [cell.identity for cell in found] == list(NAMES[:count])
    assert not any(overlap(a.box, b.box) for i, a in enumerate(found) for b in found[:i])


def test_known_arrangements() -> None:
    def boxes(layout: Layout, count: int) -> list[tuple[int, ...]]:
        return [tuple(cell.box) for cell in cells(layout, NAMES[:count], 1280, 720)]

    assert boxes(Layout(), 1) == [(0, 0, 1280, 720)]
    assert boxes(Layout(), 2) == [(0, 180, 640, 360), (640, 180, 640, 360)]
    assert boxes(Layout(), 3) == [(0, 0, 640, 360), (640, 0, 640, 360), (320, 360, 640, 360)]
    assert boxes(Layout(), 4)[-1] == (640, 360, 640, 360)
    assert boxes(Layout(), 9)[0] == (16, 8, 416, 234)
    assert boxes(Layout("speaker"), 3)[0] == (0, 90, 960, 540)
    pk = Layout("side_by_side", left=("p0",), right=("p1",))
    assert boxes(pk, 3) == [(0, 180, 640, 360), (640, 180, 640, 360)]
    small = boxes(Layout("picture_in_picture", order=("p1",)), 2)
    assert small[0] == (0, 0, 1280, 720)
    assert small[1] == (992, 554, 256, 144) or small[1][2:] == (256, 144)
    assert cells(Layout("picture_in_picture", order=("p1",)), NAMES[:2], 1280, 720)[0].identity == "p1"


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (Layout("custom"), "at least one"),
        (Layout("custom", rectangles=(Rectangle("a", 0, 0, 0, 1),)), "empty"),
        (Layout("custom", rectangles=(Rectangle("a", 0.5, 0, 0.6, 1),)), "leaves the picture"),
        (Layout("custom", rectangles=(Rectangle("a", float("nan"), 0, 1, 1),)), "leaves the picture"),
        (Layout("custom", rectangles=(Rectangle("a", 0, 0, 1, 1),) * 2), "twice"),
        (Layout("side_by_side", left=("a",)), "on the right"),
        (Layout("side_by_side", left=("a",), right=("a",)), "cannot be on the left and on the right"),
        (Layout(order=("a", "a")), "twice"),
        (Layout(order=NAMES), "16"),
    ],
)
def test_wrong_layouts_are_refused_by_name(layout: Layout, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        check_layout(layout)


def test_wrong_sizes_animations_and_overlays_are_refused() -> None:
    for width, height in ((1000, 720), (0, 720), (8192, 720), (1280, 719), (1280, 0)):
        with pytest.raises(BadRequest):
            check_size(width, height)
    for animate in (-1, MAX_ANIMATION + 1):
        with pytest.raises(BadRequest):
            check_layout(Layout(), animate)
    for overlays in (
        Overlays(score=Score(-1 << 53, 0)),
        Overlays(score=Score(0, 0, "n" * 65)),
        Overlays(timer=Timer(-1)),
    ):
        with pytest.raises(BadRequest):
            check_overlays(overlays)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20), st.integers(1, 4))
def test_at_each_frame_the_last_change_holds_whose_time_has_come(told: list[tuple[int, int]], step: int) -> None:
    """All changes are told before the first frame: those of one sync id replace each other."""
    log = SyncLog(LayoutChange(0, Layout()))
    model: dict[int, Layout] = {}
    for at, number in told:
        layout = Layout(order=(f"p{number}",))
        log.add(LayoutChange(at, layout))
        model[at] = layout
    for sync_id in range(0, 60, step):
        log.advance(sync_id)
        due = [at for at in model if at <= sync_id]
        assert log.holds.layout == (model[max(due)] if due else Layout())
    rebuilt = SyncLog(*log.changes)
    assert rebuilt.changes == log.changes


def test_a_log_is_bounded() -> None:
    log = SyncLog(LayoutChange(0, Layout()))
    for at in range(1, MAX_CHANGES + 1):
        log.add(LayoutChange(at, Layout()))
    log.add(LayoutChange(1, Layout("speaker")))
    with pytest.raises(BadRequest):
        log.add(LayoutChange(1000, Layout()))
    log.advance(1)
    log.add(LayoutChange(1000, Layout()))


def test_an_animation_begins_at_its_frame_and_ends_in_the_layout() -> None:
    state = LayoutState([LayoutChange(0, Layout())], 1280, 720)
    state.log.add(LayoutChange(5, Layout(order=("p1",)), 3))
    seen = [[cell.box.x for cell in state.frame(sync_id, NAMES[:2]) if cell.identity == "p0"] for sync_id in range(10)]
    assert seen[:5] == [[0]] * 5
    assert seen[8:] == [[640]] * 2
    moving = [x for (x,) in seen[4:9]]
    assert moving == sorted(set(moving))


@given(layouts(), layouts(), st.integers(0, 16), st.floats(0, 1))
def test_moving_cells_stay_inside(before: Layout, after: Layout, count: int, progress: float) -> None:
    a, b = (cells(layout, NAMES[:count], 1280, 720) for layout in (before, after))
    for cell in moved(a, b, progress):
        assert cell.box.width > 0
        assert not any(value % 2 for value in cell.box)
        assert cell.box.x + cell.box.width <= 1280 + 2
        assert cell.box.y + cell.box.height <= 720 + 2
    assert moved(a, b, 1.0) == b


def test_newcomers_grow_from_their_middle() -> None:
    (cell,) = moved((), (Cell("a", Box(0, 0, 64, 64), "crop"),), 0.5)
    assert tuple(cell.box) == (16, 16, 32, 32)
