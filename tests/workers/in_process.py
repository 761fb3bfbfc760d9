"""An executor whose stand-ins and hosts live in this process: all but Ray, with real links and real workers."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from relay.errors import PeerError
from relay.mix.executor import Body, OnEnd, OnMessage
from relay.mix.video.messages import TO_WORKER
from relay.mix.video.page import Page
from relay.plane.shared_ring import SharedRing
from relay.process.control import Message, Wire, frame
from relay.process.worker import ControlEnd
from relay.workers.host import WorkerHost
from relay.workers.stand_in import StandIn
from relay.workers.words import Failed, Heard, Placed
from tests.mix.video_world import FPS, Viewer

ADDRESS = "127.0.0.1"
LATE_FRAMES = 5
CLOCKS_MS = 50
"""What the successor may know another machine's clock better or worse by, on a busy machine."""
MISSING = 50
"""Packets: what may have been on its way when a worker was killed, a picture at most."""


class MortalHost(WorkerHost):
    """A host whose machine can be lost: nobody hears anything of it any more, and its links are cut."""

    def __init__(self) -> None:
        super().__init__(ADDRESS, os.getpid())
        self._lost = asyncio.Event()

    @property
    def worker(self) -> int:
        """The worker's process id."""
        assert self._child is not None
        return self._child.pid

    async def lose(self) -> None:
        self._lost.set()
        await super().stop()

    async def hear(self) -> Heard:
        if self._lost.is_set():
            raise PeerError("the machine is gone")
        return await super().hear()

    async def stop(self) -> None:
        if not self._lost.is_set():
            await super().stop()


class InProcess:
    """See `relay.mix.executor.Running`."""

    def __init__(self, body: Body, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> None:
        self.where, self.ended, self.host = "here", False, MortalHost()
        self._why, self._wire, self._on_message, self._on_end = "stopped", wire, on_message, on_end
        wire.hear(Placed, Failed)
        self._control, theirs = socket.socketpair()
        self._control.setblocking(False)
        tap, inject = (SharedRing.attach([os.dup(int(fd)) for fd in words.split(",")]) for words in body.arguments[:2])
        self._stand_in = StandIn(
            ControlEnd(theirs.detach(), Wire(*TO_WORKER)),
            tap,
            inject,
            Page(os.dup(int(body.arguments[2]))),
            self.host,
            address=ADDRESS,
            cores=1,
            report_s=0.1,
            shape=body.arguments[3],
            font=body.arguments[4],
        )
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control.fileno(), self._readable)
        self._task = loop.create_task(self._run())

    def send(self, message: Message) -> None:
        if not self.ended:
            self._control.send(frame(message))

    def kill(self, why: str) -> None:
        self._why = why
        self._close()

    async def stop(self) -> None:
        self._close()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._stand_in.run()
        finally:
            self._close()
            self.ended = True
            self._on_end(self._why)

    def _readable(self) -> None:
        data = b""
        with suppress(OSError):
            data = self._control.recv(1 << 16)
        if not data:
            self._close()
        for message in self._wire.feed(data):
            if isinstance(message, Failed):
                self._why = message.why
            elif isinstance(message, Placed):
                self.where = message.where
            else:
                self._on_message(message)

    def _close(self) -> None:
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()


class InProcesses:
    """See `relay.mix.executor.Executor`."""

    start_s = 20.0
    keeps = 0

    def __init__(self) -> None:
        self.started: list[InProcess] = []

    def start(self, body: Body, wire: Wire[Message], on_message: OnMessage, on_end: OnEnd) -> InProcess:
        self.started.append(InProcess(body, wire, on_message, on_end))
        return self.started[-1]


def check_numbers(sequences: list[int]) -> None:
    """Check that no sequence number came twice and next to none is missing, in whatever order a link gave them."""
    places = [(number - sequences[0] + 0x4000) & 0xFFFF for number in sequences]
    assert len(set(places)) == len(places)
    assert max(places) - min(places) + 1 - len(places) < MISSING


def check_successor(viewer: Viewer, taken: int) -> int:
    """Check that who watches cannot tell by numbers that another worker went on after some `taken` frames, of which the
    last may still have been on their way. Returns for how many ms there was no picture."""
    check_numbers(viewer.sequences)
    index = next(number for number in range(taken, len(viewer.frames)) if viewer.frames[number].keyframe)
    assert index - taken < LATE_FRAMES
    before, after = viewer.frames[index - 1 : index + 1]
    ticks = (after.timestamp - before.timestamp) % (1 << 32)
    assert ticks % (90_000 // FPS) == 0
    assert abs(ticks / 90 - (after.sync_ms - before.sync_ms)) < CLOCKS_MS
    return ticks // 90
