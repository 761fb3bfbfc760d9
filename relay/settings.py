"""Settings of a node and of the signaling service, parsed once into frozen objects.

`configs/relay.toml` and `configs/signaling.toml` are the manual: every key with its default, unit and reason. Names end
in their unit: `_s`, `_ms`, `_bytes`, `_bps`; the others are counts, names or addresses.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from relay.errors import SettingsError
from relay.settings_source import read_settings

DEV_KEY_ID = "devkey"
DEV_SECRET = "devsecret-change-me-0123456789abcdef"  # published on purpose: `costream dev` works without a file
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key for HS256 has at least 256 bits
EMBEDDED_STORE = "embedded"
PINNED_BY_DIRECTORY = "directory"


def _is_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address such as 0.0.0.0 or 203.0.113.7") from None
    return text


def _is_endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("must be host:port such as 203.0.113.7:7444, [2001:db8::1]:7444 or relay-a:7444")
    if host.startswith("["):
        _is_address(host.removeprefix("[").removesuffix("]"))
    elif re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host) is None:
        raise ValueError("must name a host before the port")
    return text


def _is_store_url(text: str) -> str:
    parts = urlsplit(text)
    kinds = {f"{base}{kind}" for base in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")}
    if text != EMBEDDED_STORE and not (parts.scheme in kinds and parts.netloc):
        raise ValueError(
            'must be "embedded", redis://host:port/db, redis+sentinel://host:port,host:port/service/db or '
            "redis+cluster://host:port,host:port; rediss… over TLS"
        )
    return text


def _are_keys(keys: Mapping[str, str]) -> Mapping[str, str]:
    for key_id, secret in keys.items():
        if not key_id or not key_id.isprintable() or " " in key_id:
            raise ValueError(f"key id {key_id!r} is empty or has spaces")
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret of key {key_id!r} is shorter than {MIN_SECRET_BYTES} bytes")
    return keys


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
BitsPerSecond = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Address = Annotated[str, AfterValidator(_is_address)]
Addresses = Annotated[tuple[Address, ...], Field(strict=False)]
Endpoints = Annotated[tuple[Annotated[str, AfterValidator(_is_endpoint)], ...], Field(strict=False, max_length=2)]
Directory = Annotated[Path, Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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

    url: Annotated[str, AfterValidator(_is_store_url)] = EMBEDDED_STORE
    socket_timeout_s: Seconds = 0.4
    connect_timeout_s: Seconds = 0.5


def _is_control_url(text: str) -> str:
    parts = urlsplit(text)
    plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
    if text and not (plain and parts.path in {"", "/"} and not parts.query and not parts.fragment):
        raise ValueError("must be https://host:port or http://host:port, or empty")
    return text.rstrip("/")


class ClusterSettings(Section):
    """`[cluster]`: how relays and a signaling service that runs apart find and trust each other."""

    control_url: Annotated[str, AfterValidator(_is_control_url)] = ""
    public_url: Annotated[str, AfterValidator(_is_control_url)] = ""
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


class LinkFlowSettings(Section):
    """`[link.flow]`: how media and metadata cross a link to another node, and how what is lost comes again."""

    history_packets: Annotated[int, Field(ge=64, le=32_768)] = 2048
    history_ms: Milliseconds = 2000
    resend_age_ms: Milliseconds = 1000
    resend_burst: Count = 64
    repair_bps: BitsPerSecond = 20_000_000
    nack_delay_ms: Milliseconds = 10
    nack_retry_ms: Milliseconds = 30
    nack_tries: Annotated[int, Field(ge=1, le=64)] = 10
    nack_deadline_ms: Milliseconds = 1500
    max_missing: Annotated[int, Field(ge=16, le=8192)] = 1024
    window_packets: Annotated[int, Field(ge=256, le=16_384)] = 4096
    parity: Literal["auto", "off"] = "auto"
    parity_from_loss: Annotated[float, Field(gt=0, lt=1)] = 0.002
    parity_min_group: Annotated[int, Field(ge=2, le=32)] = 4
    parity_max_group: Annotated[int, Field(ge=2, le=32)] = 20
    queue_frames: Count = 3
    queue_datagrams: Count = 128
    warm_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    event_hold_ms: Milliseconds = 300
    event_history: Count = 1024
    max_flows: Annotated[int, Field(ge=1, le=65_536)] = 4096
    max_message_bytes: Annotated[int, Field(ge=4096, le=16_777_216)] = 262_144
    channel_buffer_bytes: Annotated[int, Field(ge=4096, le=67_108_864)] = 4_194_304
    tick_ms: Milliseconds = 5
    ping_ms: Milliseconds = 1000
    call_timeout_ms: Milliseconds = 3000
    silence_ms: Milliseconds = 5000
    redial_min_ms: Milliseconds = 50
    redial_max_ms: Milliseconds = 5000

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        for low, high in (
            ("parity_min_group", "parity_max_group"),
            ("redial_min_ms", "redial_max_ms"),
            ("resend_age_ms", "history_ms"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} has to be at most {high}")
        return self


class BreakerSettings(Section):
    """`[link.breaker]`: when a path counts as bad, and how carefully the breaker goes back to it."""

    rtt_limit_ms: Milliseconds = 200
    rtt_samples: Annotated[int, Field(ge=2, le=100)] = 3
    loss_percent: Percent = 8.0
    loss_packets: Annotated[int, Field(ge=100, le=1_000_000)] = 2000
    suspect_packets: Annotated[int, Field(ge=50, le=500_000)] = 500
    spread_packets: Annotated[int, Field(ge=50, le=1_000_000)] = 1000
    spread_burst: Annotated[int, Field(ge=1, le=10_000)] = 3
    evidence_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    silence_min_ms: Milliseconds = 60
    silence_max_ms: Milliseconds = 200
    silence_ptos: Annotated[float, Field(ge=1, le=10)] = 2.0
    silence_confirm_ms: Milliseconds = 180
    suspect_s: Annotated[float, Field(gt=0, le=600)] = 2.0
    hold_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    hold_max_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    quiet_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    switches_per_minute: Annotated[int, Field(ge=2, le=60)] = 2
    probe_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    probe_packets: Annotated[int, Field(ge=1, le=100_000)] = 100
    probe_samples: Annotated[int, Field(ge=1, le=10_000)] = 10
    probes_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 20
    half_open_timeout_s: Annotated[float, Field(gt=0, le=600)] = 30.0
    trace_dir: str = ""

    @model_validator(mode="after")
    def _figures_fit_together(self) -> Self:
        if self.loss_packets < 2 * self.suspect_packets:
            raise ValueError("loss_packets has to be at least twice suspect_packets, or doubt comes after the decision")
        if not self.suspect_packets <= self.spread_packets <= self.loss_packets:
            raise ValueError("spread_packets has to be between suspect_packets and loss_packets")
        if self.silence_min_ms > self.silence_max_ms:
            raise ValueError("silence_min_ms has to be at most silence_max_ms")
        if self.hold_s > self.hold_max_s:
            raise ValueError("hold_s has to be at most hold_max_s")
        return self


class LinkSettings(Section):
    """`[link]`: media and metadata between nodes, and the QUIC connections that carry them."""

    certificate: str = ""
    key: str = ""
    ca: str = ""
    host: Address = "0.0.0.0"
    port: Port = 7444
    advertise: Endpoints = ()
    primary_host: Address = "0.0.0.0"
    backup_host: Address = "0.0.0.0"
    primary_interface: str = ""
    backup_interface: str = ""
    max_packet_bytes: Annotated[int, Field(ge=1200, le=65_000)] = 1452
    queue_bytes: Annotated[int, Field(ge=65_535)] = 2_000_000
    queue_age_ms: Milliseconds = 200
    keepalive_ms: Milliseconds = 100
    idle_timeout_s: Annotated[float, Field(ge=1, le=600)] = 10.0
    handshake_timeout_s: Annotated[float, Field(ge=0.2, le=60)] = 3.0
    max_handshakes: Annotated[int, Field(ge=1, le=65_536)] = 64
    socket_buffer_bytes: Bytes = 4_194_304
    process: bool = False
    breaker: BreakerSettings = BreakerSettings()
    flow: LinkFlowSettings = LinkFlowSettings()

    @model_validator(mode="after")
    def _identity_is_whole(self) -> Self:
        if len({bool(self.certificate), bool(self.key), bool(self.ca)}) > 1:
            raise ValueError("certificate, key and ca are set together or not at all")
        if self.keepalive_ms >= self.idle_timeout_s * 500:
            raise ValueError("idle_timeout_s has to be more than twice keepalive_ms, or one lost ping ends a link")
        return self


class MixVideoSettings(Section):
    """`[mix.video]`: the picture of a program, and the processes that make it."""

    width: Annotated[int, Field(ge=64, le=3840, multiple_of=32)] = 1280
    height: Annotated[int, Field(ge=64, le=3840, multiple_of=2)] = 720
    fps: Annotated[int, Field(ge=1, le=120)] = 30
    codec: Literal["h264", "vp8"] = "h264"
    bitrate_bps: BitsPerSecond = 2_500_000
    keyframe_ms: Annotated[int, Field(ge=200, le=20_000)] = 2000
    delay_ms: Annotated[int, Field(ge=0, le=1000)] = 60
    silence_ms: Milliseconds = 1500
    hold_ms: Annotated[int, Field(ge=0, le=5000)] = 400
    hang_ms: Annotated[int, Field(ge=200, le=60_000)] = 1500
    spares: Annotated[int, Field(ge=0, le=64)] = 1
    stages_per_worker: Annotated[int, Field(ge=1, le=60)] = 1
    max_workers: Annotated[int, Field(ge=1, le=256)] = 32
    font: str = ""


class MixAudioSettings(Section):
    """`[mix.audio]`: the sound of programs, and the process that makes it."""

    mixers: Annotated[int, Field(ge=1, le=16)] = 2
    channels: Literal[1, 2] = 2
    bitrate_bps: Annotated[int, Field(ge=16_000, le=510_000)] = 96_000
    complexity: Annotated[int, Field(ge=0, le=10)] = 5
    max_inputs: Annotated[int, Field(ge=1, le=64)] = 16
    one_sounds_per_room: Annotated[int, Field(ge=0, le=64)] = 16
    jitter_least_ms: Annotated[int, Field(ge=0, le=1000)] = 0
    jitter_first_ms: Annotated[int, Field(ge=10, le=1000)] = 40
    jitter_most_ms: Annotated[int, Field(ge=40, le=2000)] = 240
    priority: Literal["auto", "fifo", "nice", "none"] = "auto"
    reserve_process: bool = True

    @model_validator(mode="after")
    def _delays_are_ordered(self) -> Self:
        if max(self.jitter_least_ms, self.jitter_first_ms) > self.jitter_most_ms:
            raise ValueError("jitter_least_ms and jitter_first_ms have to be at most jitter_most_ms")
        return self


class MixRaySettings(Section):
    """`[mix.ray]`: the cluster whose machines make programs' pictures with `mix.executor = "ray"`."""

    address: Annotated[str, Field(min_length=1, max_length=256)] = "auto"
    cpus: Annotated[float, Field(gt=0, le=64)] = 1.0
    host: Annotated[str, AfterValidator(lambda text: _is_address(text) if text else text)] = ""
    start_timeout_s: Annotated[int, Field(ge=5, le=3600)] = 300


