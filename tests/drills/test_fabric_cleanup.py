"""Whatever ends a fabric, nothing of it stays: no process, no namespace, no device, no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from drills import ownership
from drills.fabric import FabricError, open_fabric
from drills.fabric import base as fabric_base
from tests.drills.fabrics import Kind, eventually, left, need

OWNER = """
import sys, time
from drills.fabric import open_fabric
from drills.ownership import this_process
with open_fabric(sys.argv[1]) as fabric:
    fabric.add_host("a", paths=2)
    fabric.add_host("b")
    # One that ignores what it can, with a child that has left its session.
    stubborn = "import signal, subprocess, time; signal.signal(15, signal.SIG_IGN); "
    stubborn += "subprocess.Popen(['sleep', '1000'], start_new_session=True); time.sleep(1000)"
    process = fabric.run("a", [sys.executable, "-c", stubborn])
    fabric.run("b", ["sleep", "1000"])
    time.sleep(0.5)
    print(this_process().tag, fabric.forwarder_pid, flush=True)
    time.sleep(1000)
"""


def owner_process(kind: Kind) -> tuple[subprocess.Popen[str], str, int]:
    need(kind)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, kind], stdout=subprocess.PIPE, text=True, cwd=fabric_base.ROOT
    )
    assert owner.stdout is not None
    tag, forwarder = owner.stdout.readline().split()
    assert len(left(tag)) >= (7 if kind == "tun" else 5)
    return owner, tag, int(forwarder)


@pytest.mark.parametrize("kind", ["tun", "loopback"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_owner_is_ended(kind: Kind, number: signal.Signals) -> None:
    owner, tag, _ = owner_process(kind)
    with owner:
        owner.send_signal(number)
    eventually(lambda: not left(tag))


@pytest.mark.parametrize("kind", ["tun", "loopback"])
def test_both_are_killed_and_the_next_start_cleans_up(kind: Kind) -> None:
    owner, tag, forwarder = owner_process(kind)
    with owner:
        os.kill(forwarder, signal.SIGSTOP)  # so that it cannot clean up in between
        owner.kill()
    os.kill(forwarder, signal.SIGKILL)
    assert left(tag)
    with open_fabric(kind):
        eventually(lambda: not left(tag))


@pytest.mark.parametrize("kind", ["tun", "loopback"])
def test_the_forwarder_is_killed(kind: Kind) -> None:
    need(kind)
    tag = ownership.this_process().tag
    with open_fabric(kind) as fabric:
        fabric.add_host("a")
        assert isinstance(fabric, fabric_base.BaseFabric)
        os.kill(fabric.forwarder_pid, signal.SIGKILL)
        with pytest.raises(FabricError, match="forwarder"):
            fabric.counters()
    assert left(tag) == []


def test_what_lives_is_left_alone() -> None:
    """A sweep beside a fabric in use, and one that finds things of another pid namespace."""
    mine = ownership.this_process()
    foreign = ownership.Owner(1, mine.pid, mine.started + 1)
    directory = ownership.own_directory(foreign)
    try:
        with open_fabric("loopback") as fabric:
            process = fabric.run("outside", ["sleep", "1000"])
            fabric_base.sweep()
            assert process.is_running
            assert fabric.directory.exists()
            assert directory.exists()
    finally:
        directory.rmdir()
    assert left(mine.tag) == []


@pytest.mark.parametrize("name", ["", "csd", "csd-1-2", "csd-1-2-3x", "csd-a-2-3", "other", "xcsd-1-2-3"])
def test_other_names_have_no_owner(name: str) -> None:
    assert ownership.owner_of(name) is None
