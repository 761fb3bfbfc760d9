"""Faults on the paths between nodes, with real clients on a cluster: what viewers see of them is printed, per run.

Hosts are on relay-a, viewers on relay-b and relay-c. The primary path from a to both is harmed, the backup is healthy
unless a test says otherwise. How long things take is told, never judged: that media goes on, in order and without
repetition, that the links count what they send, and how often media moves, is. With COSTREAM_LINK_PROCESS=1 in the
environment the links run in processes of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costream import ca
from drills import ownership
from drills.cluster import Cluster
from drills.cluster.config import LINK_PORT, Place
from drills.fabric.base import ROOT
from drills.fabric.impairment import BLACK_HOLE, Impairment
from tests.drills import hostile
from tests.drills.fabrics import eventually, left, need
from tests.drills.link_stage import BACKUP, ORIGIN, SUBSCRIBERS, LinkStage, Run, report
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
STORM = Impairment(delay_us=150_000, jitter_us=20_000)
EIGHTH = Impairment(loss=0.12)
HOLD_S = 2.5  # a fault goes on for so long once media has moved
GROWTH = 5 << 20  # bytes
FLAP_S = 1.2
LONG_S = 11.0  # longer than both ends wait for a silent metadata channel, one after the other
FILL_S = 5.0  # 2000 packets, so that the window over which loss is judged is full when it begins


def extra(place: Place) -> dict[str, dict[str, Any]]:
    process = bool(os.environ.get("COSTREAM_LINK_PROCESS"))
    return {"link": {"process": process}} if place.role == "relay" else {}


@pytest.fixture(scope="module")
def stage() -> Iterator[LinkStage]:
    need("tun")
    need_client("wrtc")
    with Cluster(relays=3, signaling=1, kind="tun", seed=4, extra=extra) as cluster:
        stage = LinkStage(cluster)
        stage.open()
        yield stage
        print("\n" + report(stage.runs))
    assert left(ownership.this_process().tag) == []


@pytest.fixture(autouse=True)
def healthy(stage: LinkStage) -> Iterator[None]:
    """Every test finds its links on healthy primary paths, with nothing held against them."""
    stage.settle()
    yield
    stage.cluster.fabric.heal()


def play_on(stage: LinkStage, run: Run) -> None:
    """Every viewer sees new frames, and what it saw came in order and once."""
    since = time.monotonic()
    eventually(lambda: stage.all_play(since), 30)
    assert (run.repeated, run.reordered) == (0, 0)
    assert set(run.gaps) == stage.viewers
    assert run.total("lost") <= run.total("too_old", "sent") + run.total("over_budget", "sent") + run.total(
        "skipped", "sent"
    ), "the links gave up packets that the origin could have sent again"


def test_nothing_happens_on_healthy_paths(stage: LinkStage) -> None:
    """What this machine does to viewers without any fault: the figures of the others are read beside it."""
    with stage.run("no fault") as run:
        time.sleep(5)
    play_on(stage, run)
    assert not any("backup" in move.carrying and "primary" not in move.carrying for move in run.moves)


@pytest.mark.parametrize(
    ("name", "fault", "ways"),
    [
        ("storm, RTT 300 ms", STORM, {}),
        ("black hole", BLACK_HOLE, {}),
        ("asymmetric: media's way", BLACK_HOLE, {"back": False}),
        ("asymmetric: way back", BLACK_HOLE, {"forth": False}),
        ("12 % loss", EIGHTH, {}),
    ],
)
def test_a_bad_primary_path(stage: LinkStage, name: str, fault: Impairment, ways: dict[str, bool]) -> None:
    if fault is EIGHTH:
        time.sleep(FILL_S)
    with stage.run(name) as run:
        stage.impair(fault, **ways)
        stage.until_moved(run, "open", 10)
        time.sleep(HOLD_S)
        stage.heal(run)
    play_on(stage, run)
    assert {move.peer for move in run.moves if "backup" in move.carrying} == set(SUBSCRIBERS)


def test_it_goes_back_by_itself(stage: LinkStage) -> None:
    links = {peer: link["link"] for peer, link in stage.links().items()}
    with stage.run("black hole, healed") as run:
        stage.impair(BLACK_HOLE)
        stage.until_moved(run, "open", 10)
        time.sleep(LONG_S)
        stage.heal(run)
        stage.until_moved(run, "half-open", 20, run.healed)
        assert {end["peer"] for end in stage.ends()} == set(SUBSCRIBERS)
        stage.until_moved(run, "closed", 30, run.healed)
    play_on(stage, run)
    assert run.took("closed", run.healed) is not None
    assert {peer: link["link"] for peer, link in stage.links().items()} == links, "a link ended with its channel"


def test_a_flapping_primary_does_not_toss_media_about(stage: LinkStage) -> None:
    with stage.run("flapping") as run:
        for _ in range(5):
            stage.impair(BLACK_HOLE)
            time.sleep(FLAP_S)
            stage.heal(run)
            time.sleep(FLAP_S)
    play_on(stage, run)
    for peer in SUBSCRIBERS:
        rests = [move.state in {"open", "half-open"} for move in run.moves if move.peer == peer]
        moves = sum(a != b for a, b in zip([False, *rests], rests, strict=False))
        assert moves <= 2, [move for move in run.moves if move.peer == peer]


def test_with_both_paths_bad_the_better_one_carries(stage: LinkStage) -> None:
    """The primary brings nothing, the backup loses an eighth."""
    with stage.run("both bad") as run:
        stage.impair(EIGHTH, path=BACKUP)
        stage.impair(BLACK_HOLE)
        stage.until_moved(run, "suspect", 10)
        time.sleep(5)
        carrying = {peer: link["carrying"] for peer, link in stage.links().items()}
        stage.heal(run)
    play_on(stage, run)
    assert all("backup" in paths for paths in carrying.values()), carrying


def test_by_hand(stage: LinkStage) -> None:
    with stage.run("forced over and back") as run:
        for link in stage.links().values():
            assert stage.change(link["link"], "open")["carrying"] == ["backup"]
        time.sleep(1.5)
        assert {link["breaker"] for link in stage.links().values()} == {"open"}
        run.healed = time.monotonic()
        for link in stage.links().values():
            assert stage.change(link["link"], "reset")["carrying"] == ["primary"]
    play_on(stage, run)
    assert {(move.state, move.reason) for move in run.moves} >= {("open", "forced"), ("closed", "reset")}


def test_strangers_and_a_node_gone_bad_harm_nobody(stage: LinkStage, tmp_path: Path) -> None:
    """10,000 Initials, a certificate of another CA, wrong messages and media, and a 0-RTT flight sent again, all at
    the relay that the hosts are on."""
    cluster = stage.cluster
    own, other = cluster.directory / "ca", tmp_path / "ca"
    ca.init(other)
    for directory in (own, other):
        ca.issue(directory, hostile.NAME)
    origin = cluster[ORIGIN]
    before, mark = stage.resident(), origin.log.stat().st_size
    with stage.run("hostile peers") as run:
        process = cluster.fabric.run(
            cluster.add_client("stranger"),
            [sys.executable, hostile.__file__, origin.place.addresses[0], str(LINK_PORT), ORIGIN, str(own), str(other)],
            {**os.environ, "PYTHONPATH": str(ROOT)},
        )
        told = json.loads(process.log.read_text().splitlines()[-1]) if process.wait(60) == 0 else process.tail()
        growth = stage.resident() - before
    with origin.log.open("rb") as file:
        file.seek(mark)
        logged = [json.loads(line) for line in file]
    print(f"\nrelay-a grew by {growth / 1024:.0f} KiB; {told}")
    assert isinstance(told, dict), told
    play_on(stage, run)
    assert growth <= GROWTH
    reasons = {(line["event"], line.get("reason", "")) for line in logged}
    assert any(event == "link refused" and "not one of this cluster's nodes" in why for event, why in reasons), reasons
    for what in ("no JSON", "too long", "another's name"):
        assert ("metadata channel not taken", told[what]) in reasons, what
    for what in ("garbage after hello", "an origin's message"):
        assert ("link path", told[what]) in reasons, what
    for what in ("no such link", "no bind"):
        assert ("media path not taken", told[what]) in reasons, what
    assert any(event == "packets of a link cannot be read" for event, _ in reasons)
    assert told["path with junk is open"] is True
    assert told["replay"]["early"] is True
    assert {peer for peer in stage.links() if peer != hostile.NAME} == set(SUBSCRIBERS)


def test_every_packet_crossed_once(stage: LinkStage) -> None:
    """Last, since it silences the hosts: all that was tapped since the cluster began is on the other side, or counted
    as skipped or given up."""
    for host in stage.hosts:
        host.pause()
    try:
        eventually(lambda: stage.missing() == 0, 10)
        sent = {relay: link["counts"] for relay, link in stage.links().items()}
        got = {relay: stage.links(relay)[ORIGIN]["counts"] for relay in SUBSCRIBERS}
    finally:
        for host in stage.hosts:
            host.resume()
    for relay in SUBSCRIBERS:
        tapped, handed = sent[relay], got[relay]
        told = f"{tapped['packets']} tapped, {handed['packets']} handed on, {handed['duplicates']} duplicates dropped"
        print(f"\n{relay}: {told}, {tapped['skipped']} skipped, {handed['lost']} given up")
        assert handed["packets"] <= tapped["packets"], "a packet was handed on twice"
