"""Two nodes whose links run in processes of their own: media crosses, a killed process is replaced, nothing stays."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drills import ownership
from drills.cluster import Cluster
from drills.cluster.config import Place
from tests.drills.fabrics import eventually, left
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


def extra(place: Place) -> dict[str, dict[str, Any]]:
    return {"link": {"process": True}} if place.role == "relay" else {}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    need_client("wrtc")
    with Cluster(relays=2, signaling=1, kind="auto", extra=extra) as started:
        yield started
    assert left(ownership.this_process().tag) == []


def link_process(relay: int) -> int:
    """The link process of a relay; 0 when there is none."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError, ValueError):
            continue
        if parent == relay and b"relay.links" in words:
            return int(directory.name)
    return 0


def memories(process: int) -> int:
    """How many rings a process has open."""
    found = 0
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            found += "costream-ring" in os.readlink(descriptor)
        except OSError:
            continue
    return found


def frames(cluster: Cluster, since: float = 0.0) -> list[float]:
    """When the viewer's pictures with a readable counter came."""
    lines = cluster.lines("vera")
    return [
        line["at"]
        for line in lines
        if line["event"] == "frame" and line["counter"] is not None and line["publisher"] == 7 and line["at"] > since
    ]


def pid(cluster: Cluster, name: str) -> int:
    process = cluster[name].process
    assert process is not None
    return process.pid


def test_media_goes_through_link_processes_and_survives_them(cluster: Cluster) -> None:
    cluster.make_room("show")
    host, watching = cluster.add_client("host"), cluster.add_client("viewers")
    cluster.publish("show", "alice", host=host, via=("relay-a",), publisher=7)
    cluster.watch("show", "vera", host=watching, via=("relay-b",))
    eventually(lambda: len(frames(cluster)) >= 30, 60)
    for name in ("relay-b", "relay-a"):
        relay = pid(cluster, name)
        former = link_process(relay)
        assert former
        held = memories(relay)
        assert 0 < memories(former) <= held
        os.kill(former, signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: link_process(relay) not in (0, former), 30)  # noqa: B023
        eventually(lambda: len(frames(cluster, killed + 0.5)) >= 30, 60)  # noqa: B023
        times = frames(cluster, killed - 1.0)
        gap = max(after - before for before, after in itertools.pairwise(times))
        print(f"link process of {name} killed: longest time without a new frame {gap:.2f} s")
        assert memories(relay) == held
    last = {name: link_process(pid(cluster, name)) for name in ("relay-a", "relay-b")}
    cluster["relay-a"].kill()
    eventually(lambda: not Path(f"/proc/{last['relay-a']}").exists(), 10)
    cluster["relay-b"].stop()
    assert not Path(f"/proc/{last['relay-b']}").exists()
