"""What each client needs of the machine. A missing one skips the test loudly, and fails it where CI=true."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from drills.chromium import finding

DATACHANNEL_VENV = Path(__file__).resolve().parents[3] / ".cache" / "interop"
"""Where setup.sh puts a newer Python's environment when this Python has no wheel of libdatachannel-py."""

_PACKAGES = {
    "chromium": finding.NEEDS,
    "firefox": "Debian package firefox-esr",
    "ffmpeg": "PyPI package imageio-ffmpeg",
    "whip-client": "Debian package simple-whip-client",
    "gstreamer": "Debian package gstreamer1.0-tools",
    "libdatachannel": "PyPI package libdatachannel-py with PyAV, which need Python >= 3.12",
    "janus": "Debian package janus",
    "wrtc": "PyPI package wrtc",
}


@functools.cache
def find(name: str) -> str | None:
    """The executable (for libdatachannel: the Python) of a client, or None. Raises KeyError for an unknown name."""
    finders: dict[str, Callable[[], str | None]] = {
        "chromium": finding.executable,
        "firefox": lambda: shutil.which("firefox-esr") or shutil.which("firefox"),
        "ffmpeg": _ffmpeg,
        "whip-client": lambda: shutil.which("whip-client"),
        "gstreamer": lambda: shutil.which("gst-launch-1.0"),
        "libdatachannel": _datachannel,
        "janus": lambda: shutil.which("janus"),
        "wrtc": lambda: _module("webrtc"),
    }
    return finders[name]()


def need(name: str) -> str:
    """The executable of a client. Without it the test is skipped, or fails under CI, naming the package."""
    return find(name) or missing(
        f"{name} is missing here: it comes with {_PACKAGES[name]}; `make setup-tests` installs it"
    )


def missing(reason: str) -> NoReturn:
    """Skip for a reason; fail for it where CI=true, because there every client is promised."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _module(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return spec.origin if spec else None


def _ffmpeg() -> str | None:
    if not _module("imageio_ffmpeg"):
        return None
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _datachannel() -> str | None:
    for python in (sys.executable, str(DATACHANNEL_VENV / "bin" / "python")):
        if Path(python).exists() and _imports(python, "libdatachannel, av, numpy"):
            return python
    return None


def _imports(python: str, modules: str) -> bool:
    return subprocess.run([python, "-c", f"import {modules}"], capture_output=True, timeout=30).returncode == 0
