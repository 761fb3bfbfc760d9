"""How much longer one of a participant's sound and picture has to wait for the other, so that lips match. Pure.

Both are placed by their arrival, each by its own fastest packets. What encoder, packetiser and network delay one of
them more than the other is seen only by the sender's clock: `lag` is how long after capture the fastest packets come.
A lag has the offset of his clock from ours in it, so only the difference of two means anything, and only of two that
were told in the same way: by the capture times in the packets, or by sender reports.

The difference is followed slowly: a picture that stands still a frame longer, or sound that is stretched by a frame,
is not noticed, a tenth of a second is. While it is not known, and before, arrival is all there is. All times are in µs.
"""

from __future__ import annotations

from typing import Literal

Told = Literal["capture", "report"]
WAYS: tuple[Told, ...] = ("capture", "report")
"""Capture times first: they are of the very frame."""

PACE = 25
"""A second of difference is made up for in so many: 40 ms in one, two frames of sound at the pace at which its jitter
buffer gives up delay."""
TURN_US = 1_000_000
"""After a pause it goes on as slowly: who was not asked for long has not followed meanwhile."""
NEAR_US = 3000
"""Differences within this are of no matter."""
MOST_US = 500_000
"""Sound and picture that are further apart are not of one moment, or not worth so long a wait."""
SENDERS_LOOK_AHEAD_US = 6_500
"""So much later than its packet's timestamp says a host's sound comes out of an Opus decoder: browsers' and others'
encoders are libopus, and not in low-delay mode."""


class Lips:
    """One participant's. `offset` is by how much his picture comes later than his sound, as far as that is followed."""

    def __init__(self) -> None:
        self.offset = 0
        self._lags: dict[tuple[bool, Told], int] = {}
        self._moved: int | None = None

    def picture(self, told: Told, lag: int | None) -> None:
        """His picture's lag; None: not known any more."""
        self._note(True, told, lag)

    def sound(self, told: Told, lag: int | None) -> None:
        """His sound's."""
        self._note(False, told, lag)

    def _note(self, is_picture: bool, told: Told, lag: int | None) -> None:
        if lag is None:
            self._lags.pop((is_picture, told), None)
        else:
            self._lags[is_picture, told] = lag

    def forget(self) -> None:
        """His clock is another one, or not known any more: what was followed so far stays."""
        self._lags.clear()

    @property
    def apart(self) -> int | None:
        """By how much the picture comes later than the sound; None while that is not known."""
        for told in WAYS:
            picture, sound = self._lags.get((True, told)), self._lags.get((False, told))
            if picture is not None and sound is not None:
                return picture - sound
        return None

    @property
    def strange(self) -> bool:
        """Whether they are further apart than is made up for: nothing is followed then."""
        return self.apart is not None and abs(self.apart) > MOST_US

    def move(self, now: int) -> bool:
        """Some time passed: follow. Returns whether `offset` is another one."""
        passed = 0 if self._moved is None else min(max(0, now - self._moved), TURN_US)
        self._moved = now
        apart = self.apart
        if apart is None or abs(apart) > MOST_US or abs(apart - self.offset) < NEAR_US:
            return False
        most, before = passed // PACE, self.offset
        self.offset += max(-most, min(most, apart - self.offset))
        return self.offset != before

    def settle(self) -> None:
        """Nobody has seen and heard them together yet: take the whole difference at once, if it is known."""
        apart = self.apart
        if apart is not None and abs(apart) <= MOST_US:
            self.offset = apart

    def shift(self, by: int) -> None:
        """The picture is placed `by` later from now on, in the lags that will be told as in what `offset` is taken
        from: nobody is to see that."""
        self.offset = max(-MOST_US, min(MOST_US, self.offset + by))

    @property
    def sound_waits(self) -> int:
        """How much longer than others his sound has to wait, for its picture to come."""
        return max(0, self.offset)

    def picture_waits(self, sound_waits: int, longer: int) -> int:
        """How long his fastest pictures have to wait when his fastest sound waits for `sound_waits`, and would have to
        wait `longer` than pictures if both came together."""
        return sound_waits - longer - self.offset
