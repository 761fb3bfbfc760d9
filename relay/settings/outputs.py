"""`[egress]` and `[webhooks]`: what leaves a room for services and people elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from relay.settings.fields import (
    Bytes,
    Count,
    Milliseconds,
    Section,
)


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
