"""Egress with a show in real time, and the real app in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.egress.show import LiveFeeds
from tests.egress.world import World


@pytest.fixture
def feeds() -> Iterator[LiveFeeds]:
    """A show that runs from the first feed on."""
    feeds = LiveFeeds()
    yield feeds
    feeds.stop()


@pytest.fixture
async def world(feeds: LiveFeeds, tmp_path: Path) -> AsyncIterator[World]:
    """A manager; after the test no process, no descriptor and no HLS file of it may be left."""
    before = _left()
    world = World(feeds, tmp_path)
    yield world
    await world.close()
    feeds.stop()
    async with asyncio.timeout(20):
        while _left()[0] - before[0] or _left()[1] > before[1]:
            await asyncio.sleep(0.05)
    assert not [path for path in (tmp_path / "hls").rglob("*") if path.is_file()]


def _left() -> tuple[set[int], int]:
    """Children of this process by their ids, and the number of its descriptors."""
    children = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended, or nobody has asked yet how
            if "relay.egress" in child.cmdline():
                children.add(child.pid)
    return children, len(os.listdir("/proc/self/fd"))
