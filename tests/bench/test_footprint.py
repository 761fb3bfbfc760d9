"""A process's footprint counts what it opens, and forgets what it closes."""

from __future__ import annotations

import mmap
import os
import subprocess
import threading

import pytest

from bench.footprint import footprint


def test_what_is_opened_is_counted_and_what_is_closed_is_not() -> None:
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
    assert during.all_resident > during.resident > 0
    after = footprint(os.getpid())
    assert (after.processes, after.shared) == (before.processes, before.shared)
    assert after.descriptors == before.descriptors


def test_a_process_that_is_gone_is_an_error() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    with pytest.raises(Exception, match=str(child.pid)):
        footprint(child.pid)
