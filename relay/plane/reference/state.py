"""The tables of the plane: sessions, tracks with their layers and sources, slots, and what waits to go out.

Only data and the few steps that keep two tables in agreement. Iteration is in order of insertion everywhere, which
makes it part of the specification.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.plane.contract import (
    Address,
    Event,
    Feedback,
    Kind,
    LayerStats,
    PayloadType,
    PlaneConfig,
    SessionStats,
    SlotStats,
)
from relay.plane.reference.audio_level import Loudness
from relay.plane.reference.descriptors import Codec, Descriptor, inspector
from relay.plane.reference.estimate import BandwidthEstimator
from relay.plane.reference.history import ResendBudget, SentLog
from relay.plane.reference.nack import LossDetector
from relay.plane.reference.packets import Place, Slab
from relay.plane.reference.rate import Rate
from relay.plane.reference.rewrite import PictureIds, Rewriter
from relay.plane.reference.rtp import EXTENSIONS, Packet
from relay.plane.reference.serialise import Forwarding, Serialiser
from relay.plane.reference.srtp import Srtp
from relay.plane.reference.timers import Timers
from relay.plane.reference.transport_cc import Recorder

INJECT_EXTENSIONS: dict[str, int] = {name: number for number, name in enumerate(EXTENSIONS, 1)}
"""Header extension ids of injected packets: an extension's place in `rtp.EXTENSIONS`, counted from 1."""

PASSED_ON = ("audio_level", "orientation", "color_space", "dependency_descriptor", "abs_capture_time")
"""Extensions that mean the same at the viewer. Playout delay is not among them: it is the publisher's own wish."""

MAX_DATAGRAM = 1500  # bytes: nothing longer arrives in one Ethernet frame, and no WebRTC client sends more
MAX_TAPPED = 4096  # packets waiting for `taps()`: 4 s of one 1,000 packets/s layer

CODECS = {
    "opus": Codec.OPUS,
    "vp8": Codec.VP8,
    "vp9": Codec.VP9,
    "h264": Codec.H264,
    "av1": Codec.AV1,
}
PATCHED = frozenset(("vp8", "vp9"))  # codecs with picture ids that must stay continuous

_MASK64 = (1 << 64) - 1


def derive(seed: int, purpose: int, handle: int) -> int:
    """64 random-looking bits for one purpose of one handle: splitmix64 over the three.

    A function of its arguments, not a stream, so that the order of commands does not matter.
    """
    x = seed & _MASK64
    for word in (purpose, handle):
        x = (x + 0x9E3779B97F4A7C15 * (word + 1)) & _MASK64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
        x ^= x >> 31
    return x


class Source:
    """One received SSRC. `layer.source` is the one that plays the layer's media; a repair stream has no detector."""

    __slots__ = ("detector", "last_packet", "layer", "learned", "report_arrival", "report_ntp", "report_rtp", "ssrc")

    def __init__(self, ssrc: int, layer: Layer, detector: LossDetector | None, learned: bool) -> None:
        self.ssrc = ssrc
        self.layer = layer
        self.detector = detector
        self.learned = learned
        self.last_packet = 0
        self.report_ntp = 0  # of its latest sender report, 64-bit NTP; 0 before the first
        self.report_rtp = 0
        self.report_arrival = 0


class Tap:
    """A copy of a layer's packets."""

    __slots__ = ("canonical", "handle", "index", "ring", "track")

    def __init__(self, handle: int, track: Track, index: int, ring: int | None, canonical: bool) -> None:
        self.handle = handle
        self.track = track
        self.index = index
        self.ring = ring
        self.canonical = canonical


