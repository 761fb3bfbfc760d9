"""What the plane tells."""

from __future__ import annotations

from dataclasses import dataclass

from relay.plane.contract.media import Address


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
