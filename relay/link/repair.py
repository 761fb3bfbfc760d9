"""What one stream of a link's receiver misses: when to ask for it again, and when to give it up."""

from __future__ import annotations

from collections.abc import Iterable

from relay.settings import LinkFlowSettings

MAX_RETRY_US = 300_000


class _Missing:
    __slots__ = ("deadline", "next_at", "tries")

    def __init__(self, next_at: int, deadline: int) -> None:
        self.next_at = next_at
        self.deadline = deadline
        self.tries = 0


class Gaps:
    """Missing packets by unwrapped sequence number, oldest first; bounded.

    The first request waits for packets that were only overtaken, the next ones for a round trip, doubling.
    """

    __slots__ = ("_deadline", "_delay", "_limit", "_missing", "_retry", "_tries", "given_up")

    def __init__(self, settings: LinkFlowSettings) -> None:
        self._missing: dict[int, _Missing] = {}
        self._limit = settings.max_missing
        self._delay = settings.nack_delay_ms * 1000
        self._retry = settings.nack_retry_ms * 1000
        self._tries = settings.nack_tries
        self._deadline = settings.nack_deadline_ms * 1000
        self.given_up = 0

    def __len__(self) -> int:
        return len(self._missing)

    def __contains__(self, number: int) -> bool:
        return number in self._missing

    def open(self, first: int, end: int, now: int) -> None:
        """Note that `first`..`end` - 1 were jumped over. Of too many the oldest are given up."""
        if end - first > self._limit:
            self.given_up += end - first - self._limit
            first = end - self._limit
        for number in range(first, end):
            self._missing[number] = _Missing(now + self._delay, now + self._deadline)
        for number in list(self._missing)[: len(self._missing) - self._limit]:
            del self._missing[number]
            self.given_up += 1

    def fill(self, number: int) -> int:
        """Note that a packet came. Returns how often it was asked for, -1 when it was not missing."""
        found = self._missing.pop(number, None)
        return -1 if found is None else found.tries

    def drop(self, numbers: Iterable[int]) -> int:
        """Forget packets that the sender does not have; returns how many were missing."""
        return sum(self._missing.pop(number, None) is not None for number in numbers)

    def due(self, now: int, rtt_us: int) -> tuple[list[int], bool]:
        """Return what to ask for now, in order, and whether any of it was asked for before. Gives up what is late."""
        wanted: list[int] = []
        again = False
        for number, missing in list(self._missing.items()):
            if now >= missing.deadline:
                del self._missing[number]
                self.given_up += 1
            elif now >= missing.next_at and missing.tries < self._tries:
                wait = max(self._retry, rtt_us + rtt_us // 4) << missing.tries
                missing.next_at = now + min(wait, max(MAX_RETRY_US, rtt_us))
                again = again or missing.tries > 0
                missing.tries += 1
                wanted.append(number)
        return wanted, again

    def next_timeout(self) -> int | None:
        """Return when `due` has something to do; None when nothing is missing."""
        times = (m.deadline if m.tries >= self._tries else min(m.next_at, m.deadline) for m in self._missing.values())
        return min(times, default=None)
