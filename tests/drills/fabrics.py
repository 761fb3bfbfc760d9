"""Fabrics for tests, and what runs on their hosts."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]
import pytest

from drills import ownership
from drills.fabric import Fabric, namespaces, why_no_namespaces
from drills.processes import Process

PEERS = Path(__file__).with_name("fabric_peers.py")
Kind = Literal["tun", "loopback"]


def need(kind: Kind) -> None:
    """Skip, saying why, where there can be no such fabric."""
    reason = why_no_namespaces() if kind == "tun" else None
    if reason:
        pytest.skip(f"no fabric of network namespaces here: {reason}; run the tests as root")


def start(fabric: Fabric, host: str, *words: object) -> Process:
    """Run one of fabric_peers.py's on a host; wait for it if it serves."""
    process = fabric.run(host, [sys.executable, str(PEERS), *map(str, words)])
    if str(words[0]).endswith(("echo", "sink")):
        eventually(lambda: "ready" in process.tail() or not process.is_running)
        assert process.is_running, process.tail()
    return process


def told(process: Process, seconds: float = 30.0) -> dict[str, Any]:
    """What it prints at its end."""
    assert process.wait(seconds) == 0, process.tail()
    found: dict[str, Any] = json.loads(process.log.read_text().splitlines()[-1])
    return found


def eventually(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds; AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def left(tag: str) -> list[str]:
    """What is there of an owner: directories, namespaces, processes."""
    found = [str(path) for path in Path(tempfile.gettempdir()).glob(f"{tag}-*")]
    found += namespaces.ours(tag)
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            marked = process.environ().get(ownership.MARK, "").startswith(tag) or f"--owner={tag}" in words
            if marked and process.status() != psutil.STATUS_ZOMBIE:
                found.append(words)
        except psutil.Error:
            continue
    return found
