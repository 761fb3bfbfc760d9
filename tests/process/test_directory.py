"""Directories of processes that ended in good order, and of those that were killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from relay.process.directory import OwnDirectory

HOLD = "import sys; from pathlib import Path; from relay.process.directory import OwnDirectory\n"
HOLD += "own = OwnDirectory('x-', Path(sys.argv[1])); print(own.path, flush=True); sys.stdin.read()"


def age(path: Path) -> None:
    before = time.time() - 3600
    os.utime(path, (before, before))


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_held_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        (path / "store.aof").write_text("rooms")
        age(path)
        strange = tmp_path / "x-strange"  # no lock: not one of ours
        strange.mkdir()
        age(strange)
        first = OwnDirectory("x-", tmp_path)
        assert path.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        young = OwnDirectory("x-", tmp_path)
        young._lock.close()  # as a killed process
        second = OwnDirectory("x-", tmp_path)
        assert not path.exists()
        assert all(each.exists() for each in (strange, first.path, young.path, second.path))
    second.remove()
    second.remove()
    first.remove()
    assert sorted(tmp_path.iterdir()) == sorted([strange, young.path])
