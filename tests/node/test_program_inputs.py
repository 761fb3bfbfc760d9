"""What goes into a program: who is on air, with what, in which layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mix.video.program import Source
from relay.node.program_inputs import Picture, Voice, choose_layer, pictures, voices
from relay.plane.contract import Kind, PayloadType
from relay.stage import room as rooms
from relay.stage import seats
from relay.stage.document import RoomState
from relay.stage.live_model import LocalTrack
from tests.stage.rooms import GUEST, OTHER, OWNER, new_room, publish

VP8, VP9, H264 = PayloadType(96, "vp8", 90_000), PayloadType(98, "vp9", 90_000), PayloadType(102, "h264", 90_000)
OPUS = PayloadType(111, "opus", 48_000)
HEIGHTS = {1: [180, 360, 720], 2: [360]}


def heights(track: int) -> list[int]:
    return HEIGHTS.get(track, [])


def track(publication: str, handle: int, payload: PayloadType = VP8, live: tuple[int, ...] = (0,)) -> LocalTrack:
    kind = Kind.AUDIO if payload is OPUS else Kind.VIDEO
    rids = ("q", "h", "f") if len(live) > 1 else ("",)
    return LocalTrack(publication, handle, kind, rids, payload, set(live))


def stage() -> RoomState:
    """Gus with camera, screen and microphone, Greta with a microphone, Olga backstage with a camera."""
    state, _ = publish(new_room(), GUEST)
    state, _ = publish(state, GUEST, source="screen", publication="gus-screen")
    state, _ = publish(state, GUEST, kind="audio", source="microphone")
    state, _ = publish(state, OTHER, kind="audio", source="microphone")
    state, _ = publish(state, OWNER)
    return seats.set_seat(state, OWNER, "olga", "backstage", 1.0)[0]


def test_who_is_on_air_is_in_the_picture_with_his_screen_beside_him() -> None:
    tracks = {
        "gus-video": track("gus-video", 1, live=(0, 1, 2)),
        "gus-screen": track("gus-screen", 2, H264),
        "olga-video": track("olga-video", 3),
        "gus-audio": track("gus-audio", 4, OPUS),
    }
    found = pictures(stage(), tracks, heights, 720, {})
    assert found == {
        "gus": Picture("gus", Source(1, 1, "vp8")),
        "greta": Picture("greta", None),
        "gus/screen": Picture("gus (screen)", Source(2, 0, "h264")),
    }
    assert list(found) == ["gus", "greta", "gus/screen"]
    assert voices(stage(), tracks) == {"gus": Voice(4, 111, False)}


def test_who_is_muted_away_or_in_another_codec_is_a_tile() -> None:
    state = stage()
    camera = {"gus-video": track("gus-video", 1)}
    muted, _ = rooms.mute(state, OWNER, "gus", audio=True, video=True)
    assert pictures(muted, camera, heights, 720, {})["gus"].source is None
    assert voices(muted, {"gus-audio": track("gus-audio", 4, OPUS)}) == {"gus": Voice(4, 111, True)}
    assert pictures(state, {}, heights, 720, {})["gus"].source is None
    assert pictures(state, {"gus-video": track("gus-video", 1, VP9)}, heights, 720, {})["gus"].source is None


def test_an_empty_stage_has_no_inputs() -> None:
    assert pictures(new_room(), {}, heights, 720, {}) == {}
    assert voices(new_room(), {}) == {}


@pytest.mark.parametrize(
    ("live", "lines", "wanted", "current", "layer"),
    [
        ({0, 1, 2}, [180, 360, 720], 720, None, 2),
        ({0, 1, 2}, [180, 360, 720], 360, None, 1),
        ({0, 1, 2}, [180, 360, 720], 240, None, 1),
        ({0, 1, 2}, [180, 360, 720], 200, None, 0),
        ({0, 1}, [180, 360, 720], 720, None, 1),  # the best that arrives
        ({0, 1, 2}, [0, 0, 0], 240, None, 2),  # nothing is known: the best
        (set(), [180, 360, 720], 240, None, 2),  # nothing arrives yet
        ({0, 1, 2}, [180, 360, 720], 360, 2, 2),  # more than needed, but not by far
        ({0, 1, 2}, [180, 360, 720], 180, 2, 0),  # a waste
        ({0, 1, 2}, [180, 360, 720], 360, 0, 1),  # too coarse
        ({0, 2}, [180, 360, 720], 360, 1, 2),  # what played is gone
    ],
)
def test_layers_fill_their_cells(
    live: set[int], lines: list[int], wanted: int, current: int | None, layer: int
) -> None:
    assert choose_layer(live, 3, lines, wanted, current) == layer


@given(
    st.sets(st.integers(0, 3)),
    st.lists(st.integers(0, 2000), max_size=4),
    st.integers(1, 2160),
    st.none() | st.integers(0, 3),
)
def test_the_choice_is_a_layer_that_arrives_and_stays(
    live: set[int], lines: list[int], wanted: int, current: int | None
) -> None:
    chosen = choose_layer(live, 4, lines, wanted, current)
    assert chosen in live or (not live and chosen == 3)
    assert choose_layer(live, 4, lines, wanted, chosen) == chosen


def test_a_track_that_comes_under_another_handle_is_another_source() -> None:
    state = stage()
    before = pictures(state, {"gus-video": track("gus-video", 1, live=(0, 1, 2))}, heights, 180, {})
    assert before["gus"].source == Source(1, 0, "vp8")
    after = pictures(state, {"gus-video": track("gus-video", 9, live=(0, 1, 2))}, heights, 180, before)
    assert after["gus"].source == Source(9, 2, "vp8")
    assert after["greta"] == before["greta"]
    assert replace(after["gus"], source=None) == Picture("gus", None)
