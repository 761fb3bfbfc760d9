"""Nodes that die, are cut off, drain or lie, and a store that goes away: who watches and publishes goes on.

Every test prints how long each viewer was without a picture; no figure decides.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

import httpx2
import pytest

from drills import ownership
from drills.cluster import Cluster
from tests.drills.fabrics import eventually, left, need
from tests.drills.shows import PATIENCE_S, Show, show
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

OUTAGE_S = float(os.environ.get("COSTREAM_TEST_OUTAGE_S", "20"))
NODES = ("relay-a", "relay-b", "relay-c")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    need("tun")
    need_client("wrtc")
    with Cluster(relays=3, signaling=2, kind="tun") as started:
        yield started
    assert left(ownership.this_process().tag) == []


@pytest.fixture
def on_air(cluster: Cluster) -> Iterator[Show]:
    """Host 1 on relay-a, host 2 on relay-b, a viewer on each relay, all playing."""
    with show(cluster) as made:
        made.publish("h1", "relay-a")
        made.publish("h2", "relay-b")
        viewers = [made.watch(f"v{node[-1]}", node) for node in NODES]
        made.playing(viewers, (1, 2))
        yield made


def viewers_of(made: Show) -> list[str]:
    return [f"{made.room}-v{node[-1]}" for node in NODES]


def test_viewers_of_a_killed_relay_play_elsewhere(on_air: Show) -> None:
    lost = viewers_of(on_air)[2]
    began = time.monotonic()
    on_air.cluster["relay-c"].kill()
    on_air.playing(viewers_of(on_air), (1, 2))
    on_air.told("viewers' relay killed", began, viewers_of(on_air), (1, 2))
    sessions = [line["session"] for line in on_air.happened(lost, "joined", since=began)]
    assert sessions[-1].split("~")[0] in ("relay-a", "relay-b")
    for other in viewers_of(on_air)[:2]:
        assert on_air.happened(other, "failed", "joining", since=began) == []


def test_publishers_of_a_killed_relay_come_back_to_their_seats(on_air: Show) -> None:
    host, gone = f"{on_air.room}-h1", on_air.publish("h3", "relay-a")
    eventually(lambda: on_air.nodes(gone) == {"relay-a"}, PATIENCE_S)
    before, owners = on_air.publications(), on_air.owners()
    began = time.monotonic()
    on_air.stop(gone)
    on_air.cluster["relay-a"].kill()
    on_air.playing(viewers_of(on_air), (1, 2))
    on_air.told("publisher's relay killed", began, viewers_of(on_air), (1, 2))
    back = on_air.happened(host, "joined", since=began)[0]["at"] - began
    print(f"publisher's relay killed: published again after {1000 * back:.0f} ms")
    mine = {ident for ident, each in before.items() if each["identity"] == host}
    eventually(lambda: len(on_air.nodes(host)) == 1 and "relay-a" not in on_air.nodes(host), PATIENCE_S)
    after = on_air.publications()
    assert {ident for ident, each in after.items() if each["identity"] == host} == mine, "the publications are others"
    eventually(lambda: all(on_air.owners()[ident][0] != "relay-a" for ident in mine), PATIENCE_S)
    assert all(on_air.owners()[ident][1] > owners[ident][1] for ident in mine)
    eventually(
        lambda: {e["state"] for e in on_air.publications().values() if e["identity"] == gone} == {"paused"}, PATIENCE_S
    )

    returned = time.monotonic()
    on_air.cluster["relay-a"].start()
    on_air.cluster.wait_until_healthy(PATIENCE_S)
    late = on_air.watch("late", "relay-a")
    on_air.playing([*viewers_of(on_air), late], (1, 2))
    on_air.told("the killed relay is back", returned, viewers_of(on_air), (1, 2))
    live = {each["node"] for each in on_air.publications().values() if each["state"] == "live"}
    assert "relay-a" not in live, "the node that returned claims what it had before"
    assert on_air.tenures()


def test_a_relay_that_is_cut_off_never_makes_two_origins(on_air: Show) -> None:
    cluster = on_air.cluster
    stays = on_air.publish("h3", "relay-a", "relay-a")
    va, vb, vc = viewers_of(on_air)
    three = on_air.watch("v3", "relay-a", "relay-a", videos=3)
    on_air.playing([three], (1, 2, 3))
    began = time.monotonic()
    for other in ("store", "relay-b", "relay-c", "signaling-1", "signaling-2"):
        cluster.fabric.partition("relay-a", other)
    on_air.playing([three], (1, 3))
    cluster.fabric.partition("relay-a", on_air.hosts["h1"])  # who published there goes elsewhere
    eventually(lambda: on_air.nodes(f"{on_air.room}-h1") & {"relay-b", "relay-c"}, PATIENCE_S)
    on_air.playing([vb, vc], (1, 2))
    on_air.playing([three], (3,))
    on_air.told("cut off", began, [vb, vc], (1, 2))
    on_air.told("cut off, its own viewers", began, [three], (3,))
    assert on_air.happened(three, "failed", since=began) == []

    healed = time.monotonic()
    cluster.fabric.heal()
    cluster.wait_until_healthy(PATIENCE_S)
    on_air.playing([three], (1, 2, 3))
    on_air.playing([va, vb, vc], (2,))
    on_air.told("healed", healed, [vb, vc], (1, 2))
    eventually(lambda: on_air.nodes(stays) == {"relay-a"}, PATIENCE_S)
    eventually(lambda: "relay-a" not in on_air.nodes(f"{on_air.room}-h1"), PATIENCE_S)
    time.sleep(1.0)  # two renewals
    print(f"leases: {len(on_air.tenures())} tenures, never two owners")


@pytest.mark.parametrize("forgets", [False, True], ids=["remembers", "forgets"])
def test_media_goes_on_without_the_store(on_air: Show, forgets: bool) -> None:
    cluster, seconds = on_air.cluster, OUTAGE_S if not forgets else 5.0
    everybody = viewers_of(on_air)
    slots = {viewer: on_air.slots(viewer, node) for viewer, node in zip(everybody, NODES, strict=True)}
    assert all(slots.values())
    owners = on_air.owners()
    began = time.monotonic()
    cluster["store"].kill()
    slowest = 0.0
    while time.monotonic() - began < seconds:
        for node in NODES:
            with cluster.api(node, PATIENCE_S) as api:
                asked = time.monotonic()
                assert api.get(f"/v1/rooms/{on_air.room}").status_code in (200, 503)
                slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.5)
    late = on_air.watch("late", "relay-b")
    on_air.playing([*everybody, late], (1, 2))
    on_air.told(f"{seconds:g} s without the store", began, everybody, (1, 2))
    print(f"{seconds:g} s without the store: the API's slowest answer {1000 * slowest:.0f} ms")

    if forgets:
        data = cluster["store"].log.parent / "store"
        for file in data.iterdir():
            if file.name != "valkey.conf":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
    back = time.monotonic()
    cluster["store"].start()
    cluster.wait_until_healthy(PATIENCE_S)
    eventually(lambda: set(on_air.owners()) == set(owners), PATIENCE_S)
    print(f"the store is back: everything is registered after {1000 * (time.monotonic() - back):.0f} ms")
    on_air.playing(everybody, (1, 2))
    on_air.told("the store is back", back, everybody, (1, 2))
    assert {viewer: on_air.slots(viewer, node) for viewer, node in zip(everybody, NODES, strict=True)} == slots
    assert all(on_air.happened(viewer, "failed", "joining", since=began) == [] for viewer in everybody)
    now = on_air.owners()
    assert {ident: node for ident, (node, _) in now.items()} == {ident: node for ident, (node, _) in owners.items()}
    if not forgets:
        assert now == owners, "leases were given anew"


def test_a_relay_drains_without_a_break(on_air: Show) -> None:
    host, mover = f"{on_air.room}-h1", viewers_of(on_air)[0]
    began = time.monotonic()
    assert on_air.cluster["relay-a"].stop() == 0
    took = time.monotonic() - began
    on_air.playing(viewers_of(on_air), (1, 2))
    print(f"drained: the process ended after {took:.1f} s")
    on_air.told("drained", began, viewers_of(on_air), (1, 2))
    assert on_air.happened(host, "moved", since=began), on_air.happened(host, "failed", "refused", since=began)
    assert on_air.happened(mover, "moved", since=began), on_air.happened(mover, "failed", "refused", since=began)
    for other in viewers_of(on_air)[1:]:
        assert on_air.happened(other, "failed", "joining", since=began) == []
    assert on_air.nodes(host) <= {"relay-b", "relay-c"}
    assert on_air.tenures()


def test_signaling_is_killed_and_the_other_one_serves(on_air: Show) -> None:
    began = time.monotonic()
    on_air.cluster["signaling-1"].kill()
    newcomer = on_air.watch("new", "signaling-1", "signaling-2")
    on_air.playing([*viewers_of(on_air), newcomer], (1, 2))
    on_air.told("signaling killed", began, viewers_of(on_air), (1, 2))
    assert all(on_air.happened(viewer, "failed", since=began) == [] for viewer in viewers_of(on_air))
    with on_air.cluster.api("signaling-2") as api:
        assert api.get(f"/v1/rooms/{on_air.room}").status_code == 200
        bases = api.get("/v1/bases").json()["bases"]
    assert bases == [on_air.cluster[node].place.https for node in NODES]
    with pytest.raises(httpx2.HTTPError), on_air.cluster.api("signaling-1") as api:
        api.get("/healthz")
