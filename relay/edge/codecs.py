"""Which of the offered payload types a session keeps, and how the answer describes them. Nothing is ever decoded, so
any H264 profile will do; red, FEC, comfort noise and telephone events are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from relay.edge.sdp import Format, Media
from relay.plane.contract import Feedback, PayloadType

_CLOCKS = {"opus": (48_000, 2), "vp8": (90_000, 1), "vp9": (90_000, 1), "h264": (90_000, 1), "av1": (90_000, 1)}
_NAMES = {"opus": "opus", "vp8": "VP8", "vp9": "VP9", "h264": "H264", "av1": "AV1", "rtx": "rtx"}
_PROFILE_LEVEL = re.compile(r"[0-9a-f]{6}")
_SIMPLE_VALUE = re.compile(r"[0-9A-Za-z.]{1,32}")
# RFC 6184 8.1 makes Baseline 1.0 the default; every browser that leaves it out means Constrained Baseline.
_H264_DEFAULT = "42e01f"
_MIRRORED = {
    "opus": ("minptime", "useinbandfec", "stereo", "usedtx"),
    "vp9": ("profile-id",),
    "av1": ("level-idx", "profile", "tier"),
}
_FEEDBACK = {
    "audio": ("nack", "transport-cc"),
    "video": ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"),
}


@dataclass(frozen=True, slots=True)
class ChosenFormat:
    """A payload type of the answer, with the text of its rtpmap, fmtp (empty: none) and rtcp-fb."""

    payload_type: PayloadType
    rtpmap: str
    fmtp: str
    feedback: tuple[str, ...]


def choose(media: Media, codecs: Sequence[str]) -> tuple[ChosenFormat, ...]:
    """Keep the offered formats of `codecs`, in that order, each followed by its retransmission format.

    Formats of one codec keep the offer's order, except that the H264 which most viewers can play comes first:
    packetization mode 1, Constrained Baseline. Empty when nothing is common.
    """
    kept: list[tuple[tuple[int, int, int], ChosenFormat]] = []
    for place, offered in enumerate(media.formats):
        if offered.codec not in codecs or _CLOCKS.get(offered.codec) != (offered.clock_hz, offered.channels):
            continue
        profile = _profile(offered)
        if profile is not None:
            rank = (codecs.index(offered.codec), _unlikeliness(offered.codec, profile), place)
            kept.append((rank, _chosen(media.kind, offered, profile)))
    kept.sort(key=lambda entry: entry[0])
    repairs = _repairs(media)
    chosen: list[ChosenFormat] = []
    for _, primary in kept:
        chosen.append(primary)
        repair = repairs.get(primary.payload_type.number)
        if repair is not None and repair.clock_hz == primary.payload_type.clock_hz:
            chosen.append(_retransmission(repair, primary.payload_type))
    return tuple(chosen)


def feedback_of(chosen: Sequence[ChosenFormat]) -> Feedback:
    """Sum up what an m-line's formats negotiated."""
    said = {kind for entry in chosen for kind in entry.feedback}
    return Feedback(
        nack="nack" in said,
        pli="nack pli" in said,
        fir="ccm fir" in said,
        remb="goog-remb" in said,
        transport_cc="transport-cc" in said,
    )


def slot_payload_type(slot_types: Sequence[PayloadType], track_type: PayloadType) -> PayloadType | None:
    """Find the slot's payload type that can carry a track's codec; None when the viewer has none.

    H264: the same profile_idc and packetization mode, the same constraints preferred; else any with mode 1, which may
    carry what mode 0 carries (RFC 6184 6.3); a decoder that takes one profile mostly takes the others. A mode 1 stream
    never goes out as mode 0. VP9 and AV1: the same profile.
    """
    candidates = [t for t in slot_types if t.codec == track_type.codec and t.clock_hz == track_type.clock_hz]
    if track_type.codec != "h264":
        return next((t for t in candidates if t.profile == track_type.profile), None)
    level_id, _, mode = track_type.profile.partition("/")
    same = [t for t in candidates if t.profile[:2] == level_id[:2] and t.profile.endswith("/" + mode)]
    same.sort(key=lambda t: (t.profile[:4] != level_id[:4], _constrained(t.profile) != _constrained(level_id)))
    fallback = [t for t in candidates if t.profile.endswith("/1")]
    return next(iter(same + fallback), None)


def _constrained(profile: str) -> bool:
    """Whether constraint_set1 makes it Constrained Baseline (RFC 6184 8.1)."""
    return bool(int(profile[2:4], 16) & 0x40)


def _profile(offered: Format) -> str | None:
    """Return the contract's profile, None when the parameters make no sense."""
    parameters = offered.parameters
    if offered.codec == "h264":
        level_id = parameters.get("profile-level-id", _H264_DEFAULT).lower()
        mode = parameters.get("packetization-mode", "0")
        return f"{level_id}/{mode}" if _PROFILE_LEVEL.fullmatch(level_id) and mode in ("0", "1") else None
    key = {"vp9": "profile-id", "av1": "profile"}.get(offered.codec)
    if key is None:
        return ""
    profile = parameters.get(key, "0")
    return profile if profile in ("0", "1", "2", "3") else None


def _unlikeliness(codec: str, profile: str) -> int:
    if codec != "h264":
        return 0
    return (0 if profile.endswith("/1") else 2) + (0 if profile.startswith("42e0") else 1)


def _chosen(kind: str, offered: Format, profile: str) -> ChosenFormat:
    encoding = f"{_NAMES[offered.codec]}/{offered.clock_hz}" + ("/2" if offered.channels == 2 else "")
    return ChosenFormat(
        payload_type=PayloadType(offered.number, offered.codec, offered.clock_hz, profile=profile),
        rtpmap=encoding,
        fmtp=_answered_parameters(offered, profile),
        feedback=tuple(f for f in _FEEDBACK[kind] if f in offered.feedback),
    )


def _answered_parameters(offered: Format, profile: str) -> str:
    if offered.codec == "h264":
        level_id, _, mode = profile.partition("/")
        asymmetry = "level-asymmetry-allowed=1;" if offered.parameters.get("level-asymmetry-allowed") == "1" else ""
        return f"{asymmetry}packetization-mode={mode};profile-level-id={level_id}"
    parameters = dict(offered.parameters)
    if parameters.get("sprop-stereo") == "1":
        # The sender has two channels (RFC 7587 6.1): ask for both, or a browser mixes them down.
        parameters["stereo"] = "1"
    names = _MIRRORED.get(offered.codec, ())
    return ";".join(f"{n}={parameters[n]}" for n in names if _SIMPLE_VALUE.fullmatch(parameters.get(n, "")))


def _repairs(media: Media) -> dict[int, Format]:
    """Retransmission formats by the payload type that they repair."""
    repairs: dict[int, Format] = {}
    for offered in media.formats:
        apt = offered.parameters.get("apt", "")
        if offered.codec == "rtx" and apt.isascii() and apt.isdigit() and len(apt) <= 3:
            repairs.setdefault(int(apt), offered)
    return repairs


def _retransmission(repair: Format, primary: PayloadType) -> ChosenFormat:
    return ChosenFormat(
        payload_type=PayloadType(repair.number, "rtx", repair.clock_hz, apt=primary.number),
        rtpmap=f"rtx/{repair.clock_hz}",
        fmtp=f"apt={primary.number}",
        feedback=(),
    )
