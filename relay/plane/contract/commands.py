"""What Python may ask of the plane."""

from __future__ import annotations

from dataclasses import dataclass

from relay.plane.contract.media import NO_FEEDBACK, Feedback, Kind, LayerSpec, PayloadType, SrtpProfile


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Answer STUN checks for `ufrag` with `password` (ICE-lite, RFC 8445 2.5). Extension ids hold for the whole
    session because its m-lines are bundled (RFC 9143 9). `extensions` maps a short name of `rtp.EXTENSIONS` to its id.
    The session lives on `shard`, whose address its candidates have to name; tracks and slots may be bound across.
    """

    session: int
    ufrag: str
    password: str
    extensions: tuple[tuple[str, int], ...] = ()
    shard: int = 0


@dataclass(frozen=True, slots=True)
class RestartIce:
    """New local credentials. The old ones stay good until the first check with the new ones (RFC 8445 9)."""

    session: int
    ufrag: str
    password: str


@dataclass(frozen=True, slots=True)
class SetKeys:
    """SRTP keys from the DTLS handshake, each master key followed by its salt. May come once per session."""

    session: int
    profile: SrtpProfile
    tx_key: bytes
    rx_key: bytes


@dataclass(frozen=True, slots=True)
class SendDtls:
    """Send a DTLS record to the session's selected address. Dropped and counted while there is none."""

    session: int
    datagram: bytes


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Forget the session, its tracks and its slots. Sends RTCP BYE for its slots when keys are set."""

    session: int


@dataclass(frozen=True, slots=True)
class AddTrack:
    """Receive an m-line of `session`, or, when `session` is None, packets given to `inject`.

    `layers` are ordered lowest first. A packet finds its layer by SSRC, else by the mid and rid (or repaired-rid)
    header extensions, else by a payload type that no other track of the session has (RFC 9143 9.2).
    """

    track: int
    session: int | None
    kind: Kind
    mid: str
    payload_types: tuple[PayloadType, ...]
    layers: tuple[LayerSpec, ...]
    feedback: Feedback = NO_FEEDBACK


@dataclass(frozen=True, slots=True)
class RemoveTrack:
    """Forget a track. Slots bound to it fall silent and keep their sequence numbers and timestamps."""

    track: int


@dataclass(frozen=True, slots=True)
class MoveTrack:
    """The publisher came back on another session or m-line: receive the same track there. Bound slots play on,
    spliced at the next decodable frame, without a change to their m-lines."""

    track: int
    session: int
    mid: str
    payload_types: tuple[PayloadType, ...]
    layers: tuple[LayerSpec, ...]
    feedback: Feedback = NO_FEEDBACK


@dataclass(frozen=True, slots=True)
class MuteTrack:
    """A muted track is received but not forwarded. Unmuted video resumes at a keyframe, which is asked for."""

    track: int
    muted: bool


@dataclass(frozen=True, slots=True)
class RequestKeyframe:
    """Ask the publisher for a keyframe: at most one per layer in the configured interval, the rest coalesced."""

    track: int
    layer: int


@dataclass(frozen=True, slots=True)
class AddSlot:
    """Send on an m-line of `session` with these SSRCs. Plays nothing until bound."""

    slot: int
    session: int
    kind: Kind
    mid: str
    ssrc: int
    rtx_ssrc: int | None
    payload_types: tuple[PayloadType, ...]
    feedback: Feedback
    cname: str


@dataclass(frozen=True, slots=True)
class BindSlot:
    """Play a track in a slot, starting at the next decodable frame of `layer`; what played before goes on until then.

    `payload_type` is the number of the slot's negotiated payload type that carries the track's codec (chosen by the
    caller, who knows the profiles); its rtx twin is found by `apt`. `track=None` silences the slot at once. A layer
    that is silent when asked for is waited for while the present one plays on; when nothing of the track plays yet,
    the nearest live layer below, else above, is played meanwhile.
    """

    slot: int
    track: int | None
    layer: int = 0
    payload_type: int | None = None


@dataclass(frozen=True, slots=True)
class SetLayer:
    """Move the slot to another layer of the track it plays, at that layer's next keyframe."""

    slot: int
    layer: int


@dataclass(frozen=True, slots=True)
class PauseSlot:
    """Stop or resume a slot. Video resumes at a keyframe, which is asked for."""

    slot: int
    paused: bool


@dataclass(frozen=True, slots=True)
class RemoveSlot:
    """Forget a slot."""

    slot: int


@dataclass(frozen=True, slots=True)
class ProbeBandwidth:
    """Send padding for `duration_us` so that media and padding together make `bitrate`; the estimate may rise to what
    arrives. Ignored without a video slot with rtx and transport-cc."""

    session: int
    bitrate: int
    duration_us: int = 200_000


@dataclass(frozen=True, slots=True)
class AddTap:
    """Copy a layer's packets, as received (plaintext RTP), to `taps()`: those of padding alone, too, so that no number
    is missing. Keyframes are not asked for by tapping.

    With a `ring`, which the plane's `open_tap_ring` numbered, they go there as stream `tap`. `canonical` packets carry
    the header extension ids of injected ones (unknown extensions are dropped), so that they can be injected elsewhere
    as they are; those of an injected track are so anyway.
    """

    tap: int
    track: int
    layer: int
    ring: int | None = None
    canonical: bool = False


@dataclass(frozen=True, slots=True)
class RemoveTap:
    """Forget a tap."""

    tap: int


@dataclass(frozen=True, slots=True)
class RemoveRingTaps:
    """Forget all taps that go to a ring; there need not be any."""

    ring: int


Command = (
    OpenSession
    | RestartIce
    | SetKeys
    | SendDtls
    | CloseSession
    | AddTrack
    | RemoveTrack
    | MoveTrack
    | MuteTrack
    | RequestKeyframe
    | AddSlot
    | BindSlot
    | SetLayer
    | PauseSlot
    | RemoveSlot
    | ProbeBandwidth
    | AddTap
    | RemoveTap
    | RemoveRingTaps
)
