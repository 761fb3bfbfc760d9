"""A process's footprint counts what it opens, and forgets what it closes."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.footprint import MIB, footprint, growth

ROOT = Path(__file__).parents[2]


def test_what_is_opened_is_counted_and_what_is_closed_is_not() -> None:
    """In a process of its own: this one has children that come and go, while the image is built beside the tests."""
    body = f"from {__name__} import open_and_close; open_and_close()"
    done = subprocess.run([sys.executable, "-c", body], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


def open_and_close() -> None:
    before = footprint(os.getpid())
    descriptor = os.memfd_create("test-footprint")
    os.ftruncate(descriptor, mmap.PAGESIZE)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    try:
        with mmap.mmap(descriptor, mmap.PAGESIZE):
            during = footprint(os.getpid())
    finally:
        done.set()
        thread.join()
        child.communicate()
        os.close(descriptor)
    assert during.processes == before.processes + 1
    assert during.threads >= before.threads + 2
    assert during.descriptors >= before.descriptors + 2
    assert during.shared == before.shared + 1
    assert during.shared_size == pytest.approx(before.shared_size + mmap.PAGESIZE / MIB)
    assert during.all_resident > during.resident > during.own > 0
    assert during.all_resident > during.all_own > during.own
    after = footprint(os.getpid())
    assert (after.processes, after.shared) == (before.processes, before.shared)
    assert after.descriptors == before.descriptors


def test_shared_memory_counts_whole_once_and_is_nobodys_own() -> None:
    size = 8 * MIB
    before = footprint(os.getpid())
    descriptor = os.memfd_create("test-footprint")
    os.ftruncate(descriptor, size)
    try:
        with mmap.mmap(descriptor, size) as one, mmap.mmap(descriptor, size):
            mapped = footprint(os.getpid())
            one.write(bytes(range(256)) * (size // 256))
            written = footprint(os.getpid())
    finally:
        os.close(descriptor)
    assert mapped.shared == before.shared + 2
    assert mapped.shared_size == written.shared_size == pytest.approx(before.shared_size + 8)
    assert written.resident >= mapped.resident + 7
    assert abs(written.own - mapped.own) < 4


def test_private_memory_is_own() -> None:
    before = footprint(os.getpid())
    with mmap.mmap(-1, 8 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(range(256)) * (8 * MIB // 256))
        during = footprint(os.getpid())
    assert during.own >= before.own + 7
    assert during.shared_size == before.shared_size


def test_what_grows_with_every_stage_has_a_slope_and_what_grew_once_has_none() -> None:
    at = [20, 36, 52, 68, 84, 100]
    assert growth(at, [7.0 + 0.5 * each for each in at]) == pytest.approx(0.5)
    assert growth(at, [7.0 + 0.5 * each - 3.0 * (each == 84) for each in at]) == pytest.approx(0.5)
    assert growth(at, [7.0] * 6) == 0
    assert growth(at, [100.0, 100.0, 130.0, 130.0, 130.0, 160.0]) == 0
    with pytest.raises(ValueError, match="two"):
        growth([20], [1.0])


def test_a_process_that_is_gone_is_an_error() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    with pytest.raises(Exception, match=str(child.pid)):
        footprint(child.pid)
