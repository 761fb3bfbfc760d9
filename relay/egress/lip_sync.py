"""By how much pictures go earlier on a source's time axis, so that they are with their sound. Sans-IO; time in µs.

On the axis both are placed by their arrival. When they were captured by their sender's clock says how much later one
comes than the other, as it does for a program (`relay.stage.lips`). Sound stays where it is, since it has to go on
without a gap, and pictures move: all at once while nobody has seen one of them, and else by 40 ms in a second, which
changes the time between two pictures by a twenty-fifth and neither turns time back nor makes a gap in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.egress.media import AUDIO_RATE, VIDEO_RATE
from relay.plane.reference.rtp import Packet, timestamp_delta
from relay.stage.capture import capture_anchor
from relay.stage.lips import MOST_US, SENDERS_LOOK_AHEAD_US, WAYS, Lips, Told
from relay.stage.sender_clock import Anchor

START_US = 400_000
"""The first picture waits for so long for its sound to come, so that they begin together."""
STEP_US = 1_000
"""A base of the axis moves by much more than that (`timing.TOLERANCE_US`), and rounding by less."""


class _Place(NamedTuple):
    """What has this RTP timestamp is at this moment of the axis."""

    ssrc: int
    timestamp: int
    moment: int


class LipSync:
    """One source's, of streams of pictures (one at a time) and at most one of sound, by their numbers."""

    def __init__(self, picture: int | None, sound: int | None) -> None:
        self._picture, self._sound = picture, sound
        self._lips = Lips()
        self._session = ""
        self._anchors: dict[tuple[int, Told], Anchor] = {}
        self._places: dict[int, _Place] = {}

    @property
    def offset(self) -> int:
        """How much earlier on the axis than by their arrival pictures are to be."""
        return self._lips.offset

    @property
    def behind(self) -> int:
        """How much later than its moment what comes last of it comes, be it sound or picture."""
        return max(0, self._lips.offset)

    @property
    def possible(self) -> bool:
        """Whether one session sends both, so that their capture times may be compared."""
        return bool(self._session) and self._picture is not None and self._sound is not None

    @property
    def known(self) -> bool:
        """Whether it is known what belongs together."""
        return self._lips.apart is not None

    def told(self, session: str, reported: Sequence[tuple[int, Anchor]]) -> None:
        """Which session sends both, "" when no single one does; and what its sender reports say of streams."""
        if session != self._session:
            self._session = session
            self._anchors.clear()
            self._lips.forget()
        self._anchors = {key: anchor for key, anchor in self._anchors.items() if key[1] != "report"}
        self._anchors |= {(number, "report"): anchor for number, anchor in reported}
        for number in (self._picture, self._sound):
            self._note(number)

    def look(self, number: int, packet: Packet) -> None:
        """Take a packet's capture time, if it has one."""
        if (anchor := capture_anchor(packet)) is not None:
            self._anchors[number, "capture"] = anchor
            self._note(number)

    def sound_placed(self, ssrc: int, timestamp: int, moment: int) -> None:
        """Sound of this timestamp begins at a moment of the axis; what is heard in it, a little later."""
        assert self._sound is not None
        self._places[self._sound] = _Place(ssrc, timestamp, moment + SENDERS_LOOK_AHEAD_US)
        self._note(self._sound)

    def picture_placed(self, number: int, ssrc: int, timestamp: int, moment: int) -> None:
        """By its arrival, a picture is at a moment of the axis. Pictures of another stream than before follow those of
        that one; where it is known what they belong to, neither that nor a base that moved is seen."""
        before, old = self._places.get(number), self._picture
        place = self._places[number] = _Place(ssrc, timestamp, moment)
        if old is not None and number != old:
            self._go_on_with(number, old)
        elif before is not None and before.ssrc == ssrc and self.known:
            moved = moment - before.moment - _micros(timestamp_delta(place.timestamp, before.timestamp), VIDEO_RATE)
            if STEP_US < abs(moved) <= MOST_US:
                self._lips.shift(moved)
        self._note(number)

    def forget(self, number: int) -> None:
        """A stream is not read any more."""
        self._places.pop(number, None)
        for told in WAYS:
            self._anchors.pop((number, told), None)

    def settle(self) -> None:
        """The first picture is about to be seen."""
        self._lips.settle()

    def move(self, now: int) -> None:
        """Some time passed."""
        self._lips.move(now)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _go_on_with(self, number: int, old: int) -> None:
        lags = ((self._lag(number, told), self._lag(old, told)) for told in WAYS)
        both = next(((new, former) for new, former in lags if new is not None and former is not None), None)
        if both is not None and self.known:
            self._lips.shift(both[0] - both[1])
        self._picture = number
        self.forget(old)

    def _note(self, number: int | None) -> None:
        if number is None or number not in (self._picture, self._sound):
            return
        tell = self._lips.picture if number == self._picture else self._lips.sound
        for told in WAYS:
            tell(told, self._lag(number, told) if self.possible else None)

    def _lag(self, number: int, told: Told) -> int | None:
        """How long after capture it is on the axis."""
        anchor, place = self._anchors.get((number, told)), self._places.get(number)
        if anchor is None or place is None or anchor.ssrc != place.ssrc:
            return None
        hz = AUDIO_RATE if number == self._sound else VIDEO_RATE
        return place.moment + _micros(timestamp_delta(anchor.timestamp, place.timestamp), hz) - anchor.captured


def _micros(ticks: int, hz: int) -> int:
    return ticks * 1_000_000 // hz
