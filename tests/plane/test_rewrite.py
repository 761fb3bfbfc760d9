"""The rewriter: vectors of single cases, then whatever mixture of splices, reorder, loss, drops and duplicates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.plane.reference.descriptors import Descriptor, inspect_vp8, inspect_vp9
from relay.plane.reference.rewrite import MAX_DROPS, MAX_GAP, MAX_LATE, PictureIds, Rewriter
from relay.plane.reference.rtp import seq_delta, timestamp_delta

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rewrite.json").read_text())
M16, M32 = 0xFFFF, 0xFFFFFFFF


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    rewriter = Rewriter(*vector["first"])
    for number, (call, *arguments) in enumerate(vector["steps"]):
        if call == "splice":
            rewriter.splice(*arguments)
        elif call == "drop":
            rewriter.drop(*arguments)
        elif call == "timestamp_out":
            assert rewriter.timestamp_out(arguments[0]) == arguments[1], number
        else:
            *given_, wanted = arguments
            got = rewriter.rewrite(*given_)
            assert (None if got is None else list(got)) == wanted, number


class Model:
    """Feeds a rewriter, knows the true (unwrapped) input numbers, and judges each output."""

    def __init__(self, first_seq: int, first_timestamp: int) -> None:
        self.rewriter = Rewriter(first_seq, first_timestamp)
        self.now = 0
        self.outputs: dict[int, tuple[int, int]] = {}  # unwrapped output number -> (epoch, input number)
        self.epoch = 0
        self.high = -1  # newest input number of this epoch, from 0
        self.base_seq = self.base_ts = 0
        self.dropped: set[int] = set()
        self.floor = 0  # oldest input number that may still be sent
        self.top = first_seq - 1  # newest unwrapped output number
        self.last_ts = first_timestamp
        self.sent_any = False

    def splice(self, seq: int, ts: int, clock: int, wait: int, alignment: int | None) -> None:
        self.now += wait
        self.epoch += 1
        self.base_seq, self.base_ts = seq, ts
        self.high = -1
        self.floor = 0
        self.dropped = set()
        self.rewriter.splice(seq, ts, self.now, clock, alignment)
        self.feed(1)

    def feed(self, step: int) -> None:
        """The next input packet, `step` after the newest."""
        number = self.high + step
        expected = 1 if step > MAX_GAP else step
        got = self.send(number)
        assert got is not None
        if step > MAX_GAP:
            self.floor = number
        seq, ts = got
        assert seq == (self.top + expected) & M16
        if self.sent_any:
            assert timestamp_delta(ts, self.last_ts) >= 0
        self.top += expected
        self.note(self.top, number)
        self.high = number
        self.last_ts, self.sent_any = ts, True

    def late(self, back: int) -> None:
        """A packet `back` before the newest: lost until now, a duplicate, or dropped before."""
        number = self.high - back
        got = self.send(number)
        if got is None:
            assert number < self.floor or number in self.dropped or back > MAX_LATE
            return
        assert number >= self.floor
        assert number not in self.dropped
        assert 0 <= back <= MAX_LATE
        self.note(self.top + seq_delta(got[0], self.top & M16), number)

    def drop(self, step: int) -> None:
        """The next packet, `step` after the newest, is left out; the holes before it stay open."""
        self.high += step
        if step > MAX_GAP:
            self.floor = self.high
        self.rewriter.drop((self.base_seq + self.high) & M16)
        self.dropped.add(self.high)
        self.top += 0 if step > MAX_GAP else step - 1

    def send(self, number: int) -> tuple[int, int] | None:
        timestamp = self.base_ts + 3000 * (number // 3)
        return self.rewriter.rewrite((self.base_seq + number) & M16, timestamp & M32, self.now)

    def note(self, output: int, number: int) -> None:
        """An output number belongs to one input packet, and order is kept within an epoch."""
        assert self.outputs.setdefault(output, (self.epoch, number)) == (self.epoch, number)
        for near in (output - 1, output + 1):
            if near in self.outputs:
                assert (self.outputs[near] < (self.epoch, number)) == (near < output)


SEQS = st.one_of(st.integers(0, M16), st.integers(M16 - 5, M16))
TIMESTAMPS = st.one_of(st.integers(0, M32), st.integers(M32 - 5000, M32))
STEPS = st.one_of(
    st.tuples(st.just("feed"), st.just(1)),
    st.tuples(st.just("feed"), st.just(1)),
    st.tuples(st.just("feed"), st.integers(1, 4)),
    st.tuples(st.just("feed"), st.integers(MAX_GAP - 1, MAX_GAP + 2)),
    st.tuples(st.just("late"), st.integers(0, 12)),
    st.tuples(st.just("late"), st.integers(0, 0x7FFF)),
    st.tuples(st.just("drop"), st.just(1)),
    st.tuples(st.just("drop"), st.integers(1, 4)),
    st.tuples(st.just("drop"), st.integers(MAX_GAP - 1, MAX_GAP + 2)),
    st.tuples(st.just("wait"), st.integers(0, 100_000)),
    st.tuples(
        st.just("splice"),
        SEQS,
        TIMESTAMPS,
        st.sampled_from((48000, 90000)),
        st.integers(0, 10**11),
        st.one_of(st.none(), st.integers(-(2**31), 2**31)),
    ),
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(SEQS, TIMESTAMPS, SEQS, TIMESTAMPS, st.lists(STEPS, max_size=60))
def test_any_mixture_keeps_numbers_apart_and_in_order(
    out_seq: int, out_ts: int, seq: int, ts: int, steps: list[tuple[Any, ...]]
) -> None:
    model = Model(out_seq, out_ts)
    model.splice(seq, ts, 90000, 0, None)
    assert (model.top & M16, model.last_ts) == (out_seq, out_ts)
    for name, *arguments in steps:
        if name == "wait":
            model.now += arguments[0]
        else:
            getattr(model, name)(*arguments)
        assert model.rewriter.last_seq == model.top & M16


def test_in_order_input_counts_through_both_wraps() -> None:
    rewriter = Rewriter(65000, M32 - 100_000)
    rewriter.splice(40000, 7, 0, 90000)
    for number in range(70_000):
        got = rewriter.rewrite((40000 + number) & M16, (7 + 30 * number) & M32, number)
        assert got == ((65000 + number) & M16, (M32 - 100_000 + 30 * number) & M32)


def test_a_late_packet_maps_right_behind_many_drops_and_is_refused_behind_too_many() -> None:
    rewriter = Rewriter(1, 0)
    rewriter.splice(10, 0, 0, 90000)
    assert rewriter.rewrite(10, 0, 0) == (1, 0)
    for number in range(MAX_DROPS):
        rewriter.drop(12 + number)
    assert rewriter.rewrite(12 + MAX_DROPS, 0, 0) == (3, 0)
    assert rewriter.rewrite(11, 0, 0) == (2, 0)
    rewriter.drop(13 + MAX_DROPS)
    assert rewriter.rewrite(11, 0, 0) is None
    assert rewriter.rewrite(12 + MAX_DROPS, 0, 0) == (3, 0)


def vp8(picture_id: int, bits: int, tl0: int = -1) -> Descriptor:
    """Build a payload and inspect it, so that offsets are those of a real packet."""
    wire = b"" if not bits else (picture_id | 0x8000).to_bytes(2, "big") if bits == 15 else bytes((picture_id,))
    flags = (0x80 if bits else 0) | (0x40 if tl0 >= 0 else 0)
    payload = bytes((0x90, flags)) + wire + (bytes((tl0,)) if tl0 >= 0 else b"") + b"\x01data"
    return inspect_vp8(payload, 0, len(payload))


def test_picture_ids_continue_across_a_splice_and_wrap() -> None:
    ids = PictureIds()
    assert ids.patch(vp8(0x7FFE, 15, 254)).hex() == "fffefe"
    assert ids.patch(vp8(0x7FFF, 15, 255)).hex() == "ffffff"
    assert ids.patch(vp8(0x7FFE, 15, 254)).hex() == "fffefe"
    ids.splice(vp8(500, 15, 9))
    assert ids.patch(vp8(500, 15, 9)).hex() == "800000"
    assert ids.patch(vp8(501, 15, 10)).hex() == "800101"
    ids.splice(vp8(3, 7, 9))
    assert ids.patch(vp8(3, 7, 9)).hex() == "0202"
    assert ids.patch(vp8(4, 7)).hex() == "03"
    ids.splice(vp8(0, 0, 200))
    assert ids.patch(vp8(0, 0, 200)).hex() == "03"
    ids.splice(vp8(1, 15))
    assert ids.patch(vp8(1, 15)).hex() == "8004"
    assert ids.patch(vp8(0, 0)) == b""


@pytest.mark.parametrize(
    ("payload", "patched"),
    [
        ("ac8005e00901ff", "ac8001e00201ff"),  # 15 bits, layer octet, TL0PICIDX
        ("ac05e00901ff", "ac01e00201ff"),  # 7 bits, the same
        ("bc8005e001ff", "bc8001e001ff"),  # flexible mode: no TL0PICIDX
        ("8c0501ff", "8c0101ff"),  # no layers
        ("2ce00901ff", "2ce00201ff"),  # no picture id
        ("0c01ff", "0c01ff"),
    ],
)
def test_vp9_ids_are_patched_around_the_layer_octet(payload: str, patched: str) -> None:
    data = bytes.fromhex(payload)
    ids = PictureIds()
    for start in ("ac8000e00101ff", payload):
        first = bytes.fromhex(start)
        descriptor = inspect_vp9(first, 0, len(first))
        ids.splice(descriptor)
        patch = ids.patch(descriptor)
    assert len(patch) <= len(data)
    at = descriptor.patch_offset
    assert (data[:at] + patch + data[at + len(patch) :]).hex() == patched


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from((7, 15)), st.integers(0, 0x7FFF), st.integers(0, 255), st.integers(1, 6)),
        min_size=1,
        max_size=6,
    )
)
def test_picture_ids_of_in_order_frames_step_by_one(inputs: list[tuple[int, int, int, int]]) -> None:
    ids = PictureIds()
    last: tuple[int, int] | None = None
    for bits, first_id, first_tl0, frames in inputs:
        mask = 0x7FFF if bits == 15 else 0x7F
        ids.splice(vp8(first_id & mask, bits, first_tl0))
        for frame in range(frames):
            patch = ids.patch(vp8((first_id + frame) & mask, bits, (first_tl0 + frame) & 0xFF))
            assert len(patch) == (3 if bits == 15 else 2)
            got = int.from_bytes(patch[:-1], "big") & mask, patch[-1]
            if last is not None:
                assert got == ((last[0] + 1) & mask, (last[1] + 1) & 0xFF)
            last = got
