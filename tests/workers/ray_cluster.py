"""A real Ray cluster on this machine, for one test: begun, and ended with all that it made.

Its first node is the relay's machine, as it were; `machine` adds others, or, with `autoscaled`, Ray's autoscaler does.

As a program it holds the cluster until its standard input ends: `python -m tests.workers.ray_cluster CPUS DIRECTORY`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workers.nodes import END_S, HEAD, JOURNAL, MEMORY, end_node, start_node

START_S = 90.0
ROOT = Path(__file__).parents[2]


def need_ray() -> None:
    """Without Ray the test is skipped, and fails where CI=true."""
    if importlib.util.find_spec("ray") is None:
        reason = "ray is missing here: `make setup-tests`, or `pip install costream[ray]`"
        if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@contextmanager
def cluster(cpus: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield its address. Whoever is to join has to be started by this process, which has the cluster's token."""
    with _directory(monkeypatch) as directory:
        words = [sys.executable, "-m", "tests.workers.ray_cluster", str(cpus), directory]
        holder = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            address = holder.stdout.readline().strip()
            assert address, "the cluster did not begin"
            yield address
        finally:
            holder.communicate()


@contextmanager
def machine(address: str, cpus: int) -> Iterator[None]:
    """Add a node to a cluster, as an autoscaler adds a machine, and take it away at the end."""
    node = start_node(address, cpus)
    try:
        yield
    finally:
        end_node(node)


@dataclass(frozen=True)
class Autoscaled:
    """A cluster with Ray's autoscaler."""

    address: str
    directory: Path

    def journal(self) -> list[list[str]]:
        """What the autoscaler did: `["begun" or "ended", NAME, TYPE]` for each machine, in order."""
        file = self.directory / JOURNAL
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def told(self) -> str:
        """The autoscaler's log, for a test that fails."""
        logs = (log.read_text() for log in self.directory.glob("session_2*/logs/monitor.*"))
        return "\n".join(line for text in logs for line in text.splitlines() if "legacy field" not in line)


@contextmanager
def autoscaled(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Autoscaled]:
    """Begin a head without CPUs, whose autoscaler follows `config` as it is but for where machines come from: from
    `LocalMachines`."""
    with _directory(monkeypatch) as name:
        directory = Path(name)
        provider = {
            "type": "external",
            "module": "tests.workers.machines.LocalMachines",
            "directory": name,
            "head_type": config["head_node_type"],
            "disable_node_updaters": True,  # no ssh: the provider starts Ray
        }
        file = directory / "autoscaler.yaml"
        file.write_text(yaml.safe_dump(config | {"provider": provider}))
        told = {
            "RAY_enable_autoscaler_v2": "1",  # as `ray up` sets it
            "RAY_CLOUD_INSTANCE_ID": HEAD,
            "RAY_NODE_TYPE_NAME": config["head_node_type"],
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        }
        ray = str(Path(sys.executable).with_name("ray"))
        words = [ray, "start", "--head", "--port=0", "--num-cpus=0", "--include-dashboard=false", "--block"]
        options = [f"--temp-dir={name}", f"--autoscaling-config={file}", f"--object-store-memory={MEMORY}"]
        head = subprocess.Popen(
            [*words, *options],
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Autoscaled(_begun(head, directory), directory)
        finally:
            end_node(head)


def _begun(head: subprocess.Popen[bytes], directory: Path) -> str:
    """Wait for a head; return its address."""
    file, until = directory / "ray_current_cluster", time.monotonic() + START_S
    while not file.exists() or not file.read_text().strip():
        assert head.poll() is None, "the cluster did not begin"
        assert time.monotonic() < until, "the cluster takes too long to begin"
        time.sleep(0.1)
    return file.read_text().strip()


@contextmanager
def _directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield a cluster's directory, with what its processes need in the environment; at the end no process is left that
    names it."""
    need_ray()
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets' names have to be short
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield directory
    finally:
        _end(processes(directory))
        shutil.rmtree(directory)


def processes(directory: str) -> list[int]:
    """The cluster's processes: all of them name its directory, or have it from their parent."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if directory.encode() in words:
            found.append(int(entry.name))
    return found


def _end(left: list[int]) -> None:
    """Wait for processes that outlived the holder, then kill them."""
    until = time.monotonic() + END_S
    while left and time.monotonic() < until:
        time.sleep(0.1)
        left = [pid for pid in left if Path(f"/proc/{pid}").exists()]
    for pid in left:
        os.kill(pid, signal.SIGKILL)


def main() -> int:
    import ray

    cpus, directory = int(sys.argv[1]), sys.argv[2]
    context = ray.init(
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=MEMORY,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=directory,
    )
    print(context.address_info["gcs_address"], flush=True)
    sys.stdin.read()
    ray.shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
