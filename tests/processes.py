"""Looks at processes that tests end."""

from __future__ import annotations

import asyncio

import psutil  # type: ignore[import-untyped]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie; it may end while it is looked at."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def ended(*pids: int, seconds: float = 30.0) -> None:
    """Wait until none of them runs; TimeoutError."""
    async with asyncio.timeout(seconds):
        while any(map(runs, pids)):
            await asyncio.sleep(0.02)
