"""Payload descriptors: vectors of each codec, and bytes of any kind."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.plane.reference.descriptors import OPAQUE, Codec, Descriptor, inspect, inspector

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "descriptors.json").read_text())
SEEDS = [(Codec(v["codec"]), bytes.fromhex(v["payload"])) for v in VECTORS]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vectors(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])
    found = inspect(Codec(vector["codec"]), b"head" + payload + b"tail-of-a-packet", 4, 4 + len(payload))
    assert asdict(found) == asdict(Descriptor()) | vector["descriptor"]


def test_opaque_is_no_place_to_begin() -> None:
    assert not OPAQUE.is_keyframe_start
    assert Descriptor() == OPAQUE


@pytest.mark.parametrize(("codec", "payload"), SEEDS)
def test_every_truncation_of_a_video_start_is_survived(codec: Codec, payload: bytes) -> None:
    look = inspector(codec)
    for end in range(len(payload) + 1):
        found = look(payload, 0, end)
        assert found == look(payload[:end], 0, end), "octets beyond the payload's end must not matter"


@settings(max_examples=400)
@given(st.sampled_from(list(Codec)), st.binary(max_size=40), st.integers(0, 5), st.integers(0, 45))
def test_any_bytes_and_any_span_are_survived(codec: Codec, data: bytes, start: int, end: int) -> None:
    check(codec, data, start, end)


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 255)), max_size=3))
def test_mutated_payloads_are_survived(seed: tuple[Codec, bytes], changes: list[tuple[int, int]]) -> None:
    codec, payload = seed
    mutated = bytearray(payload)
    for position, value in changes:
        if position < len(mutated):
            mutated[position] = value
    check(codec, bytes(mutated), 0, len(mutated))


def check(codec: Codec, data: bytes, start: int, end: int) -> None:
    found = inspect(codec, data, start, end)
    assert found.is_frame_start or not found.is_keyframe_start
    assert 0 <= found.temporal_id <= 7
    assert 0 <= found.spatial_id <= 7
    assert found.picture_id_bits in (0, 7, 15)
    assert -1 <= found.picture_id < 1 << found.picture_id_bits
    patched = (found.picture_id_bits + 1) // 8 + (found.tl0_pic_idx >= 0)
    if patched:
        assert start + found.patch_offset + patched < end
