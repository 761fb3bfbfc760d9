"""The two media paths of a link by name, and sets of them as bits."""

from __future__ import annotations

from collections.abc import Iterable

from relay.link.path import PathName

__all__ = ["BIT", "PATHS", "PathName", "mask_of", "other"]

PATHS: tuple[PathName, PathName] = ("primary", "backup")
BIT: dict[PathName, int] = {"primary": 1, "backup": 2}


def mask_of(paths: Iterable[PathName]) -> int:
    """Return a set of paths as bits."""
    mask = 0
    for path in paths:
        mask |= BIT[path]
    return mask


def other(path: PathName) -> PathName:
    """Return the path that is not this one."""
    return "backup" if path == "primary" else "primary"
