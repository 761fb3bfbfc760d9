"""What all processes of a drill's clients share: a plan in a file, lines that they write, an end when they are told."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

Tell = Callable[..., None]


def teller(out: TextIO, name: str) -> Tell:
    """Writes a viewer's (or publisher's) lines, of now unless `at` says otherwise (CLOCK_MONOTONIC in seconds).

    Each at once: whoever reads may be waiting, and we may be killed."""

    def tell(event: str, at: float | None = None, **fields: Any) -> None:
        at = time.monotonic() if at is None else at
        out.write(json.dumps({"at": round(at, 6), "viewer": name, "event": event, **fields}) + "\n")
        out.flush()

    return tell


def read_plan(kind: type[Any], description: str) -> Any:
    """The plan in the file that the command line names. Errors of the file end the program with their reason."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("plan", type=Path, help="a JSON file")
    path = parser.parse_args().plan
    try:
        return kind(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        parser.error(f"{path}: {error}")


async def until_told_to_end(*running: asyncio.Task[None]) -> None:
    """Wait for SIGTERM or SIGINT and cancel; an error of a task ends the others and surfaces."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiter = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([waiter, *running], return_when=asyncio.FIRST_COMPLETED)
    for task in (waiter, *running):
        task.cancel()
    await asyncio.gather(waiter, *running, return_exceptions=True)
    for task in done - {waiter}:
        task.result()
