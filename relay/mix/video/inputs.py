"""One input of a program inside a worker: packets in, at each output frame a picture out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from relay.mix.timeline import DueQueue, InputTimeline
from relay.mix.video.assembly import AccessUnit, Assembler
from relay.mix.video.composer import Content
from relay.mix.video.decoder import BadStream, Decoder
from relay.mix.video.messages import FrameShown, InputSpec, InputTrouble, KeyframeNeeded, LagMeasured
from relay.plane.reference.rtcp import wall_us_from_ntp
from relay.process.control import Message
from relay.stage.lips import Told
from relay.stage.sender_clock import Anchor

ASK_US = 500_000
"""Between two requests for a keyframe; the relay coalesces them further."""
HEAL_US = (1_000_000, 4_000_000)
"""So long after a fault that the decoder noticed it gets keyframes once more: damage beside it may have gone unnoticed,
and pictures that refer to it stay wrong although each of them can be decoded."""
TELL_US = 1_000_000
"""Between two events about the same fault."""
LAG_STEP_US = 3000
"""A lag that moved by less is not worth telling, nor more than once a second."""
LAG_REPEAT_US = 5_000_000
"""But then it is told again: who compares it may have begun later."""

Tell = Callable[[Message], object]


class _Waiting(NamedTuple):
    media: int
    unit: AccessUnit


class Input:
    """See the module's text. Only `decode` may be called by another thread, and by one at a time."""

    def __init__(self, stage: str, spec: InputSpec, delay: int, silence: int, now: int, tell: Tell) -> None:
        self.spec, self._stage, self._silence, self._tell = spec, stage, silence, tell
        self._queue: DueQueue[_Waiting] = DueQueue(InputTimeline(spec.delay or delay))
        self._due: list[_Waiting] = []
        self._picture: Any = None
        self._arrived = 0
        self._version = 0
        self._seen = self._asked = now
        self._heal: list[int] = []
        self._showing = False
        self._told: dict[str, int] = {}
        self._size: tuple[int, int] | None = None
        self._anchors: dict[Told, Anchor] = {}
        self._lags: dict[Told, tuple[int, int]] = {}
        """What was told of them, and when."""
        self._lost = 0
        self._decoder = None if spec.codec is None else Decoder(spec.codec)
        self._assembler = None if spec.codec is None else Assembler(spec.codec)

    @property
    def waits(self) -> bool:
        """It has a picture to show, and none came yet."""
        return self._decoder is not None and not self._version

    def receive(self, data: bytes, arrival: int) -> None:
        """Take a packet."""
        if self._assembler is None:
            return
        for unit in self._assembler.receive(data, arrival):
            self._enqueue(unit)
        if self._assembler.lost != self._lost:
            self._trouble("lost", f"{self._assembler.lost - self._lost} packets", arrival)
            self._lost = self._assembler.lost

    def due(self, now: int) -> bool:
        """Is there something to decode for the output frame of `now`?"""
        self._due = self._queue.take(now)
        return bool(self._due)

    def decode(self) -> None:
        """Decode what is due."""
        due, self._due = self._due, []
        assert self._decoder is not None
        assert self._assembler is not None
        for media, unit in due:
            try:
                frames = self._decoder.decode(unit.data, media)
            except BadStream as error:
                self._queue.restart()
                self._assembler.fault()
                self._heal = [unit.arrival + later for later in HEAL_US]
                self._trouble("corrupt", str(error), unit.arrival)
                return
            if frames:
                self._accept(frames[-1], unit.arrival)

    def content(self, now: int, sync_id: int) -> Content:
        """What to show in the output frame of `now`, after `decode`."""
        if self._picture is not None and not self._showing:
            self._showing = True
            self._tell(FrameShown(self._stage, self.spec.identity, max(0, now - self._arrived), sync_id))
        return Content(self.spec.name, self._picture, self._version)

    def check(self, now: int) -> None:
        """Look after what did not come: ask for keyframes, notice silence."""
        if self._assembler is None:
            return
        heals = bool(self._heal) and now >= self._heal[0]
        if heals:
            self._heal.pop(0)
        if heals or (self._assembler.broken and now - self._asked > (ASK_US if self._version else ASK_US // 2)):
            self._asked = now
            self._tell(KeyframeNeeded(self._stage, self.spec.identity))
        # What waits to be decoded shows that it is not silent, and what will follow refers to it.
        if self._showing and not self._queue and now - self._seen > self._silence:
            self._showing, self._picture = False, None
            self._queue.restart()
            self._trouble("silent", f"for {(now - self._seen) / 1e6:.1f} s", now)

    def anchor(self, ssrc: int, timestamp: int, captured: int) -> None:
        """By its sender's reports, a timestamp of this stream is of this moment (µs of the sender's clock)."""
        self._anchors["report"] = Anchor(ssrc, timestamp, captured)

    def wait(self, delay: int) -> None:
        """Show pictures so long after they could have come at the earliest."""
        self._queue.timeline.delay = delay

    def go_on_from(self, old: Input) -> None:
        """Show the other input's last picture until this one's first is there: one of his layers follows another."""
        if self._decoder is not None and old._picture is not None:
            self._picture, self._version, self._arrived = old._picture, old._version, old._arrived
            self._showing, self._size = old._showing, old._size
            self._seen = max(self._seen, old._seen)

    def _enqueue(self, unit: AccessUnit) -> None:
        media, jumped = self._queue.timeline.receive(unit.timestamp, unit.arrival)
        if jumped is not None:
            self._trouble("clock_jumped", f"by {jumped.by_us / 1e6:.3f} s", unit.arrival)
        self._measure(unit)
        if not self._queue.push(media, _Waiting(media, unit)):
            assert self._assembler is not None
            self._assembler.fault()
            self._trouble("lost", "too many pictures wait for their time", unit.arrival)

    def _accept(self, picture: Any, arrival: int) -> None:
        size = picture.width, picture.height
        if self._size not in (None, size):
            self._trouble("resized", f"to {size[0]}x{size[1]}", arrival)
        self._size, self._seen, self._arrived = size, arrival, arrival
        self._picture = picture
        self._version += 1

    def _measure(self, unit: AccessUnit) -> None:
        """Tell how late pictures are by the sender's clock, as far as anything says what that is."""
        if unit.capture is not None:
            # Whole seconds of the sender's clock mean nothing here; only its pace and its distance to his sound's do.
            self._anchors["capture"] = Anchor(unit.ssrc, unit.timestamp, wall_us_from_ntp(unit.capture))
        for told, anchor in self._anchors.items():
            if anchor.ssrc != unit.ssrc:
                continue
            lag = self._queue.timeline.lag(anchor.timestamp, anchor.captured)
            before, at = self._lags.get(told, (None, unit.arrival - TELL_US))
            moved = before is None or abs(lag - before) > LAG_STEP_US
            if unit.arrival - at >= (TELL_US if moved else LAG_REPEAT_US):
                self._lags[told] = lag, unit.arrival
                self._tell(LagMeasured(self._stage, self.spec.identity, lag, told))

    def _trouble(self, fault: Any, detail: str, now: int) -> None:
        last = self._told.get(fault)
        if last is None or now - last > TELL_US:
            self._told[fault] = now
            self._tell(InputTrouble(self._stage, self.spec.identity, fault, detail))