class MixSettings(Section):
    """`[mix]`: the program of a room."""

    executor: Literal["local", "ray"] = "local"
    ray: MixRaySettings = MixRaySettings()
    audio: MixAudioSettings = MixAudioSettings()
    video: MixVideoSettings = MixVideoSettings()

    @model_validator(mode="after")
    def _links_are_heard_in_time(self) -> Self:
        if self.executor == "ray" and self.video.hang_ms < 1000:
            raise ValueError('mix.video.hang_ms has to be at least 1000 with mix.executor "ray": workers are far')
        return self


class PlaybackSettings(Section):
    """`[egress]` of a service that has no egress of its own, but says where it plays."""

    hls_ticket_s: Annotated[int, Field(ge=60, le=31_536_000)] = 14_400


class EgressSettings(PlaybackSettings):
    """`[egress]`: the program, or a publication, as HLS, as a recording, to RTMP services."""

    max_outputs: Count = 16
    hls_directory: str = ""
    hls_part_ms: Annotated[int, Field(ge=100, le=2000)] = 300
    hls_segment_ms: Annotated[int, Field(ge=500, le=10_000)] = 2000
    hls_hold_back_parts: Annotated[float, Field(ge=3, le=20)] = 3.0
    hls_window: Annotated[int, Field(ge=3, le=100)] = 6
    recording_directory: str = ""
    recording_fragment_ms: Annotated[int, Field(ge=100, le=10_000)] = 500
    recording_sync_ms: Annotated[int, Field(ge=100, le=60_000)] = 1000
    recording_queue_bytes: Annotated[int, Field(ge=1_048_576)] = 33_554_432
    recording_min_free_bytes: Bytes = 268_435_456
    recording_max_file_bytes: Annotated[int, Field(ge=1_048_576)] = 8_589_934_592
    push_queue_bytes: Annotated[int, Field(ge=65_536)] = 8_388_608
    push_stall_ms: Milliseconds = 5000
    push_retry_min_ms: Milliseconds = 500
    push_retry_max_ms: Milliseconds = 30_000
    allow_private_targets: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if 2 * self.hls_part_ms > self.hls_segment_ms:
            raise ValueError("hls_segment_ms has to be at least twice hls_part_ms")
        if self.push_retry_min_ms > self.push_retry_max_ms:
            raise ValueError("push_retry_min_ms has to be at most push_retry_max_ms")
        return self


