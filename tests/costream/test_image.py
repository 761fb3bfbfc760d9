"""The container image, built and started for real: docker, podman, or buildah where no engine runs.

Skips loudly where neither is there; fails instead with CI=true. Building takes minutes the first time, seconds after;
it goes on beside the tests before these.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from costream.synthetic import Show, SyntheticHost, allow_loopback
from signaling.tokens import mint
from tests.costream.image_build import SCRIPT, build
from tests.interop.clients.wrtc_client import Watcher

HTTP_PORT = 7080  # the image's health check looks there, so it cannot be another one
KEYS = {"test": "t" * 32}
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0

pytestmark = [pytest.mark.image, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def image() -> str:
    """The image's name, once it is built: that was begun with the session."""
    engine = subprocess.run([SCRIPT, "engine"], capture_output=True, text=True, check=False)
    if engine.returncode != 0:
        reason = f"no image was built: {engine.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    code, said = build.wait()
    assert code == 0, said[-6000:]
    return "costream:dev"


def in_image(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, "run", *words], capture_output=True, text=True, check=False, timeout=120)


@contextlib.contextmanager
def relay_in_image(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the image's relay on the host's network with an own key; SIGTERM at the end."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COSTREAM_")},
        "COSTREAM_AUTH__KEYS": json.dumps(KEYS),
        "COSTREAM_HTTP__HOST": "127.0.0.1",
        "COSTREAM_HTTP__PORT": "17443",
        "COSTREAM_MEDIA__HOST": "127.0.0.1",
        "COSTREAM_MEDIA__PORT": "17443",
        "COSTREAM_ROOM__AUTO_CREATE": "true",
        "COSTREAM_MEDIA__PLANE": "native",
    }
    command = [SCRIPT, "run", "relay", "--config", "/etc/costream/relay.toml"]
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stderr=output, stdout=output) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def get(path: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}{path}", timeout=5) as answer:
        return answer.status, answer.read()


def wait_until_healthy(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if get("/healthz")[0] == 200:
                return
        time.sleep(0.2)
    pytest.fail(f"the relay in the image did not become healthy:\n{log.read_text()[-4000:]}")


def test_it_runs_as_nobody_special_and_knows_its_version(image: str) -> None:
    del image
    assert in_image("version").stdout.strip() == "costream 0.1.0"
    doctor = in_image("doctor", "--set", "http.port=0", "--set", "media.port=0", "--set", "http.plain_port=0")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert "/var/lib/costream" in doctor.stdout
    assert "plane        native" in doctor.stdout


def test_it_refuses_to_start_without_a_key(image: str) -> None:
    del image
    refused = in_image("relay", "--config", "/etc/costream/relay.toml")
    assert refused.returncode != 0
    assert "auth.keys is empty" in refused.stderr


def test_a_relay_in_it_is_healthy_forwards_media_and_drains(image: str, tmp_path: Path) -> None:
    del image
    log = tmp_path / "relay.log"
    with relay_in_image(log) as process:
        wait_until_healthy(process, log)
        assert b"costream_build_info" in get("/metrics")[1]
        assert subprocess.run([SCRIPT, "health"], capture_output=True, check=False).returncode == 0
        asyncio.run(publish_and_watch())
    assert process.returncode == 0, log.read_text()[-4000:]
    assert '"event"' in log.read_text()


async def publish_and_watch() -> None:
    """A marked picture goes in by WHIP and comes out by WHEP."""
    base, now = f"http://127.0.0.1:{HTTP_PORT}", time.time()

    def token(identity: str, role: str) -> str:
        return mint(KEYS, room="show", identity=identity, role=role, ttl_s=600, now=now)

    allow_loopback()
    async with SyntheticHost(
        f"{base}/whip/show", token("alice", "owner"), Show(publisher=7, width=320, height=180)
    ) as host:
        await host.connected(30)
        watcher = Watcher(f"{base}/whep/show", token("victor", "viewer"), videos=1, audios=1)
        await watcher.start()
        await watcher.until(lambda: len(watcher.videos[0].counters(7)) > 15, 30)
        await watcher.close()
