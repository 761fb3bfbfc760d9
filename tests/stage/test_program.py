"""The program in the room's document: who may, what is kept, and how a node's part of it is fenced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.errors import BadRequest, Conflict, Forbidden, NotFound
from relay.ids import make_sync_id
from relay.stage import people, publications
from relay.stage import program as programs
from relay.stage.document import Publication, RoomState
from relay.stage.layout import Layout, Overlays, Rectangle, Score
from relay.stage.permissions import Actor, Role

OWNER, GUEST = Actor("alice", Role.OWNER), Actor("bob", Role.GUEST)
NOW = 1_000.0
EMPTY = RoomState("demo", NOW)


def on(state: RoomState = EMPTY, **wanted: object) -> RoomState:
    return programs.switch_on(state, OWNER, NOW, **wanted)[0]  # type: ignore[arg-type]


def at(seconds: float) -> int:
    return make_sync_id(int((NOW + seconds) * 1000), 0)


def published(state: RoomState, node: str = "n1", epoch: int = 1, kind: str = "video") -> RoomState:
    names = {"publication": f"p-{kind}-{node}", "node": node, "session": f"program~{node}"}
    return programs.publish(state, NOW, kind=kind, codec="vp8", layers=("",), epoch=epoch, **names)[0]  # type: ignore[arg-type]


def test_it_is_switched_on_once_changed_and_read_back() -> None:
    state, events = programs.switch_on(EMPTY, OWNER, NOW, form=programs.Form(640, 360, 15), names=False)
    assert [name for name, _ in events] == ["program.started"]
    assert RoomState.from_json(state.to_json()) == state
    assert programs.switch_on(state, OWNER, NOW + 1, names=False) == (state, [])
    state, events = programs.switch_on(state, OWNER, NOW + 1, layout=Layout("speaker", ("bob",)))
    assert [name for name, _ in events] == ["program.changed"]
    view = programs.program_view(state)
    assert (view["width"], view["names"], view["layout"]["kind"], view["pending"]) == (640, False, "speaker", [])
    assert programs.switch_on(state, OWNER, NOW + 2, layout=Layout("speaker", ("bob",))) == (state, [])


def test_only_the_crew_may() -> None:
    for call in (
        lambda: programs.switch_on(EMPTY, GUEST, NOW),
        lambda: programs.switch_off(on(), GUEST, NOW),
        lambda: programs.change_layout(on(), GUEST, NOW, Layout()),
    ):
        with pytest.raises(Forbidden):
            call()
    with pytest.raises(NotFound):
        programs.switch_off(EMPTY, OWNER, NOW)
    with pytest.raises(NotFound):
        programs.change_layout(EMPTY, OWNER, NOW, Layout())


@pytest.mark.parametrize(
    "form",
    [
        programs.Form(640),
        programs.Form(650, 360),
        programs.Form(640, 361),
        programs.Form(fps=121),
        programs.Form(bitrate_bps=1),
    ],
)
def test_a_picture_that_cannot_be_is_refused(form: programs.Form) -> None:
    with pytest.raises(BadRequest):
        programs.switch_on(EMPTY, OWNER, NOW, form=form)
    with pytest.raises(Conflict):
        programs.switch_on(replace(EMPTY, codecs=("opus", "vp8")), OWNER, NOW, form=programs.Form(codec="h264"))


def test_layouts_wait_for_their_time_and_later_ones_win() -> None:
    state = on()
    for seconds, kind in ((10, "speaker"), (5, "picture_in_picture")):
        state, _ = programs.change_layout(state, OWNER, NOW, Layout(kind), at=at(seconds), animate=3)  # type: ignore[arg-type]
    assert state.program is not None
    assert [change.layout.kind for change in state.program.layouts] == ["grid", "picture_in_picture", "speaker"]
    numbers = [change.number for change in state.program.layouts]
    assert len(set(numbers)) == 3
    state, events = programs.change_layout(state, OWNER, NOW + 7, Layout(fit="crop"))
    assert state.program is not None
    assert [change.layout.kind for change in state.program.layouts] == ["grid", "speaker"]
    assert state.program.layouts[0].layout.fit == "crop"
    assert state.program.layouts[0].number not in numbers
    assert events[0][1]["at"] is None


def test_a_layout_that_cannot_be_or_is_too_far_ahead_is_refused() -> None:
    outside = Layout("custom", rectangles=(Rectangle("a", 0.6, 0, 0.5, 1),))
    for layout, sync_id in ((outside, 0), (Layout(), at(7200)), (Layout(), -1)):
        with pytest.raises(BadRequest):
            programs.change_layout(on(), OWNER, NOW, layout, at=sync_id)
    state = on()
    for seconds in range(1, 65):
        state, _ = programs.change_layout(state, OWNER, NOW, Layout(), at=at(seconds))
    with pytest.raises(BadRequest, match="waiting"):
        programs.change_layout(state, OWNER, NOW, Layout(), at=at(65))


def test_overlays_come_from_elsewhere_too() -> None:
    drawn = Overlays(score=Score(1, 2))
    state, events = programs.change_overlays(on(), drawn, NOW, at=at(1))
    assert state.program is not None
    assert [change.overlays for change in state.program.overlays] == [Overlays(), drawn]
    assert events == []
    assert programs.change_overlays(state, drawn, NOW, at=at(1)) == (state, [])
    assert programs.change_overlays(EMPTY, drawn, NOW) == (EMPTY, [])


def test_a_node_mixes_under_its_lease_and_the_next_resumes_what_it_published() -> None:
    state, events = programs.take(on(), "n1", 5)
    assert events == [("program.mixed_by", {"node": "n1"})]
    assert programs.take(state, "n1", 5) == (state, [])
    with pytest.raises(Conflict, match="later epoch"):
        programs.take(state, "n2", 4)
    heard = published(state, kind="audio")
    assert programs.program_view(heard)["state"] == "waiting", "its picture is still to come"
    state = published(published(state), kind="audio")
    assert programs.program_view(state)["state"] == "live"
    assert {each.identity for each in state.publications.values()} == {"program"}
    state, events = programs.let_go(state, "n1", NOW + 1)
    assert [name for name, _ in events] == ["publication.paused", "publication.paused", "program.mixed_by"]
    assert programs.let_go(state, "n1", NOW + 1) == (state, [])
    state = published(programs.take(state, "n2", 6)[0], "n2", 7)
    video = programs.publications_of(state)["video"]
    assert (video.id, video.node, video.state) == ("p-video-n1", "n2", "live")
    assert programs.let_go(state, "n1", NOW)[0].publications["p-video-n1"].state == "live", "that is n2's now"
    with pytest.raises(Conflict):
        published(state, "n1", 5)


def test_off_means_that_nothing_is_left_and_nothing_comes_late() -> None:
    state = published(published(on()), kind="audio")
    state, events = programs.switch_off(state, OWNER, NOW)
    assert (state.program, state.publications) == (None, {})
    assert [name for name, _ in events] == ["publication.ended", "publication.ended", "program.stopped"]
    assert published(state) == state
    assert programs.take(state, "n1", 1) == (state, [])


def test_its_name_is_its_own() -> None:
    with pytest.raises(Forbidden, match="program"):
        people.join(EMPTY, Actor("program", Role.GUEST), NOW, "s")
    state = published(on())
    with pytest.raises(Conflict, match="switched off"):
        publications.end_publication(state, OWNER, "p-video-n1", NOW)
    muted, _ = publications.mute_publication(state, OWNER, "p-video-n1", muted=True)
    assert muted.is_muted(muted.publications["p-video-n1"])
    assert isinstance(muted.publications["p-video-n1"], Publication)
