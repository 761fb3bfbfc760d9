"""Network namespaces and TUN devices: made by iproute2, named after their owner, removed with all that runs in them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from drills.fabric.rules import FabricError
from drills.ownership import owner_of

_DIRECTORY = Path("/run/netns")
_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_TIMEOUT_S = 20.0


def why_not() -> str | None:
    """Why there can be no namespaces here, or None where there can."""
    if os.geteuid() != 0:
        return "this needs root"
    if shutil.which("ip") is None:
        return "the command ip is missing (Debian package iproute2)"
    try:
        fd = os.open(_TUN, os.O_RDWR)
    except OSError as error:
        return f"{_TUN} cannot be opened: {error.strerror}"
    os.close(fd)
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, timeout=_TIMEOUT_S, check=False)
    return None if probe.returncode == 0 else "network namespaces cannot be made (no CAP_SYS_ADMIN?)"


def create(name: str) -> None:
    """Make a namespace with its loopback up. The name has to tell its owner."""
    if owner_of(name) is None:
        raise FabricError(f"a namespace called {name!r} would have no owner")
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "dev", "lo", "up")


def remove(name: str) -> None:
    """End what runs in a namespace and remove it. Raises FabricError for one that nobody here has made."""
    if owner_of(name) is None:
        raise FabricError(f"the namespace {name!r} is not ours")
    for pid in ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", name)


def ours(tag: str) -> list[str]:
    """The namespaces with a tag, sorted."""
    return sorted(name for name in _names() if name == tag or name.startswith(f"{tag}-"))


def sweep() -> list[str]:
    """Remove the namespaces of dead owners; returns their names."""
    removed = []
    for name in _names():
        owner = owner_of(name)
        if owner is not None and owner.is_dead():
            with contextlib.suppress(FabricError):  # somebody else sweeps at the same time
                remove(name)
                removed.append(name)
    return removed


def open_tun() -> tuple[int, str]:
    """A new TUN device in our own namespace and its name; it vanishes with the last descriptor of it."""
    fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"csd%d", _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd, request[:16].rstrip(b"\0").decode()


def ip(*words: str) -> str:
    """Run `ip`; returns what it prints. Raises FabricError with its complaint."""
    return _ip(words, "")


def ip_batch(lines: Iterable[str], namespace: str = "") -> None:
    """Run several commands at once, in a namespace or in our own."""
    _ip((*(("-n", namespace) if namespace else ()), "-batch", "-"), "\n".join(lines) + "\n")


def _ip(words: Sequence[str], told: str) -> str:
    done = subprocess.run(["ip", *words], input=told, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise FabricError(f"ip {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _names() -> list[str]:
    try:
        return os.listdir(_DIRECTORY)
    except FileNotFoundError:
        return []