class Layer:
    """One encoding of a track. `players` show it now, `waiters` will from its next decodable frame on."""

    __slots__ = (
        "active",
        "codec",
        "fir_number",
        "index",
        "inspect",
        "keyframe_next",
        "keyframe_timestamp",
        "keyframe_wanted",
        "last_packet",
        "lost_before",
        "parameters_seen",
        "patched",
        "payload_type",
        "players",
        "rate",
        "recent",
        "recovered_before",
        "source",
        "stats",
        "taps",
        "track",
        "waiters",
    )

    def __init__(self, track: Track, index: int, rid: str) -> None:
        self.track = track
        self.index = index
        self.source: Source | None = None
        self.active = False
        self.last_packet = 0
        self.payload_type = -1
        self.codec: PayloadType | None = None
        self.inspect: Callable[[bytes, int, int], Descriptor] = inspector(Codec.OPUS)
        self.patched = False
        self.players: dict[int, Slot] = {}
        self.waiters: dict[int, Slot] = {}
        self.taps: dict[int, Tap] = {}
        self.keyframe_next = 0  # no request may be sent before
        self.keyframe_wanted = False  # a request waits for that time
        self.keyframe_timestamp = -1  # RTP timestamp of the latest keyframe
        self.parameters_seen = False  # H264: parameter sets come in band, so a decodable start has them
        self.fir_number = 0
        self.recent: list[tuple[Packet, Descriptor]] = []  # video since the latest keyframe; empty when too long
        self.rate = Rate()
        self.lost_before = 0  # by sources that this layer had earlier
        self.recovered_before = 0
        self.stats = LayerStats(rid=rid)


class Track:
    """A publication. `session` is None when its packets are injected; `slots` are those bound to it."""

    __slots__ = (
        "audio_level_id",
        "feedback",
        "forwardings",
        "handle",
        "kind",
        "layers",
        "loudness",
        "mid",
        "muted",
        "payload_types",
        "session",
        "slots",
        "taps",
    )

    def __init__(self, handle: int, kind: Kind) -> None:
        self.handle = handle
        self.kind = kind
        self.session: Session | None = None
        self.mid = ""
        self.payload_types: dict[int, PayloadType] = {}
        self.feedback = Feedback()
        self.layers: list[Layer] = []
        self.muted = False
        self.slots: dict[int, Slot] = {}
        self.taps: dict[int, Tap] = {}
        self.loudness = Loudness()
        self.audio_level_id = 0
        self.forwardings: dict[tuple[tuple[int, int], ...], Forwarding] = {}

    def extension_ids(self) -> dict[str, int]:
        """Header extension ids of the packets that come in."""
        return INJECT_EXTENSIONS if self.session is None else self.session.extensions


class Slot:
    """One outgoing stream. It shows `playing` while it waits for the layers in `waiting`; `target` is the wish."""

    __slots__ = (
        "budget",
        "cname",
        "feedback",
        "fir_number",
        "forwarding",
        "handle",
        "kind",
        "log",
        "marker",
        "measured",
        "mid",
        "octets",
        "out_type",
        "paused",
        "payload_types",
        "pictures",
        "playing",
        "rate",
        "reported",
        "rewriter",
        "rtx_seq",
        "rtx_serialiser",
        "rtx_ssrc",
        "rtx_types",
        "serialiser",
        "session",
        "ssrc",
        "stats",
        "target",
        "track",
        "transport_cc",
        "waiting",
        "wished_type",
    )

    def __init__(self, handle: int, session: Session, kind: Kind, ssrc: int, rtx_ssrc: int | None) -> None:
        self.handle = handle
        self.session = session
        self.kind = kind
        self.mid = ""
        self.ssrc = ssrc
        self.rtx_ssrc = rtx_ssrc
        self.payload_types: tuple[PayloadType, ...] = ()
        self.rtx_types: dict[int, int] = {}  # payload type → that of its retransmissions
        self.feedback = Feedback()
        self.cname = ""
        self.track: Track | None = None
        self.target = 0
        self.wished_type: int | None = None
        self.paused = False
        self.playing: Layer | None = None
        self.waiting: list[Layer] = []
        self.out_type = 0
        self.marker = 0  # 0x80 until the first packet after a splice of audio has gone (RFC 3551 4.1)
        self.rewriter: Rewriter
        self.pictures = PictureIds()
        self.log: SentLog
        self.budget: ResendBudget
        self.forwarding: Forwarding | None = None
        self.serialiser: Serialiser
        self.rtx_serialiser: Serialiser | None = None
        self.transport_cc = False  # its packets carry transport-wide sequence numbers
        self.measured = False  # its packets count for the session's estimate
        self.rtx_seq = 0
        self.octets = 0  # payload bytes, for sender reports
        self.reported = 0  # packets sent when the latest sender report was
        self.fir_number = -1  # of the latest FIR that was acted upon
        self.rate = Rate()
        self.stats = SlotStats()


