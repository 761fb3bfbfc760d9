"""A thread that hangs is told from one that waits its turn, by what the kernel says of real threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from relay.mix.audio.hang import MOST_PATIENCE_S, PATIENCE_S, Patience, Suspicion, is_runnable, processor_s


@contextmanager
def thread(body: Callable[[threading.Event], None]) -> Iterator[int]:
    """Run a body, which ends when its event is set; give the thread's id in the kernel."""
    end = threading.Event()
    one = threading.Thread(target=body, args=(end,))
    one.start()
    assert one.native_id is not None
    try:
        yield one.native_id
    finally:
        end.set()
        one.join()


def spin(end: threading.Event) -> None:
    while not end.is_set():
        sum(range(1000))


def asleep(number: int) -> None:
    while is_runnable(number):
        time.sleep(0.001)


def test_a_thread_that_waits_for_nothing_hangs_at_the_second_look() -> None:
    with thread(lambda end: bool(end.wait()) and None) as number:
        asleep(number)
        suspicion, moved = Suspicion(), time.monotonic() - 1
        assert not suspicion.hangs(number, moved, PATIENCE_S, ())
        assert suspicion.hangs(number, moved, PATIENCE_S, ())


def test_who_has_moved_or_waits_for_one_without_a_processor_does_not_hang() -> None:
    with thread(lambda end: bool(end.wait()) and None) as number:
        asleep(number)
        suspicion, moved = Suspicion(), time.monotonic() - 1
        assert not any(suspicion.hangs(number, time.monotonic(), 10.0, ()) for _ in range(3))
        me = threading.get_native_id()  # who asks is runnable by nature
        assert not any(suspicion.hangs(number, moved, PATIENCE_S, (me,)) for _ in range(3))


def test_a_thread_that_computes_for_ever_hangs_once_it_has_used_its_time() -> None:
    with thread(spin) as number:
        suspicion, moved = Suspicion(), time.monotonic() - 1
        assert not suspicion.hangs(number, moved, PATIENCE_S, (number,))
        began = processor_s(number)
        while processor_s(number) - began < 6 * PATIENCE_S:
            time.sleep(0.01)
        looks = 0
        while not suspicion.hangs(number, moved, PATIENCE_S, (number,)):
            looks += 1
            assert looks < 10_000


def test_a_thread_that_is_gone_is_not_runnable() -> None:
    with thread(lambda end: bool(end.wait()) and None) as number:
        pass
    while os.path.exists(f"/proc/self/task/{number}"):  # it is joined a little before it is gone
        time.sleep(0.001)
    assert not is_runnable(number)
    assert processor_s(number) == 0


def test_patience_grows_with_errors_up_to_a_limit_and_comes_back() -> None:
    patience = Patience()
    for second in range(10):
        patience.was_wrong(float(second))
    assert patience.seconds == MOST_PATIENCE_S
    patience.pass_time(30.0)
    assert patience.seconds == MOST_PATIENCE_S
    patience.pass_time(100.0)
    assert patience.seconds == pytest.approx(PATIENCE_S)
