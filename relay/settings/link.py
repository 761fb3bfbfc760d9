"""`[link]`: paths to other nodes, what crosses them, and when one of them counts as bad."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relay.settings.fields import (
    Address,
    BitsPerSecond,
    Bytes,
    Count,
    Endpoints,
    Milliseconds,
    Percent,
    Port,
    Section,
)


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
