"""Sections of a node and of the signaling service, and both as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relay.settings.fields import (
    EMBEDDED_STORE,
    Address,
    Addresses,
    BitsPerSecond,
    Bytes,
    ControlUrl,
    Count,
    Directory,
    Keys,
    Milliseconds,
    Port,
    Seconds,
    Section,
    StoreUrl,
    Text,
)
from relay.settings.link import LinkSettings
from relay.settings.mix import MixSettings
from relay.settings.outputs import EgressSettings, PlaybackSettings, WebhookSettings

PINNED_BY_DIRECTORY = "directory"


class ProcessSettings(Section):
    """`[node]`: who this process is and where it keeps what must outlive it."""

    id: str = ""
    region: Text = "local"
    state_dir: Directory = Path(".costream")
    drain_timeout_s: Seconds = 10.0


class HttpSettings(Section):
    """`[http]`: the API, WHIP, WHEP, the pages and the events."""

    host: Text = "0.0.0.0"
    port: Port = 7443
    plain_host: Text = "127.0.0.1"
    plain_port: Port = 7080
    tls_cert: str = ""
    tls_key: str = ""
    max_body_bytes: Bytes = 65_536

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key are set together or not at all")
        return self


class MediaSettings(Section):
    """`[media]`: the UDP ports of all sessions, who moves their packets, and where they are kept."""

    host: Address = "0.0.0.0"
    port: Port = 7443
    advertise: Addresses = ()
    plane: Literal["auto", "native", "reference"] = "auto"
    shards: Annotated[int, Field(ge=0, le=64)] = 1
    pin_threads: bool = False
    priority: Literal["auto", "fifo", "nice", "none"] = "auto"
    socket_buffer_bytes: Bytes = 4_194_304
    slab_packets: Annotated[int, Field(ge=256, le=4_194_304)] = 720_896
    slab_memory: Literal["plain", "locked", "huge"] = "plain"


class LimitSettings(Section):
    """`[limits]`: admission, and what one request may cost."""

    max_sessions: Count = 2000
    max_publishers: Count = 200
    max_bitrate_bps: BitsPerSecond = 2_000_000_000
    max_memory_bytes: Bytes = 4_294_967_296
    retry_after_s: Annotated[int, Field(ge=1, le=3600)] = 5
    offer_bytes: Bytes = 32_768
    m_lines: Count = 64
    candidates: Count = 32
    ssrcs: Count = 64


class SessionSettings(Section):
    """`[session]`: the layered timeouts of one WebRTC connection."""

    connect_timeout_s: Seconds = 15.0
    media_silence_s: Seconds = 15.0
    seat_hold_s: Seconds = 60.0
    consent_timeout_s: Seconds = 30.0
    max_duration_s: Seconds = 7200.0


class RoomSettings(Section):
    """`[room]`: what a new room is like unless its creator says otherwise."""

    max_seats: Annotated[int, Field(ge=1, le=64)] = 8
    auto_create: bool = False
    stage_policy: Literal["open", "invite"] = "open"
    empty_room_ttl_s: Seconds = 300.0


class StoreSettings(Section):
    """`[store]`: where rooms live. Media never waits for it."""

    url: StoreUrl = EMBEDDED_STORE
    socket_timeout_s: Seconds = 0.4
    connect_timeout_s: Seconds = 0.5


class ClusterSettings(Section):
    """`[cluster]`: how relays and a signaling service that runs apart find and trust each other."""

    control_url: ControlUrl = ""
    public_url: ControlUrl = ""
    heartbeat_s: Seconds = 0.5
    expiry_s: Annotated[float, Field(gt=0, le=600)] = 1.5
    lease_ttl_s: Annotated[float, Field(ge=0.1, le=600)] = 2.0
    stranded_after_s: Annotated[float, Field(ge=1, le=3600)] = 5.0
    stranded_spread_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    control_ca: Text = PINNED_BY_DIRECTORY
    allow_plain_http: bool = False

    @model_validator(mode="after")
    def _heartbeats_may_be_lost(self) -> Self:
        if self.expiry_s < 2 * self.heartbeat_s:
            raise ValueError("expiry_s has to be at least twice heartbeat_s, or one late heartbeat removes a node")
        return self


class JoinSettings(Section):
    """`[join]`: how a newcomer is brought to a node."""

    redirect: bool = False
    timeout_s: Seconds = 2.5


class PlaneSettings(Section):
    """`[plane]`: what the packet path remembers and how often it may ask."""

    history_packets_video: Annotated[int, Field(ge=16, le=32_768)] = 1024
    history_packets_audio: Annotated[int, Field(ge=16, le=32_768)] = 256
    keyframe_interval_ms: Milliseconds = 500
    layer_silence_ms: Milliseconds = 1500
    transport_cc_interval_ms: Milliseconds = 50
    report_interval_ms: Milliseconds = 1000
    pad_video_bytes: Annotated[int, Field(ge=1, le=64)] = 8
    estimate_start_bps: BitsPerSecond = 1_000_000
    estimate_min_bps: BitsPerSecond = 50_000
    estimate_max_bps: BitsPerSecond = 20_000_000

    @model_validator(mode="after")
    def _estimate_is_ordered(self) -> Self:
        if not self.estimate_min_bps <= self.estimate_start_bps <= self.estimate_max_bps:
            raise ValueError("estimate_min_bps <= estimate_start_bps <= estimate_max_bps does not hold")
        return self


class AuthSettings(Section):
    """`[auth]`: who may sign tokens."""

    keys: Keys = Field(default_factory=dict, repr=False)
    token_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)] = 3600


class RateSettings(Section):
    """`[rate]`: requests per minute."""

    api_per_minute: Count = 600
    joins_per_minute: Count = 120


class LogSettings(Section):
    """`[log]`: what is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class SignalingSettings(Section):
    """All settings of the signaling service."""

    node: ProcessSettings = ProcessSettings()
    http: HttpSettings = HttpSettings()
    room: RoomSettings = RoomSettings()
    store: StoreSettings = StoreSettings()
    cluster: ClusterSettings = ClusterSettings()
    join: JoinSettings = JoinSettings()
    egress: PlaybackSettings = PlaybackSettings()
    webhooks: WebhookSettings = WebhookSettings()
    auth: AuthSettings = AuthSettings()
    rate: RateSettings = RateSettings()
    log: LogSettings = LogSettings()


class NodeSettings(SignalingSettings):
    """All settings of a node, which also serves the signaling of its own sessions."""

    media: MediaSettings = MediaSettings()
    limits: LimitSettings = LimitSettings()
    session: SessionSettings = SessionSettings()
    plane: PlaneSettings = PlaneSettings()
    link: LinkSettings = LinkSettings()
    egress: EgressSettings = EgressSettings()
    mix: MixSettings = MixSettings()
