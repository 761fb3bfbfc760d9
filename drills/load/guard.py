"""Load goes to clusters that say of themselves that they are for tests, as faults do, and to no others by accident."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from relay.errors import CostreamError

LABEL, TEST = "costream.io/cluster", "test"
OVERRIDE = "--i-know-this-is-no-test-cluster"


class NoTestCluster(CostreamError):
    """The target is not labelled; nothing has been sent."""


def require_test_cluster(urls: Sequence[str], label: Path | None, *, sure: bool) -> None:
    """Raise NoTestCluster unless all addresses are this machine's own (loopback), a file says that they belong to a
    test cluster (`label`: it has the line `costream.io/cluster=test`, as drills write it into `cluster-label`), or the
    caller is `sure`."""
    if sure:
        return
    if label is not None:
        _require_label(label)
        return
    strangers = [url for url in urls if not _is_here(url)]
    if strangers:
        raise NoTestCluster(
            f"{strangers[0]} is not labelled as a test cluster: give --label with its file that says "
            f"{LABEL}={TEST}, or {OVERRIDE}; nothing was sent"
        )


def _require_label(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NoTestCluster(f"{path} cannot be read: {error}; nothing was sent") from error
    if f"{LABEL}={TEST}" not in (line.strip() for line in lines):
        raise NoTestCluster(f"{path} does not say {LABEL}={TEST}; nothing was sent")


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
