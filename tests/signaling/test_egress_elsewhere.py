"""Egress on a relay in another process: called by a signaling service that runs apart, and by another relay."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import m3u8
import pytest

from relay.cluster.directory import RedisDirectory
from relay.cluster.known import NodeCache
from relay.egress.manager import EgressManager
from relay.ports import RoomStore
from relay.settings import ClusterSettings, EgressSettings, SignalingSettings, dev_settings
from relay.stage import program as programs
from relay.stage import publications
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from signaling.control.nodes import RemoteNodes
from signaling.control.others import OtherNodes
from tests.egress.local import LocalEgress
from tests.egress.show import LiveFeeds
from tests.signaling.api_client import RATES, Api, problem
from tests.signaling.control_world import KEYS, PATIENT, Served, serving

EGRESS = "/v1/rooms/demo/egress"
SETTINGS = SignalingSettings.model_validate(
    {"cluster": ClusterSettings(heartbeat_s=0.1, expiry_s=5.0), "auth": {"keys": KEYS}}
)


class World:
    """Two relays; alice publishes at n2, which has egress."""

    def __init__(self, store: RoomStore, store_url: str, feeds: LiveFeeds, directory: Path) -> None:
        self.store, self.store_url, self.feeds = store, store_url, feeds
        self.manager = EgressManager(EgressSettings(), directory, feeds, node="n2")
        self.relays: dict[str, Served] = {}
        self.stack = AsyncExitStack()

    def open_directory(self) -> RedisDirectory:
        return RedisDirectory(self.store_url, socket_timeout_s=10, connect_timeout_s=10)

    async def start(self, public_url: str = "") -> None:
        self.feeds.start()
        directory = self.open_directory()
        self.stack.push_async_callback(directory.close)
        for name in ("n1", "n2"):
            served = await self.stack.enter_async_context(serving(self.store, name))
            self.relays[name] = served
            await directory.announce(served.record(public_url=public_url if name == "n2" else ""), 60)
        self.relays["n2"].node.egress = LocalEgress(self.manager)
        api = Api(dev_settings(environ={}, overrides=RATES), self.store)
        assert (await api.call("POST", "/v1/rooms", "owner", json={"id": "demo"})).status_code == 201
        await api.client.aclose()

        def publish(state):  # type: ignore[no-untyped-def]
            return publications.start_publication(
                state, Actor("alice", Role.GUEST), time.time(), publication="p1", kind="video", source="camera",
                codec="h264", node="n2", session="n2~s1", layers=("",),
            )  # fmt: skip

        await self.store.change("demo", changing(publish))

    async def apart(self) -> Api:
        """A signaling service without a relay of its own."""
        nodes = RemoteNodes(SETTINGS, self.store, self.open_directory(), "tests", PATIENT)
        self.stack.push_async_callback(nodes.close)
        await nodes.start()
        return self._api(Api(dev_settings(environ={}, overrides=RATES), self.store, nodes=nodes))

    async def first_relay(self) -> Api:
        """The app of n1, which knows of n2 by the directory."""
        known = NodeCache(self.open_directory(), look_s=0.1, grace_s=5.0)
        self.stack.push_async_callback(known.close)
        await known.start()
        others = OtherNodes(dev_settings(environ={}), "n1", known)
        self.stack.push_async_callback(others.close)
        settings = dev_settings(environ={}, overrides=RATES)
        return self._api(Api(settings, self.store, node=self.relays["n1"].node, others=others))

    def _api(self, api: Api) -> Api:
        self.stack.push_async_callback(api.client.aclose)
        return api

    async def close(self) -> None:
        await self.manager.close()
        await self.stack.aclose()
        self.feeds.stop()


@pytest.fixture
async def world(store: RoomStore, store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    world = World(store, store_url, LiveFeeds(), tmp_path)
    yield world
    await world.close()


@pytest.mark.parametrize("caller", ["apart", "first_relay"])
async def test_the_relay_that_has_begun_to_mix_is_called_for_the_program(world: World, caller: str) -> None:
    """Before it has published any of it: whoever switches a program on starts its egress at once."""
    await world.start()
    owner = Actor("olga", Role.OWNER)
    await world.store.change("demo", changing(lambda state: programs.switch_on(state, owner, time.time())))
    await world.store.change("demo", changing(lambda state: programs.take(state, "n2", 1)))
    started = await (await getattr(world, caller)()).call("POST", EGRESS, "owner", json={"kind": "hls"})
    assert started.status_code == 201, started.text
    assert started.json()["id"].startswith("n2~eg-")


@pytest.mark.parametrize("caller", ["apart", "first_relay"])
async def test_the_relay_that_has_the_source_is_called(world: World, caller: str) -> None:
    await world.start()
    api: Api = await getattr(world, caller)()
    started = await api.call("POST", EGRESS, "owner", json={"kind": "hls", "source": "alice"})
    assert started.status_code == 201, started.text
    egress = started.json()["id"]
    assert egress.startswith("n2~eg-")
    assert [each["id"] for each in world.manager.list("demo")] == [egress]
    again = await api.call("POST", EGRESS, "owner", json={"kind": "hls", "source": "alice"})
    assert problem(again) == (409, "egress-exists")
    listed = await api.call("GET", EGRESS, "owner")
    assert [each["id"] for each in listed.json()["egress"]] == [egress]
    assert (await api.call("GET", f"{EGRESS}/{egress}", "owner")).json()["kind"] == "hls"

    found = await api.call("GET", "/v1/rooms/demo/hls?source=alice", "viewer")
    base = found.json()["url"].removesuffix("index.m3u8")
    playlist = await api.call("GET", f"{base}index.m3u8?_HLS_msn=0&_HLS_part=1")
    heard = m3u8.loads(playlist.text)
    part = await api.call("GET", base + heard.segments[0].parts[0].uri)
    assert (part.status_code, part.headers["content-type"]) == (200, "video/iso.segment")
    assert part.content[4:8] == b"moof"
    init = await api.call("GET", base + heard.segment_map[0].uri)
    assert init.content[4:8] == b"ftyp"
    assert problem(await api.call("GET", f"{base}part99.0.m4s"))[0] == 404

    stopped = await api.call("DELETE", f"{EGRESS}/{egress}", "owner")
    assert stopped.json()["state"] == "ended"
    for ident in ("n9~eg-1", "n2~eg-1", "eg-1"):
        assert problem(await api.call("GET", f"{EGRESS}/{ident}", "owner")) == (404, "egress-not-found")


async def test_players_are_sent_to_a_relay_that_they_reach(world: World) -> None:
    await world.start(public_url="https://n2.example.com:7443")
    api = await world.apart()
    started = await api.call("POST", EGRESS, "owner", json={"kind": "hls", "source": "p1"})
    egress = started.json()["id"]
    found = await api.call("GET", "/v1/rooms/demo/hls?source=p1", "viewer")
    url = found.json()["url"]
    assert url.startswith("https://n2.example.com:7443/hls/")
    path = url.removeprefix("https://n2.example.com:7443")
    there = Api(dev_settings(environ={}, overrides=RATES), world.store, node=world.relays["n2"].node)
    assert (await there.call("GET", path)).status_code == 200
    await there.client.aclose()
    assert egress in url


async def test_a_relay_that_is_gone(world: World) -> None:
    await world.start()
    api = await world.apart()
    started = await api.call("POST", EGRESS, "owner", json={"kind": "recording", "source": "alice"})
    egress = started.json()["id"]
    await world.relays["n2"].stop()
    assert problem(await api.call("GET", f"{EGRESS}/{egress}", "owner"))[0] in (503, 404)
    assert (await api.call("GET", EGRESS, "owner")).json() == {"egress": []}
    assert problem(await api.call("GET", "/v1/rooms/demo/hls?source=alice", "viewer")) == (404, "egress-not-found")
