"""What Python may ask of the packet plane, and what the plane tells back.

The plane is one machine without I/O: datagrams, commands and times in; datagrams and events out. The Python one in
`relay.plane.reference` is the specification; the native twin takes the same commands and gives the same events and
bytes.

Units: `now` is monotonic time in integer microseconds. Bitrates are bits per second. Handles (`session`, `track`,
`slot`, `tap`) are unsigned 32-bit integers chosen by the caller and never reused while the plane lives.

A *track* is what a publication is to the plane: one incoming m-line with its layers. A *slot* is one outgoing m-line of
a viewer's session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Address = tuple[str, int]
"""Numeric host and port, as the socket reports them (IPv4-mapped addresses are written as IPv4)."""


class Kind(Enum):
    """What a track or slot carries."""

    AUDIO = "audio"
    VIDEO = "video"


class SrtpProfile(Enum):
    """SRTP protection profiles by their names in DTLS, as OpenSSL spells them (RFC 7714 14.2, RFC 5764 4.1.2), in the
    order in which they are preferred."""

    AES_128_GCM = "SRTP_AEAD_AES_128_GCM"
    AES_256_GCM = "SRTP_AEAD_AES_256_GCM"
    AES_CM_128_HMAC_SHA1_80 = "SRTP_AES128_CM_SHA1_80"

    @property
    def key_length(self) -> int:
        """Bytes of the master key."""
        return 32 if self is SrtpProfile.AES_256_GCM else 16

    @property
    def salt_length(self) -> int:
        """Bytes of the master salt."""
        return 14 if self is SrtpProfile.AES_CM_128_HMAC_SHA1_80 else 12

    @property
    def tag_length(self) -> int:
        """Bytes that protection adds to an RTP packet."""
        return 10 if self is SrtpProfile.AES_CM_128_HMAC_SHA1_80 else 16


@dataclass(frozen=True, slots=True)
class PayloadType:
    """One negotiated RTP payload type of an m-line.

    `codec` is lower case: opus, vp8, vp9, h264, av1 or rtx. `apt` is the payload type that an rtx one repairs
    (RFC 4588). `profile` tells formats of one codec apart, e.g. `42e01f/1` for H264 (profile-level-id and
    packetization-mode) or `0` for a VP9 profile; empty when the codec has one format only.
    """

    number: int
    codec: str
    clock_hz: int
    apt: int | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One simulcast encoding of a track, lowest first. `ssrc` is known only when the offer signalled it."""

    rid: str = ""
    ssrc: int | None = None
    rtx_ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """RTCP feedback that was negotiated for an m-line (RFC 4585, RFC 5104, REMB, transport-cc)."""

    nack: bool = False
    pli: bool = False
    fir: bool = False
    remb: bool = False
    transport_cc: bool = False


# --- commands -------------------------------------------------------------------------------------------------------


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
    feedback: Feedback = Feedback()


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
    feedback: Feedback = Feedback()


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


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DtlsReceived:
    """A DTLS record came from an address that an authenticated STUN check had proved (never from a stranger)."""

    session: int
    datagram: bytes


@dataclass(frozen=True, slots=True)
class AddressSelected:
    """Media now goes to this address: the first one proved, a nominated one, or the survivor of a NAT rebinding."""

    session: int
    address: Address


@dataclass(frozen=True, slots=True)
class IceRestarted:
    """A check with the restarted credentials arrived; the old ones are void."""

    session: int


@dataclass(frozen=True, slots=True)
class LayerStarted:
    """Packets of a layer arrive (again). `payload_type` names the codec that is in use."""

    track: int
    layer: int
    ssrc: int
    payload_type: int


@dataclass(frozen=True, slots=True)
class LayerStopped:
    """A layer has been silent for the configured time, or its SSRC said BYE. Slots on it should move."""

    track: int
    layer: int


@dataclass(frozen=True, slots=True)
class SlotSwitched:
    """The splice happened: from this output packet on the slot shows the track and layer.

    `source_timestamp` is the publisher's RTP timestamp that `timestamp` stands for: until the slot's next switch, what
    is sent has the publisher's timestamp plus the difference of the two (but the few frames after a splice within one
    track that are sent later than they were taken, see `Rewriter.splice`).
    """

    slot: int
    track: int
    layer: int
    sequence: int
    timestamp: int
    source_timestamp: int


