"""Event streams over a real socket: order, resumption without a hole, filters, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn

from relay.ports import RoomEvent
from signaling.events import QUEUE, Listener
from tests.signaling.api_client import Api, problem

EVENTS = "/v1/rooms/demo/events"
PATIENCE_S = 60.0  # these tests run beside others (tests/beside.py)


@dataclass
class Message:
    """One server-sent event; `id` is empty when it has no `id:` line."""

    id: str
    type: str
    data: dict[str, Any]


class Served:
    """The app behind a socket on loopback."""

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)

    @asynccontextmanager
    async def follow(self, who: str, path: str = EVENTS, last: str = "") -> AsyncIterator[AsyncIterator[Message]]:
        headers = self.api.token(who) | ({"Last-Event-ID": last} if last else {})
        async with self.client.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield parse(response)

    async def say(self, *texts: str) -> list[str]:
        """Send application events; returns their sync ids."""
        ids = []
        for text in texts:
            sent = await self.api.call("POST", EVENTS, "owner", json={"type": "app.say", "data": {"text": text}})
            assert sent.status_code == 202
            ids.append(sent.json()["sync_id"])
        return ids


async def parse(response: httpx.Response) -> AsyncIterator[Message]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif not line and "data" in fields:
            yield Message(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


async def take(messages: AsyncIterator[Message], count: int) -> list[Message]:
    return [await asyncio.wait_for(anext(messages), PATIENCE_S) for _ in range(count)]


def texts(messages: list[Message]) -> list[str]:
    return [message.data["data"]["data"]["text"] for message in messages]


@pytest.fixture
async def served(api: Api) -> AsyncIterator[Served]:
    config = uvicorn.Config(api.app, port=0, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    served = Served(api, server.servers[0].sockets[0].getsockname()[1])
    yield served
    await served.client.aclose()
    api.app.state.context.drain.end()
    server.should_exit = True
    await task


async def test_events_come_in_order_with_their_sync_ids(served: Served) -> None:
    async with served.follow("viewer") as messages:
        ids = await served.say("a", "b", "c")
        got = await take(messages, 3)
    assert texts(got) == ["a", "b", "c"]
    assert [message.id for message in got] == [message.data["sync_id"] for message in got] == ids
    assert ids == sorted(ids, key=int)
    assert {(message.type, message.data["type"], message.data["room"]) for message in got} == {
        ("app.say", "app.say", "demo")
    }


async def test_a_listener_resumes_without_a_hole(served: Served) -> None:
    async with served.follow("viewer") as messages:
        await served.say("a", "b")
        last = (await take(messages, 1))[0].id
    await served.say("c")
    async with served.follow("viewer", last=last) as messages:
        await served.say("d")
        assert texts(await take(messages, 3)) == ["b", "c", "d"]


async def test_nothing_is_missed_between_reading_the_room_and_following(served: Served) -> None:
    position = (await served.api.call("GET", "/v1/rooms/demo", "viewer")).json()["sync_id"]
    await served.say("a")
    async with served.follow("viewer", last=position) as messages:
        assert texts(await take(messages, 1)) == ["a"]


async def test_many_reconnections_see_each_event_once(served: Served) -> None:
    last = (await served.api.call("GET", "/v1/rooms/demo", "viewer")).json()["sync_id"]
    talking = asyncio.ensure_future(served.say(*(str(number) for number in range(30))))
    seen: list[str] = []
    while len(seen) < 30:
        async with served.follow("viewer", last=last) as messages:
            got = await take(messages, min(7, 30 - len(seen)))
            seen += texts(got)
            last = got[-1].id
    await talking
    assert seen == [str(number) for number in range(30)]


async def test_changes_of_the_stage_are_events(served: Served) -> None:
    async with served.follow("viewer") as messages:
        await served.api.call("POST", "/v1/rooms/demo/stage/invitations", "owner", json={"identity": "bob"})
        await served.api.call("POST", "/v1/rooms/demo/stage/invitations/bob/accept", "viewer:bob")
        got = await take(messages, 4)
    assert [message.type for message in got] == [
        "stage.invited",
        "stage.accepted",
        "participant.joined",
        "stage.seat_changed",
    ]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "٣", "9" * 20])
async def test_positions_that_are_none(api: Api, last: str) -> None:
    headers = [*api.token("viewer").items(), ("Last-Event-ID", last.encode())]
    response = await api.client.get(EVENTS, headers=headers)
    assert problem(response) == (400, "invalid-parameter")


async def test_who_may_not_listen(api: Api) -> None:
    assert problem(await api.call("GET", EVENTS)) == (401, "missing-token")
    assert problem(await api.call("GET", EVENTS, "viewer@other")) == (403, "wrong-room")
    assert problem(await api.call("GET", "/v1/rooms/none/events", "viewer@none")) == (404, "room-not-found")
    assert problem(await api.call("GET", "/v1/sessions/n1~none/events", "viewer")) == (404, "session-not-found")
    await api.call("DELETE", "/v1/rooms/demo/participants/bob", "owner")
    assert problem(await api.call("GET", EVENTS, "viewer:bob")) == (403, "banned")


async def test_a_position_that_is_no_longer_kept(api: Api) -> None:
    for _ in range(12):
        await api.store.append("demo", [("app.x", {})] * 100)
    for last in ("1", str((1 << 64) - 1)):
        response = await api.call("GET", EVENTS, "viewer", headers={"Last-Event-ID": last})
        assert problem(response) == (410, "events-gone")


async def test_who_was_away_learns_that_the_room_ended(served: Served) -> None:
    (last,) = await served.say("a")
    await served.api.call("DELETE", "/v1/rooms/demo", "owner")
    async with served.follow("viewer", last=last) as messages:
        assert [message.type async for message in messages] == ["room.ended"]


async def test_a_token_in_the_query(served: Served) -> None:
    token = served.api.token("viewer")["Authorization"].removeprefix("Bearer ")
    async with served.client.stream("GET", f"{EVENTS}?access_token={token}") as response:
        assert response.status_code == 200


async def test_the_stream_ends_with_the_room(served: Served) -> None:
    async with served.follow("viewer") as messages:
        await served.api.call("DELETE", "/v1/rooms/demo", "owner")
        assert [message.type async for message in messages] == ["room.ended"]


async def test_the_stream_ends_for_the_one_who_is_removed(served: Served) -> None:
    async with served.follow("viewer:bob") as his, served.follow("viewer:ann") as hers:
        await served.api.call("DELETE", "/v1/rooms/demo/participants/bob", "owner")
        assert [message.type async for message in his] == ["participant.kicked"]
        await served.say("still here")
        assert [message.type for message in await take(hers, 2)] == ["participant.kicked", "app.say"]


async def test_the_stream_ends_with_the_token(served: Served) -> None:
    headers = served.api.token("viewer")
    served.api.now += 3599.5
    async with served.client.stream("GET", EVENTS, headers=headers) as response:
        assert [message async for message in parse(response)] == []


async def test_a_session_hears_of_its_own_slots_only(served: Served) -> None:
    location = (await served.api.offer("/whep/demo", "viewer:carol")).headers["Location"]
    session = location.rpartition("/")[2]
    mine, other = {"session": session, "index": 0}, {"session": "n1~other", "index": 0}
    async with (
        served.follow("viewer:carol", f"/v1/sessions/{session}/events") as own,
        served.follow("viewer:ann") as public,
    ):
        await served.api.store.append("demo", [("slot.bound", other), ("slot.bound", mine)])
        await served.say("a")
        bound, said = await take(own, 2)
        assert (bound.type, bound.data["data"], said.type) == ("slot.bound", mine, "app.say")
        assert [message.type for message in await take(public, 1)] == ["app.say"]
        await served.api.node.queues[session].put(RoomEvent(1, "slot.bound", mine))
        (pushed,) = await take(own, 1)
        assert (pushed.type, pushed.id) == ("slot.bound", "")
        assert int(pushed.data["sync_id"]) >= int(said.data["sync_id"])


async def test_what_no_stream_has_is_told_once_and_not_resumed_from(served: Served) -> None:
    location = (await served.api.offer("/whep/demo", "viewer:carol")).headers["Location"]
    session = location.rpartition("/")[2]
    path = f"/v1/sessions/{session}/events"
    async with served.follow("viewer:carol", path) as own:
        (first,) = await served.say("a")
        ahead = RoomEvent(int(first) + (60_000 << 16), "speaker.changed", {"identity": "ann"}, stored=False)
        await take(own, 1)
        await served.api.node.queues[session].put(ahead)
        (speaker,) = await take(own, 1)
        assert (speaker.type, speaker.id, speaker.data["sync_id"]) == ("speaker.changed", "", str(ahead.sync_id))
        await served.say("b")
        (said,) = await take(own, 1)
        assert said.id  # a node's clock that is ahead hides nothing of the stream
    async with served.follow("viewer:carol", path, last=said.id) as own:
        await served.say("c")
        assert texts(await take(own, 1)) == ["c"]


async def test_listeners_are_told_of_the_drain_and_let_go(served: Served) -> None:
    async with served.follow("viewer") as messages:
        drain = served.api.app.state.context.drain
        drain.begin()
        (told,) = await take(messages, 1)
        assert (told.type, told.id) == ("node.draining", "")
        await served.say("a")
        assert texts(await take(messages, 1)) == ["a"]
        drain.end()
        assert [message async for message in messages] == []


async def test_a_listener_that_goes_leaves_nothing_behind(served: Served) -> None:
    gauge = served.api.app.state.context.metrics.event_streams
    before = len(asyncio.all_tasks())
    async with served.follow("viewer") as messages:
        await served.say("a")
        await take(messages, 1)
        assert gauge._value.get() == 1
    for _ in range(200):
        if gauge._value.get() == 0 and len(asyncio.all_tasks()) <= before + 2:
            break
        await asyncio.sleep(0.02)
    assert gauge._value.get() == 0
    assert len(asyncio.all_tasks()) <= before + 2  # the server's connection and the library's shutdown watcher


async def test_a_listener_that_takes_nothing_holds_a_bounded_queue(api: Api) -> None:
    made = 0

    async def endless() -> AsyncIterator[RoomEvent]:
        nonlocal made
        while True:
            made += 1
            yield RoomEvent(made, "slot.bound", {})
            await asyncio.sleep(0)

    listener = Listener(api.app.state.context, "demo", "carol")
    listener.follow_session(endless())
    for _ in range(10 * QUEUE):
        await asyncio.sleep(0)
    assert made == QUEUE + 1
    await listener.close()
