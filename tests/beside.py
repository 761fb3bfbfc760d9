"""`pytest -n 2`: tests in real time all on one worker, one after the other; what has no hurry beside them on the other.

A real browser, codec or cluster leaves about half of a small machine unused, but must not be disturbed.

- A *pure* test has no clock and nothing outside its process: it may take as long as it likes, so it gets what the
  others leave (SCHED_IDLE). That it is pure is checked while it runs, with and without `-n`.
- A *patient* one talks to a store, in its process otherwise, and gives each call a minute: it gets little (nice 10).
- All others are in real time.

docs/decisions/0029 says why.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from xdist.scheduler import LoadScopeScheduling

Hurry = Literal["pure", "patient", "real time"]

PATIENCE_S = 900
"""Tests beside others may have to wait for a processor for long; this is for one that hangs."""
PURE = (
    "tests/bench/test_clapping.py",
    "tests/bench/test_hls_player.py",
    "tests/bench/test_mix_hls.py",
    "tests/cluster/test_lease_keeper.py",
    "tests/cluster/test_pk_interleavings.py",
    "tests/cluster/test_placement_rank.py",
    "tests/drills/load/test_plan.py",
    "tests/drills/simulation/test_accuracy.py",
    "tests/drills/simulation/test_links.py",
    "tests/drills/simulation/test_planning.py",
    "tests/drills/simulation/test_planted.py",
    "tests/drills/simulation/test_stories.py",
    "tests/drills/test_drill_figures.py",
    "tests/drills/test_drill_oracles.py",
    "tests/drills/test_drill_report.py",
    "tests/drills/test_fabric_rules.py",
    "tests/drills/test_impairment.py",
    "tests/drills/test_measure.py",
    "tests/drills/test_oracle.py",
    "tests/drills/test_room_figures.py",
    "tests/edge/",
    "tests/egress/test_depacketise.py",
    "tests/egress/test_layers.py",
    "tests/egress/test_rtmp_session.py",
    "tests/interop/test_counting.py",
    "tests/interop/test_marks.py",
    "tests/link/",
    "tests/links/test_link_messages.py",
    "tests/links/test_readings.py",
    "tests/mix/test_audio_positions.py",
    "tests/mix/test_audio_room.py",
    "tests/mix/test_audio_room_faults.py",
    "tests/mix/test_jitter.py",
    "tests/mix/test_layout.py",
    "tests/mix/test_limiter.py",
    "tests/mix/test_scaler.py",
    "tests/mix/test_timeline.py",
    "tests/mix/test_video_packets.py",
    "tests/mix/test_video_pictures.py",
    "tests/node/test_clocks.py",
    "tests/node/test_gate.py",
    "tests/node/test_program_inputs.py",
    "tests/node/test_program_lease.py",
    "tests/node/test_remote.py",
    "tests/node/test_sound.py",
    "tests/node/test_stranded.py",
    "tests/plane/",
    "tests/process/test_control.py",
    "tests/stage/",
    "tests/test_settings.py",
    "tests/webhooks/test_messages.py",
)
"""Files, and directories with a slash."""
PATIENT = (
    "tests/signaling/test_auth.py",
    "tests/signaling/test_bodies.py",
    "tests/signaling/test_egress.py",
    "tests/signaling/test_limits.py",
    "tests/signaling/test_links.py",
    "tests/signaling/test_openapi.py",
    "tests/signaling/test_pk.py",
    "tests/signaling/test_problems.py",
    "tests/signaling/test_programs.py",
    "tests/signaling/test_rooms.py",
    "tests/signaling/test_static_pages.py",
    "tests/signaling/test_tokens.py",
    "tests/signaling/test_webhooks.py",
    "tests/signaling/test_webrtc.py",
)
NOT_PURE = frozenset(
    {
        "tests/edge/test_answers.py",
        "tests/link/test_link.py",
        "tests/link/test_link_renewed.py",
        "tests/link/test_link_restarted.py",
        "tests/link/test_metadata.py",
        "tests/link/test_quic_datagrams.py",
        "tests/link/test_quic_h3.py",
        "tests/link/test_quic_handshake.py",
        "tests/link/test_quic_resumption.py",
        "tests/link/test_quic_short.py",
        "tests/link/test_quic_strangers.py",
        "tests/plane/test_driver.py",
        "tests/plane/test_native_shards_driver.py",
        "tests/plane/test_rings.py",
        "tests/plane/test_urgency.py",
    }
)
"""Files in directories of PURE that open sockets, start processes or look at a clock."""
FORBIDDEN = frozenset(
    {
        "_thread.start_joinable_thread",
        "_thread.start_new_thread",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "socket.bind",
        "socket.connect",
        "subprocess.Popen",
        "time.sleep",
    }
)
"""Audit events (docs.python.org/3/library/audit_events.html) that a pure test does not cause."""
_NICE: dict[Hurry, int] = {"pure": 19, "patient": 10, "real time": 0}
_ORDER: tuple[Hurry, ...] = ("real time", "patient", "pure")

_began = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
_watched: list[str] = []


def hurry_of(nodeid: str) -> Hurry:
    """Which kind of test this is, by its file."""
    path = nodeid.partition("::")[0]
    if path in PATIENT:
        return "patient"
    among = any(path.startswith(each) if each.endswith("/") else path == each for each in PURE)
    return "pure" if among and path not in NOT_PURE else "real time"


def sort_for_workers(items: list[pytest.Item]) -> None:
    """The scheduler hands out what comes first first, and nobody must go back to being in a hurry: only root could."""
    items.sort(key=lambda item: _ORDER.index(hurry_of(item.nodeid)))
    for item in items:
        if hurry_of(item.nodeid) != "real time" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE_S))


class Beside(LoadScopeScheduling):
    """Hands out all that is in real time as one piece, then the others by their files."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        hurry = hurry_of(nodeid)
        return hurry if hurry == "real time" else nodeid.partition("::")[0]


@contextlib.contextmanager
def running(item: pytest.Item) -> Iterator[None]:
    """Around a test: its priority where there are workers, and the watch on what a pure one does."""
    hurry = hurry_of(item.nodeid)
    if "PYTEST_XDIST_WORKER" in os.environ:
        _take_rank(hurry)
    if hurry == "pure":
        _watched.append(item.nodeid)
    try:
        yield
    finally:
        _watched.clear()


def _take_rank(hurry: Hurry) -> None:
    policy, nice = _began
    policy = os.SCHED_IDLE if hurry == "pure" else policy
    nice += _NICE[hurry]
    if (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == (policy, nice):
        return
    if hurry != "real time" and os.getsid(0) != os.getpid():
        os.setsid()
    step_back(os.getpid(), nice)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setscheduler(0, policy, os.sched_param(0))


def step_back(pid: int, nice: int) -> None:
    """Give a process's whole session a nice value: where the kernel shares cores out by session (sched_autogroup), that
    of a process, and SCHED_IDLE, count only among those of its own."""
    with contextlib.suppress(OSError):  # no such kernel; or only root may go back
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in FORBIDDEN and threading.current_thread() is threading.main_thread():
        raise AssertionError(f"{event} in {_watched[0]}, which tests/beside.py counts as pure")


sys.addaudithook(_audit)
