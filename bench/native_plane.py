"""One measurement of a plane, native or reference, in a process of its own; prints JSON.

    python -m bench.native_plane cost native --viewers 100 --burst 8 --packets 80000
    python -m bench.native_plane delay native
    python -m bench.native_plane memory native

The peers (`bench.native_peers`) are another process on the other core. CPU time is that of this whole process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from bench.native_peers import PROFILE, Rooms, key, password, ufrag
from bench.processes import cores, pin
from relay.plane import Plane, open_plane
from relay.plane.contract import (
    AddSlot,
    AddTrack,
    BindSlot,
    Event,
    Feedback,
    Kind,
    LayerSpec,
    OpenSession,
    PayloadType,
    PlaneConfig,
    SetKeys,
    SlotSwitched,
)

VIDEO = (PayloadType(96, "vp8", 90_000), PayloadType(97, "rtx", 90_000, apt=96))
AUDIO = (PayloadType(111, "opus", 48_000),)
FEEDBACK = Feedback(nack=True, pli=True, transport_cc=True)
EXTENSIONS = (("mid", 1), ("transport_cc", 2), ("abs_send_time", 3))
START_S = 30.0
WARM_UP = 8000  # packets
LOAD = 0.5
DELAY_ROOMS = Rooms(40, 10)
FRAME = 5  # packets: a mean frame at 1.4 Mbit/s
GUESS = {"native": 4000.0, "reference": 150.0}  # frames per second, to find the rate that makes LOAD
IDLE = 2000


class Bed:
    """A plane with sessions, and the process of its peers."""

    def __init__(self, plane: Plane, rooms: Rooms) -> None:
        self.plane = plane
        self._rooms = rooms
        self._switched: set[int] = set()
        self._all_switched = asyncio.Event()
        self._peers: asyncio.subprocess.Process

    async def open(self, load: int) -> None:
        """Start the peers and wait until every address is proved."""
        for session in range(self._rooms.sessions):
            self.plane.submit(
                OpenSession(session, ufrag(session), password(session), EXTENSIONS),
                SetKeys(session, PROFILE, key(session, incoming=False), key(session, incoming=True)),
            )
        port = self.plane.addresses[0][1]
        words = ["-m", "bench.native_peers", *map(str, (port, self._rooms.rooms, self._rooms.viewers))]
        pipe = asyncio.subprocess.PIPE
        self._peers = await asyncio.create_subprocess_exec(sys.executable, *words, stdin=pipe, stdout=pipe)
        os.sched_setaffinity(self._peers.pid, {load})
        await self._answer()

    async def play(self) -> None:
        """Every viewer plays its room."""
        self.plane.on_events = self._on_events
        for room in range(self._rooms.rooms):
            self.plane.submit(AddTrack(room, room, Kind.VIDEO, "0", VIDEO, (LayerSpec(ssrc=1),), FEEDBACK))
        for viewer in range(self._rooms.rooms, self._rooms.sessions):
            slot = AddSlot(viewer, viewer, Kind.VIDEO, "0", 2 * viewer, 2 * viewer + 1, VIDEO, FEEDBACK, "bench")
            self.plane.submit(slot, BindSlot(viewer, self._rooms.room(viewer)))
        await self.tell("start")
        async with asyncio.timeout(START_S):
            await self._all_switched.wait()

    async def tell(self, *words: object) -> Any:
        """Give the peers a command and return their answer."""
        assert self._peers.stdin is not None
        self._peers.stdin.write((" ".join(map(str, words)) + "\n").encode())
        return await self._answer()

    async def _answer(self) -> Any:
        assert self._peers.stdout is not None
        async with asyncio.timeout(60):
            line = await self._peers.stdout.readline()
        if not line:
            raise RuntimeError("the peers ended")
        return json.loads(line)

    def _on_events(self, events: list[Event]) -> None:
        self._switched.update(event.slot for event in events if isinstance(event, SlotSwitched))
        if len(self._switched) >= self._rooms.sessions - self._rooms.rooms:
            self._all_switched.set()

    def forwarded(self) -> int:
        """RTP packets sent in slots so far."""
        return sum(slot.packets for slot in self.plane.stats().slots.values())

    async def close(self) -> None:
        self.plane.close()
        if hasattr(self, "_peers") and self._peers.returncode is None:
            self._peers.kill()
            await self._peers.wait()


@contextlib.asynccontextmanager
async def bed(kind: Any, rooms: Rooms, *, urgent: bool = False) -> AsyncIterator[Bed]:
    """A plane on the core of tests with its peers on that of loads."""
    test, load = cores()
    pin(test)  # before the plane starts its thread, which inherits it
    made = Bed(open_plane(kind, PlaneConfig(seed=1), "127.0.0.1", 0), rooms)
    made.plane.start()
    if urgent:
        _all_go_first()
    try:
        await made.open(load)
        yield made
    finally:
        await made.close()


def _all_go_first() -> None:
    """`processes.go_first` for every thread: the plane's one does not inherit it."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(int(task), os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def _waited() -> float:
    """Seconds that this process's threads were ready while others had the core."""
    threads = Path("/proc/self/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[1]) for each in threads) / 1e9


async def cost(kind: str, rooms: Rooms, burst: int, packets: int) -> dict[str, float]:
    """Microseconds of CPU per forwarded packet (`us`), those of it outside the kernel, and the share of what was
    forwarded that did not come authentic."""
    async with bed(kind, rooms) as under_test:
        await under_test.play()
        each = rooms.rooms * rooms.viewers * burst
        await under_test.tell("bursts", burst, max(2, WARM_UP // each))
        count = max(4, packets // each)
        before, cpu, user = under_test.forwarded(), time.process_time(), os.times().user
        await under_test.tell("bursts", burst, count)
        cpu, user = time.process_time() - cpu, os.times().user - user
        total = under_test.forwarded()
        authentic = (await under_test.tell("check"))["authentic"]
    forwarded = total - before
    return {"us": cpu / forwarded * 1e6, "user_us": user / forwarded * 1e6, "lost": 1 - authentic / total}


async def delay(kind: str, seconds: float) -> dict[str, float]:
    """Percentiles of the added delay in ms at LOAD of the core, what load it was, and the ms per second for which the
    plane was ready to run but others had the core."""
    async with bed(kind, DELAY_ROOMS, urgent=True) as under_test:
        await under_test.play()
        rate = GUESS[kind]
        for part in (0.3, 0.3, seconds):
            await under_test.tell("prepare", FRAME, round(rate * part))
            cpu, waited = time.process_time(), _waited()
            found = await under_test.tell("frames", rate)
            load = (time.process_time() - cpu) / found["seconds"]
            waits = (_waited() - waited) / found["seconds"] * 1e3
            if part != seconds:
                rate *= LOAD / load
    return {"load": load, "waited": waits, "per_second": rate * FRAME * DELAY_ROOMS.viewers, **found}


async def memory(kind: str) -> dict[str, float]:
    """Resident KiB per viewer with a proved address, keys, two video and two audio slots, and nothing that plays."""
    async with bed(kind, Rooms(1, 1)) as under_test:
        del under_test
        gc.collect()
    async with bed_of_idle(kind) as grown:
        return {"kib": grown / IDLE / 1024}


@contextlib.asynccontextmanager
async def bed_of_idle(kind: str) -> AsyncIterator[int]:
    """Yields the bytes by which the process grew."""
    before = resident()
    async with bed(kind, Rooms(1, IDLE)) as under_test:
        for viewer in range(1, IDLE + 1):
            for index in range(4):
                kind_, types = (Kind.AUDIO, AUDIO) if index < 2 else (Kind.VIDEO, VIDEO)
                number = viewer * 4 + index
                rtx = None if index < 2 else 2 * number + 1
                slot = AddSlot(number, viewer, kind_, str(index), 2 * number, rtx, types, FEEDBACK, "bench")
                under_test.plane.submit(slot)
        await asyncio.sleep(1.5)
        gc.collect()
        yield resident() - before


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure one thing and print it."""
    parser = argparse.ArgumentParser(prog="python -m bench.native_plane", description=__doc__)
    parser.add_argument("what", choices=["cost", "delay", "memory"])
    parser.add_argument("kind", choices=["native", "reference"])
    for name, default in (("rooms", 1), ("viewers", 100), ("burst", 8), ("packets", 80_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    if chosen.what == "cost":
        work = cost(chosen.kind, Rooms(chosen.rooms, chosen.viewers), chosen.burst, chosen.packets)
    else:
        work = delay(chosen.kind, chosen.seconds) if chosen.what == "delay" else memory(chosen.kind)
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
