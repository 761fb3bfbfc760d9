"""A node with real peers and a real store: joining, taking over, leaving, and a store that goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress

import pytest
from redis import Redis
from structlog.testing import capture_logs

from relay.cluster import EmbeddedServer, RedisStore
from relay.errors import (
    BadOffer,
    Conflict,
    Forbidden,
    NotFound,
    Overloaded,
    PreconditionFailed,
    PreconditionRequired,
    StoreUnavailable,
)
from relay.link.hooks import LinkMoved, PathChanged
from relay.metrics import Metrics
from relay.node import Node
from relay.node.node import ROOM_TICK_S
from relay.plane import native_missing
from relay.ports import Offer, SlotChange
from relay.settings import dev_settings
from relay.stage import room as rooms
from relay.stage.document import RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import PATIENCE_S, Peer, until

OWNER = Actor("alice", Role.OWNER)


async def document(store: RedisStore) -> RoomState:
    return RoomState.from_json(await store.read("demo"))


async def live_publication(node: Node, store: RedisStore, identity: str) -> str:
    """Wait until an identity's publication stands in the store, and return its id."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with suppress(StoreUnavailable):  # one that has just come back rests a moment
            for each in (await document(store)).publications.values():
                if each.identity == identity and each.state == "live" and each.layers:
                    return each.id
        await asyncio.sleep(0.02)
    raise AssertionError(f"{identity} is not live: {node.sessions()}")


async def test_a_host_is_heard_and_leaves_the_stage(node: Node, store: RedisStore) -> None:
    host = await Peer(node, "alice", "owner").publish()
    await live_publication(node, store, "alice")
    viewer = await Peer(node, "victor", "viewer").watch()
    await until(lambda: node.session(viewer.session)["slots"][0]["identity"] == "alice")
    while await viewer.hears() < 1000:
        pass
    assert (await document(store)).on_air() == ["alice"]
    assert "victor" in await store.viewers("demo")

    await node.close(host.session)
    assert node.session(viewer.session)["slots"][0]["publication"] is None
    with pytest.raises(NotFound):
        await node.close(host.session)
    deadline = time.monotonic() + 10
    while (await document(store)).publications:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await viewer.close()
    await host.close()


async def test_a_second_publisher_of_one_identity_takes_over(node: Node, store: RedisStore) -> None:
    first = await Peer(node, "alice", "owner").publish()
    publication = await live_publication(node, store, "alice")
    viewer = await Peer(node, "victor", "viewer").watch()
    await until(lambda: node.session(viewer.session)["slots"][0]["publication"] == publication)
    bound: list[str | None] = []

    async def follow() -> None:
        told = node.session_events(viewer.session)
        bound.extend([event.data["publication"] async for event in told if event.type == "slot.bound"])

    follower = asyncio.create_task(follow())
    second = await Peer(node, "alice", "owner").publish()
    await until(lambda: first.session not in {each["id"] for each in node.sessions()})
    await until(lambda: node.session(second.session)["publications"])
    while await viewer.hears() < 1000:
        pass
    deadline = time.monotonic() + 10
    while (await document(store)).publications[publication].session != second.session:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert (await document(store)).participants["alice"].session == second.session
    await node.close(viewer.session)
    await follower
    assert None not in bound, "the viewer's slot fell silent in between"
    for peer in (first, second, viewer):
        await peer.close()


async def test_who_is_kicked_or_muted(node: Node, store: RedisStore) -> None:
    guest = await Peer(node, "bob", "guest").publish()
    await live_publication(node, store, "bob")
    await store.change("demo", changing(lambda state: rooms.mute(state, OWNER, "bob", audio=True)))
    await until(lambda: node.session(guest.session)["publications"][0]["muted"])
    await store.change("demo", changing(lambda state: rooms.kick(state, OWNER, "bob", time.time())))
    await until(lambda: not node.sessions())
    with pytest.raises(Forbidden) as caught:
        await node.publish(Offer("demo", "bob", "guest", guest.pc.localDescription.sdp))
    assert caught.value.code == "banned"
    await guest.close()


async def test_the_end_of_a_room_ends_its_sessions(node: Node, store: RedisStore) -> None:
    host = await Peer(node, "alice", "owner").publish()
    await live_publication(node, store, "alice")
    await store.delete("demo", ("room.ended", {"by": "alice"}))
    await until(lambda: not node.sessions())
    with pytest.raises(NotFound):
        await node.watch(Offer("demo", "victor", "viewer", host.pc.localDescription.sdp))
    await host.close()


