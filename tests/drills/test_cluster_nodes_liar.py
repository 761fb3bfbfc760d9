"""A node of the cluster that lies about its load and claims what another one publishes is fenced off."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from drills import ownership
from drills.cluster import Cluster
from drills.cluster_config import HTTPS_PORT, LINK_PORT
from drills.fabric_base import ROOT
from drills.processes import Process
from tests.drills.fabrics import eventually, left, need
from tests.drills.shows import PATIENCE_S, Show
from tests.interop.clients.requirements import need as need_client

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]


def start_liar(cluster: Cluster, plan: dict[str, Any]) -> Process:
    """Run it on a host of its own, with a certificate of the cluster's CA."""
    cluster.fabric.add_host("relay-m")
    address, files = cluster.fabric.address("relay-m"), cluster.directory / "ca"
    words = [sys.executable, "-m", "costream.cli", "ca", "issue", str(files), "relay-m", f"--address={address}"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, timeout=60)
    link: dict[str, Any] = {
        "certificate": f"{files}/relay-m.pem",
        "key": f"{files}/relay-m.key",
        "ca": f"{files}/ca.pem",
    }
    link |= {"host": address, "port": LINK_PORT, "advertise": [f"{address}:{LINK_PORT}"]}
    path = cluster.directory / "liar.json"
    path.touch(mode=0o600)
    control_url = f"https://{address}:{HTTPS_PORT}"
    path.write_text(json.dumps(plan | {"store": cluster.store_url, "link": link, "control_url": control_url}))
    return cluster.fabric.run("relay-m", [sys.executable, "-m", "tests.drills.liar", str(path)], name="liar", cwd=ROOT)


def told(liar: Process) -> list[dict[str, Any]]:
    text = liar.log.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith("{")]


def test_a_node_that_lies_is_fenced_off() -> None:
    need("tun")
    need_client("wrtc")
    with Cluster(relays=2, signaling=1, kind="tun") as cluster:
        made = Show(cluster)
        host = made.publish("h1", "relay-a", "signaling-1")
        viewers = [made.watch(f"v{node[-1]}", node, "signaling-1", videos=2) for node in ("relay-a", "relay-b")]
        made.playing(viewers, (1,))
        (video,) = (ident for ident, each in made.publications().items() if each["kind"] == "video")
        owner, epoch = made.owners()[video]
        began = time.monotonic()
        liar = start_liar(cluster, {"room": made.room, "stolen": video, "epoch": epoch})
        eventually(lambda: any(line.get("refused", 0) >= 2 for line in told(liar)) or not liar.is_running, PATIENCE_S)
        assert liar.is_running, liar.tail()
        assert told(liar)[0] == {"owner": "relay-a"}, "the lease was given away"
        newcomers = [made.watch(f"new{n}", "signaling-1", "signaling-1") for n in range(2)]
        made.playing([*viewers, *newcomers], (1,))
        made.told("beside a liar", began, viewers, (1,))
        assert all(made.happened(viewer, "failed", "joining", since=began) == [] for viewer in viewers)
        assert (made.nodes(host), made.owners()[video]) == ({"relay-a"}, (owner, epoch))
        assert video not in {ident for line in told(liar) for ident in line.get("tapped", ())}
        assert liar.is_running, liar.tail()
        liar.kill()
    assert left(ownership.this_process().tag) == []
