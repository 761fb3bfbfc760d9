"""For all tests: a store, a receiver of webhooks; what runs beside what; a busy machine is no failure; Ctrl-C works for
what they start.
"""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

from relay.cluster import EmbeddedServer
from tests import beside
from tests.costream import image_build
from tests.webhooks.receiver import Receiver

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell's background job begins with SIGINT ignored and hands that on; tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> beside.Beside:
    """`-n` never runs two tests in real time at once."""
    return beside.Beside(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if beside.hurry_of(item.nodeid) == "real time":
        image_build.begin_if_wanted(item.session)
    with beside.running(item):
        return (yield)


def pytest_sessionfinish() -> None:
    """However it ends."""
    image_build.build.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the image come last, since it is built meanwhile; for workers, those in real time first.

    In CI a failed test gets one more chance, and the summary names it (docs/decisions/0024).

    Real browsers, codecs and processes share two cores of a machine that others use. What a property test has found
    is true the first time.
    """
    items.sort(key=lambda item: item.get_closest_marker("image") is not None)
    if "PYTEST_XDIST_WORKER" in os.environ:
        beside.sort_for_workers(items)
    if os.environ.get("CI") != "true":
        return
    for item in items:
        if isinstance(item, pytest.Function) and not is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why each test that got its second chance had failed."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"ran once more: {report.nodeid}", sep="_")
        terminalreporter.write_line(report.longreprtext)


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    """A store of the test's own."""
    embedded = EmbeddedServer()
    await embedded.start()
    yield embedded
    await embedded.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An application's endpoint for webhooks."""
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()
