"""A node as users start it says which plane runs and how it is, wherever one would look."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from bench.processes import free_port
from costream.serve import running
from relay.plane import native_missing
from relay.settings import dev_settings

START_S = 60.0


@pytest.mark.parametrize("kind", ["reference", "native"])
def test_a_node_says_which_plane_runs(kind: str, tmp_path: Path) -> None:
    if kind == "native" and native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    http, log = free_port(), tmp_path / "log"
    wanted = {"media.plane": kind, "node.state_dir": str(tmp_path), "node.drain_timeout_s": "0.1", "log.format": "json"}
    settings = [word for name, value in wanted.items() for word in ("--set", f"{name}={value}")]
    ports = ["--port", str(free_port()), "--http-port", str(http)]
    words = [sys.executable, "-m", "costream.cli", "dev", *ports, *settings]
    with log.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT) as node:
        try:
            ready = _ready(f"http://127.0.0.1:{http}/readyz", node, log)
            metrics = httpx2.get(f"http://127.0.0.1:{http}/metrics", trust_env=False).text
        finally:
            node.terminate()
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    [up] = [line for line in told if line["event"] == "node is up"]
    assert ready["plane"] is True
    assert up["plane"] == kind
    assert isinstance(up["plane_ways"], list)
    assert f'costream_plane_info{{plane="{kind}",ways="{",".join(up["plane_ways"])}"}} 1.0' in metrics
    assert "costream_plane_healthy 1.0" in metrics
    assert ("costream_plane_lost_total" in metrics) is (kind == "native")


def _ready(url: str, node: subprocess.Popen[bytes], log: Path) -> dict[str, object]:
    deadline = time.monotonic() + START_S
    while True:
        assert node.poll() is None, log.read_text()
        try:
            response = httpx2.get(url, timeout=2.0, trust_env=False)
        except httpx2.HTTPError:
            response = None
        if response is not None and response.status_code == 200:
            answer: dict[str, object] = response.json()
            return answer
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


async def test_a_node_that_lost_a_shard_is_not_ready(tmp_path: Path) -> None:
    if native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    from relay.plane import _native
    from relay.plane.native import NativePlane

    http = free_port()
    wanted = {
        "media.plane": "native",
        "media.port": 0,
        "media.shards": 2,
        "node.state_dir": str(tmp_path),
        "http.port": 0,
        "http.plain_port": http,
    }
    async with running(dev_settings(environ={}, overrides=wanted)) as up, httpx2.AsyncClient(trust_env=False) as client:
        assert len(up.node.plane_ports) == 2
        plane = up.node._plane
        assert isinstance(plane, NativePlane)
        url = f"http://127.0.0.1:{http}/readyz"
        assert (await client.get(url)).status_code == 200
        _native.testing.break_shard(plane._shards, 1)
        async with asyncio.timeout(START_S):
            while (await client.get(url)).status_code == 200:
                await asyncio.sleep(0.01)
        answer = await client.get(url)
        assert answer.status_code == 503
        assert answer.json()["plane"] is False
