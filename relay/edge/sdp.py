"""What an SDP offer says, as values (RFC 8866, RFC 8829). `sdp_reader.parse` makes them, `negotiation` answers them.

Session-level defaults (ICE credentials, fingerprints, set-up role, direction) are already folded into each m-line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SdpLimits:
    """How much of an SDP is read. An offer beyond any of them is refused as BadOffer."""

    bytes: int = 32_768
    lines: int = 4096
    media: int = 64
    attributes: int = 512
    """Per section: the session, and each m-line."""
    candidates: int = 32
    """Per m-line."""
    ssrcs: int = 64
    """Distinct SSRCs per m-line; as many SSRC groups."""
    payload_types: int = 128
    """Per m-line."""
    all_payload_types: int = 1024
    """Of all m-lines together; each costs about 2 µs to read."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A certificate hash (RFC 8122): `algorithm` in lower case, `value` in upper case with colons."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate (RFC 8839 5.1). `host` may be a name, as browsers hide addresses behind mDNS."""

    foundation: str
    component: int
    protocol: str
    priority: int
    host: str
    port: int
    kind: str
    tcp_type: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """A payload type: its rtpmap, fmtp and rtcp-fb (those of `*` included).

    `codec` is in lower case and empty when the offer has no rtpmap for the number. `parameters` has keys in lower case;
    an fmtp that is no list of pairs (telephone-event, red) stands under the key `""`.
    """

    number: int
    codec: str = ""
    clock_hz: int = 0
    channels: int = 1
    parameters: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    feedback: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ExtensionMap:
    """A header extension (RFC 8285 5). `direction` is empty when the offer names none."""

    id: int
    uri: str
    direction: str = ""
    attributes: str = ""


@dataclass(frozen=True, slots=True)
class Rid:
    """An `a=rid` line (RFC 8851): `direction` is send or recv, `restrictions` as given (max-width, pt, …)."""

    name: str
    direction: str
    restrictions: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True)
class SimulcastStream:
    """One stream of an `a=simulcast` list (RFC 8853), the first of its alternatives."""

    rid: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Ssrc:
    """What `a=ssrc` lines say of one SSRC (RFC 5576)."""

    number: int
    cname: str = ""
    msid: str = ""


@dataclass(frozen=True, slots=True)
class SsrcGroup:
    """An `a=ssrc-group` line: FID pairs a stream with its retransmissions, SIM lists simulcast layers."""

    semantics: str
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Media:
    """One m-line. `line` is its number in the text, counted from 1; `direction` is the offerer's view."""

    line: int
    kind: str
    port: int
    protocol: str
    numbers: tuple[str, ...]
    """The formats of the m-line as they stand there: numbers for RTP, a name for a data channel."""
    mid: str = ""
    direction: str = "sendrecv"
    ufrag: str = ""
    password: str = ""
    ice_options: frozenset[str] = frozenset()
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: str = ""
    formats: tuple[Format, ...] = ()
    """In the order of the m-line, which is the offerer's preference. Empty for a data channel."""
    extensions: tuple[ExtensionMap, ...] = ()
    allow_mixed: bool = False
    rids: tuple[Rid, ...] = ()
    simulcast_send: tuple[SimulcastStream, ...] = ()
    simulcast_receive: tuple[SimulcastStream, ...] = ()
    ssrcs: tuple[Ssrc, ...] = ()
    ssrc_groups: tuple[SsrcGroup, ...] = ()
    msid: str = ""
    """The first `a=msid` (stream and track id), else that of the first SSRC."""
    content: str = ""
    rtcp_mux: bool = False
    rtcp_mux_only: bool = False
    rtcp_rsize: bool = False
    bundle_only: bool = False
    candidates: tuple[Candidate, ...] = ()
    end_of_candidates: bool = False

    @property
    def rejected(self) -> bool:
        """Whether port 0 switches the m-line off; with bundle-only it does not (RFC 9143 6)."""
        return self.port == 0 and not self.bundle_only


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole offer."""

    origin: str
    """The user name of the o= line; it tells some client libraries."""
    bundle: tuple[tuple[str, ...], ...] = ()
    """The mids of each BUNDLE group."""
    ice_lite: bool = False
    allow_mixed: bool = False
    media: tuple[Media, ...] = ()
