"""Deadlines, retries and the breaker of calls, alone and together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import DeadlineExceeded, NodeUnreachable
from relay.guards import LONGEST_S, CallBreaker, Guard, NotAnswered, deadline_header, read_deadline, remaining, within

# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_the_narrowest_deadline_holds() -> None:
    assert remaining(7) == 7
    assert deadline_header() == {}
    with within(50):
        with within(20):
            assert 19 < remaining(60) <= 20
            with within(40):
                assert 19 < remaining(60) <= 20
        assert 49 < remaining(60) <= 50
        assert remaining(3) == 3
        (header,) = deadline_header().values()
        assert 49_000 < int(header) <= 50_000
    assert remaining(60) == 60
    with within(0), pytest.raises(DeadlineExceeded):
        remaining(60)
    with within(0), pytest.raises(DeadlineExceeded):
        deadline_header()


async def test_what_outlives_a_request_is_free_of_its_deadline() -> None:
    async def room() -> float:
        return remaining(60)

    with within(1):
        assert await asyncio.create_task(room()) == 60
        assert await room() <= 1


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, LONGEST_S), ("1500", 1.5), ("0", 0), ("-1", 0), ("9" * 16, LONGEST_S)]
)
def test_headers(text: str | None, seconds: float) -> None:
    assert read_deadline(text) == seconds


@given(st.text())
def test_any_header_is_a_time_or_refused(text: str) -> None:
    try:
        assert 0 <= read_deadline(text) <= LONGEST_S
    except ValueError:
        pass


# --- breaker ----------------------------------------------------------------------------------------------------------


def test_the_breaker_in_virtual_time() -> None:
    breaker = CallBreaker(failures=3, open_s=1.0)
    for _ in range(2):
        breaker.failed(10.0)
    breaker.succeeded()
    for _ in range(3):
        assert breaker.allows(10.0)
        breaker.failed(10.0)
    assert not breaker.is_closed
    assert not breaker.allows(10.9)
    assert breaker.allows(11.0)  # the trial
    assert not breaker.allows(11.1)  # of which there is one
    breaker.failed(11.2)
    assert not breaker.allows(12.1)
    assert breaker.allows(12.2)
    assert not breaker.allows(13.1)
    assert breaker.allows(13.2)  # the trial was never told of: its turn is over
    breaker.succeeded()
    assert breaker.is_closed
    assert breaker.allows(13.2)


def test_one_failure_is_enough_when_nobody_is_there() -> None:
    breaker = CallBreaker(failures=3, open_s=1.0)
    breaker.failed(0.0, down=True)
    assert not breaker.is_closed
    assert not breaker.allows(0.5)


async def test_one_of_twenty_is_the_trial() -> None:
    clock = 0.0
    guard = Guard(refuse, breaker=CallBreaker(failures=1, open_s=1.0), monotonic=lambda: clock)
    calls = 0
    answered = asyncio.Event()

    async def call() -> int:
        nonlocal calls
        calls += 1
        await answered.wait()
        return calls

    guard.breaker.failed(clock)
    clock = 1.0
    crowd = [asyncio.create_task(guard.run(call, 10, repeatable=False)) for _ in range(20)]
    done, _ = await asyncio.wait(crowd, timeout=0.05)
    assert len(done) == 19
    answered.set()
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert sum(isinstance(answer, NodeUnreachable) for answer in answers) == 19
    assert calls == 1
    assert guard.breaker.is_closed


# --- together ---------------------------------------------------------------------------------------------------------


def refuse(reason: str) -> NodeUnreachable:
    return NodeUnreachable(f"it {reason}")


def failing(times: int, down: bool = False) -> tuple[Callable[[], Awaitable[str]], list[int]]:
    """A call that goes unanswered so many times, and the list of its tries."""
    tries: list[int] = []

    async def call() -> str:
        tries.append(len(tries))
        if len(tries) <= times:
            raise NotAnswered("refused", down=down)
        return "answer"

    return call, tries


async def test_what_may_be_repeated_is_tried_again() -> None:
    guard = Guard(refuse, breaker=CallBreaker(failures=5))
    call, tries = failing(2)
    assert await guard.run(call, 10, repeatable=True) == "answer"
    assert len(tries) == 3
    assert guard.breaker.is_closed
    call, tries = failing(9)
    with pytest.raises(NodeUnreachable, match="does not answer: refused"):
        await guard.run(call, 10, repeatable=True)
    assert len(tries) == 3


async def test_what_changes_something_is_made_once() -> None:
    guard = Guard(refuse)
    call, tries = failing(1)
    with pytest.raises(NodeUnreachable):
        await guard.run(call, 10, repeatable=False)
    assert len(tries) == 1


async def test_nobody_there_is_not_tried_again() -> None:
    guard = Guard(refuse)
    call, tries = failing(9, down=True)
    with pytest.raises(NodeUnreachable):
        await guard.run(call, 10, repeatable=True)
    assert len(tries) == 1
    with pytest.raises(NodeUnreachable, match="of late"):
        await guard.run(call, 10, repeatable=True)
    assert len(tries) == 1


async def test_a_refusal_is_an_answer() -> None:
    guard = Guard(refuse, breaker=CallBreaker(failures=1))

    async def call() -> None:
        raise ValueError("no such session")

    for _ in range(3):
        with pytest.raises(ValueError, match="no such session"):
            await guard.run(call, 10, repeatable=True)
    assert guard.breaker.is_closed


async def test_silence_ends_with_the_deadline_and_opens() -> None:
    guard = Guard(refuse)
    began = time.monotonic()
    with pytest.raises(NodeUnreachable, match="did not answer within"):
        await guard.run(lambda: asyncio.sleep(60), 0.05, repeatable=True)
    assert time.monotonic() - began < 30
    assert not guard.breaker.is_closed


async def test_time_that_others_used_up_is_not_held_against_the_callee() -> None:
    guard = Guard(refuse, breaker=CallBreaker(failures=2))
    with within(0.05), pytest.raises(NodeUnreachable):
        await guard.run(lambda: asyncio.sleep(60), 10, repeatable=True)
    assert guard.breaker.is_closed
    with within(-1), pytest.raises(DeadlineExceeded):
        await guard.run(lambda: asyncio.sleep(60), 10, repeatable=True)
    assert guard.breaker.is_closed


async def test_the_call_knows_its_deadline() -> None:
    guard = Guard(refuse)

    async def call() -> float:
        return remaining(60)

    assert 0 < await guard.run(call, 5, repeatable=True) <= 5
