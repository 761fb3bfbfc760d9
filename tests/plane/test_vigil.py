"""What is said of the plane's threads, and when. Time passes where `look` is called."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.plane import vigil
from relay.plane.vigil import Vigil

Line = MutableMapping[str, Any]


class Threads:
    """Two of them."""

    def __init__(self) -> None:
        self.failures: list[tuple[int, str]] = []
        self.late_us = [0, 0]
        self.looks = 0

    @property
    def healthy(self) -> bool:
        self.looks += 1
        return not self.failures


def told(threads: Threads, watch: Vigil) -> list[Line]:
    with capture_logs() as lines:
        watch.look()
    return lines


def test_lack_of_cpu_is_told_as_often_as_it_grows_and_fails_nothing() -> None:
    threads, failed = Threads(), list[str]()
    watch = Vigil(threads)
    watch.on_failed = failed.append
    assert told(threads, watch) == []
    threads.late_us = [0, 7_300_000]
    [line] = told(threads, watch)
    assert (line["log_level"], line["shard"], line["waited_ms"]) == ("warning", 1, 7300)
    assert told(threads, watch) == []
    threads.late_us = [2_000_000, 9_300_000]
    assert [(line["shard"], line["waited_ms"]) for line in told(threads, watch)] == [(0, 2000), (1, 2000)]
    assert failed == []


def test_a_thread_that_is_lost_is_told_once_with_the_reason() -> None:
    threads, failed = Threads(), list[str]()
    watch = Vigil(threads)
    watch.on_failed = failed.append
    threads.failures = [(1, "panicked at src/x.rs:1:2: why")]
    [line] = told(threads, watch)
    assert (line["log_level"], line["shard"], line["reason"]) == ("error", 1, "panicked at src/x.rs:1:2: why")
    assert failed == ["shard 1: panicked at src/x.rs:1:2: why"]
    assert told(threads, watch) == []
    threads.failures.insert(0, (0, "it hangs"))
    assert [line["shard"] for line in told(threads, watch)] == [0]
    assert len(failed) == 1, "the node ends once"


async def test_it_looks_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "LOOK_S", 0.001)
    threads = Threads()
    watch = Vigil(threads)
    watch.start(asyncio.get_running_loop())
    async with asyncio.timeout(20):
        while threads.looks < 3:
            await asyncio.sleep(0.001)
    watch.stop()
    looks = threads.looks
    watch.look()
    await asyncio.sleep(0.02)
    assert threads.looks == looks
