"""However a test cluster ends, or fails to start, nothing of it stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drills import ownership
from drills.cluster import Cluster
from drills.fabric import FabricError, namespaces
from drills.fabric.base import ROOT
from relay.settings import load_node_settings
from tests.drills.fabrics import left, need

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [({"relays": 0}, "1 to 26 relays"), ({"signaling": 10}, "1 to 9 signaling"),
     ({"relays": 1, "extra": lambda _: {"medai": {"port": 1}}}, "no settings medai"),
     ({"relays": 1, "extra": lambda place: {"media": {"port": "x"}} if place.role == "relay" else {}}, "media.port")],
)  # fmt: skip
def test_what_cannot_start_says_why_and_leaves_nothing(wanted: dict[str, Any], reason: str) -> None:
    with pytest.raises(FabricError, match=reason):
        Cluster(signaling=wanted.pop("signaling", 1), kind="loopback", links=False, **wanted)
    assert left(ownership.this_process().tag) == []


def test_links_have_certificates_and_an_interrupt_leaves_nothing() -> None:
    """`make cluster`, ended by Ctrl-C (SIGINT) in the middle."""
    need("tun")
    words = [sys.executable, "-m", "drills", "cluster", "--relays=2", "--signaling=1", "--hosts=0"]
    words += ["--set=media.plane=reference", "--set=limits.max_sessions=7"]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as console:
        assert console.stdout is not None
        shown = ""
        for line in console.stdout:
            shown += line
            if line.startswith("quit"):
                break
        assert "relay-b" in shown, shown
        (directory,) = (Path(line.split()[-1]) for line in shown.splitlines() if line.startswith("logs and settings"))
        settings = load_node_settings(directory / "relay-b.toml", {})
        assert (settings.media.plane, settings.limits.max_sessions) == ("reference", 7)
        assert Path(settings.link.certificate).read_text().startswith("-----BEGIN CERTIFICATE")
        owner = ownership.owner_of(directory.parent.name)
        assert owner is not None
        assert len(namespaces.ours(owner.tag)) == 4
        console.send_signal(signal.SIGINT)
        assert "everything has been taken away" in console.stdout.read()
        assert console.wait(20) == 0
    assert namespaces.ours(owner.tag) == []
    assert not directory.parent.exists()
    assert ownership.end_processes(owner.tag) == 0
