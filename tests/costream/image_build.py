"""The container image, built beside the tests that come before its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO

import pytest

from tests.beside import step_back

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "image.sh")
_PREFIXES = ("setpriv --pdeathsig KILL", "chrt --idle 0", "ionice --class idle")
"""It dies with us. Mostly it waits for the network; where it computes and writes, tests in real time go first."""


class ImageBuild:
    """`start` it early, `wait` for it where the image is needed, `end` it in any case. All are repeatable."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def start(self) -> None:
        """Begin to build, unless a build runs."""
        if self._process is not None:
            return
        prefixes = [word for each in _PREFIXES if shutil.which(each.split()[0]) for word in each.split()]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._process = subprocess.Popen(
            [*prefixes, SCRIPT, "build"],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        step_back(self._process.pid, 19)

    def wait(self) -> tuple[int, str]:
        """The exit code of the build that runs, else of one that is made now, and what it said. Then forgets it."""
        self.start()
        assert self._process is not None
        assert self._output is not None
        try:
            code = self._process.wait()
            self._output.seek(0)
            return code, self._output.read().decode(errors="replace")
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it runs. Its namespaces end with it, and with them its processes and mounts."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._output is not None:
            self._output.close()
        self._process = self._output = None


_ASKED = pytest.StashKey[bool]()
build = ImageBuild()
"""That of this session."""


def begin_if_wanted(session: pytest.Session) -> None:
    """Start the build, once, if tests of the image will come and it can be built; else their fixture says why."""
    if session.stash.get(_ASKED, False):
        return
    session.stash[_ASKED] = True
    if any(item.get_closest_marker("image") for item in session.items):
        engine = subprocess.run([SCRIPT, "engine"], capture_output=True, check=False)
        if engine.returncode == 0:
            build.start()
