"""What the plane counts, and how it is set up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay.plane.contract.media import Address


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
    report_ssrc: int = 0
    """Of the newest sender report of a stream that carried the layer (RFC 3550 6.4.1), its repairs left out."""
    report_ntp: int = 0
    """Its 64-bit NTP time; 0 before the first report."""
    report_timestamp: int = 0
    """The RTP timestamp of that moment."""
    report_arrival_us: int = 0
    """When it came, as `now`."""


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
