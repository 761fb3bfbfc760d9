"""Every fault is applied to a cluster and taken back: it does what it says, and nothing of it stays."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from drills import ownership
from drills.cluster import Cluster
from drills.fabric import FabricError
from drills.faults import FAULTS, Fault, Preparation, Stage
from drills.faults.resources import faketime
from drills.faults.workers import workers
from drills.run.guard import Refused, label_as_test_cluster, require_test_cluster
from drills.run.metrics import read_metrics
from tests.drills.fabrics import eventually, left, need
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
JUMP = {"fault": "clock-jump", "members": ["relay-b"], "by": "3600s"}
EXTRA: dict[str, Any] = {"relay-a": {"link": {"process": True}}, "relay-b": {"media": {"slab_packets": 300}}}
PRESSURE = {"fault": "memory-pressure", "members": ["relay-b"], "packets": 300, "hosts": 1}


def make(**keys: Any) -> Fault:
    return FAULTS[keys["fault"]].model_validate({"at": "0s", **keys})


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    need("tun")
    preparation = Preparation()
    for keys in (JUMP, PRESSURE):
        make(**keys).prepare(preparation)

    def env(directory: Any, name: str) -> dict[str, str]:
        for file, text in preparation.files.items():
            (directory / file).write_text(text)
        return {key: text.format(directory=directory) for key, text in preparation.env.get(name, {}).items()}

    with Cluster(
        relays=2,
        signaling=1,
        kind="tun",
        extra=lambda place: EXTRA.get(place.name, {}),
        env=env,
    ) as cluster:
        yield Stage(cluster, random.Random(1), lambda _what, _text: None)
    assert left(ownership.this_process().tag) == []


@pytest.mark.parametrize(
    ("keys", "rules"),
    [
        ({"fault": "impair", "from": ["relay-a/1"], "to": ["relay-b/1"], "impairment": "delay=9ms"}, 2),
        ({"fault": "partition", "from": ["relay-a"], "to": ["relay-b", "store"], "both": False}, 2),
        ({"fault": "partition", "from": ["outside"], "to": ["signaling-1"]}, 2),
        ({"fault": "flap", "from": ["relay-a/2"], "to": ["relay-b/2"], "bad": "1s", "good": "1s"}, 2),
    ],
)
def test_faults_of_the_network(stage: Stage, keys: dict[str, Any], rules: int) -> None:
    fault = make(**keys)
    fault.apply(stage)
    assert len(stage.cluster.rules()) == rules
    if keys["fault"] == "flap":
        fault.tick(stage, 1.2)
        assert stage.cluster.rules() == []
        fault.tick(stage, 2.2)
        assert len(stage.cluster.rules()) == rules
    fault.take_back(stage)
    assert stage.cluster.rules() == []


@pytest.mark.parametrize(("name", "state"), [("kill", "ended (-9)"), ("pause", "paused"), ("drain", "ended (0)")])
def test_faults_of_members(stage: Stage, name: str, state: str) -> None:
    fault = make(fault=name, members=["relay-a"])
    fault.apply(stage)
    eventually(lambda: stage.cluster["relay-a"].state == state)
    fault.take_back(stage)
    assert stage.cluster["relay-a"].state == "running"
    stage.cluster.wait_until_healthy()


def test_members_are_replaced_one_after_the_other(stage: Stage) -> None:
    before = {member.name: member.process.pid for member in stage.cluster.members.values() if member.process}
    fault = make(fault="roll", members=["relay-a", "signaling-1"], pause="0s")
    fault.apply(stage)
    for _ in range(3):
        fault.tick(stage, 0.0)
    fault.take_back(stage)
    after = {member.name: member.process.pid for member in stage.cluster.members.values() if member.process}
    assert {name for name in before if before[name] != after[name]} == {"relay-a", "signaling-1"}


def test_cpu_is_taken_from_a_node(stage: Stage) -> None:
    member = stage.cluster["relay-a"]
    fault = make(fault="cpu-storm", members=["relay-a"], share="70%", period="50ms")
    fault.apply(stage)
    eventually(lambda: member.state == "paused")
    eventually(lambda: member.state == "running")
    fault.take_back(stage)
    for _ in range(20):
        assert member.state == "running"
        time.sleep(0.01)


def test_a_disk_is_full(stage: Stage) -> None:
    member = stage.cluster["relay-a"]
    assert member.process is not None
    before = resource.prlimit(member.process.pid, resource.RLIMIT_FSIZE)
    fault = make(fault="disk-full", members=["relay-a"])
    fault.apply(stage)
    assert resource.prlimit(member.process.pid, resource.RLIMIT_FSIZE)[0] == 0
    with stage.cluster.api("relay-a") as api:
        assert api.get("/readyz").status_code == 200, "a node needs no disk to be ready"
    fault.take_back(stage)
    assert resource.prlimit(member.process.pid, resource.RLIMIT_FSIZE) == before


def test_a_clock_jumps_and_jumps_back(stage: Stage) -> None:
    if faketime() is None:
        pytest.skip("libfaketime is missing (Debian package libfaketime)")

    def ahead() -> float:
        """By how much relay-b's clock is, as its HTTP server tells the time."""
        with stage.cluster.api("relay-b") as api:
            return parsedate_to_datetime(api.get("/healthz").headers["date"]).timestamp() - time.time()

    assert abs(ahead()) < 60
    fault = make(**JUMP)
    fault.apply(stage)
    eventually(lambda: abs(ahead() - 3600) < 60)
    fault.take_back(stage)
    eventually(lambda: abs(ahead()) < 60)


