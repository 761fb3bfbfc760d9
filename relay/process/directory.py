"""A directory of this process's own, which the next process to make one removes when this one was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

_LOCK = "owner.lock"
_YOUNG_S = 60.0
"""Somebody may be about to lock it."""


class OwnDirectory:
    """Made under `parent`, or where temporary files go. It is locked until `remove`, or until this process ends."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        if parent is not None:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = parent or Path(tempfile.gettempdir())
        _tidy(where, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
        self._lock = (self.path / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with all that is in it. Repeatable."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _tidy(where: Path, prefix: str) -> None:
    """Remove what nobody holds any more."""
    for path in where.glob(f"{prefix}*"):
        try:
            found = path.stat()
            if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _YOUNG_S:
                continue
            with (path / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:  # somebody's, or not one of these, or gone
            continue