@dataclass(frozen=True, slots=True)
class EstimateChanged:
    """The estimate of what the session's network can carry moved by more than a tenth, at most every 200 ms."""

    session: int
    bitrate: int


@dataclass(frozen=True, slots=True)
class LoudnessMeasured:
    """Loudness of the audio tracks heard in the last 100 ms: (track, level), level 0 (silence) to 127 (full scale)."""

    levels: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class KeyframeRequested:
    """A keyframe of an injected track is wanted; whoever injects it (a link, a mixer) must produce one."""

    track: int
    layer: int


Event = (
    DtlsReceived
    | AddressSelected
    | IceRestarted
    | LayerStarted
    | LayerStopped
    | SlotSwitched
    | EstimateChanged
    | LoudnessMeasured
    | KeyframeRequested
)


# --- statistics -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SessionStats:
    """Counters since the session opened; times are `now` values, 0 when it never happened."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    last_consent: int = 0
    last_media: int = 0
    round_trip_us: int = 0
    loss_256: int = 0
    """Loss the peer last reported on what we send, in 1/256 (RFC 3550 6.4.1)."""
    estimate: int = 0
    address: Address | None = None


@dataclass(slots=True)
class LayerStats:
    """Counters since the track was added. `bitrate` is over the last second."""

    rid: str = ""
    active: bool = False
    packets: int = 0
    bytes: int = 0
    lost: int = 0
    recovered: int = 0
    nacks_sent: int = 0
    keyframes: int = 0
    keyframe_requests: int = 0
    jitter_us: int = 0
    bitrate: int = 0
    width: int = 0
    height: int = 0
    payload_type: int = -1
    ssrc: int = 0
    timestamp: int = -1
    """RTP timestamp of the newest frame of stream `ssrc`; -1 before any."""
    arrival_us: int = 0
    """When the first packet of that frame came, as `now`."""


@dataclass(slots=True)
class SlotStats:
    """Counters since the slot was added. `track` and `layer` are what plays now, -1 when nothing does."""

    track: int = -1
    layer: int = -1
    packets: int = 0
    bytes: int = 0
    nacks: int = 0
    resent: int = 0
    not_resent: int = 0
    keyframe_requests: int = 0
    switches: int = 0
    bitrate: int = 0


@dataclass(slots=True)
class PlaneStats:
    """A snapshot of everything countable. `drops` counts datagrams by reason; their sum plus what was handled is
    what came in."""

    sessions: Mapping[int, SessionStats]
    tracks: Mapping[int, list[LayerStats]]
    slots: Mapping[int, SlotStats]
    drops: dict[str, int]
    datagrams_in: int = 0
    datagrams_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    slab_free: int = 0
    """Places for ingress packets that nobody holds, of `slab_total`."""
    slab_total: int = 0
    unkept: int = 0
    """Packets that were forwarded but not kept, because no place was free: they cannot be repeated."""


SLAB_MEMORY = ("plain", "locked", "huge")


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """Limits and times of the plane. Times in microseconds, rates in bits per second."""

    keyframe_interval_us: int = 500_000
    layer_silence_us: int = 1_500_000
    history_video: int = 1024
    history_audio: int = 256
    estimate_start: int = 1_000_000
    estimate_min: int = 50_000
    estimate_max: int = 20_000_000
    transport_cc_interval_us: int = 50_000
    report_interval_us: int = 1_000_000
    address_stale_us: int = 2_000_000
    """A proved address that has been silent this long loses the session to another proved one."""
    max_addresses: int = 8
    wall_offset_us: int = 0
    """Wall clock (microseconds since the Unix epoch) minus `now`, for the NTP times of sender reports."""
    slab_packets: int = 65_536
    """Ingress packets that are kept at once, for repeats and for slots that begin a moment later. When all places are
    taken packets are forwarded and tapped, not kept. In the native plane a place has 1.5 KiB; shards divide them."""
    pad_video: int = 8
    """Video packets but the last of a frame get RTP padding to a multiple of so many bytes, 1 to 64, so that those of a
    frame are of one size and can leave in one message; 1 for none. Packets that would be longer than 1400 get none."""
    slab_memory: str = "plain"
    """One of SLAB_MEMORY: the kind of memory of the native plane's slab."""
    seed: int = 0
    """Seeds the only random choices: first sequence numbers, timestamps and SSRCs of ours."""
