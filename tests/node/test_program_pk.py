"""A PK of two rooms whose programs are mixed on different nodes: both show both sides, and afterwards each its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from relay.cluster import EmbeddedServer
from relay.mix.layout import Box, cells
from relay.mix.video.tiles import score_bar
from relay.node.program_mix import pk_layout, pk_overlays
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage.document import Program
from relay.stage.layout import Layout, Score, Timer, check_overlays
from relay.stage.permissions import Actor, Role
from relay.stage.pk_room import PkTeam, PkView
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.pk_world import Two, two_nodes
from tests.node.program_peers import Peer, Watched

pytestmark = pytest.mark.timeout(300)
OWNER = Actor("rita", Role.OWNER)
WIDTH, HEIGHT, FPS = 640, 360, 12
PATIENCE_S = 90.0


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": WIDTH, "mix.video.height": HEIGHT, "mix.video.fps": FPS, "mix.video.spares": 0}
    media = {"media.port": 0, "media.slab_packets": 16_384, "session.consent_timeout_s": 3 * PATIENCE_S}
    return dev_settings(environ={}, overrides={**media, **picture})


@pytest.fixture(autouse=True)
def patient_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives a connection up before the test gives up waiting, however busy the machine is."""
    monkeypatch.setattr("aioice.ice.CONSENT_FAILURES", 1000)


@pytest.fixture
async def two(server: EmbeddedServer, settings: NodeSettings) -> AsyncIterator[Two]:
    async with two_nodes(server, settings) as made:
        yield made


def sides(left: str, right: str) -> tuple[Box, Box]:
    layout = Layout("side_by_side", left=(left,), right=(right,))
    one, other = cells(layout, (left, right), WIDTH, HEIGHT)
    return one.box, other.box


async def shows(seen: Watched, *expected: tuple[Box, int]) -> None:
    """Wait until these publishers are in these places from now on."""
    seen.pictures.clear()
    await until(lambda: all(len(seen.counters(box, who)) >= 3 for box, who in expected), PATIENCE_S)


async def test_both_programs_show_both_stages_while_the_pk_runs(two: Two) -> None:
    peers: list[Peer] = []
    viewers: dict[str, Watched] = {}
    try:
        for node, room, host, publisher, hz in (("a", "red", "rita", 1, 440.0), ("b", "blue", "bea", 2, 1000.0)):
            peers.append(await Peer(two.nodes[node], host, "owner", room).publish(publisher, hz))
            now = time.time()
            await two.store.change(room, changing(lambda state, now=now: programs.switch_on(state, OWNER, now)))
            peers.append(await Peer(two.nodes[node], f"v-{room}", "viewer", room).watch())
            viewers[room] = peers[-1].watched
        (alone,) = cells(Layout(), ("rita",), WIDTH, HEIGHT)
        await shows(viewers["red"], (alone.box, 1))
        await shows(viewers["blue"], (alone.box, 2))

        pk = await two.invite(duration_s=600.0)
        await two.desk.accept(pk.id, "blue", "bea")
        left, right = sides("rita", "blue/bea")
        await shows(viewers["red"], (left, 1), (right, 2))
        await shows(viewers["blue"], (left, 2), (right, 1))
        for seen in viewers.values():
            await until(lambda seen=seen: min(seen.hears(440), seen.hears(1000)) > 0.05, PATIENCE_S)

        await two.desk.end(pk.id, "ended", "rita")
        await shows(viewers["red"], (alone.box, 1))
        await shows(viewers["blue"], (alone.box, 2))
        await until(lambda: viewers["red"].hears(1000) < 0.01 < 0.05 < viewers["red"].hears(440), PATIENCE_S)
    finally:
        for peer in peers:
            await peer.close()


async def test_one_sound_has_the_other_rooms_host_while_the_pk_runs(two: Two) -> None:
    peers: list[Peer] = []
    heard: dict[str, Watched] = {}
    tones = {"rita": 440.0, "bea": 1000.0}
    try:
        for node, room, host in (("a", "red", "rita"), ("b", "blue", "bea")):
            peers.append(await Peer(two.nodes[node], host, "owner", room).publish(0, tones[host], video=False))
            peers.append(await Peer(two.nodes[node], host, "owner", room).listen())
            heard[host] = peers[-1].watched
        pk = await two.invite(duration_s=600.0)
        await two.desk.accept(pk.id, "blue", "bea")
        for host, other in (("rita", "bea"), ("bea", "rita")):
            await until(lambda host=host, other=other: heard[host].hears(tones[other]) > 0.05, PATIENCE_S)
            assert heard[host].hears(tones[host]) < 0.005
        await two.desk.end(pk.id, "ended", "rita")
        for host, other in (("rita", "bea"), ("bea", "rita")):
            await until(lambda host=host, other=other: heard[host].hears(tones[other]) < 0.005, PATIENCE_S)
    finally:
        for peer in peers:
            await peer.close()


def test_what_a_pk_draws() -> None:
    own, other = PkTeam("red", 7, ("rita",)), PkTeam("blue", 9, ("blue/bea",))
    program = Program(0.0)
    counting = PkView("pk1", "countdown", 5_000 << 16, 9_000 << 16, own, other)
    running = PkView("pk1", "running", 5_000 << 16, 9_000 << 16, own, other)
    assert (pk_layout(None, program), pk_overlays(None, program)) == (None, None)
    assert pk_layout(counting, program) is None
    drawn = pk_overlays(counting, program)
    assert drawn is not None
    assert (drawn.score, drawn.timer) == (None, Timer(5_000))
    assert pk_layout(running, program) == Layout("side_by_side", left=("rita",), right=("blue/bea",))
    drawn = pk_overlays(running, program)
    assert drawn is not None
    assert (drawn.score, drawn.timer) == (Score(7, 9, "red", "blue"), Timer(9_000))
    assert pk_layout(PkView("pk1", "running", 0, 1, own, PkTeam("blue", 0, ())), program) is None


def test_points_that_were_taken_away_are_drawn_too() -> None:
    """The API takes points below 0; a picture that refuses them keeps showing the score and the timer of before."""
    own, other = PkTeam("red", -5, ("rita",)), PkTeam("blue", 3, ("blue/bea",))
    drawn = pk_overlays(PkView("pk1", "running", 5_000 << 16, 9_000 << 16, own, other), Program(0.0))
    assert drawn is not None
    check_overlays(drawn)
    assert drawn.score is not None
    bar, leads = score_bar(drawn.score, 640, 32), score_bar(replace(drawn.score, left=0), 640, 32)
    at = leads.luma.shape[1] // 2  # the middle belongs to whoever has points
    assert (bar.luma[4, at], bar.luma.shape) == (leads.luma[4, at], leads.luma.shape)
    even = score_bar(replace(drawn.score, left=-7, right=-7), 640, 32)
    assert even.luma.shape == bar.luma.shape
