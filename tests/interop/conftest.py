"""Fixtures for tests with real clients: relays, a browser, endpoints; pictures and logs of what failed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.clients.chromium import Chromium, launched
from tests.interop.clients.loopback import Loopback
from tests.interop.clients.requirements import need
from tests.interop.relays import Relay, Room, keep_log


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


@pytest.fixture(scope="session")
def _short_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cs-"))  # pytest's own are too long for a socket's path
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def _shared_relay(_short_directory: Path) -> Iterator[Relay]:
    with Relay(_short_directory / "shared") as shared:
        yield shared


@pytest.fixture
def relay(request: pytest.FixtureRequest, _shared_relay: Relay) -> Iterator[Relay]:
    """A relay in a process of its own, shared by tests that only use rooms. If the test fails, its log is kept."""
    offset = _shared_relay.log.stat().st_size
    yield _shared_relay
    if request.node.stash.get(_FAILED, False):
        print(f"kept {keep_log(_shared_relay, request.node.name, offset)}")


@pytest.fixture
async def room(relay: Relay) -> Room:
    """A new room of the shared relay."""
    return await relay.room()


@pytest.fixture
def relay_with(request: pytest.FixtureRequest, _short_directory: Path) -> Iterator[Callable[..., Relay]]:
    """Starts a relay of the test's own, with settings (see `Relay`); ended and its log kept like the shared one's."""
    started: list[Relay] = []

    def start(**settings: Any) -> Relay:
        own = Relay(_short_directory / f"own{len(list(_short_directory.iterdir()))}", **settings)
        started.append(own)
        own.start()
        return own

    yield start
    for own in started:
        own.stop()
        if request.node.stash.get(_FAILED, False):
            print(f"kept {keep_log(own, request.node.name, 0)}")
