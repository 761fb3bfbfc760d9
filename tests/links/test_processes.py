"""Links in a process of their own, with either plane: media, times and events cross, and a new process goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from relay.errors import NotFound, Overloaded, SettingsError
from relay.plane import native_missing
from relay.ports import RoomEvent
from tests.links.nodes import CAM, OneNode, two_nodes, until

HOUR_US = 3_600_000_000
MS = 1 << 16
PLANES = [
    "reference",
    pytest.param("native", marks=pytest.mark.skipif(native_missing() != "", reason="no native plane")),
]
pytestmark = pytest.mark.timeout(120)


def agree(a: OneNode, b: OneNode) -> bool:
    """Whether both nodes say the same of a frame: what was told may be 1 ms off, and is told by either side."""
    timestamp = b.side.clocks.newest(1, 0)
    here, there = (None, None) if timestamp is None else (a.at(timestamp), b.at(timestamp))
    return here is not None and there is not None and abs(here - there) <= 3 * MS


def is_there(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("kind", PLANES)
async def test_media_times_and_events_cross_and_outlive_the_processes(kind: str) -> None:
    async with two_nodes(kind, ahead_us=HOUR_US) as (a, b):
        await until(lambda: len(b.tapped) > 30)
        await until(lambda: agree(a, b))
        assert a.tapped == []  # they went by the ring
        for node in (a, b):
            former, before = node.links.pid, len(b.tapped)
            assert former is not None
            os.kill(former, signal.SIGKILL)
            await until(lambda: node.links.pid not in (None, former))  # noqa: B023
            await until(lambda: len(b.tapped) > before + 30)  # noqa: B023
            await until(lambda: agree(a, b))
            assert node.links.starts == 2
        a.links.room_events("r", [RoomEvent(0, "long", {"text": "x" * (2 << 20)})])
        said = [RoomEvent(a.newest() or 0, "score", {"points": number}) for number in range(200)]
        said = [RoomEvent(each.sync_id + number, each.type, each.data) for number, each in enumerate(said)]
        a.links.room_events("r", said)
        await until(lambda: len(b.side.events) == len(said))
        assert [each.data["points"] for each in b.side.events] == list(range(200))
        assert b.side.came > 0
        last = [node.links.pid for node in (a, b)]
    assert [is_there(pid) for pid in last] == [False, False]


async def test_a_process_that_hangs_is_replaced() -> None:
    async with two_nodes("reference") as (a, b):
        await until(lambda: len(b.tapped) > 30)
        former = a.links.pid
        assert former is not None
        os.kill(former, signal.SIGSTOP)
        await until(lambda: a.links.pid not in (None, former))
        before = len(b.tapped)
        await until(lambda: len(b.tapped) > before + 30)


async def test_breakers_are_commanded_through_the_process() -> None:
    async with two_nodes("reference") as (a, b):
        await until(lambda: len(b.tapped) > 30)
        await until(a.links.served)
        link = a.links.served()[0]["link"]
        assert (await a.links.command(link, "open"))["breaker"] == "open"
        with pytest.raises(NotFound):
            await a.links.command("no such link", "open")
        former = a.links.pid
        assert former is not None
        os.kill(former, signal.SIGKILL)
        with pytest.raises(Overloaded):
            await a.links.command(link, "reset")


async def test_what_is_gone_when_it_is_asked_for_is_not_tapped_and_does_no_harm() -> None:
    async with two_nodes("reference") as (a, b):
        await until(lambda: len(b.tapped) > 30)
        a.links.set_catalog([])
        await until(lambda: len(a.side.untapped) == 1)
        a.side.has = False
        a.links.set_catalog([CAM])
        await until(lambda: b.side.offered)
        await until(lambda: b.side.subscribed_to == (0,))
        a.links.set_catalog([])
        await until(lambda: not b.side.offered)
        a.side.has = True
        a.links.set_catalog([CAM])
        before = len(b.tapped)
        await until(lambda: len(b.tapped) > before + 30)
        assert len(a.side.untapped) == 1


async def test_a_port_that_is_taken_is_named_and_no_process_stays() -> None:
    async with two_nodes("reference") as (a, _):
        other = OneNode("reference", "b")
        other.links._settings = other.links._settings.model_copy(update={"port": a.port})
        with pytest.raises(SettingsError, match=str(a.port)):
            await other.open()
        other.plane.close()
        assert other.links.pid is None