def test_packet_buffers_run_out(stage: Stage) -> None:
    need_client("wrtc")

    def free() -> float:
        with stage.cluster.api("relay-b") as api:
            figures = read_metrics(api.get("/metrics").text).plain
        return figures["slab_free"] / figures["slab"]

    assert free() > 0.5
    fault = make(**PRESSURE)
    fault.apply(stage)
    eventually(lambda: free() == 0, 60)
    helpers = [each.pid for each in next(iter(stage.helpers.values()))]
    fault.take_back(stage)
    assert not any(psutil.pid_exists(pid) for pid in helpers)
    eventually(lambda: free() > 0.5, 60)


@pytest.fixture(scope="module")
def mixing(stage: Stage) -> Iterator[Stage]:
    """A program is on at relay-a."""
    need_client("wrtc")
    cluster = stage.cluster
    cluster.make_room("mixed", traffic="drill")
    cluster.ask("PUT", "/v1/rooms/mixed/program", {"width": 160, "height": 90, "fps": 10, "codec": "vp8"})
    show: dict[str, Any] = {"width": 160, "height": 90, "fps": 10}
    host = cluster.publish("mixed", "mia", host=cluster.add_client("mia"), via=("relay-a",), **show)
    eventually(lambda: cluster.ask("GET", "/v1/rooms/mixed/program")["state"] == "live", 60)
    yield stage
    host.stop()


@pytest.mark.parametrize(
    ("name", "module"), [("kill-mixer", "relay.mix.audio"), ("kill-compositor", "relay.mix.video")]
)
def test_processes_of_a_program_are_killed_and_replaced(mixing: Stage, name: str, module: str) -> None:
    said: list[tuple[str, str]] = []
    stage = Stage(mixing.cluster, mixing.dice, lambda what, text: said.append((what, text)))
    relay = stage.cluster["relay-a"].process
    eventually(lambda: len(workers(stage, "relay-a", module)) == 2, 30)
    first, second = (each.pid for each in workers(stage, "relay-a", module))
    fault = make(fault=name, members=["relay-a"])
    fault.apply(stage)
    eventually(lambda: first not in [each.pid for each in workers(stage, "relay-a", module)])
    fault.take_back(stage)
    eventually(lambda: len(workers(stage, "relay-a", module)) == 2, 30)
    assert workers(stage, "relay-a", module)[0].pid == second, "the one that waited has taken over"
    assert said == [(name, f"relay-a: process {first} killed, 1 left")]
    assert stage.cluster["relay-a"].process is relay
    assert stage.cluster["relay-a"].state == "running"


def test_cpu_is_taken_from_a_node_with_all_that_work_for_it(mixing: Stage) -> None:
    stage, relay = mixing, mixing.cluster["relay-a"].process
    assert relay is not None
    eventually(lambda: len(workers(stage, "relay-a", "relay.mix.video")) == 2, 30)
    all_of = [psutil.Process(relay.pid), *workers(stage, "relay-a", "relay.mix.video")]
    all_of += workers(stage, "relay-a", "relay.mix.audio")
    fault = make(fault="cpu-storm", members=["relay-a"], share="70%", period="50ms", workers=True)
    fault.apply(stage)
    for each in all_of:
        eventually(lambda each=each: each.status() == psutil.STATUS_STOPPED)
    fault.take_back(stage)
    for _ in range(20):
        assert psutil.STATUS_STOPPED not in [each.status() for each in all_of]
        time.sleep(0.01)
    assert [each.is_running() for each in all_of] == [True] * len(all_of)


def test_the_process_of_a_relays_links_is_killed_and_replaced(stage: Stage) -> None:
    relay = stage.cluster["relay-a"].process
    eventually(lambda: len(workers(stage, "relay-a", "relay.links")) == 1, 30)
    (first,) = workers(stage, "relay-a", "relay.links")
    fault = make(fault="kill-links", members=["relay-a"])
    fault.apply(stage)
    eventually(lambda: [each.pid for each in workers(stage, "relay-a", "relay.links")] not in ([], [first.pid]), 30)
    fault.take_back(stage)
    assert stage.cluster["relay-a"].process is relay
    assert stage.cluster["relay-a"].state == "running"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kill-mixer", "relay-b has no process of relay.mix.audio: it mixes no program"),
        ("kill-compositor", "relay-b has no process of relay.mix.video: it mixes no program"),
        ("kill-links", "relay-b has no process of relay.links: its links are in its own process"),
    ],
)
def test_a_relay_without_such_a_process_has_nobody_to_kill(stage: Stage, name: str, reason: str) -> None:
    with pytest.raises(FabricError) as caught:
        make(fault=name, members=["relay-b"]).apply(stage)
    assert str(caught.value) == reason


def test_a_clock_that_cannot_be_set_is_said(stage: Stage) -> None:
    with pytest.raises(FabricError, match="relay-a was not started with a clock"):
        make(**{**JUMP, "members": ["relay-a"]}).apply(stage)


def test_only_what_is_labelled_as_a_test_cluster_may_be_broken(stage: Stage) -> None:
    directory = stage.cluster.directory
    with pytest.raises(Refused, match=r"is no test cluster.*nothing was injected"):
        require_test_cluster(directory)
    (directory / "cluster-label").write_text("costream.io/cluster=production\n")
    with pytest.raises(Refused, match="is no test cluster"):
        require_test_cluster(directory)
    label_as_test_cluster(directory)
    require_test_cluster(directory)
