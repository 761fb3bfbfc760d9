"""Lip sync of one room's program: who is told what by the senders' clocks, and what follows for sound and pictures.

The workers are told when frames were captured, and tell how late those are when they come; `relay.stage.lips` says what
to do about the difference. Sound and picture of one input are only compared while one session sends both: streams of
one session go by one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import structlog

from relay.clock import now_us
from relay.mix.audio.messages import InputReport
from relay.node.clocks import TrackClocks
from relay.node.program_inputs import Picture, Voice, input_name
from relay.node.programs import Pools, longer_us
from relay.stage.document import RoomState
from relay.stage.lips import Lips, Told
from relay.stage.sender_clock import Anchor

log = structlog.get_logger()

REPEAT_US = 2_000_000
"""Between two times that a worker is told the same line: it may be another worker."""


class ProgramLips:
    """Of those whose pictures and sound go into a program."""

    def __init__(
        self,
        room: str,
        pools: Pools,
        clocks: TrackClocks,
        voices: Mapping[str, Voice],
        now: Callable[[], int] = now_us,
    ) -> None:
        """`voices` are what the pool mixes at any time."""
        self._room, self._pools, self._senders = room, pools, clocks.senders
        self._voices, self._now = voices, now
        self._inputs: dict[str, Lips] = {}
        self._sessions: dict[str, tuple[str, str]] = {}
        self._told: dict[tuple[bool, str], tuple[int, int, int, int]] = {}
        self._reported: set[str] = set()
        """Whose reports are believed, of sound and picture."""
        self._strange: set[str] = set()
        self.waits: dict[str, int] = {}
        """For how long the sound waits for its picture of those who have both, ms."""

    def close(self) -> None:
        """Nobody has to wait any more."""
        for name in self._inputs:
            self._let_go(name)
        self._inputs.clear()

    def update(self, stage: RoomState, pictures: Mapping[str, Picture]) -> None:
        """A few times a second: tell the workers what is known of the inputs now."""
        both = {name: one for name, one in pictures.items() if one.source is not None and name in self._voices}
        for name in [name for name in self._inputs if name not in both]:
            self._let_go(name)
            del self._inputs[name]
            self.waits.pop(name, None)
        self._sessions = {name: pair for name, pair in self._sessions.items() if name in both}
        self._strange &= both.keys()
        self._reported &= both.keys()
        self._told = {key: at for key, at in self._told.items() if key[1] in both}
        sessions = dict(_sessions(stage))
        for name, picture in both.items():
            pair = sessions.get((True, name), ""), sessions.get((False, name), "")
            lips = self._inputs.setdefault(name, Lips())
            if self._sessions.get(name) != pair:
                self._sessions[name] = pair
                lips.forget()
            assert picture.source is not None
            ends = (picture.source.track, picture.source.layer), (self._voices[name].track, 0)
            seen, heard = (self._senders.anchor(*end) for end in ends)
            if seen is not None and heard is not None and pair[0] == pair[1]:
                self._reported.add(name)
                self._anchor(True, name, ends[0], seen)
                self._anchor(False, name, ends[1], heard)
            else:
                self._reported.discard(name)
                lips.picture("report", None)

    def picture_lags(self, identity: str, told: Told, lag: int) -> None:
        """By the sender's clock, somebody's picture arrives `lag` µs after it was taken."""
        if self._of_one_session(identity) and (told == "capture" or identity in self._reported):
            self._inputs[identity].picture(told, lag)

    def sound_told(self, report: InputReport, fps: int) -> None:
        """How somebody's sound comes, and how long it waits: his picture has to wait until it is heard."""
        identity, delay = report.identity, int(report.delay_ms * 1000)
        lips = self._inputs.get(identity)
        if lips is None or identity not in self._voices:
            return
        if self._of_one_session(identity):
            lips.sound("capture", report.capture_lag)
            lips.sound("report", report.report_lag if identity in self._reported else None)
            self._watch(identity, lips)
        if lips.move(self._now()):
            log.debug("lips", room=self._room, identity=identity, apart_us=lips.apart, followed_us=lips.offset)
        self._pools.audio.wait_for_picture(self._room, identity, lips.sound_waits // 1000)
        self.waits[identity] = round(report.delay_ms)
        least = self._pools.settings.video.delay_ms * 1000  # sound that is about to wait so long waits less yet
        waits = lips.picture_waits(delay, longer_us(fps))
        self._pools.video.set_delay(self._room, identity, max(least, waits))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _let_go(self, name: str) -> None:
        if name in self._voices:
            self._pools.audio.wait_for_picture(self._room, name, 0)

    def _of_one_session(self, identity: str) -> bool:
        picture, sound = self._sessions.get(identity, ("", ""))
        return picture == sound != ""

    def _anchor(self, is_picture: bool, name: str, end: tuple[int, int], anchor: Anchor) -> None:
        now, source = self._now(), (*end, anchor.ssrc)
        *before, at = self._told.get((is_picture, name), (-1, -1, -1, now - REPEAT_US))
        if tuple(before) == source and now - at < REPEAT_US:
            return
        self._told[is_picture, name] = (*source, now)
        self._tell(is_picture, name, anchor)

    def _tell(self, is_picture: bool, name: str, anchor: Anchor) -> None:
        if is_picture:
            self._pools.video.anchor_input(self._room, name, *anchor)
        else:
            self._pools.audio.anchor_input(self._room, name, *anchor)

    def _watch(self, identity: str, lips: Lips) -> None:
        if not lips.strange:
            self._strange.discard(identity)
        elif identity not in self._strange:
            self._strange.add(identity)
            log.warning("sound and picture are too far apart", room=self._room, identity=identity, apart_us=lips.apart)
            self._pools.count_trouble("apart")


def _sessions(stage: RoomState) -> Iterator[tuple[tuple[bool, str], str]]:
    """Who sends the picture (True) and the sound of each input."""
    for each in stage.publications.values():
        yield (each.kind == "video", input_name(each)), each.session
