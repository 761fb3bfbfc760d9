"""Two nodes with a link: hosts on both are mixed by the one with the lease; when it goes, the other one mixes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.leases import RedisLeases
from relay.metrics import Metrics
from relay.mix.layout import cells
from relay.node import Node
from relay.ports import NodeRecord
from relay.settings import dev_settings
from relay.stage import program as programs
from relay.stage.document import RoomState
from relay.stage.layout import Layout
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.link.quic_world import identity
from tests.node.claps import apart
from tests.node.peers import until
from tests.node.program_peers import Peer, Watched

OWNER = Actor("alice", Role.OWNER)
WIDTH, HEIGHT, FPS = 640, 360, 12
PATIENCE_S = 60.0
BOXES = {cell.identity: cell.box for cell in cells(Layout(), ("alice", "bob"), WIDTH, HEIGHT)}


@dataclass
class Directory:
    """The nodes as everybody knows them."""

    of: dict[str, NodeRecord] = field(default_factory=dict)
    current: bool = True

    def records(self) -> tuple[NodeRecord, ...]:
        return tuple(self.of.values())

    def get(self, node: str) -> NodeRecord | None:
        return self.of.get(node)


@pytest.fixture
async def pair(server: EmbeddedServer, store: RedisStore, unused_udp_ports: list[int]) -> AsyncIterator[list[Node]]:
    """Nodes a and b."""
    known = Directory()
    async with AsyncExitStack() as stack:
        nodes = []
        for name, port in zip("ab", unused_udp_ports, strict=True):
            overrides = {"media.port": 0, "link.port": port, "link.host": "127.0.0.1", "cluster.lease_ttl_s": 2.0}
            overrides |= {"mix.video.width": WIDTH, "mix.video.height": HEIGHT, "mix.video.fps": FPS}
            settings = dev_settings(environ={}, overrides=overrides)
            node = Node(settings, store, Metrics(), node_id=name, version="test", advertised=["127.0.0.1"])
            await node.join(identity(name), known, RedisLeases(server.url, socket_timeout_s=2.0))
            await node.start()
            stack.push_async_callback(node.shut_down)
            known.of[name] = NodeRecord(name, "", "local", "test", link=(f"127.0.0.1:{port}",))
            nodes.append(node)
        yield nodes


def shown(seen: Watched, identity: str, publisher: int, more: int = 5) -> bool:
    return len(seen.counters(BOXES[identity], publisher)) >= more


async def complete(seen: Watched) -> None:
    """Both hosts are seen and heard from now on."""
    seen.pictures.clear()
    seen.sound = seen.sound[:0]
    await until(lambda: shown(seen, "alice", 1) and shown(seen, "bob", 2), PATIENCE_S)
    await until(lambda: min(seen.hears(440), seen.hears(1000)) > 0.05, PATIENCE_S)


async def test_hosts_of_two_nodes_are_mixed_by_one_and_then_by_the_other(pair: list[Node], store: RedisStore) -> None:
    a, b = pair
    alice, bob, viewer = Peer(a, "alice", "owner"), Peer(b, "bob", "guest"), Peer(b, "vera", "viewer")
    try:
        await alice.publish(1, 440)
        await until(lambda: a.knows("demo") and a.knows("demo")["seats"], PATIENCE_S)  # type: ignore[index]
        await bob.publish(2, 1000)
        now = time.time()
        await store.change("demo", changing(lambda state: programs.switch_on(state, OWNER, now)))
        await viewer.watch()
        await complete(viewer.watched)
        state = RoomState.from_json(await store.read("demo"))
        assert state.program is not None
        assert (state.program.node, state.program.epoch > 0) == ("a", True)
        ids = {kind: each.id for kind, each in programs.publications_of(state).items()}
        assert [node.mixing.ready for node in pair] == [True, False], "one of them mixes"

        await alice.close()
        await a.shut_down()
        alice = Peer(b, "alice", "owner")
        await alice.publish(1, 440)
        await complete(viewer.watched)
        state = RoomState.from_json(await store.read("demo"))
        assert state.program is not None
        assert state.program.node == "b"
        assert {kind: each.id for kind, each in programs.publications_of(state).items()} == ids
        assert {each.node for each in programs.publications_of(state).values()} == {"b"}
    finally:
        for peer in (alice, bob, viewer):
            await peer.close()


async def test_one_sound_is_mixed_where_its_listener_is(pair: list[Node], store: RedisStore) -> None:
    a, b = pair
    alice, bob, heard_by_alice, heard_by_bob, heard_by_vera = peers = (
        Peer(a, "alice", "owner"),
        Peer(b, "bob", "guest"),
        Peer(b, "alice", "owner"),  # on another node than the one she publishes to
        Peer(b, "bob", "guest"),
        Peer(a, "vera", "viewer"),
    )
    try:
        await alice.publish(1, 440, video=False)
        await bob.publish(2, 1000, video=False)
        for listener in (heard_by_alice, heard_by_bob, heard_by_vera):
            await listener.listen()
        for listener, levels in ((heard_by_alice, (0, 1)), (heard_by_bob, (1, 0)), (heard_by_vera, (1, 1))):
            seen = listener.watched
            await until(
                lambda seen=seen, levels=levels: (
                    [seen.hears(440) > 0.05, seen.hears(1000) > 0.05] == list(levels)
                    and all(seen.hears(hz) < 0.005 for hz, level in zip((440, 1000), levels, strict=True) if not level)
                ),
                PATIENCE_S,
            )
        await until(lambda: [_plays(b, heard_by_alice), _plays(a, heard_by_vera)] == ["mix:alice", "mix"], PATIENCE_S)
        state = RoomState.from_json(await store.read("demo"))
        assert {each.identity for each in state.publications.values()} == {"alice", "bob"}
    finally:
        for peer in peers:
            await peer.close()


def _plays(node: Node, peer: Peer) -> str | None:
    return node.session(peer.session)["slots"][0]["publication"]  # type: ignore[no-any-return]


async def test_one_sound_of_another_node_waits_for_the_programs_pictures(pair: list[Node], store: RedisStore) -> None:
    """The listener's node mixes it, and the one that mixes the program knows how long a host's sound has to wait."""
    a, b = pair
    together = await apart(a, b, store, late_s=0.12, settle_s=14.0, one_sound=True)
    assert [node.mixing.ready for node in pair] == [True, False]
    assert abs(median(together)) <= 20 + 500 / FPS


async def test_lips_match_for_a_host_of_another_node_who_sends_no_capture_times(
    pair: list[Node], store: RedisStore
) -> None:
    """His sender reports stay at his node: the one that mixes has what they say from its catalog."""
    a, b = pair
    zoe = Peer(a, "zoe", "guest")
    try:
        await zoe.publish(3, 0, video=False)  # says nothing; but a mixes, where somebody was first
        await until(lambda: a.knows("demo") and a.knows("demo")["seats"], PATIENCE_S)  # type: ignore[index]
        together = await apart(b, b, store, late_s=0.12, settle_s=12.0)
        assert [node.mixing.ready for node in pair] == [True, False]
    finally:
        await zoe.close()
    assert abs(median(together)) <= 20 + 500 / FPS