def _is_webhook_secret(text: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not text.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("a secret has to be whsec_ and 24 to 64 bytes in base64")
    return text


EVENT_PATTERN = r"^(\*|[a-z][a-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{1,60})*(\.\*)?)$"
EventPattern = Annotated[str, Field(pattern=EVENT_PATTERN)]


class WebhookEndpointSettings(Section):
    """One of `[webhooks.endpoints]`: where events go, and what signs them."""

    url: Annotated[str, Field(min_length=8, max_length=2048)]
    secrets: Annotated[
        tuple[Annotated[str, AfterValidator(_is_webhook_secret)], ...],
        Field(strict=False, min_length=1, max_length=4, repr=False),
    ]
    events: Annotated[tuple[EventPattern, ...], Field(strict=False, min_length=1, max_length=64)] = ("*",)
    room: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""


class WebhookSettings(Section):
    """`[webhooks]`: the events of rooms, for services elsewhere."""

    deliver: bool = True
    max_endpoints: Annotated[int, Field(ge=1, le=1000)] = 32
    queue_events: Annotated[int, Field(ge=10, le=1_000_000)] = 10_000
    attempts: Annotated[int, Field(ge=1, le=100)] = 12
    retry_min_ms: Milliseconds = 2000
    retry_max_s: Annotated[float, Field(ge=0.01, le=86_400)] = 3600.0
    timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 10.0
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    rotation_s: Annotated[float, Field(ge=0, le=2_592_000)] = 86_400.0
    allow_private_targets: bool = False
    allow_plain_http: bool = False
    endpoints: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], WebhookEndpointSettings] = Field(
        default_factory=dict
    )


