"""A node mixes one sound for each who asked: a real audio process, hosts with tones and listeners by aiortc."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from relay.cluster import RedisStore
from relay.errors import Conflict
from relay.metrics import Metrics
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage import room as rooms
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer
from tests.node.test_program import WIDTH, children

OWNER = Actor("alice", Role.OWNER)
TONES = {"alice": 440.0, "bob": 1000.0, "carol": 1700.0}
PATIENCE_S = 60.0


class Stage:
    """Peers of one node or several, all closed in the end."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self._peers = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._peers.aclose()

    def peer(self, node: Node, identity: str) -> Peer:
        role = {"alice": "owner", "vera": "viewer"}.get(identity, "guest")
        peer = Peer(node, identity, role)
        self._peers.push_async_callback(peer.close)
        return peer

    async def speak(self, node: Node, *identities: str) -> list[Peer]:
        return [await self.peer(node, name).publish(0, TONES[name], video=False) for name in identities]

    async def listen(self, node: Node, *identities: str) -> list[Peer]:
        return [await self.peer(node, name).listen() for name in identities]

    async def change(self, change: object) -> None:
        await self.store.change("demo", changing(change))  # type: ignore[arg-type]


def hears(peer: Peer, *identities: str) -> Callable[[], bool]:
    """Whether exactly these are heard now."""
    levels = lambda: {name: peer.watched.hears(hz) for name, hz in TONES.items()}  # noqa: E731
    return lambda: all(level > 0.05 if name in identities else level < 0.005 for name, level in levels().items())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def settings() -> NodeSettings:
    overrides = {"media.port": 0, "mix.audio.one_sounds_per_room": 3, "mix.video.width": WIDTH}
    return dev_settings(environ={}, overrides=overrides)


@pytest.fixture
async def node(store: RedisStore, settings: NodeSettings, metrics: Metrics) -> AsyncIterator[Node]:
    made = Node(settings, store, metrics, node_id="n1", version="test", advertised=["127.0.0.1"])
    await made.start()
    yield made
    await made.shut_down()


@pytest.fixture
async def stage(store: RedisStore) -> AsyncIterator[Stage]:
    async with Stage(store) as made:
        yield made


def mixes(metrics: Metrics) -> float | None:
    """How many are made for listeners."""
    return metrics.registry.get_sample_value("costream_one_sounds")


def slot(node: Node, peer: Peer) -> tuple[str | None, str | None]:
    found = node.session(peer.session)["slots"][0]
    return found["publication"], found["identity"]


async def test_each_host_hears_the_others_only_and_a_viewer_all(node: Node, stage: Stage, metrics: Metrics) -> None:
    await stage.speak(node, *TONES)
    before = children()
    alice, bob, carol, vera = await stage.listen(node, *TONES, "vera")
    await until(hears(alice, "bob", "carol"), PATIENCE_S)
    await until(hears(bob, "alice", "carol"), PATIENCE_S)
    await until(hears(carol, "alice", "bob"), PATIENCE_S)
    await until(hears(vera, *TONES), PATIENCE_S)
    assert [slot(node, each) for each in (alice, vera)] == [("mix:alice", "program"), ("mix", "program")]
    await until(lambda: node.mixing.audio.has_reserve, PATIENCE_S)
    assert len(children()) - len(before) == 2, "one process mixes, one waits, and none makes pictures"
    assert not node.mixing.ready
    assert mixes(metrics) == 4

    victim = node.mixing.audio.pid
    os.kill(victim or 0, signal.SIGKILL)
    await until(lambda: victim not in children(), PATIENCE_S)
    for peer in (alice, vera):
        peer.watched.sound = peer.watched.sound[:0]
    await until(hears(alice, "bob", "carol"), PATIENCE_S)
    await until(hears(vera, *TONES), PATIENCE_S)
    assert slot(node, alice) == ("mix:alice", "program")


