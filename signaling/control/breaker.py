"""Whether a node is worth a call: after failures in a row nobody waits for it, until one trial goes well.

    CLOSED     calls pass; `failures` failures in a row -> OPEN
    OPEN       calls are refused; `open_s` later -> HALF_OPEN
    HALF_OPEN  one call at a time passes: success -> CLOSED, failure -> OPEN

Time comes in as seconds of a monotonic clock.
"""

from __future__ import annotations


class CallBreaker:
    """One node's breaker. Ask `allows` before a call, tell `succeeded` or `failed` after it."""

    def __init__(self, failures: int = 3, open_s: float = 1.0) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._open_until = float("-inf")
        self._trial_until = float("-inf")

    @property
    def is_closed(self) -> bool:
        """Whether the node answered when it was last asked, or has not failed often enough."""
        return self._failures < self._limit

    def allows(self, now: float) -> bool:
        """Whether a call may be made now. In HALF_OPEN this takes the trial, for `open_s` at most."""
        if self.is_closed:
            return True
        if now < self._open_until or now < self._trial_until:
            return False
        self._trial_until = now + self._open_s
        return True

    def succeeded(self) -> None:
        """The node answered, whatever it said."""
        self._failures = 0
        self._trial_until = float("-inf")

    def failed(self, now: float) -> None:
        """The node did not answer."""
        self._failures += 1
        if not self.is_closed:
            self._open_until = now + self._open_s
            self._trial_until = float("-inf")
