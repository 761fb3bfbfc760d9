"""What the relay tells its audio process, and what it hears. All frozen; commands take effect at a room's next tick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.process.control import Message

# --- commands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """The first word: how to mix. `mixers` threads, `channels` 1 or 2, the encoder's bits per second and complexity
    0 to 10, most inputs of a room, the jitter buffer's least, first and longest delay."""

    mixers: int
    channels: int
    bitrate_bps: int
    complexity: int
    max_inputs: int
    jitter_least_ms: int
    jitter_first_ms: int
    jitter_most_ms: int
    priority: Literal["auto", "fifo", "nice", "none"]


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Tick. A process that is kept in reserve waits for this, with everything loaded."""


@dataclass(frozen=True, slots=True)
class OpenRoom(Message):
    """Mix for a room."""

    room: str


@dataclass(frozen=True, slots=True)
class CloseRoom(Message):
    """Forget a room with all that is in it."""

    room: str


@dataclass(frozen=True, slots=True)
class AddInput(Message):
    """Mix in the Opus packets of a stream of the tap ring. `payload_type` None takes any. Fades in."""

    room: str
    identity: str
    stream: int
    gain: float = 1.0
    muted: bool = False
    payload_type: int | None = None


@dataclass(frozen=True, slots=True)
class SetGain(Message):
    """Move an input to a gain (0 to 16) and in or out of mute within `seconds`, at least 15 ms."""

    room: str
    identity: str
    gain: float
    muted: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class RemoveInput(Message):
    """Fade an input out and forget it."""

    room: str
    identity: str


@dataclass(frozen=True, slots=True)
class OpenMix(Message):
    """Write a mix of all inputs but those in `exclude`, which may come later or never, to a stream of the inject ring.

    `slot` is where its position is kept; `sequence` and `timestamp` are those of packet and tick number 0.
    """

    room: str
    mix: str
    exclude: tuple[str, ...]
    stream: int
    slot: int
    ssrc: int
    sequence: int
    timestamp: int
    payload_type: int


@dataclass(frozen=True, slots=True)
class CloseMix(Message):
    """Write it no more."""

    room: str
    mix: str


@dataclass(frozen=True, slots=True)
class WaitForPictures(Message):
    """Have every input of a room wait for `wait_ms` at least, as pictures that it has to match do; 0: as configured."""

    room: str
    wait_ms: int


@dataclass(frozen=True, slots=True)
class WaitForPicture(Message):
    """Have an input of a room wait for `more_ms` longer than the others: its own picture comes so much later."""

    room: str
    identity: str
    more_ms: int


@dataclass(frozen=True, slots=True)
class AnchorInput(Message):
    """By its sender's reports, RTP timestamp `timestamp` of an input's stream `ssrc` is of `captured`, µs of the
    sender's clock."""

    room: str
    identity: str
    ssrc: int
    timestamp: int
    captured: int


@dataclass(frozen=True, slots=True)
class FailMixer(Message):
    """A drill: have a mixer thread die in the middle of its work, or hang for some seconds."""

    mixer: int
    hang_s: float = 0.0


RoomCommand = AddInput | SetGain | RemoveInput | OpenMix | CloseMix | WaitForPictures | WaitForPicture | AnchorInput
Command = Configure | Begin | OpenRoom | CloseRoom | RoomCommand | FailMixer
COMMANDS = (
    Configure, Begin, OpenRoom, CloseRoom, AddInput, SetGain, RemoveInput, OpenMix, CloseMix, WaitForPictures,
    WaitForPicture, AnchorInput, FailMixer,
)  # fmt: skip

# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """Everything is loaded. `priority` is what the mixers got."""

    priority: Literal["fifo", "nice", "none"]


@dataclass(frozen=True, slots=True)
class SpeakerChanged(Message):
    """Somebody else speaks now."""

    room: str
    identity: str | None


@dataclass(frozen=True, slots=True)
class InputReport(Message):
    """One input in the last second. `level` is 0 (silence) to 127 (full scale); packets are counted since it was
    added; `delay_ms` is from arrival to the mix, for who aligns pictures with it."""

    identity: str
    level: float
    flowing: bool
    delay_ms: float
    jitter_ms: float
    received: int
    lost: int
    late: int
    damaged: int
    capture_lag: int | None = None
    """How long after capture the fastest packets come by the sender's clock (µs), by the packets' capture times."""
    report_lag: int | None = None
    """By the sender's reports."""


@dataclass(frozen=True, slots=True)
class InputsReported(Message):
    """A room's inputs, each second."""

    room: str
    inputs: tuple[InputReport, ...]


@dataclass(frozen=True, slots=True)
class InputStopped(Message):
    """Nothing has come of an input for 2 s, or since it was added that long ago."""

    room: str
    identity: str


@dataclass(frozen=True, slots=True)
class InputReturned(Message):
    """Packets come again."""

    room: str
    identity: str


@dataclass(frozen=True, slots=True)
class InputDamaged(Message):
    """So many packets of the last second were no RTP or no Opus. They were concealed."""

    room: str
    identity: str
    packets: int


@dataclass(frozen=True, slots=True)
class InputRefused(Message):
    """The room is full, or the input cannot be as told. The mix goes on without it."""

    room: str
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRefused(Message):
    """A command named what is not there, or a value that cannot be."""

    command: str
    reason: str


@dataclass(frozen=True, slots=True)
class RoomRecovered(Message):
    """A room's tick failed; its codecs were begun anew."""

    room: str
    reason: str


@dataclass(frozen=True, slots=True)
class MixerReplaced(Message):
    """A mixer thread died or hung, and another one took its rooms."""

    mixer: int
    reason: str
    rooms: int


@dataclass(frozen=True, slots=True)
class TicksReported(Message):
    """All mixers in the last 5 s. Lateness is waking after the deadline; `work_ms` the mean of one tick's work.

    `caught_up` ticks were made after their time, `skipped` ones never.
    """

    ticks: int
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float
    work_ms: float
    caught_up: int
    skipped: int
    tap_dropped: int


@dataclass(frozen=True, slots=True)
class ProcessReplaced(Message):
    """The audio process ended and another one has its rooms. Told by the relay's side."""

    reason: str


FromProcess = (
    Ready
    | SpeakerChanged
    | InputsReported
    | InputStopped
    | InputReturned
    | InputDamaged
    | InputRefused
    | CommandRefused
    | RoomRecovered
    | MixerReplaced
    | TicksReported
)
Event = FromProcess | ProcessReplaced
FROM_PROCESS = (
    Ready, SpeakerChanged, InputsReported, InputStopped, InputReturned, InputDamaged, InputRefused, CommandRefused,
    RoomRecovered, MixerReplaced, TicksReported,
)  # fmt: skip
