"""What a negotiation starts from and what comes of it: the answer, and a plan of tracks or slots for the plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relay.edge.sdp import Fingerprint
from relay.plane.contract import Feedback, Kind, LayerSpec, PayloadType


@dataclass(frozen=True, slots=True)
class LocalCandidate:
    """An address of ours for `a=candidate`: numeric host, UDP port, `host` or `srflx`, priority (RFC 8445 5.1.2)."""

    host: str
    port: int
    kind: str = "host"
    priority: int = 2_130_706_431


@dataclass(frozen=True, slots=True)
class LocalEnd:
    """Our side of a session. The first candidate is the default one; put IPv4 first, some encoders read only that."""

    ufrag: str
    password: str
    fingerprints: tuple[Fingerprint, ...]
    candidates: tuple[LocalCandidate, ...]
    session_id: int
    """The number in the o= line."""
    new_ssrc: Callable[[], int] = lambda: 0
    """Gives an SSRC for each slot and for its retransmissions; only `answer_watch` calls it."""
    cname: str = "costream"


@dataclass(frozen=True, slots=True)
class NegotiationPolicy:
    """What a room wants. Codecs not named here are refused; a publisher is asked for the first common one."""

    audio_codecs: tuple[str, ...] = ("opus",)
    video_codecs: tuple[str, ...] = ("vp8", "h264", "vp9", "av1")
    max_layers: int = 4
    max_media: int = 64
    """m-lines accepted per session; those beyond are answered with port 0."""


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """An m-line on which a publisher sends. `source` is camera, screen or microphone, guessed from content and msid."""

    mid: str
    kind: Kind
    payload_types: tuple[PayloadType, ...]
    """The policy's first common codec first."""
    layers: tuple[LayerSpec, ...]
    """Lowest first (see `relay.edge.layers`); one without a rid when there is no simulcast."""
    feedback: Feedback
    source: str
    msid: str


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """An m-line on which a viewer receives. `index` counts the session's slots in the order of the offer."""

    index: int
    mid: str
    kind: Kind
    payload_types: tuple[PayloadType, ...]
    feedback: Feedback
    ssrc: int
    rtx_ssrc: int | None
    stream: str
    """The stream id the viewer sees: `slot-N`, N counted within each kind, so that the first sound and the first
    picture share a stream and play together in the simplest player."""
    cname: str


@dataclass(frozen=True, slots=True)
class Negotiated:
    """A finished negotiation. `tracks` come from `answer_publish`, `slots` from `answer_watch`; the other is empty."""

    answer: str
    remote_ufrag: str
    remote_password: str
    remote_fingerprints: tuple[Fingerprint, ...]
    dtls_role: str
    """Ours: "server" (we answered setup:passive) or "client" (the offer was passive)."""
    extensions: tuple[tuple[str, int], ...]
    """Short name (`rtp.EXTENSIONS`) and id, valid for the whole session."""
    tracks: tuple[TrackPlan, ...] = ()
    slots: tuple[SlotPlan, ...] = ()
