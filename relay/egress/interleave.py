"""Pictures and sound of one moment leave a source together, whichever of them came first. Sans-IO; time in µs."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.egress.media import Unit, VideoUnit
from relay.stage.lips import MOST_US


class _Waiting(NamedTuple):
    unit: Unit
    latest: int


class Interleaver:
    """What comes too early waits, half a second at most. Units of one kind have to come in their order."""

    def __init__(self) -> None:
        self._pictures: deque[_Waiting] = deque()
        self._sound: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._pictures) + len(self._sound)

    def put(self, unit: Unit, now: int) -> None:
        """Have a unit wait for its time."""
        queue = self._pictures if isinstance(unit, VideoUnit) else self._sound
        queue.append(_Waiting(unit, now + MOST_US))

    def take(self, now: int, behind: int) -> list[Unit]:
        """The units whose time has come, `behind` µs after their moment, in the order of their times."""
        found: list[Unit] = []
        queues = self._pictures, self._sound
        while due := [each for each in queues if each and now >= min(each[0].unit.time + behind, each[0].latest)]:
            found.append(min(due, key=lambda each: each[0].unit.time).popleft().unit)
        return found