async def test_mutes_and_screens_are_followed_and_who_leaves_frees_his_mix(
    node: Node, stage: Stage, metrics: Metrics
) -> None:
    spoken = await stage.speak(node, *TONES)
    alice, bob = await stage.listen(node, "alice", "bob")
    await until(hears(bob, "alice", "carol"), PATIENCE_S)
    await stage.change(lambda state: rooms.mute(state, OWNER, "alice", audio=True, video=None))
    await stage.change(lambda state: rooms.mute(state, OWNER, "bob", audio=True, video=None))
    await until(hears(bob, "carol"), PATIENCE_S)
    await until(hears(alice, "carol"), PATIENCE_S)
    await stage.change(lambda state: rooms.mute(state, OWNER, "bob", audio=False, video=None))
    await until(hears(alice, "bob", "carol"), PATIENCE_S)
    await until(hears(bob, "carol"), PATIENCE_S)

    await node.close(spoken[1].session)
    await until(hears(alice, "carol"), PATIENCE_S)
    assert slot(node, bob) == ("mix:bob", "program"), "he still has a part in the show"
    await node.close(bob.session)
    assert mixes(metrics) == 1
    await node.close(alice.session)
    assert mixes(metrics) == 0
    (again,) = await stage.listen(node, "bob")
    await until(hears(again, "carol"), PATIENCE_S)


async def test_one_host_too_many_is_refused_and_nobody_else(node: Node, stage: Stage, metrics: Metrics) -> None:
    await stage.speak(node, "alice")
    vera, *_ = await stage.listen(node, "vera", "alice", "bob", "carol", "carol")
    with pytest.raises(Conflict, match="one_sounds_per_room") as refused:
        await stage.listen(node, "dave")
    assert refused.value.code == "too-many-mixes"
    await stage.listen(node, "vera")
    await until(lambda: mixes(metrics) == 4, PATIENCE_S)
    await until(hears(vera, "alice"), PATIENCE_S)

    await stage.change(lambda state: rooms.change_role(state, OWNER, "vera", Role.GUEST, time.time()))
    await until(lambda: slot(node, vera)[1] == "alice", PATIENCE_S)  # a voice: her mix would be one too many
    assert mixes(metrics) == 3
    await node.close(node_session(node, "bob"))
    await until(lambda: slot(node, vera) == ("mix:vera", "program"), PATIENCE_S)
    await until(hears(vera, "alice"), PATIENCE_S)


def node_session(node: Node, identity: str) -> str:
    return next(each["id"] for each in node.sessions() if (each["identity"], each["kind"]) == (identity, "viewer"))


async def test_the_programs_picture_goes_with_it_and_each_may_end_first(
    node: Node, stage: Stage, metrics: Metrics
) -> None:
    await stage.speak(node, "alice", "bob")
    (listener,) = await stage.listen(node, "alice")
    await until(hears(listener, "bob"), PATIENCE_S)
    await stage.change(lambda state: programs.switch_on(state, OWNER, time.time()))
    watcher, viewer = stage.peer(node, "alice"), stage.peer(node, "vera")
    await watcher.watch(one_sound=True)
    await viewer.watch()
    await until(lambda: watcher.watched.pictures and watcher.watched.pictures[-1][1].shape[1] == WIDTH, PATIENCE_S)
    await until(hears(watcher, "bob"), PATIENCE_S)
    await until(hears(viewer, "alice", "bob"), PATIENCE_S)
    assert mixes(metrics) == 1, "the program's is not one of them"

    await stage.change(lambda state: programs.switch_off(state, OWNER, time.time()))
    await until(lambda: not node.mixing.video.stages, PATIENCE_S)
    await stage.change(lambda state: rooms.mute(state, OWNER, "bob", audio=True, video=None))
    await until(hears(listener), PATIENCE_S)
    await stage.change(lambda state: rooms.mute(state, OWNER, "bob", audio=False, video=None))
    await until(hears(listener, "bob"), PATIENCE_S)

    await stage.change(lambda state: programs.switch_on(state, OWNER, time.time()))
    await until(hears(viewer, "alice", "bob"), PATIENCE_S)
    for peer in (listener, watcher):
        await node.close(peer.session)
    assert mixes(metrics) == 0
    viewer.watched.sound = viewer.watched.sound[:0]
    await until(hears(viewer, "alice", "bob"), PATIENCE_S)
