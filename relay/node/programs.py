"""A node's mixing: the pools of worker processes, and who hears of what they say.

That of sound begins with the first program or the first viewer who asks for one sound, that of pictures with a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from relay.errors import Overloaded
from relay.metrics import Metrics
from relay.mix.audio import messages as sound
from relay.mix.audio.opus import LOOK_AHEAD_US
from relay.mix.audio.pool import AudioPool
from relay.mix.executor import Executor, LocalProcesses
from relay.mix.limiter import DELAY
from relay.mix.opus_packet import RATE
from relay.mix.video import events as picture
from relay.mix.video.pool import VideoPool
from relay.plane import Plane
from relay.settings import MixAudioSettings, MixSettings, MixVideoSettings
from relay.stage.lips import SENDERS_LOOK_AHEAD_US
from relay.workers.executor import RayActors

log = structlog.get_logger()

RETRY_S = 5.0
"""Between two attempts to start the processes."""


P = TypeVar("P", AudioPool, VideoPool)


class Mixed(Protocol):
    """A program that hears what the pool of pictures says of it."""

    def picture_told(self, event: picture.VideoEvent) -> None: ...

    def pools_ready(self) -> None:
        """Both pools have started."""
        ...


class Sounding(Protocol):
    """A room's sound, which hears what the pool of sound says of it."""

    def sound_told(self, event: sound.Event) -> None: ...

    def pool_ready(self) -> None:
        """The pool of sound has started."""
        ...


class Pools:
    """Use `wanted` before `video` and `audio`, `sound_wanted` before `audio`; `close` ends all of it."""

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
        self.sound_ready = self._picture_ready = False
        self._programs: dict[str, Mixed] = {}
        self._sounds: dict[str, Sounding] = {}
        self._starting_sound: asyncio.Task[None] | None = None
        self._starting_picture: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether programs can be made."""
        return self.sound_ready and self._picture_ready

    def wanted(self, room: str, program: Mixed) -> bool:
        """A room wants to be mixed; `program` hears of it from now on. False while the processes start."""
        self._programs[room] = program
        self._metrics.programs.set(len(self._programs))
        self._begin_sound()
        if self._starting_picture is None and not self._closed:
            self._starting_picture = asyncio.create_task(self._start_picture(), name="mix pictures")
        return self.ready

    def unwanted(self, room: str) -> None:
        """The room is mixed here no more."""
        self._programs.pop(room, None)
        self._metrics.programs.set(len(self._programs))

    def sound_wanted(self, room: str, sounding: Sounding) -> bool:
        """A room's sound wants to be mixed; `sounding` hears of it from now on. False while the process starts."""
        self._sounds[room] = sounding
        self._begin_sound()
        return self.sound_ready

    def sound_unwanted(self, room: str) -> None:
        """The room's sound is mixed here no more."""
        self._sounds.pop(room, None)

    def count_one_sounds(self, more: int) -> None:
        """So many viewers' mixes more are made."""
        self._metrics.one_sounds.inc(more)

    def count_trouble(self, fault: str) -> None:
        """Something was wrong with an input."""
        self._metrics.mix_troubles.labels(fault).inc()

    async def close(self) -> None:
        """End the processes; bounded, repeatable."""
        self._closed = True
        starting = [each for each in (self._starting_sound, self._starting_picture) if each is not None]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        ready: list[AudioPool | VideoPool] = []
        if self.sound_ready:
            ready.append(self.audio)
        if self._picture_ready:
            ready.append(self.video)
        self.sound_ready = self._picture_ready = False
        await asyncio.gather(*(pool.stop() for pool in ready))

    def _begin_sound(self) -> None:
        if self._starting_sound is None and not self._closed:
            self._starting_sound = asyncio.create_task(self._start_sound(), name="mix sound")

    async def _start_sound(self) -> None:
        self.audio = await _started(lambda: AudioPool(in_time(self.settings), self._plane, self._sound_told))
        self.sound_ready = True
        for sounding in list(self._sounds.values()):
            sounding.pool_ready()
        self._tell_ready()

    async def _start_picture(self) -> None:
        self.video = await _started(
            lambda: VideoPool(
                self._plane, self.next_handle, self.settings.video, self._picture_told, executor=self._executor
            )
        )
        self._picture_ready = True
        self._tell_ready()

    def _tell_ready(self) -> None:
        for program in list(self._programs.values()) if self.ready else ():
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
                log.warning("audio process replaced", reason=event.reason, rooms=len(self._sounds))
                self._metrics.mix_replacements.labels("audio process").inc()
                for sounding in list(self._sounds.values()):
                    sounding.sound_told(event)
            case sound.MixerReplaced():
                log.warning("audio mixer replaced", mixer=event.mixer, reason=event.reason, rooms=event.rooms)
                self._metrics.mix_replacements.labels("audio mixer").inc()
            case sound.TicksReported():
                self._metrics.mix_tick_lateness.set(event.late_p99_ms / 1000)
                self._metrics.mix_ticks_skipped.inc(event.skipped)
            case sound.CommandRefused():
                log.error("the audio process refused a command", command=event.command, reason=event.reason)
            case _:
                if event.room in self._sounds:
                    self._sounds[event.room].sound_told(event)


async def _started(make: Callable[[], P]) -> P:
    """Make a pool and start it, again and again until it starts. One that does not is stopped."""
    while True:
        pool = make()
        try:
            await pool.start()
        except Overloaded as error:
            log.error("mixing cannot begin", reason=str(error))
            await pool.stop()
            await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:
            await pool.stop()
            raise
        else:
            return pool


SOUND_LATE_US = SENDERS_LOOK_AHEAD_US + DELAY * 1_000_000 // RATE + LOOK_AHEAD_US
"""By what a program's sound is late: the host's encoder, the mixer's limiter and its encoder look ahead."""


def longer_us(fps: int) -> int:
    """Return how much longer sound has to wait than pictures to be heard when they are seen. They are shown by the next
    frame that is due, half a frame late in the mean."""
    return 500_000 // fps - SOUND_LATE_US


def picture_wait_ms(settings: MixVideoSettings) -> int:
    """Return how long sound waits at least that goes with pictures."""
    return min(1000, max(0, settings.delay_ms + longer_us(settings.fps) // 1000))


def in_time(settings: MixSettings) -> MixAudioSettings:
    """Return the sound's settings, made to allow for a wait as long as that of pictures."""
    most = max(settings.audio.jitter_most_ms, picture_wait_ms(settings.video))
    return settings.audio.model_copy(update={"jitter_most_ms": most})
