"""A node's mixing: the pools of worker processes, begun with the first program, and who hears of what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from relay.errors import Overloaded
from relay.metrics import Metrics
from relay.mix.audio import messages as sound
from relay.mix.audio.pool import AudioPool
from relay.mix.executor import Executor, LocalProcesses
from relay.mix.video import events as picture
from relay.mix.video.pool import VideoPool
from relay.plane import Plane
from relay.settings import MixAudioSettings, MixSettings
from relay.workers.executor import RayActors

log = structlog.get_logger()

RETRY_S = 5.0
"""Between two attempts to start the processes."""


class Mixed(Protocol):
    """A program that hears what the pools say of it."""

    def picture_told(self, event: picture.VideoEvent) -> None: ...

    def sound_told(self, event: sound.Event) -> None: ...

    def pools_ready(self) -> None:
        """The pools have started."""
        ...


class Pools:
    """Use `wanted` before `video` and `audio`; `close` ends all of it."""

    def __init__(
        self,
        settings: MixSettings,
        plane: Plane,
        next_handle: Callable[[], int],
        heights: Callable[[int], list[int]],
        metrics: Metrics,
    ) -> None:
        """`heights` gives the lines of each layer of a track, 0 where they are not known. Raises SettingsError when the
        executor that is set cannot be had."""
        self._executor: Executor = LocalProcesses()
        if settings.executor == "ray":
            self._executor = RayActors(settings.ray, settings.video.hang_ms)
        self.settings, self.next_handle, self.heights = settings, next_handle, heights
        self._plane, self._metrics = plane, metrics
        self.video: VideoPool
        self.audio: AudioPool
        self.ready = False
        self._programs: dict[str, Mixed] = {}
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    def wanted(self, room: str, program: Mixed) -> bool:
        """A room wants to be mixed; `program` hears of it from now on. False while the processes start."""
        self._programs[room] = program
        self._metrics.programs.set(len(self._programs))
        if self._starting is None and not self._closed:
            self._starting = asyncio.create_task(self._start(), name="mix pools")
        return self.ready

    def unwanted(self, room: str) -> None:
        """The room is mixed here no more."""
        self._programs.pop(room, None)
        self._metrics.programs.set(len(self._programs))

    def count_trouble(self, fault: str) -> None:
        """Something was wrong with an input."""
        self._metrics.mix_troubles.labels(fault).inc()

    async def close(self) -> None:
        """End the processes; bounded, repeatable."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self.ready:
            self.ready = False
            await asyncio.gather(self.video.stop(), self.audio.stop())

    async def _start(self) -> None:
        while not self.ready:
            audio = AudioPool(in_time(self.settings), self._plane, self._sound_told)
            video = VideoPool(
                self._plane, self.next_handle, self.settings.video, self._picture_told, executor=self._executor
            )
            try:
                await asyncio.gather(audio.start(), video.start())
            except Overloaded as error:
                log.error("mixing cannot begin", reason=str(error))
                await asyncio.gather(audio.stop(), video.stop())
                await asyncio.sleep(RETRY_S)
            except asyncio.CancelledError:
                await asyncio.gather(audio.stop(), video.stop())
                raise
            else:
                self.audio, self.video, self.ready = audio, video, True
        for program in list(self._programs.values()):
            program.pools_ready()

    # --- what processes say -----------------------------------------------------------------------------------------

    def _picture_told(self, event: picture.VideoEvent) -> None:
        match event:
            case picture.WorkerStarted():
                log.info("video worker ready", where=event.where, resident=event.resident)
            case picture.WorkerLost():
                log.warning("video worker lost", where=event.where, reason=event.reason, rooms=event.stages)
                self._metrics.mix_replacements.labels("video worker").inc()
                for room in event.stages:
                    if room in self._programs:
                        self._programs[room].picture_told(event)
            case _:
                if isinstance(event, picture.ProgramMeasured):
                    self._metrics.mix_frames.inc(event.frames)
                    self._metrics.mix_skipped.inc(event.skipped)
                if event.stage in self._programs:
                    self._programs[event.stage].picture_told(event)

    def _sound_told(self, event: sound.Event) -> None:
        match event:
            case sound.Ready():
                log.info("audio process ready", priority=event.priority)
            case sound.ProcessReplaced():
                log.warning("audio process replaced", reason=event.reason, rooms=len(self._programs))
                self._metrics.mix_replacements.labels("audio process").inc()
                for program in list(self._programs.values()):
                    program.sound_told(event)
            case sound.MixerReplaced():
                log.warning("audio mixer replaced", mixer=event.mixer, reason=event.reason, rooms=event.rooms)
                self._metrics.mix_replacements.labels("audio mixer").inc()
            case sound.TicksReported():
                self._metrics.mix_tick_lateness.set(event.late_p99_ms / 1000)
                self._metrics.mix_ticks_skipped.inc(event.skipped)
            case sound.CommandRefused():
                log.error("the audio process refused a command", command=event.command, reason=event.reason)
            case _:
                if event.room in self._programs:
                    self._programs[event.room].sound_told(event)


def in_time(settings: MixSettings) -> MixAudioSettings:
    """Return the sound's settings, made to wait as long as pictures do: those are shown by the next frame that is due,
    half a frame late in the mean."""
    video, audio = settings.video, settings.audio
    least = max(audio.jitter_least_ms, min(1000, video.delay_ms + 500 // video.fps))
    most = max(audio.jitter_most_ms, least)
    return audio.model_copy(update={"jitter_least_ms": least, "jitter_most_ms": most})
