"""`[mix]`: programs of rooms."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from relay.settings.fields import (
    BitsPerSecond,
    Milliseconds,
    Section,
    is_address,
)


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
    host: Annotated[str, AfterValidator(lambda text: is_address(text) if text else text)] = ""
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