class AuthSettings(Section):
    """`[auth]`: who may sign tokens."""

    keys: Annotated[Mapping[str, str], AfterValidator(_are_keys)] = Field(default_factory=dict, repr=False)
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


def load_node_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> NodeSettings:
    """Read the settings of `costream relay`. Raises SettingsError for a fault, for no key and for the known key."""
    settings = read_settings(NodeSettings, path, environ, overrides)
    require_own_key(settings)
    return settings


def load_signaling_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> SignalingSettings:
    """Read the settings of `costream signaling`. Raises SettingsError like `load_node_settings`."""
    settings = read_settings(SignalingSettings, path, environ, overrides, also_known=(NodeSettings,))
    require_own_key(settings)
    return settings


def require_own_key(settings: SignalingSettings) -> None:
    """Raise SettingsError when there is no key, or when anybody could sign with the published one."""
    if not settings.auth.keys:
        raise SettingsError(
            'auth.keys is empty, so no token could be checked: put `name = "secret of 32 bytes or more"` under '
            '[auth.keys], or set COSTREAM_AUTH__KEYS=\'{"name": "secret"}\' (`openssl rand -hex 32` makes a secret)'
        )
    if DEV_KEY_ID in settings.auth.keys or DEV_SECRET in settings.auth.keys.values():
        raise SettingsError(
            f"auth.keys has {DEV_KEY_ID!r} or its secret, which is published: only `costream dev` may use it"
        )


def dev_settings(
    lan: bool = False,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> NodeSettings:
    """Settings of `costream dev`: loopback and the known key, or with `lan` all interfaces and a key made now.

    Rooms are made by the first who comes. Variables and `overrides` win, except that the known key never leaves
    loopback: that raises SettingsError.
    """
    host = "0.0.0.0" if lan else "127.0.0.1"
    key = {f"dev-{secrets.token_hex(4)}": secrets.token_hex(32)} if lan else {DEV_KEY_ID: DEV_SECRET}
    base: dict[str, object] = {
        "http.host": host,
        "media.host": host,
        "media.advertise": [] if lan else ["127.0.0.1"],
        "room.auto_create": True,
        "auth.keys": key,
        "log.format": "console",
        "node.drain_timeout_s": 1.0,  # who tries out does not want to wait for his own browser
        "room.empty_room_ttl_s": 86_400.0,  # the printed links stay good
        "webhooks.allow_private_targets": not lan,  # who tries out listens on loopback
        "webhooks.allow_plain_http": not lan,
    }
    asked = read_settings(NodeSettings, None, environ, overrides)
    wanted = asked.model_dump(exclude_unset=True)
    for name in base:
        section, leaf = name.split(".")
        if leaf in wanted.get(section, {}):
            base[name] = wanted[section][leaf]
    settings = read_settings(NodeSettings, None, environ, {**base, **(overrides or {})})
    exposed = [h for h in (settings.http.host, settings.http.plain_host, settings.media.host) if not is_loopback(h)]
    if exposed and DEV_KEY_ID in settings.auth.keys:
        raise SettingsError(
            f"the known key {DEV_KEY_ID!r} would be open to {exposed[0]}: use --lan, which makes a new key"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Return whether a bind address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
