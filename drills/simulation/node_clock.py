"""A simulated node's clocks: the monotonic one stands still while the node sleeps, the wall clock goes on."""

from __future__ import annotations

from collections.abc import Callable


class NodeClock:
    """`rate` is how fast it runs beside the true clock `time`; `wall_error` is seconds, and jumps."""

    def __init__(self, time: Callable[[], float], epoch_s: float, wall_error: float, rate: float) -> None:
        self.wall_error = wall_error
        self.slept_s = self.awake_s = 0.0
        self._time, self._epoch_s, self._rate = time, epoch_s, rate
        self._shift = 0.0
        self._since = time()
        self._asleep_at = -1.0

    @property
    def sleeps(self) -> bool:
        """Whether it stands still."""
        return self._asleep_at >= 0

    def mono(self) -> float:
        """Seconds of the monotonic clock."""
        asleep = self._asleep_at
        return 1000.0 + ((asleep if asleep >= 0 else self._time()) - self._shift) * self._rate

    def true_wait(self, at: float) -> float:
        """True seconds until the monotonic clock shows `at`."""
        return max(0.0, at - self.mono()) / self._rate + 1e-6

    def wall(self) -> float:
        """Seconds since 1970, as the node believes."""
        return self._epoch_s + self._time() + self.wall_error

    def sleep(self) -> None:
        """Stand still."""
        self._asleep_at = self._time()
        self.awake_s += self._asleep_at - self._since

    def wake(self) -> float:
        """Go on; returns how many true seconds it slept."""
        now = self._time()
        slept = now - self._asleep_at
        self._asleep_at, self._shift, self._since = -1.0, self._shift + slept, now
        self.slept_s += slept
        return slept
