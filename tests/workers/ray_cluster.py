"""A real Ray cluster on this machine, for one test: begun, and ended with all that it made.

Its first node is the relay's machine, as it were; `machine` adds others.

As a program it holds the cluster until its standard input ends: `python -m tests.workers.ray_cluster CPUS DIRECTORY`.
"""

from __future__ import annotations

import importlib.util
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
from pathlib import Path

import pytest

START_S = 90.0
END_S = 20.0
MEMORY = 80_000_000  # bytes, about the least that Ray takes: no frames go through it
AHEAD_S = 100_000
"""How far the cluster's monotonic clock is ahead of ours, if it can be."""
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
    need_ray()
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }.items():
        monkeypatch.setenv(name, value)
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets' names have to be short
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
        _end(processes(directory))
        shutil.rmtree(directory)


@contextmanager
def machine(address: str, cpus: int) -> Iterator[None]:
    """Add a node to a cluster, as an autoscaler adds a machine, and take it away at the end."""
    ray = str(Path(sys.executable).with_name("ray"))
    words = [ray, "start", f"--address={address}", f"--num-cpus={cpus}", f"--object-store-memory={MEMORY}", "--block"]
    node = subprocess.Popen(
        [*another_clock(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        node.terminate()
        try:
            node.wait(END_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def another_clock() -> list[str]:
    """What to begin a command with so that its monotonic clock is another one, as on another machine; nothing where
    that is not allowed."""
    words = ["unshare", "--time", "--monotonic", str(AHEAD_S)]
    try:
        allowed = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return words if allowed else []


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