async def test_ice_restart_needs_the_right_entity_tag(node: Node, store: RedisStore) -> None:
    viewer = await Peer(node, "victor", "viewer").watch()
    assert viewer.answer is not None
    fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
    with pytest.raises(PreconditionRequired):
        await node.trickle(viewer.session, fragment, None)
    with pytest.raises(PreconditionFailed):
        await node.trickle(viewer.session, fragment, "stale")
    restarted = await node.trickle(viewer.session, fragment, viewer.answer.etag)
    assert restarted is not None
    assert restarted.etag != viewer.answer.etag
    assert "a=ice-pwd:" in restarted.sdp
    with pytest.raises(PreconditionFailed):
        await node.trickle(viewer.session, fragment, viewer.answer.etag)
    assert await node.trickle(viewer.session, fragment, restarted.etag) is None, "the same credentials restart nothing"
    with pytest.raises(BadOffer):
        await node.trickle(viewer.session, "rubbish", None)
    await viewer.close()


async def test_slots_out_of_range_and_unknown_sessions(node: Node) -> None:
    viewer = await Peer(node, "victor", "viewer").watch()
    await until(lambda: node.session(viewer.session)["state"] == "watching")
    assert (await node.change_slot(viewer.session, 0, SlotChange({"paused": True})))["paused"]
    for index in (1, -1, 1000):
        with pytest.raises(NotFound):
            await node.change_slot(viewer.session, index, SlotChange({"paused": True}))
    with pytest.raises(NotFound):
        await node.change_slot(viewer.session, 0, SlotChange({"publication": "nothing"}))
    for call in (node.session, node.session_events):
        with pytest.raises(NotFound):
            call("n1~unknown")
    await viewer.close()


async def test_media_plays_on_without_the_store(node: Node, store: RedisStore, server: EmbeddedServer) -> None:
    host = await Peer(node, "alice", "owner").publish()
    await live_publication(node, store, "alice")
    viewer = await Peer(node, "victor", "viewer").watch()
    await until(lambda: node.session(viewer.session)["slots"][0]["identity"] == "alice")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await store.read("demo")
        while await viewer.hears() < 1000:
            pass
        late = await Peer(node, "wendy", "viewer").watch()  # the node knows the room
        await until(lambda: node.session(late.session)["slots"][0]["identity"] == "alice")
        second = await Peer(node, "bob", "guest").publish()
        await until(lambda: node.session(second.session)["publications"])
        with pytest.raises(StoreUnavailable):
            await node.watch(Offer("unknown", "wendy", "viewer", late.pc.localDescription.sdp))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await live_publication(node, store, "bob")
    for peer in (host, viewer, late, second):
        await peer.close()


async def test_a_store_that_lost_its_memory_gets_the_room_back(
    node: Node, store: RedisStore, server: EmbeddedServer
) -> None:
    host = await Peer(node, "alice", "owner").publish()
    publication = await live_publication(node, store, "alice")
    with Redis.from_url(server.url) as client:
        client.flushall()
    deadline = time.monotonic() + 15
    while True:
        try:
            state = await document(store)
            if publication in state.publications:
                break
        except NotFound:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert node.session(host.session)["state"] == "publishing"
    await host.close()


async def test_limits_refuse_newcomers_and_keep_those_inside(store: RedisStore) -> None:
    overrides: dict[str, object] = {"media.port": 0, "media.plane": "reference", "limits.max_sessions": 1}
    settings = dev_settings(environ={}, overrides=overrides)
    node = Node(settings, store, Metrics(), node_id="n1", version="test", advertised=["127.0.0.1"])
    await node.start()
    host = await Peer(node, "alice", "owner").publish()
    offer = host.pc.localDescription.sdp
    with pytest.raises(Overloaded) as caught:
        await node.watch(Offer("demo", "victor", "viewer", offer))
    assert caught.value.retry_after == settings.limits.retry_after_s
    await live_publication(node, store, "alice")
    again = await Peer(node, "alice", "owner").publish()  # who returns takes his own place
    await until(lambda: [each["id"] for each in node.sessions()] == [again.session])
    await node.drain(0.1)
    with pytest.raises(Overloaded, match="draining"):
        await node.publish(Offer("demo", "alice", "owner", offer))
    await node.shut_down()
    await node.shut_down()
    assert not node.sessions()
    state = await document(store)
    assert state.publications, "a drain keeps the seat, so that the host can go on elsewhere"
    assert all(each.state == "paused" for each in state.publications.values())
    for peer in (host, again):
        await peer.close()


