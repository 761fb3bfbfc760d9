"""Worker processes: started, spoken to, and ended when they say nonsense, do not read, or lose their relay."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from relay.errors import UsageError
from relay.process.child import Child, Restarts
from relay.process.control import Message, Wire
from relay.process.stream import UNREAD_BYTES

WORKER = """
import os, sys, time
from tests.process.test_child import Echo
from relay.process.control import Wire
from relay.process.worker import begin
end = begin(sys.argv[1:], Wire(Echo))
mode = sys.argv[1]
if mode == "deaf":
    time.sleep(60)
if mode == "mad":
    os.write(end.fileno(), b"\\0\\0\\0\\4{{{{")
    time.sleep(60)
while (heard := end.receive(0.1)) is not None:
    for message in heard:
        end.send(message)
sys.exit(0)
"""


@dataclass(frozen=True, slots=True)
class Echo(Message):
    text: str


class Story:
    """One worker, what it said and why it ended."""

    def __init__(self, mode: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "child_story_worker.py").write_text(WORKER)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(directory), str(Path(__file__).parents[2])]))
        self.heard: list[Echo] = []
        self.ends: list[str] = []
        wire: Wire[Echo] = Wire(Echo)
        self.child = Child("child_story_worker", [mode], (), wire, self.heard.append, self.ends.append)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


async def test_what_is_said_comes_back_and_stop_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story("echo", tmp_path, monkeypatch)
    messages = [Echo(str(number) * 1000) for number in range(300)]
    for message in messages:
        story.child.send(message)
    await story.until(lambda: len(story.heard) == 300)
    assert story.heard == messages
    await story.child.stop()
    assert story.ends == ["stopped"]
    story.child.send(messages[0])  # lost, and no error
    await story.child.stop()
    assert story.ends == ["stopped"]


async def test_a_relay_with_thousands_of_descriptors_has_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], min(4096, limits[1])), limits[1]))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        story = Story("echo", tmp_path, monkeypatch)
        story.child.send(Echo("heard"))
        await story.until(lambda: bool(story.heard) or bool(story.ends))
        assert story.heard == [Echo("heard")]
        await story.child.stop()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_worker_that_talks_nonsense_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story("mad", tmp_path, monkeypatch)
    await story.until(lambda: bool(story.ends))
    assert "nonsense" in story.ends[0]


async def test_a_worker_that_does_not_read_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story("deaf", tmp_path, monkeypatch)
    for _ in range(2 * UNREAD_BYTES // 500_000 + 2):
        story.child.send(Echo("x" * 500_000))
    await story.until(lambda: bool(story.ends))
    assert "does not read" in story.ends[0]


async def test_a_worker_that_is_killed_is_reaped_and_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story("echo", tmp_path, monkeypatch)
    before = len(os.listdir("/proc/self/fd"))
    os.kill(story.child.pid, signal.SIGKILL)
    await story.until(lambda: bool(story.ends))
    assert len(story.ends) == 1
    assert len(os.listdir("/proc/self/fd")) == before - 2
    with pytest.raises(ProcessLookupError):
        os.kill(story.child.pid, 0)


async def test_a_terminals_ctrl_c_is_for_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group is not the terminal's; its session is ours, so that the kernel weighs it with us."""
    story = Story("echo", tmp_path, monkeypatch)
    story.child.send(Echo("it began"))
    await story.until(lambda: bool(story.heard))
    assert os.getpgid(story.child.pid) == story.child.pid
    assert os.getsid(story.child.pid) == os.getsid(0)
    os.kill(story.child.pid, signal.SIGINT)
    story.child.send(Echo("it goes on"))
    await story.until(lambda: len(story.heard) == 2)
    await story.child.stop()
    assert story.ends == ["stopped"]


async def test_a_worker_that_is_stuck_is_killed_at_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.process.child.STOP_S", 0.2)
    story = Story("deaf", tmp_path, monkeypatch)
    await story.child.stop()
    assert story.ends == ["stopped"]


def test_who_keeps_dying_waits_longer_and_who_lived_begins_anew() -> None:
    restarts = Restarts(0.1, 1.0, 10.0)
    assert [restarts.died(1.0) for _ in range(6)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert restarts.died(11.0) == 0.0
    with pytest.raises(UsageError):
        Restarts(1.0, 0.5)
