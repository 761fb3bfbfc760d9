"""What a build of the image that is killed leaves behind: nothing. The script is the real one, its engine is slow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.costream import image_build
from tests.costream.image_build import ImageBuild

SLOW = """\
#!/bin/sh
case "$*" in
*info* | *containers* | *inspect*) exit 0 ;;
esac
mkdir -p "$IMAGE_CACHE/mounted"
mount -t tmpfs of-the-test "$IMAGE_CACHE/mounted"
sleep 600
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a buildah that mounts something and then takes its time."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a build without an engine needs root and unshare")
    fake = tmp_path / "bin" / "buildah"
    fake.parent.mkdir()
    fake.write_text(SLOW)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("IMAGE_ENGINE", "buildah")
    monkeypatch.setenv("IMAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def processes(cache: Path) -> list[str]:
    """Those that belong to a build with this cache."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.pid != os.getpid() and each.environ().get("IMAGE_CACHE") == str(cache):
                found.append(" ".join(each.cmdline()))
        except psutil.Error:
            continue
    return found


def until_gone(cache: Path) -> None:
    deadline = time.monotonic() + 60
    while left := processes(cache):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert str(cache) not in Path("/proc/self/mounts").read_text()


def until_begun(cache: Path) -> None:
    deadline = time.monotonic() + 60
    while not any("sleep 600" in each for each in processes(cache)):
        assert time.monotonic() < deadline, processes(cache)
        time.sleep(0.05)


def test_ended_with_the_session(cache: Path) -> None:
    build = ImageBuild()
    build.start()
    try:
        until_begun(cache)
    finally:
        build.end()
    until_gone(cache)


def test_a_killed_session_takes_it_along(cache: Path) -> None:
    source = "import time; from tests.costream.image_build import build; build.start(); time.sleep(600)"
    root = Path(image_build.SCRIPT).parents[1]
    session = subprocess.Popen([sys.executable, "-c", source], cwd=root)
    try:
        until_begun(cache)
    finally:
        session.kill()
        session.wait()
    until_gone(cache)
