"""The player of LL-HLS that the bench goes by: where it begins, what it asks for, when it shows what."""

from __future__ import annotations

import m3u8
import pytest

from bench.hls_player import Playhead, first_parts, next_part, parts_of

HEAD = """#EXTM3U
#EXT-X-VERSION:9
#EXT-X-TARGETDURATION:3
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.90000
#EXT-X-PART-INF:PART-TARGET=0.30000
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-MAP:URI="init0.mp4"
#EXT-X-PART:DURATION=0.30000,URI="part7.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.30000,URI="part7.1.m4s"
#EXTINF:0.60000,
seg7.m4s
#EXT-X-PART:DURATION=0.30000,URI="part8.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.30000,URI="part8.1.m4s"
#EXTINF:0.60000,
seg8.m4s
"""
GROWING = """#EXT-X-PART:DURATION=0.30000,URI="part9.0.m4s",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.30000,URI="part9.1.m4s"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="part9.2.m4s"
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(HEAD + GROWING, {"_HLS_msn": 9, "_HLS_part": 2}), (HEAD, {"_HLS_msn": 9, "_HLS_part": 0})],
    ids=["a segment grows", "the next one comes"],
)
def test_the_part_after_the_last_is_waited_for(text: str, wanted: dict[str, int]) -> None:
    assert next_part(m3u8.loads(text)) == wanted


def test_it_begins_with_the_newest_keyframe_that_is_far_enough_back() -> None:
    listed = parts_of(m3u8.loads(HEAD + GROWING))
    assert {init for init, _ in listed} == {"init0.mp4"}
    names = [part.uri for _, part in first_parts(listed, 0.9)]
    assert names == ["part8.0.m4s", "part8.1.m4s", "part9.0.m4s", "part9.1.m4s"]


def test_it_begins_with_the_oldest_part_where_the_stream_is_short() -> None:
    listed = parts_of(m3u8.loads(HEAD))
    assert len(first_parts(listed, 9.0)) == 4


def test_parts_in_time_do_not_change_how_far_behind_it_plays() -> None:
    head = Playhead(hold_back=0.9, edge=10.0, now=100.0)
    assert head.begin == pytest.approx(9.1)
    assert head.shown_at(9.1) == pytest.approx(100.0)
    head.came(10.0, now=100.3)
    head.came(10.3, now=101.1)  # its time is 101.2
    assert head.stalls == 0
    assert head.shown_at(10.3) == pytest.approx(101.2)


def test_a_late_part_makes_it_stand_still_and_play_later_from_then_on() -> None:
    head = Playhead(hold_back=0.9, edge=10.0, now=100.0)
    head.came(10.0, now=101.4)  # its time was 100.9
    assert head.stalls == 1
    assert head.shown_at(10.0) == pytest.approx(101.4)
    head.came(10.3, now=101.5)
    assert head.stalls == 1
    assert head.shown_at(10.3) == pytest.approx(101.7)
