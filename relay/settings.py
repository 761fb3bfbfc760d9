"""Settings of a node and of the signaling service, parsed once into frozen objects.

`configs/relay.toml` and `configs/signaling.toml` are the manual: every key with its default, unit and reason. Names end
in their unit: `_s`, `_ms`, `_bytes`, `_bps`; the others are counts, names or addresses.
"""

from __future__ import annotations

import ipaddress
import os
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


def _is_store_url(text: str) -> str:
    parts = urlsplit(text)
    if text != EMBEDDED_STORE and not (parts.scheme in {"redis", "rediss"} and parts.hostname):
        raise ValueError('must be "embedded", redis://host:port/db or rediss://host:port/db')
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
Address = Annotated[str, AfterValidator(_is_address)]
Addresses = Annotated[tuple[Address, ...], Field(strict=False)]
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
    """`[media]`: the one UDP port of all sessions, and where their packets are kept."""

    host: Address = "0.0.0.0"
    port: Port = 7443
    advertise: Addresses = ()
    plane: Literal["auto", "native", "reference"] = "auto"
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
    socket_timeout_s: Seconds = 0.5
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
    heartbeat_s: Seconds = 2.0
    expiry_s: Seconds = 6.0
    control_ca: Text = PINNED_BY_DIRECTORY
    allow_plain_http: bool = False

    @model_validator(mode="after")
    def _heartbeats_may_be_lost(self) -> Self:
        if self.expiry_s < 2 * self.heartbeat_s:
            raise ValueError("expiry_s has to be at least twice heartbeat_s, or one late heartbeat removes a node")
        return self


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
    auth: AuthSettings = AuthSettings()
    rate: RateSettings = RateSettings()
    log: LogSettings = LogSettings()


class NodeSettings(SignalingSettings):
    """All settings of a node, which also serves the signaling of its own sessions."""

    media: MediaSettings = MediaSettings()
    limits: LimitSettings = LimitSettings()
    session: SessionSettings = SessionSettings()
    plane: PlaneSettings = PlaneSettings()


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
