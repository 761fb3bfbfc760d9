"""Fixtures for tests with real clients: a browser, endpoints, and pictures of what failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.clients.chromium import Chromium, launched
from tests.interop.clients.loopback import Loopback
from tests.interop.clients.requirements import need


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Leaves the outcome of the test's body where the browser's fixture finds it."""
    report: Any = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/interop/" in item.path.as_posix():
            item.add_marker(pytest.mark.interop)


@pytest_asyncio.fixture
async def chromium(request: pytest.FixtureRequest) -> AsyncIterator[Chromium]:
    """A fresh headless Chromium. If the test fails, every tab's screenshot is kept in tests/artifacts/."""
    async with launched() as browser:
        yield browser
        if request.node.stash.get(_FAILED, False):
            for path in await browser.screenshots(request.node.name):
                print(f"kept {path}")


@pytest_asyncio.fixture
async def loopback() -> AsyncIterator[Loopback]:
    """A WHIP/WHEP endpoint on a loopback port, receiving with aiortc (VP8, H264)."""
    async with Loopback() as endpoint:
        yield endpoint


@pytest_asyncio.fixture
async def layered_loopback() -> AsyncIterator[Loopback]:
    """The same, receiving with libwebrtc, which takes simulcast."""
    need("wrtc")
    async with Loopback(engine="wrtc") as endpoint:
        yield endpoint
