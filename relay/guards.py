"""What every call to another process goes through: a deadline that is passed on, a bounded retry, a breaker.

`within` narrows the time that everything called inside may take; `remaining` reads it, here or after it travelled to
another process as `DEADLINE_HEADER`. A `Guard` stands before one callee and puts the three together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import stamina

from relay.errors import DeadlineExceeded

T = TypeVar("T")

DEADLINE_HEADER = "X-Deadline-Ms"
"""Whole milliseconds that the caller will still wait: a duration, since the clocks of two machines differ."""
LONGEST_S = 60.0
_deadline: ContextVar[tuple[asyncio.Task[Any] | None, float] | None] = ContextVar("deadline", default=None)


# --- deadlines --------------------------------------------------------------------------------------------------------


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give everything inside at most `seconds`, and never more than it had already.

    Tasks that are started inside are free of it: a request may open a room that outlives it by hours.
    """
    ends = time.monotonic() + seconds
    outer = _ends()
    token = _deadline.set((_task(), ends if outer is None else min(outer, ends)))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining(most: float) -> float:
    """Return the seconds that a call may take which alone would get `most`. Raises DeadlineExceeded for none."""
    ends = _ends()
    left = most if ends is None else min(most, ends - time.monotonic())
    if left <= 0:
        raise DeadlineExceeded("the time of the request is over", retry_after=1)
    return left


def deadline_header() -> dict[str, str]:
    """Return the header that passes the deadline on; none when there is no deadline. Raises DeadlineExceeded."""
    if _ends() is None:
        return {}
    return {DEADLINE_HEADER: str(max(1, round(remaining(LONGEST_S) * 1000)))}


def read_deadline(text: str | None) -> float:
    """Return the seconds that a `DEADLINE_HEADER` leaves, 0 for none left; `LONGEST_S` for no header.

    Raises ValueError for what is no whole number; more than `LONGEST_S` counts as `LONGEST_S`.
    """
    if text is None:
        return LONGEST_S
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 16):
        raise ValueError(f"{DEADLINE_HEADER} has to be a whole number of milliseconds")
    return min(max(int(text) / 1000, 0.0), LONGEST_S)


def _ends() -> float | None:
    """Return when the time of this task is over (monotonic); None for never."""
    found = _deadline.get()
    return found[1] if found is not None and found[0] is _task() else None


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop: a synchronous caller
        return None


# --- breaker ----------------------------------------------------------------------------------------------------------


class CallBreaker:
    """Whether a callee is worth a call. Ask `allows` before, tell `succeeded` or `failed` after it.

        CLOSED     calls pass; `failures` failures in a row, or one that says "down" -> OPEN
        OPEN       calls are refused; `open_s` later -> HALF_OPEN
        HALF_OPEN  one call at a time passes: success -> CLOSED, failure -> OPEN

    Time comes in as seconds of a monotonic clock.
    """

    def __init__(self, failures: int = 3, open_s: float = 1.0) -> None:
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._open_until = float("-inf")
        self._trial_until = float("-inf")

    @property
    def is_closed(self) -> bool:
        """Whether the callee answered when it was last asked, or has not failed often enough."""
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
        """The callee answered, whatever it said."""
        self._failures = 0
        self._trial_until = float("-inf")

    def failed(self, now: float, *, down: bool = False) -> None:
        """The callee did not answer. `down`: nothing listens there, or it is silent; one such failure opens."""
        self._failures = max(self._failures + 1, self._limit if down else 0)
        if not self.is_closed:
            self._open_until = now + self._open_s
            self._trial_until = float("-inf")


# --- both, and the retry ----------------------------------------------------------------------------------------------


class NotAnswered(Exception):
    """One try failed without an answer; the message says why. `down` as for `CallBreaker.failed`."""

    def __init__(self, reason: str, *, down: bool = False) -> None:
        super().__init__(reason)
        self.down = down


class Guard:
    """Runs the calls to one callee. The error that a caller sees is made by `refuse` from a reason."""

    def __init__(
        self,
        refuse: Callable[[str], Exception],
        *,
        breaker: CallBreaker | None = None,
        attempts: int = 3,
        wait_s: float = 0.01,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`attempts` and the wait between them are for calls that may be repeated; the others are made once."""
        self.breaker = breaker or CallBreaker()
        self._refuse = refuse
        self._attempts = attempts
        self._wait_s = wait_s
        self._monotonic = monotonic

    async def run(self, call: Callable[[], Awaitable[T]], deadline_s: float, *, repeatable: bool) -> T:
        """Return what `call` returns, within `deadline_s` and the deadline around it, all tries included.

        `call` raises NotAnswered for a try that got no answer; anything else it raises is an answer and passes. Raises
        what `refuse` makes when no answer came or the breaker is open, and DeadlineExceeded when no time was left to
        begin with. A call that timed out may still have been carried out.
        """
        left = remaining(deadline_s)
        reason = ""
        try:
            async with asyncio.timeout(left):
                with within(left):
                    return await (self._repeated(call, left) if repeatable else self._once(call))
        except NotAnswered as error:
            reason = f"does not answer: {error}"
        except TimeoutError:
            # Time that the caller had used up before says nothing about the callee.
            self.breaker.failed(self._monotonic(), down=left > deadline_s / 2)
            reason = f"did not answer within {left:.2g} s"
        raise self._refuse(reason)

    async def _repeated(self, call: Callable[[], Awaitable[T]], seconds: float) -> T:
        tries = stamina.retry_context(
            on=self._worth_another,
            attempts=self._attempts,
            timeout=seconds,
            wait_initial=self._wait_s,
            wait_max=5 * self._wait_s,
            wait_jitter=self._wait_s,
        )
        async for attempt in tries:
            with attempt:
                return await self._once(call)
        raise AssertionError("a retry either returns or raises")

    def _worth_another(self, error: Exception) -> bool:
        return isinstance(error, NotAnswered) and not error.down and self.breaker.is_closed

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T:
        if not self.breaker.allows(self._monotonic()):
            raise self._refuse("did not answer of late")
        try:
            result = await call()
        except NotAnswered as error:
            self.breaker.failed(self._monotonic(), down=error.down)
            raise
        except Exception as error:
            if not isinstance(error, TimeoutError):
                self.breaker.succeeded()
            raise
        self.breaker.succeeded()
        return result