async def test_a_failed_plane_shows_and_takes_nobody(
    store: RedisStore, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.status()["healthy"]
    node.admit("demo", "alice", True)
    monkeypatch.setattr(type(node._plane), "healthy", False)
    assert not node.status()["healthy"]
    with pytest.raises(Overloaded, match="plane has failed"):
        node.admit("demo", "alice", True)


async def test_a_node_that_lost_its_plane_lets_go_in_order(store: RedisStore) -> None:
    if native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    from relay.plane import _native
    from relay.plane.native import NativePlane

    overrides: dict[str, object] = {"media.port": 0, "media.plane": "native"}
    settings = dev_settings(environ={}, overrides=overrides)
    node = Node(settings, store, Metrics(), node_id="n1", version="test", advertised=["127.0.0.1"])
    await node.start()
    host = await Peer(node, "alice", "owner").publish()
    await live_publication(node, store, "alice")
    viewer = await Peer(node, "victor", "viewer").watch()
    await until(lambda: node.session(viewer.session)["state"] == "watching")
    with capture_logs() as lines:
        assert isinstance(node._plane, NativePlane)
        _native.testing.break_shard(node._plane._shards, 0)
        async with asyncio.timeout(PATIENCE_S):
            await node.failed.wait()
        assert "as a test wished" in node.failure
        assert (node.status()["healthy"], node.status()["draining"]) == (False, True)
        with pytest.raises(Overloaded, match="about to be restarted"):
            await node.watch(Offer("demo", "vera", "viewer", host.pc.localDescription.sdp))
        await node.close(viewer.session)
        assert [each["identity"] for each in node.sessions()] == ["alice"]
        await asyncio.sleep(2 * ROOM_TICK_S)  # rooms go on, and give commands to nobody
        await node.drain(0.1)
        await node.shut_down()
    assert not node.sessions()
    state = await document(store)
    assert [each.state for each in state.publications.values()] == ["paused"], "the seat is kept"
    [error] = [line for line in lines if line["log_level"] == "error"]
    assert error["shard"] == 0
    for peer in (host, viewer):
        await peer.close()


async def test_an_offer_that_names_no_codec_of_the_room(store: RedisStore, node: Node) -> None:
    with pytest.raises(Conflict):
        await store.create("demo", (await document(store)).to_json())
    with pytest.raises(BadOffer):
        await node.publish(Offer("demo", "alice", "owner", "v=0\r\nrubbish"))
    assert not node.sessions()


async def test_a_room_that_nobody_returns_to_ends(store: RedisStore) -> None:
    overrides: dict[str, object] = {"media.port": 0, "media.plane": "reference", "room.empty_room_ttl_s": 0.2}
    settings = dev_settings(environ={}, overrides=overrides)
    node = Node(settings, store, Metrics(), node_id="n1", version="test", advertised=["127.0.0.1"])
    await node.start()
    host = await Peer(node, "alice", "owner").publish()
    await live_publication(node, store, "alice")
    await asyncio.sleep(1.5)  # longer than an empty room is kept, and than a round of housekeeping
    assert (await document(store)).on_air() == ["alice"]
    await node.close(host.session)
    deadline = time.monotonic() + 15
    while await store.rooms():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await node.shut_down()
    await host.close()


async def test_a_breaker_that_moved_is_told_and_counted(node: Node) -> None:
    told: list[tuple[str, dict[str, object]]] = []
    node.on_link_moved = lambda kind, data: told.append((kind, data))
    node._on_link(LinkMoved("l1", "n2", "LINK_UNSTABLE", "open", "closed", "silence", 1 << 63, ("backup",)))
    node._on_link(PathChanged("l1", "n2", "primary", up=False))
    ((kind, data),) = told
    assert kind == "link.moved"
    assert json.loads(json.dumps(data)) == {
        "node": "n1",
        "link": "l1",
        "peer": "n2",
        "code": "LINK_UNSTABLE",
        "state": "open",
        "previous": "closed",
        "reason": "silence",
        "sync_id": str(1 << 63),
        "carrying": ["backup"],
    }
