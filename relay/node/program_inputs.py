"""What of a room goes into its program: pure functions from the document and this node's tracks to the mix's inputs.

Everybody on air is in the picture, with a tile while there is none of him. A screen is an input of its own, named
`IDENTITY/screen`; identities have no slash. Whoever is muted is not heard, or shown as a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from relay.mix.video.assembly import VideoCodec
from relay.mix.video.program import Source
from relay.plane.contract import Kind
from relay.stage.document import Publication, RoomState
from relay.stage.live_model import LocalTrack

Heights = Callable[[int], Sequence[int]]
"""Lines of each layer of a track, 0 for one that is not known."""

ENOUGH = 0.8
"""A layer with this share of the lines that its cell has is good enough."""
WASTE = 2.5
"""A layer with this many times the lines of its cell costs more than it shows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Somebody's place in the picture; without `source` a tile."""

    name: str
    source: Source | None


@dataclass(frozen=True, slots=True)
class Voice:
    """Somebody's sound: a track, and the payload type of its Opus."""

    track: int
    payload_type: int
    muted: bool


def input_name(publication: Publication) -> str:
    """Return what layouts call a publication's input."""
    usual = publication.source in ("camera", "microphone")
    return publication.identity if usual else f"{publication.identity}/{publication.source}"


def own_inputs(identity: str) -> tuple[str, ...]:
    """Return what all inputs are called that somebody may have."""
    return identity, f"{identity}/screen"


def pictures(
    state: RoomState,
    tracks: Mapping[str, LocalTrack],
    heights: Heights,
    lines: int,
    before: Mapping[str, Picture],
) -> dict[str, Picture]:
    """Return the inputs of the picture. `lines` is its height, `before` what was returned last."""
    on_air = state.on_air()
    video = _on_air(state, on_air, "video")
    shown = {input_name(each) for each in video} | set(on_air)
    cell = lines // max(1, _rows(len(shown)))
    found = {identity: Picture(identity, None) for identity in on_air}
    for each in video:
        name, track = input_name(each), tracks.get(each.id)
        source = None
        if track is not None and not state.is_muted(each) and track.payload.codec in ("h264", "vp8"):
            known = before.get(name)
            held = known.source if known is not None else None
            current = held.layer if held is not None and held.track == track.track else None
            layer = choose_layer(track.live, len(track.rids), heights(track.track), cell, current)
            source = Source(track.track, layer, cast(VideoCodec, track.payload.codec))
        label = each.identity if each.source == "camera" else f"{each.identity} ({each.source})"
        found[name] = Picture(label, source)
    return found


def voices(state: RoomState, tracks: Mapping[str, LocalTrack]) -> dict[str, Voice]:
    """Return the inputs of the sound."""
    found = {}
    for each in _on_air(state, state.on_air(), "audio"):
        track = tracks.get(each.id)
        if track is not None and track.kind is Kind.AUDIO and track.payload.codec == "opus":
            found[input_name(each)] = Voice(track.track, track.payload.number, state.is_muted(each))
    return found


def choose_layer(live: set[int], count: int, heights: Sequence[int], wanted: int, current: int | None) -> int:
    """Return the lowest layer that fills a cell of `wanted` lines, else the highest that arrives.

    Whatever plays stays while it arrives, is not too coarse where something better arrives, and no waste: a change
    costs a keyframe.
    """
    arriving = sorted(live) or [count - 1]
    known = {layer: heights[layer] if layer < len(heights) else 0 for layer in arriving}
    fine = [layer for layer in arriving if known[layer] >= ENOUGH * wanted]
    best = fine[0] if fine else arriving[-1]
    if current is None or current not in known:
        return best
    coarse = best > current and not known[current] >= ENOUGH * wanted
    wasteful = best < current and known[current] > WASTE * wanted
    return best if coarse or wasteful else current


def _on_air(state: RoomState, on_air: Sequence[str], kind: str) -> list[Publication]:
    seated = frozenset(on_air)
    return [each for each in state.publications.values() if each.kind == kind and each.identity in seated]


def _rows(inputs: int) -> int:
    """Of a grid of so many."""
    rows = 1
    while rows * rows < inputs:
        rows += 1
    return rows
