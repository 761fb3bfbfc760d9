"""Nodes of a Ray cluster, begun and ended as an operator or an autoscaler does, with a clock of their own where that is
allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAD = "head"
"""The head's name as an instance of the autoscaler."""
JOURNAL = "machines.jsonl"
"""In a cluster's directory: which machines the autoscaler began and ended, a line of JSON each."""
MEMORY = 80_000_000  # bytes, about the least that Ray takes: no frames go through it
AHEAD_S = 100_000
"""How far the machines' monotonic clock is ahead of ours, if it can be."""
END_S = 20.0


def start_node(address: str, cpus: int, instance: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Begin a node of a cluster. `instance` is what tells the autoscaler which machine it is."""
    ray = str(Path(sys.executable).with_name("ray"))
    words = [ray, "start", f"--address={address}", f"--num-cpus={cpus}", f"--object-store-memory={MEMORY}", "--block"]
    return subprocess.Popen(
        [*another_clock(), *words],
        env=os.environ | (instance or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_node(node: subprocess.Popen[bytes]) -> None:
    """End a node; it ends what it has begun."""
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
