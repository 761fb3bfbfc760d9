"""A client that is a process of its own: started, listened to, and ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[3]
_KEPT_LINES = 400


class ClientProcess:
    """Owns one child process. `lines` are the last 400 lines of its standard output and error, in order of arrival.

    `stop` asks (closing standard input, or by signal), waits, and kills what does not end.
    """

    def __init__(self, command: Sequence[str], *, environment: dict[str, str] | None = None) -> None:
        self.command = list(command)
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._environment = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    @property
    def process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the client has not been started")
        return self._process

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start the process, with a pipe as its standard input. Raises OSError if it cannot run."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self.command, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, limit=1 << 20
        )
        for stream in (self._process.stdout, self._process.stderr):
            assert stream
            self._readers.append(asyncio.create_task(self._listen(stream)))

    async def until(self, condition: Callable[[], object], seconds: float = 40.0) -> None:
        """Wait until `condition()` is true, asking after every line and 10 times a second.

        Raises AssertionError with the last lines if the time is over or the process ends first.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {seconds} s\n{self.tail()}")
            if self.process.returncode is not None:
                await asyncio.gather(*self._readers)
                if condition():
                    return
                raise AssertionError(f"{self.command[0]} ended with {self.process.returncode}\n{self.tail()}")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 0.1)

    def tail(self, count: int = 30) -> str:
        return "\n".join(list(self.lines)[-count:])

    async def stop(self, *, signal: int | None = None, seconds: float = 5.0) -> int:
        """End the process and return its exit code. Without a signal, the end of its input is what asks it."""
        process = self.process
        if process.returncode is None:
            if signal is not None:
                process.send_signal(signal)
            if process.stdin:
                process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), seconds)
            except TimeoutError:
                process.kill()
        code = await process.wait()
        await asyncio.gather(*self._readers)
        return code

    async def heard_line(self, line: str) -> None:
        """Called with every line; subclasses listen here."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            await self.heard_line(text)
            self._news.set()
