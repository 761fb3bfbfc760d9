"""The bench beside Janus: run for real where Janus is installed, and told when it is not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import janus
from bench.janus_server import janus_missing
from bench.lossy import LossyPath
from bench.peer import Peer
from bench.plan import Plan
from bench.report import RESULTS
from relay.edge.dtls import Certificate
from relay.plane import native_missing
from tests.interop.clients.requirements import need

ROOT = Path(__file__).parents[2]


@pytest.mark.interop
@pytest.mark.timeout(120)
def test_both_forward_to_the_same_clients() -> None:
    need("janus")
    if native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    (RESULTS / "janus.json").unlink(missing_ok=True)
    run = [sys.executable, "-m", "bench", "janus", "--quick"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((RESULTS / "janus.json").read_text())
    compared = [row for row in rows if row["beside"].startswith("Janus 1.")]
    names = " ".join(row["figure"] for row in compared)
    for wanted in (
        "fan-out 10",
        "latency at 1x10, p99",
        "first decoded frame, p95",
        "memory per idle viewer",
        "come again, later",
    ):
        assert wanted in names
    assert all(row["value"] > 0 and row["beside_value"] > 0 for row in compared if "fan-out" in row["figure"])


async def test_without_janus_the_figures_are_left_out_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert await janus_missing() == "install janus"
    (row,) = await janus.measure(Plan(quick=True, test=0, load=0))
    assert "Janus is not here (install janus)" in row.figure


async def test_a_peer_takes_what_is_offered_with_credentials_of_its_own() -> None:
    offerer, peer = (Peer(Certificate.make(), "av", publish=publish) for publish in (True, False))
    try:
        offer = offerer.offer()
        answer = peer.answer(offer)
    finally:
        for each in (offerer, peer):
            asyncio.get_running_loop().remove_reader(each.socket.fileno())
            each.socket.close()
    for line in ("a=mid:0", "a=mid:1", "a=rtpmap:96 VP8/90000", "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid"):
        assert line in answer.split("\r\n")
    for theirs in ("a=ssrc", "a=sendonly", "a=setup:actpass", *(x for x in offer.split("\r\n") if "a=ice-" in x)):
        assert theirs not in answer
    assert answer.count("a=recvonly") == answer.count("a=setup:passive") == 2


async def test_a_lossy_path_is_the_only_way_to_the_server() -> None:
    lines = ["v=0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=candidate:1 1 udp 5 198.51.100.7 4000 typ host"]
    lines += ["a=candidate:2 1 udp 4 fd00::2 4001 typ host", "a=end-of-candidates", ""]
    with LossyPath("127.0.0.1", 0.0, 1) as path:
        changed = path.through("\r\n".join(lines))
        with pytest.raises(RuntimeError, match="no IPv4 candidate"):
            path.through("v=0\r\n")
    assert changed.count("a=candidate:") == 1
    assert "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 " in changed
    assert "198.51.100.7" not in changed
