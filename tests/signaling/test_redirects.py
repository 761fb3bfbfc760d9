"""WHIP and WHEP clients that are sent to another node, and offers that find the next best one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from control_world import KEYS, Served, serving
from memory_node import ANSWER, MemoryNode

from relay.cluster.directory import RedisDirectory
from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import SignalingSettings, dev_settings
from signaling.app import create_app
from signaling.control.client import Deadlines
from signaling.control.nodes import RemoteNodes
from signaling.nodes import LocalNodes
from signaling.tokens import mint

BROWSER = {"Sec-Fetch-Mode": "cors"}
JOIN = {"join": {"timeout_s": 30.0}}  # on a busy machine time must not decide


def client_of(app: Any, role: str = "owner") -> httpx2.AsyncClient:
    token = mint(KEYS, room="demo", identity="ann", role=role, ttl_s=3600, now=time.time())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://here", headers=headers)


# --- a relay's own WHIP and WHEP --------------------------------------------------------------------------------------


class Relay:
    """A relay that knows of others, and its client."""

    def __init__(self, store: RoomStore, others: list[str]) -> None:
        self.node = MemoryNode()
        self.asked: list[tuple[str, str]] = []
        nodes = LocalNodes(self.node, self._others)
        self.app = create_app(dev_settings(environ={}), store, nodes, Metrics())
        self.client = client_of(self.app)
        self.others = others

    def _others(self, room: str, region: str) -> list[str]:
        self.asked.append((room, region))
        return self.others


@pytest.fixture
async def relay(store: RoomStore) -> AsyncIterator[Relay]:
    made = Relay(store, ["https://n2.example:7443", "https://n3.example"])
    yield made
    await made.client.aclose()


@pytest.mark.parametrize("path", ["/whip/demo", "/whep/demo"])
async def test_a_full_relay_sends_elsewhere(relay: Relay, path: str) -> None:
    assert (await relay.client.post(path, content="v=0")).status_code in {201, 404}
    relay.node.full = True
    found = await relay.client.post(f"{path}?x=1&region=eu", content="v=0")
    assert found.status_code == 307
    assert found.headers["location"] == f"https://n2.example:7443{path}?x=1&region=eu&via=redirect"
    assert found.headers["cache-control"] == "no-store"
    assert found.content == b""
    assert relay.asked == [("demo", "eu")]
    await relay.client.post(path, content="v=0", headers={"X-Region": "us"})
    assert relay.asked[-1] == ("demo", "us")


async def test_a_draining_relay_sends_elsewhere(relay: Relay) -> None:
    relay.app.state.context.drain.begin()
    assert (await relay.client.post("/whip/demo", content="v=0")).status_code == 307
    relay.others = []
    refused = await relay.client.post("/whip/demo", content="v=0")
    assert (refused.status_code, refused.json()["type"].rpartition("/")[2]) == (503, "draining")


async def test_nobody_is_sent_on_twice(relay: Relay) -> None:
    relay.node.full = True
    refused = await relay.client.post("/whip/demo?via=redirect", content="v=0")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")


async def test_a_page_is_told_where_to_go(relay: Relay) -> None:
    """A browser would follow without its token."""
    relay.node.full = True
    refused = await relay.client.post("/whip/demo", content="v=0", headers=BROWSER)
    assert refused.status_code == 503
    assert refused.json()["elsewhere"] == "https://n2.example:7443"
    assert refused.headers["retry-after"] == "7"
    relay.app.state.context.drain.begin()
    refused = await relay.client.post("/whip/demo", content="v=0", headers=BROWSER)
    assert refused.json()["elsewhere"] == "https://n2.example:7443"


async def test_only_who_has_a_token_is_sent_elsewhere(relay: Relay) -> None:
    relay.node.full = True
    relay.app.state.context.drain.begin()
    refused = await relay.client.post("/whip/demo", content="v=0", headers={"Authorization": "Bearer x"})
    assert refused.status_code == 401


async def test_a_client_learns_where_else_the_api_is(relay: Relay) -> None:
    found = await relay.client.get("/v1/bases")
    assert found.json() == {"bases": ["https://n2.example:7443", "https://n3.example"]}
    relay.others = []
    assert (await relay.client.get("/v1/bases")).json() == {"bases": []}
    assert (await relay.client.get("/v1/bases", headers={"Authorization": "Bearer x"})).status_code == 401


# --- signaling apart --------------------------------------------------------------------------------------------------


class Apart:
    """A signaling service beside three relays, and its client."""

    def __init__(self, app: Any, nodes: RemoteNodes, relays: dict[str, Served], directory: RedisDirectory) -> None:
        self.client = client_of(app)
        self.nodes, self.relays, self.directory = nodes, relays, directory

    async def offer(self, **headers: str) -> httpx2.Response:
        return await self.client.post("/whip/demo", content="v=0", headers=headers)


@asynccontextmanager
async def apart(store: RoomStore, store_url: str, **settings: object) -> AsyncIterator[Apart]:
    async with AsyncExitStack() as stack:
        names = ("n1", "n2", "n3")
        relays = {name: await stack.enter_async_context(serving(store, name)) for name in names}
        directory = RedisDirectory(store_url, socket_timeout_s=10, connect_timeout_s=10)
        stack.push_async_callback(directory.close)
        for name, served in relays.items():
            public = "" if name == "n3" else f"https://{name}.example"
            await directory.announce(served.record(public_url=public), 60)
        wanted = SignalingSettings.model_validate(
            {"auth": {"keys": KEYS}, "room": {"auto_create": True}, **JOIN, **settings}, strict=False
        )
        nodes = RemoteNodes(
            wanted,
            store,
            RedisDirectory(store_url, socket_timeout_s=10, connect_timeout_s=10),
            "tests",
            Deadlines(10, 10, 10),
        )
        stack.push_async_callback(nodes.close)
        await nodes.start()
        made = Apart(create_app(wanted, store, nodes, Metrics()), nodes, relays, directory)
        stack.push_async_callback(made.client.aclose)
        yield made


async def place(world: Apart, name: str) -> None:
    """Put the room on a node."""
    found = await world.directory.place("demo", name)
    await world.directory.place("demo", name, instead_of=found)


async def test_redirects_are_a_setting(store: RoomStore, store_url: str) -> None:
    async with apart(store, store_url, join={"redirect": True, "timeout_s": 30.0}) as world:
        await store.create("demo", {"publications": {}})
        await place(world, "n2")
        found = await world.offer()
        assert (found.status_code, found.headers["location"]) == (307, "https://n2.example/whip/demo?via=redirect")
        assert world.relays["n2"].node.offers == []


async def test_without_a_public_url_or_for_a_page_the_offer_is_passed_on(store: RoomStore, store_url: str) -> None:
    async with apart(store, store_url, join={"redirect": True, "timeout_s": 30.0}) as world:
        first = await world.offer(**BROWSER)
        assert (first.status_code, first.text) == (201, ANSWER)
        await place(world, "n3")
        assert (await world.offer()).status_code == 201
        assert len(world.relays["n3"].node.offers) >= 1


async def test_a_killed_relays_room_answers_at_once_from_another(store: RoomStore, store_url: str) -> None:
    async with apart(store, store_url) as world:
        first = await world.offer()
        assert first.status_code == 201
        name = first.headers["location"].split("/")[-1].split("~")[0]
        await world.relays[name].stop()  # its record stays for a minute
        for _ in range(3):
            again = await world.offer()
            assert again.status_code == 201
            assert not again.headers["location"].split("/")[-1].startswith(f"{name}~")


async def test_a_relay_that_dies_between_question_and_offer(store: RoomStore, store_url: str) -> None:
    async with apart(store, store_url) as world:
        name = (await world.offer()).headers["location"].split("/")[-1].split("~")[0]
        dying = world.relays[name]
        remote = world.nodes._nodes[name]
        admit = remote.admit

        async def admit_and_die(*arguments: Any) -> None:
            await admit(*arguments)
            await dying.stop()

        remote.admit = admit_and_die  # type: ignore[method-assign]
        again = await world.offer()
        assert again.status_code == 201
        assert not again.headers["location"].split("/")[-1].startswith(f"{name}~")


async def test_full_relays_are_passed_over_and_the_best_ones_reason_is_told(store: RoomStore, store_url: str) -> None:
    async with apart(store, store_url) as world:
        for served in world.relays.values():
            served.node.full = True
        refused = await world.offer()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "7")
        world.relays["n2"].node.full = False
        assert (await world.offer()).headers["location"].split("/")[-1].startswith("n2~")


async def test_a_silent_relay_does_not_use_up_the_whole_time(store: RoomStore, store_url: str) -> None:
    """A partition: its address is there, nothing comes back."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with apart(store, store_url) as world:
        silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
        await store.create("demo", {"publications": {"p": {"node": "n0", "state": "live"}}})
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        world.nodes._deadlines = Deadlines(connect=0.2, change=10, read=0.2)
        await world.directory.announce(world.relays["n1"].record(id="n0", control_url=url), 60)
        async with asyncio.timeout(30):
            while "n0" not in world.nodes._nodes:
                await asyncio.sleep(0.02)
        assert (await world.nodes.choose("demo")).node_id == "n0"
        await store.delete("demo", ("room.ended", {}))
        await place(world, "n0")
        found = await world.offer()
        assert found.status_code == 201
        silent.close()
