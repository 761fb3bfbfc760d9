"""A test cluster with live media: it plays, its members can be killed, and nothing stays of it."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from drills import ownership
from drills.cluster import Cluster
from drills.cluster.config import Place
from drills.cluster.console import converse
from drills.fabric import OUTSIDE
from relay.settings import load_node_settings
from signaling.tokens import verify
from tests.drills.fabrics import Kind, eventually, left, need
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]


def of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def counters(cluster: Cluster, viewer: str, since: float = 0.0) -> list[int]:
    """The counters that a viewer could read, of pictures that came after `since` (monotonic)."""
    frames = of(cluster.lines(viewer), "frame")
    return [frame["counter"] for frame in frames if frame["at"] > since and frame["counter"] is not None]


def extra(place: Place) -> dict[str, dict[str, Any]]:
    return {"media": {"plane": "reference"}} if place.role == "relay" else {}


@pytest.fixture(scope="module", params=["tun", "loopback"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    kind: Kind = request.param
    need(kind)
    need_client("wrtc")
    with Cluster(relays=1, signaling=1, kind=kind, extra=extra, links=False) as started:
        yield started
    assert left(ownership.this_process().tag) == []


@pytest.fixture(autouse=True)
def _healed(cluster: Cluster) -> Iterator[None]:
    """What one test breaks and does not mend is no other's."""
    yield
    cluster.fabric.heal()


def test_it_plays_and_a_killed_relay_comes_back(cluster: Cluster) -> None:
    cluster.make_room("show")
    host, watching = cluster.add_client("host"), cluster.add_client("viewers")
    cluster.publish("show", "h1", host=host, publisher=7, tone=440.0)
    cluster.watch("show", "v", host=watching, count=2)
    for viewer in ("v-1", "v-2"):
        eventually(lambda who=viewer: len(counters_of(cluster, "v", who)) >= 30, 30)  # type: ignore[misc]
    told = cluster.lines("v")
    for viewer in ("v-1", "v-2"):
        seen = counters_of(cluster, "v", viewer)
        assert all(b > a for a, b in itertools.pairwise(seen)), seen
    assert {frame["publisher"] for frame in of(told, "frame")} <= {7, None}
    assert max(line["level"] for line in of(told, "sound")) > -20
    cluster["relay-a"].kill()
    assert cluster["relay-a"].state == "ended (-9)"
    killed = time.monotonic()
    cluster["relay-a"].start()
    cluster.wait_until_healthy()
    eventually(lambda: len(counters(cluster, "v", killed)) >= 20, 30)
    assert len(of(cluster.lines("h1"), "joined")) >= 2


def counters_of(cluster: Cluster, identity: str, viewer: str) -> list[int]:
    frames = of(cluster.lines(identity), "frame")
    return [frame["counter"] for frame in frames if frame["viewer"] == viewer and frame["counter"] is not None]


def holed(cluster: Cluster) -> set[tuple[str, str]]:
    """Between whom packets have been dropped by a cut."""
    return {(lane["from"], lane["to"]) for lane in cluster.fabric.counters()["lanes"] if lane["black_holed"]}


def test_media_crosses_the_fabric(cluster: Cluster) -> None:
    """Cut off, the relay is reached by nobody; healed, by everybody."""
    cluster.fabric.cut("relay-a")
    before = time.monotonic()
    eventually(lambda: cluster.reaches("signaling-1") != 1, 30)
    ways = {("viewers", "relay-a"), ("relay-a", "viewers")} if cluster.fabric.kind == "tun" else {(OUTSIDE, "relay-a")}
    eventually(lambda: ways <= holed(cluster))
    cluster.fabric.heal("relay-a")
    eventually(lambda: cluster.reaches("signaling-1") == 1, 30)
    eventually(lambda: len(counters(cluster, "v", before)) >= 20, 40)


def test_members_are_paused_stopped_and_started(cluster: Cluster) -> None:
    if cluster.fabric.kind == "loopback":
        pytest.skip("processes are the same in both kinds of fabric; seen with namespaces")
    store = cluster["store"]
    store.pause()
    eventually(lambda: store.state == "paused")
    assert not cluster.store_answers()
    store.resume()
    eventually(cluster.store_answers)
    store.kill()
    assert not cluster.store_answers()
    store.start()
    eventually(cluster.store_answers)
    assert cluster["signaling-1"].stop() == 0
    assert cluster.reaches("signaling-1") == -1
    cluster["signaling-1"].start()
    cluster.wait_until_healthy()
    with cluster.api() as api:
        assert api.get("/v1/rooms/show").status_code == 200, "the store has forgotten its rooms"


def test_commands(cluster: Cluster) -> None:
    lines = [
        "status", "impair relay-a store delay=1ms", "impair relay-a/2 * loss=12% one-way", "partition outside store",
        "counters", "", "help", "heal", "pause relay-a", "resume relay-a",
        "impair relay-a", "impair relay-a store los=1%", "kill nobody", "cut nobody", "heal a b c", "fly",
        "cut store x", "partition relay-a store both-ways", "quit", "kill relay-a",
    ]  # fmt: skip
    out = io.StringIO()
    converse(cluster, lines, Console(file=out, width=200))
    text = out.getvalue()
    assert "relay-a <-> store: delay=1ms" in text
    assert "relay-a/2 -> *: loss=12%" in text
    assert "5 rules taken back" in text
    assert text.count("no: ") == 8
    assert cluster["relay-a"].state == "running"
    assert cluster.rules() == []


def test_settings_and_tokens_are_what_costream_reads(cluster: Cluster) -> None:
    settings = load_node_settings(cluster.directory / "relay-a.toml", {})
    assert settings.node.id == "relay-a"
    assert settings.media.plane == "reference"
    token = cluster.token("someone", "viewer", "show")
    claims = verify(token, settings.auth.keys, time.time())
    assert (claims.identity, claims.role, claims.room) == ("someone", "viewer", "show")
    assert (cluster.directory / "relay-a.toml").stat().st_mode & 0o077 == 0