class Probe:
    """Padding under way: until `end`, all that the session sends shall make `bitrate`."""

    __slots__ = ("bitrate", "bytes_before", "end", "start")

    def __init__(self, bitrate: int, start: int, end: int, bytes_before: int) -> None:
        self.bitrate = bitrate
        self.start = start
        self.end = end
        self.bytes_before = bytes_before


class Session:
    """One peer. Media comes from `addresses` only (address → last authenticated packet) and goes to `selected`."""

    __slots__ = (
        "addresses",
        "credentials",
        "estimate_reported",
        "estimate_reported_at",
        "estimator",
        "extensions",
        "feedback_ssrc",
        "handle",
        "ntp_offset",
        "ntp_offset_at",
        "probe",
        "recorder",
        "remb",
        "restart",
        "selected",
        "slots",
        "slots_by_ssrc",
        "sources",
        "srtp",
        "stats",
        "tracks",
        "transport_in_id",
        "transport_seq",
    )

    def __init__(self, handle: int, ufrag: str, password: bytes, extensions: dict[str, int]) -> None:
        self.handle = handle
        self.credentials = (ufrag, password)
        self.restart: tuple[str, bytes] | None = None
        self.extensions = extensions
        self.addresses: dict[Address, int] = {}
        self.selected: Address | None = None
        self.srtp: Srtp | None = None
        self.tracks: dict[str, Track] = {}  # by mid
        self.sources: dict[int, Source] = {}  # by SSRC
        self.slots: dict[int, Slot] = {}
        self.slots_by_ssrc: dict[int, Slot] = {}  # media and repair SSRCs
        self.feedback_ssrc = 0
        self.transport_in_id = 0  # extension id while a track of ours wants transport-cc feedback, else 0
        self.recorder: Recorder | None = None
        self.transport_seq = 0xFFFF  # the latest that was used
        self.estimator: BandwidthEstimator | None = None
        self.estimate_reported = 0
        self.estimate_reported_at = 0
        self.remb = 0
        self.ntp_offset: int | None = None
        self.ntp_offset_at = 0
        self.probe: Probe | None = None
        self.stats = SessionStats()


class Core:
    """Everything the plane knows."""

    __slots__ = (
        "by_address",
        "by_ufrag",
        "bytes_in",
        "config",
        "datagrams_in",
        "drops",
        "events",
        "handled",
        "heard",
        "now",
        "out",
        "sessions",
        "slab",
        "slots",
        "tapped",
        "taps",
        "taps_dropped",
        "timers",
        "tracks",
        "unkept",
    )

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.now = 0
        self.sessions: dict[int, Session] = {}
        self.tracks: dict[int, Track] = {}
        self.slots: dict[int, Slot] = {}
        self.taps: dict[int, Tap] = {}
        self.by_address: dict[Address, Session] = {}
        self.by_ufrag: dict[str, Session] = {}
        self.timers = Timers()
        self.out: list[tuple[bytes, Address]] = []
        self.events: list[Event] = []
        self.slab = Slab(config.slab_packets)
        self.unkept = 0  # packets that came when no place was free
        # tap, data, arrival, ring; with the place, which is held until they are taken
        self.tapped: list[tuple[int, bytes, int, int | None, Place | None]] = []
        self.taps_dropped = 0
        self.heard: set[int] = set()  # audio tracks with a level since the last LoudnessMeasured
        self.drops: dict[str, int] = {}
        self.handled = 0
        self.datagrams_in = 0
        self.bytes_in = 0

    def drop(self, reason: str) -> None:
        """Count a dropped datagram. Reasons of what could not be sent begin with `out_`."""
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def send_control(self, session: Session, compound: bytes) -> None:
        """Seal RTCP and send it to where the session's media goes."""
        if session.srtp is None or session.selected is None:
            return
        sealed = session.srtp.protect_rtcp(compound)
        if sealed is None:
            self.drop("out_refused")
            return
        self.out.append((sealed, session.selected))
        session.stats.packets_out += 1
        session.stats.bytes_out += len(sealed)
