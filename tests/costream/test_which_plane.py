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
from costream.dev import token
from costream.serve import Running, serve
from relay.errors import NodeFailed
from relay.plane import native_missing
from relay.settings import dev_settings
from relay.stage.permissions import Actor, Role
from relay.stage.room import create
from tests.node.peers import Peer

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


async def test_a_node_that_lost_a_shard_is_not_ready_tells_its_clients_and_ends(tmp_path: Path) -> None:
    if native_missing():
        pytest.skip("the native plane is not built: see rust/README.md")
    http = free_port()
    url = f"http://127.0.0.1:{http}"
    wanted = {
        "media.plane": "native",
        "media.port": 0,
        "media.shards": 2,
        "node.state_dir": str(tmp_path),
        "node.drain_timeout_s": 60.0,
        "http.port": 0,
        "http.plain_port": http,
    }
    settings = dev_settings(environ={}, overrides=wanted)
    begun: asyncio.Future[Running] = asyncio.get_running_loop().create_future()

    async def is_up(up: Running) -> None:
        begun.set_result(up)

    async with asyncio.timeout(START_S):
        serving = asyncio.create_task(serve(settings, while_up=is_up))
        up = await begun
        try:
            ready = await _seen_by_a_viewer(up, url)
        finally:
            up.node.failed.set()  # whatever the viewer saw
            [ended] = await asyncio.gather(serving, return_exceptions=True)
    assert (ready["plane"], ready["draining"]) == (False, True)
    assert isinstance(ended, NodeFailed)
    assert "as a test wished" in str(ended)


async def _seen_by_a_viewer(up: Running, url: str) -> dict[str, object]:
    """What the node says of itself once it has told its viewer to go, who then goes."""
    from relay.plane import _native
    from relay.plane.native import NativePlane

    plane = up.node._plane
    assert isinstance(plane, NativePlane)
    state, _ = create(Actor("test", Role.SERVICE), "demo", time.time(), max_seats=4)
    await up.store.create("demo", state.to_json())
    peer = await Peer(up.node, "victor", "viewer").watch()
    headers = {"Authorization": f"Bearer {token(up.settings, 'victor', 'viewer', 'demo')}"}
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=START_S, headers=headers) as client,
        client.stream("GET", f"{url}/v1/rooms/demo/events") as events,
    ):
        assert events.status_code == 200, await events.aread()
        while (await client.get(f"{url}/readyz")).status_code != 200:
            await asyncio.sleep(0.05)  # a busy machine's store may be late
        _native.testing.break_shard(plane._shards, 1)
        async for line in events.aiter_lines():
            if line.startswith("event: node.draining"):
                break
        answer = await client.get(f"{url}/readyz")
        assert answer.status_code == 503
        await up.node.close(peer.session)
    await peer.close()
    ready: dict[str, object] = answer.json()
    return ready
