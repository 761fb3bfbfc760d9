"""What a player of LL-HLS would have shown, from parts that the relay's own segmenter cut of a painted show."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

from bench.hls_player import Fetched, Part, decoded
from bench.mix_hls import played
from relay.egress.media import AudioConfig
from relay.egress.segmenter import InitReady, PartReady, Segmenter
from relay.egress.source import Source
from tests.egress.show import STREAMS, Look, Show

FPS, SECONDS, PART_S = 30, 5, 0.3
HOLD_BACK_S = 0.9
LATENCY_S = 0.1


@pytest.fixture(scope="module")
def fetched() -> Fetched:
    """Each picture is painted with its number over FPS, and each part is fetched LATENCY_S after its last picture."""
    show = Show(Look(fps=FPS, gop=FPS))
    source, segmenter = Source(STREAMS), Segmenter(AudioConfig(b"\x11\x90"), 300_000, 1_000_000, 1_500_000)
    packets = show.packets(SECONDS * 1_000_000, lambda: show.video.pictures * 1000 // FPS)
    units = [unit for at, one in packets for unit in source.receive(one.stream, at, one.data)]
    events = [event for unit in units for event in segmenter.take(unit)]
    (init,) = (event.data for event in events if isinstance(event, InitReady))
    cut = [event for event in events if isinstance(event, PartReady)]
    painted = accumulate(event.pictures for event in cut)
    parts = [
        Part((count - 1) / FPS + LATENCY_S, event.duration / 1e6, init, event.data)
        for event, count in zip(cut, painted, strict=True)
    ]
    assert len(parts) >= 12
    return Fetched(HOLD_BACK_S, parts, joined=4)


def test_all_pictures_come_out_in_order(fetched: Fetched) -> None:
    moments = [picture.moment for _, pictures in decoded(fetched.parts) for picture in pictures]
    assert np.diff(moments) == pytest.approx(1 / FPS, abs=0.002)
    starts = [start for start, _ in decoded(fetched.parts)]
    assert starts == sorted(starts)


def test_pictures_are_as_old_as_the_hold_back_and_the_way_to_the_player(fetched: Fetched) -> None:
    found = played(fetched)
    assert found.ages == pytest.approx([HOLD_BACK_S + LATENCY_S - 1 / FPS] * len(found.ages), abs=0.005)
    assert found.stalls == 0
    assert LATENCY_S <= found.newest <= LATENCY_S + PART_S
    after = sum(part.duration for part in fetched.parts[fetched.joined :])
    assert len(found.ages) == pytest.approx((after + HOLD_BACK_S) * FPS, abs=2)


def test_a_part_that_is_late_makes_what_follows_older(fetched: Fetched) -> None:
    late = fetched.parts[8]
    parts = [*fetched.parts]
    parts[8] = Part(late.at + 2.0, late.duration, late.init, late.data)
    found = played(Fetched(HOLD_BACK_S, parts, fetched.joined))
    assert found.stalls == 1
    assert found.ages[-1] > found.ages[0] + 1.0


def test_pictures_that_cannot_be_read_are_an_error(fetched: Fetched) -> None:
    with pytest.raises(RuntimeError, match="no picture"):
        played(Fetched(HOLD_BACK_S, fetched.parts[: fetched.joined], fetched.joined))
