"""Which simulcast layers an offer has, lowest first.

The order comes from, in this sequence: `max-width` × `max-height` of the rid lines when all have them; a known family
of rid names (q h f, low mid high, …); the order of the list, whose first stream is the most wanted one (RFC 8853 5.2),
taken as the highest. The last rule is right for OBS, which calls its full picture "0" and smaller ones "1", "2".
"""

from __future__ import annotations

from relay.edge.sdp import Media
from relay.plane.contract import LayerSpec

_FAMILIES = (
    ("q", "h", "f"),
    ("l", "m", "h"),
    ("low", "mid", "high"),
    ("low", "medium", "high"),
    ("lo", "mid", "hi"),
    ("r0", "r1", "r2", "r3"),
)


def offered_rids(media: Media, most: int) -> tuple[str, ...]:
    """Return the rids the answer accepts, at most `most`, in the offer's order. Empty without rids."""
    if media.simulcast_send:
        return tuple(stream.rid for stream in media.simulcast_send[:most])
    sent = [rid.name for rid in media.rids if rid.direction == "send"]
    return tuple(sent) if len(sent) == 1 else ()


def layers_of(media: Media, most: int) -> tuple[LayerSpec, ...]:
    """Return the layers, lowest first: by rid, else by the SSRCs of a SIM group, else the one stream."""
    rids = offered_rids(media, most)
    if rids:
        return tuple(LayerSpec(rid=rid) for rid in _lowest_first(media, rids))
    repairs = {group.ssrcs[0]: group.ssrcs[1] for group in media.ssrc_groups if _is_pair(group.semantics, group.ssrcs)}
    for group in media.ssrc_groups:
        if group.semantics == "SIM":
            # Browsers before rid list their encodings from the smallest to the largest.
            return tuple(LayerSpec(ssrc=ssrc, rtx_ssrc=repairs.get(ssrc)) for ssrc in group.ssrcs[:most])
    repairing = set(repairs.values())
    ssrc = next((s.number for s in media.ssrcs if s.number not in repairing), None)
    return (LayerSpec(ssrc=ssrc, rtx_ssrc=None if ssrc is None else repairs.get(ssrc)),)


def _is_pair(semantics: str, ssrcs: tuple[int, ...]) -> bool:
    return semantics == "FID" and len(ssrcs) == 2


def _lowest_first(media: Media, rids: tuple[str, ...]) -> list[str]:
    sizes = {
        rid.name: _pixels(rid.restrictions.get("max-width", ""), rid.restrictions.get("max-height", ""))
        for rid in media.rids
    }
    if all(sizes[rid] for rid in rids) and len({sizes[rid] for rid in rids}) == len(rids):
        return sorted(rids, key=lambda rid: sizes[rid])
    for family in _FAMILIES:
        if all(rid in family for rid in rids):
            return sorted(rids, key=family.index)
    return list(reversed(rids))


def _pixels(width: str, height: str) -> int:
    sides = [int(side) for side in (width, height) if side.isascii() and side.isdigit() and len(side) <= 5]
    return sides[0] * sides[1] if len(sides) == 2 else 0
