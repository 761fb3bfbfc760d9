"""Two synthetic hosts for the first look, in a process of their own so that encoding never delays the node.

The parent writes one JSON line to standard input and keeps the pipe open; when it closes, however the parent ended, the
hosts leave the stage and this process ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from costream.synthetic import Show, run

HOSTS = (
    Show(publisher=1, label="ALICE", tone=330.0, simulcast=True),
    Show(publisher=2, label="BOB", tone=494.0, simulcast=True),
)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one synthetic host publishes: a WHIP address, a token, and which of HOSTS it is."""

    url: str
    token: str
    host: int


async def start(seats: Sequence[Seat]) -> asyncio.subprocess.Process:
    """Start the hosts. The caller owns the process: `stop` ends it."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "costream.demo", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps([asdict(seat) for seat in seats]).encode() + b"\n")
    await process.stdin.drain()
    return process


async def stop(process: asyncio.subprocess.Process, timeout_s: float = 5.0) -> None:
    """Let the hosts leave; kill them when they take longer than `timeout_s`."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    line = await loop.run_in_executor(None, sys.stdin.readline)
    seats = [Seat(**fields) for fields in json.loads(line)]
    tasks = [asyncio.create_task(run(seat.url, seat.token, HOSTS[seat.host], verify=False)) for seat in seats]
    await loop.run_in_executor(None, sys.stdin.read)  # returns when the parent closes the pipe
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_main())
