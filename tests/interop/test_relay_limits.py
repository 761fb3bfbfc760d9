"""A full relay refuses newcomers and keeps those inside; a relay that is told to stop says so and ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable

import httpx2
import pytest

from costream.synthetic import SyntheticHost
from costream.whip import Refused
from tests.interop.clients.wrtc_client import Watcher
from tests.interop.relays import Relay, Room, eventually, is_advancing, on_stage


async def refusal(client: SyntheticHost | Watcher) -> tuple[int, int, str]:
    """Status, Retry-After and problem type with which a client is refused."""
    with pytest.raises(Refused) as refused:
        await client.start()
    error = refused.value
    return error.status, int(error.headers["retry-after"]), json.loads(error.body)["type"].rsplit("/", 1)[1]


@pytest.mark.parametrize("limit", ["max_sessions", "max_publishers"])
async def test_a_full_relay_refuses_newcomers(relay_with: Callable[..., Relay], limit: str) -> None:
    relay = relay_with(**{f"limits__{limit}": 2 if limit == "max_sessions" else 1, "limits__retry_after_s": 7})
    room = await relay.room()
    async with on_stage(room.host(1)), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) > 10, 20)
        assert await refusal(room.host(2)) == (503, 7, "overloaded")
        if limit == "max_sessions":
            assert await refusal(room.watcher("other")) == (503, 7, "overloaded")
        else:
            async with room.watcher("other") as other:
                await other.until(lambda: other.videos[0].publishers == [1], 20)
        print(f"refused within {await quickest_refusal(room) * 1000:.1f} ms, wanted 50 ms")
        shown = len(video.seen)
        await watcher.until(lambda: len(video.seen) > shown + 20, 20)
        assert is_advancing(video.counters(1))
    await eventually(room.sessions, lambda found: not found)
    async with on_stage(room.host(2)):
        pass  # there is room again


async def test_a_relay_without_room_for_packets_refuses_newcomers(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(media__slab_packets=256, limits__retry_after_s=3)
    room = await relay.room()
    async with on_stage(room.host(1)):
        async with room.watcher() as watcher:
            (video,) = watcher.videos
            await watcher.until(lambda: len(video.seen) > 10, 20)
            await eventually(lambda: offered(room), lambda status: status == 503, every=0.3)
            assert await refusal(room.host(2)) == (503, 3, "overloaded")
            assert await refusal(room.watcher("other")) == (503, 3, "overloaded")
            print(f"refused within {await quickest_refusal(room) * 1000:.1f} ms, wanted 50 ms")
            for _ in range(3):
                shown = len(video.seen)
                await watcher.until(lambda shown=shown: len(video.seen) > shown + 20, 20)
            assert is_advancing(video.counters(1))
        await eventually(lambda: offered(room), lambda status: status != 503, every=0.3)
        async with room.watcher("later") as later:
            await later.until(lambda: later.videos[0].publishers == [1], 20)
    assert 'costream_refusals_total{reason="slab"}' in (await room.request("GET", "/metrics")).text


async def offered(room: Room) -> int:
    """The status that a host gets for an offer which cannot be read: 503 comes before the reading."""
    headers = {"Authorization": f"Bearer {room.token('h2', 'guest')}", "Content-Type": "application/sdp"}
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
        return (await client.post(room.whip, content=b"v=0\r\n")).status_code


async def quickest_refusal(room: Room) -> float:
    """Seconds until the 503, the best of ten: the others tell of the machine."""
    took = []
    headers = {"Authorization": f"Bearer {room.token('h2', 'guest')}", "Content-Type": "application/sdp"}
    async with httpx2.AsyncClient(trust_env=False, headers=headers) as client:
        for _ in range(10):
            begin = time.monotonic()
            response = await client.post(room.whip, content=b"v=0\r\n")
            took.append(time.monotonic() - begin)
            assert response.status_code == 503
    return min(took)


async def test_a_stopping_relay_tells_its_clients_and_ends(relay_with: Callable[..., Relay]) -> None:
    relay = relay_with(node__drain_timeout_s=3)
    room = await relay.room()
    events: list[str] = []
    assert relay.store().is_running()
    host = room.host(1)
    async with on_stage(host), room.watcher() as watcher:
        (video,) = watcher.videos
        await watcher.until(lambda: len(video.seen) > 10, 20)
        listener = asyncio.create_task(listen(room, events))
        await eventually(
            lambda: room.ask("POST", "events", {"type": "app.ready"}, expect=202), lambda _: events, every=0.3
        )
        begin = time.monotonic()
        relay.process.send_signal(signal.SIGTERM)
        await watcher.until(lambda: "node.draining" in events, 5)
        shown = len(video.seen)
        status, _, problem = await refusal(room.watcher("late"))
        assert (status, problem) == (503, "draining")
        await watcher.until(lambda: len(video.seen) > shown + 5, 5)
        code = await asyncio.to_thread(relay.process.wait, 20)
        assert time.monotonic() - begin < 3 + 5 + 5  # the drain, EXIT_SLACK_S, and a busy machine
        assert code == 0
        await asyncio.wait_for(listener, 5)
    assert not relay.store_is_running()


async def listen(room: Room, events: list[str]) -> None:
    """Note the types of a room's events until the stream ends."""
    headers = {"Authorization": f"Bearer {room.token('viewer', 'viewer')}"}
    url = f"{room.relay.http}/v1/rooms/{room.id}/events"
    async with (
        httpx2.AsyncClient(trust_env=False, headers=headers, timeout=None) as client,
        client.stream("GET", url) as response,
    ):
        assert response.status_code == 200
        with contextlib.suppress(httpx2.HTTPError):  # cut off at the very end
            async for line in response.aiter_lines():
                name, _, value = line.partition(":")
                events += [value.strip()] * (name == "event")
