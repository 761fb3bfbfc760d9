"""One room's sound: all inputs mixed, once for everybody and once for each who asked not to hear himself.

A room does no I/O and has no clock. A mixer thread calls `tick`; commands come by `change` from another thread and
take effect at the next tick. What a tick needs to go on elsewhere (gains, packets that wait, output positions) is kept
here and not in the thread, so that another thread can take the room at any time.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, assert_never

import numpy as np

from relay.errors import UsageError
from relay.mix.audio.input import Input, PacketQueue
from relay.mix.audio.messages import (
    AddInput,
    AnchorInput,
    CloseMix,
    CommandRefused,
    FromProcess,
    InputDamaged,
    InputRefused,
    InputReport,
    InputReturned,
    InputsReported,
    InputStopped,
    OpenMix,
    RemoveInput,
    RoomCommand,
    SetGain,
    SpeakerChanged,
    WaitForPicture,
    WaitForPictures,
)
from relay.mix.audio.mix import FRAME, Encoding, Line, Mix
from relay.mix.audio.opus import Block
from relay.mix.jitter_steps import JitterSettings
from relay.mix.limiter import Limiter
from relay.mix.voices import Voices, energy

HEARD = 1e-8  # mean square (-80 dBov) from which somebody is missing in a mix without him
REPORT_TICKS = 50


class Output(NamedTuple):
    """An encoded frame for a mix, which makes the packet of it."""

    mix: Mix
    payload: bytes


class _Heard(NamedTuple):
    """What an input adds to a tick, and the energy of that."""

    name: str
    sound: Block
    power: float


class Room:
    """Use by one thread at a time, `change` excepted."""

    def __init__(
        self,
        name: str,
        encoding: Encoding,
        jitter: JitterSettings,
        max_inputs: int,
        tell: Callable[[FromProcess], None],
    ) -> None:
        self.name = name
        self.failures = 0
        """Ticks that raised."""
        self.ticked: int | None = None
        """The last tick whose packets went out. Kept by who sends them."""
        self._encoding, self._jitter, self._max_inputs, self._tell = encoding, jitter, max_inputs, tell
        self._least_us = self._wait_us = jitter.least_us
        self._more_us: dict[str, int] = {}
        self._changes: deque[tuple[RoomCommand, PacketQueue | None]] = deque()
        self.inputs: dict[str, Input] = {}
        self._leaving: list[tuple[str, Input]] = []
        self.mixes: dict[str, Mix] = {}
        self._voices = Voices()
        self._speaker: str | None = None
        self._stopped: dict[str, bool] = {}
        self._damaged: dict[str, int] = {}
        self._ticks = 0
        self._limiter = Limiter(encoding.channels)
        self._line = Line(encoding)
        self._before: Block = np.zeros((FRAME, encoding.channels), np.float32)

    def rescued(self, *, anew: bool = False) -> Room:
        """The same room for another thread, while the old one may still be in a tick of this one.

        `anew` leaves behind the packets that wait.
        """
        other = Room(self.name, self._encoding, self._jitter, self._max_inputs, self._tell)
        other.ticked, other._changes = self.ticked, self._changes
        other.inputs = {name: one.rescued(anew=anew) for name, one in self.inputs.copy().items()}
        other.mixes = {name: mix.rescued() for name, mix in self.mixes.copy().items()}
        other._speaker, other._voices = self._speaker, self._voices
        other._limiter, other._before = copy.copy(self._limiter), self._before
        other.failures, other._least_us, other._wait_us = self.failures, self._least_us, self._wait_us
        other._more_us = self._more_us.copy()
        other._stopped, other._damaged = self._stopped.copy(), self._damaged.copy()
        return other

    def change(self, command: RoomCommand, queue: PacketQueue | None = None) -> None:
        """Do this at the next tick. An `AddInput` brings the queue that its packets come by."""
        self._changes.append((command, queue))

    def tick(self, number: int, now: int) -> list[Output]:
        """Mix the 20 ms of tick `number`, which are due at `now` (µs)."""
        while self._changes:
            self._apply(*self._changes.popleft())
        sounds = {name: one.tick(now) for name, one in self.inputs.items()}
        heard = [_Heard(name, sound, energy(sound)) for name, sound in sounds.items() if sound is not None]
        powers = dict.fromkeys(sounds, 0.0) | {each.name: each.power for each in heard}
        heard += self._farewells(now)
        total: Block = np.zeros((FRAME, self._encoding.channels), np.float32)
        for each in heard:
            total += each.sound
        outputs = self._encode(number, total, heard)
        self._watch(powers, now)
        return outputs

    def _encode(self, number: int, total: Block, heard: Sequence[_Heard]) -> list[Output]:
        outputs: list[Output] = []
        sharers: list[Mix] = []
        for mix in self.mixes.values():
            own = [each for each in heard if each.name in mix.told.exclude]
            if mix.shares(any(each.power >= HEARD for each in own)):
                mix.share()
                sharers.append(mix)
                continue
            rest = total
            for each in own:
                rest = rest - each.sound
            outputs.append(Output(mix, mix.own(number, self._limiter, self._before, rest)))
        program = self._limiter.process(total)
        if sharers:
            payload = self._line.encode(number, self._before, program)
            outputs += [Output(mix, payload) for mix in sharers]
        self._before = program
        return outputs

    def _farewells(self, now: int) -> list[_Heard]:
        """Those who leave are heard until they are faded out."""
        if not self._leaving:
            return []
        sounds = [(name, one.tick(now)) for name, one in self._leaving]
        self._leaving = [(name, one) for name, one in self._leaving if not one.ramp.silent]
        return [_Heard(name, sound, energy(sound)) for name, sound in sounds if sound is not None]

    # --- commands ---------------------------------------------------------------------------------------------------

    def _apply(self, command: RoomCommand, queue: PacketQueue | None) -> None:
        try:
            match command:
                case AddInput():
                    self._add_input(command, queue)
                case SetGain(_, identity, gain, muted, seconds):
                    self._input(identity).ramp.move(0.0 if muted else gain, seconds)
                case RemoveInput(_, identity):
                    self._remove_input(identity)
                case OpenMix(_, mix):
                    self.mixes[mix] = Mix(command, self._encoding)
                case CloseMix(_, mix):
                    self.mixes.pop(mix, None)
                case WaitForPictures(_, wait_ms):
                    self._wait_us = wait_ms * 1000
                    self._wait()
                case WaitForPicture(_, identity, more_ms):
                    self._more_us[identity] = more_ms * 1000
                    self._wait()
                case AnchorInput(_, identity, ssrc, timestamp, captured):
                    self._input(identity).anchor(ssrc, timestamp, captured)
                case _:
                    assert_never(command)
        except UsageError as error:
            self._tell(CommandRefused(type(command).__name__, f"room {self.name!r}: {error}"))

    def _add_input(self, told: AddInput, queue: PacketQueue | None) -> None:
        if told.identity not in self.inputs and len(self.inputs) >= self._max_inputs:
            self._tell(InputRefused(self.name, told.identity, f"{self._max_inputs} are mixed already"))
            return
        if told.identity in self.inputs:
            self._remove_input(told.identity)
        try:
            one = Input(
                self._encoding.channels,
                self._jitter,
                gain=told.gain,
                muted=told.muted,
                payload_type=told.payload_type,
                queue=queue,
            )
        except UsageError as error:
            self._tell(InputRefused(self.name, told.identity, str(error)))
            return
        self.inputs[told.identity] = one
        self._stopped[told.identity] = False

    def _wait(self) -> None:
        least = max(self._wait_us, self._least_us)
        self._jitter = self._jitter.waiting(least)
        self._more_us = {name: more for name, more in self._more_us.items() if name in self.inputs}
        for name, one in self.inputs.items():
            one.wait_at_least(least, self._more_us.get(name, 0))

    def _remove_input(self, identity: str) -> None:
        one = self._input(identity)
        del self.inputs[identity]
        self._stopped.pop(identity, None)
        self._damaged.pop(identity, None)
        self._more_us.pop(identity, None)
        one.ramp.move(0.0)
        self._leaving.append((identity, one))

    def _input(self, identity: str) -> Input:
        found = self.inputs.get(identity)
        if found is None:
            raise UsageError(f"no input {identity!r}")
        return found

    # --- what is told -----------------------------------------------------------------------------------------------

    def _watch(self, powers: dict[str, float], now: int) -> None:
        self._ticks += 1
        if self._voices.heard(powers, now / 1_000_000) and self._voices.speaker != self._speaker:
            self._speaker = self._voices.speaker
            self._tell(SpeakerChanged(self.name, self._speaker))
        if self._ticks % REPORT_TICKS:
            return
        for name, one in self.inputs.items():
            self._tell_state(name, one, now)
        if self.inputs:
            self._tell(InputsReported(self.name, tuple(self._report(name, one) for name, one in self.inputs.items())))

    def _tell_state(self, name: str, one: Input, now: int) -> None:
        stopped = one.stopped(now)
        if stopped != self._stopped.get(name):
            self._stopped[name] = stopped
            self._tell(InputStopped(self.name, name) if stopped else InputReturned(self.name, name))
        damaged = one.damaged + one.jitter.counts.malformed
        if (more := damaged - self._damaged.get(name, 0)) > 0:
            self._tell(InputDamaged(self.name, name, more))
        self._damaged[name] = damaged

    def _report(self, name: str, one: Input) -> InputReport:
        counts = one.jitter.counts
        return InputReport(
            name,
            round(self._voices.levels.get(name, 0.0), 1),
            not self._stopped.get(name, True),
            one.jitter.delay_us / 1000,
            one.jitter.jitter_us / 1000,
            one.received,
            counts.lost,
            counts.late,
            one.damaged + counts.malformed,
            one.lag("capture"),
            one.lag("report"),
        )
