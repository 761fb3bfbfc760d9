"""An egress process and its feed as the manager sees them, kept running as long as there is something to do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from relay.egress.codecs import check_codecs
from relay.egress.events import Kind
from relay.egress.feed import Feed, Feeds
from relay.egress.messages import (
    FROM_PROCESS,
    AddHls,
    AddPush,
    AddRecording,
    Begin,
    Follow,
    FromProcess,
    KeyframeWanted,
    KnowSender,
    Remove,
    Stated,
    Switched,
)
from relay.errors import BadRequest, CostreamError
from relay.process.child import Child, Restarts
from relay.process.control import Wire

FATAL = frozenset({"target-not-allowed", "bad-target", "codec-not-taken"})
"""Errors that the next try would meet as well."""
REMOVE_S = 3.0
MOST_S = 15.0
"""Between two tries."""


class EgressWorker:
    """`heard` is told what the process says of its outputs, and what becomes of them when it dies; `order` says what to
    do for an output now. `on_done` is called when there is nothing more to do."""

    def __init__(
        self,
        feeds: Feeds,
        room: str,
        source: str,
        keyframe_ms: int,
        heard: Callable[[FromProcess], None],
        order: Callable[[str], AddHls | AddRecording | AddPush | None],
    ) -> None:
        self.on_done: Callable[[], object] = lambda: None
        self._feeds, self._room, self._source, self._keyframe_ms = feeds, room, source, keyframe_ms
        self._heard, self._order = heard, order
        self._outputs: dict[str, Restarts] = {}
        self._removed: dict[str, asyncio.Event] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._child: Child[FromProcess] | None = None
        self._feed: Feed | None = None
        self._why = ""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._adding = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._child.pid if self._child is not None and not self._child.ended else None

    @property
    def idle(self) -> bool:
        """Whether nothing was ever begun, or all is over, and nobody is about to."""
        return not self._adding and not self._outputs and (self._task is None or self._task.done())

    async def add(self, output: str, kind: Kind) -> None:
        """Begin an output. Raises what `Feeds.open` does when there is no process yet and none can be, BadRequest when
        such an output does not take the source's codec."""
        self._adding += 1
        try:
            async with self._lock:
                await self._add(output, kind)
        finally:
            self._adding -= 1

    async def _add(self, output: str, kind: Kind) -> None:
        if self._feed is not None:
            check_codecs(kind, self._feed.streams)
        if self._task is None:
            feed = await self._feeds.open(self._room, self._source, self._feed_ended)
            try:
                check_codecs(kind, feed.streams)
            except BadRequest:
                feed.close()
                raise
            self._outputs[output] = Restarts(0.5, MOST_S)
            self._task = asyncio.create_task(self._run(feed))
            return
        self._outputs[output] = Restarts(0.5, MOST_S)
        self._tell(output)

    async def remove(self, output: str) -> None:
        """End an output in good order; with the last one the process ends too. Not there: nothing happens."""
        if output not in self._outputs:
            return
        if self._child is not None and not self._child.ended:
            gone = self._removed.setdefault(output, asyncio.Event())
            self._child.send(Remove(output))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REMOVE_S):
                    await gone.wait()
        self._forget(output)
        if not self._outputs and self._task is not None:
            await self._task

    async def close(self) -> None:
        """End all at once."""
        await asyncio.gather(*(self.remove(output) for output in list(self._outputs)))

    async def _run(self, feed: Feed | None) -> None:
        restarts = Restarts(0.2, MOST_S)
        try:
            while self._outputs:
                began = time.monotonic()
                self._why = ""
                try:
                    feed = feed or await self._feeds.open(self._room, self._source, self._feed_ended)
                    await self._live(feed)
                except CostreamError as error:
                    self._why = f"no-source {error}"
                except OSError as error:
                    self._why = f"process-died {error.strerror}"
                feed = None
                if self._outputs:
                    code, _, detail = self._why.partition(" ")
                    for output in list(self._outputs):
                        self._heard(Stated(output, "retrying", code, detail))
                    await self._pause(max(0.1, restarts.died(time.monotonic() - began)))
        finally:
            self.on_done()

    async def _live(self, feed: Feed) -> None:
        """One process, from its start until it has ended."""
        self._feed = feed
        try:
            fds = ",".join(map(str, feed.fds))
            self._child = Child("relay.egress", [fds], feed.fds, Wire(*FROM_PROCESS), self._said, self._child_ended)
            feed.passed()
            self._child.send(Begin(feed.streams, self._keyframe_ms))
            for output in list(self._outputs):
                self._tell(output)
            feed.watch(self._pass_on)
            while self._outputs and not self._why:
                self._changed.clear()
                await self._changed.wait()
            await self._child.stop()
        finally:
            self._feed = None
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            feed.close()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not for those that are not wanted any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._outputs:
                    self._changed.clear()
                    await self._changed.wait()

    def _tell(self, output: str) -> None:
        self._timers.pop(output, None)
        if self._child is None or self._child.ended or output not in self._outputs:
            return
        if (order := self._order(output)) is not None:
            self._child.send(order)

    def _said(self, message: FromProcess) -> None:
        if isinstance(message, KeyframeWanted | Switched):
            if self._feed is not None and isinstance(message, Switched):
                self._feed.switched(message.stream)
            elif self._feed is not None:
                self._feed.request_keyframe(message.stream)
            return
        if isinstance(message, Stated) and message.id in self._outputs:
            gone = self._removed.get(message.id)
            if message.state == "ended":
                if gone is not None:
                    gone.set()
                return  # whoever wanted it says so, and else another process goes on
            if gone is not None and message.state == "failed":
                gone.set()
                self._heard(message)  # it could not be ended in good order
                return
            if message.state == "failed" and message.code not in FATAL:
                wait = max(0.5, self._outputs[message.id].died(0.0))
                self._timers[message.id] = asyncio.get_running_loop().call_later(wait, self._tell, message.id)
                message = Stated(message.id, "retrying", message.code, message.detail)
            elif message.state == "failed":
                self._forget(message.id)
        self._heard(message)

    def _pass_on(self, message: Follow | KnowSender) -> None:
        if self._child is not None and not self._child.ended:
            self._child.send(message)

    def _forget(self, output: str) -> None:
        self._outputs.pop(output, None)
        self._removed.pop(output, None)
        if (timer := self._timers.pop(output, None)) is not None:
            timer.cancel()
        self._changed.set()

    def _child_ended(self, why: str) -> None:
        self._why = self._why or f"process-died {why}"
        for gone in self._removed.values():
            gone.set()
        self._changed.set()

    def _feed_ended(self) -> None:
        self._why = self._why or "no-source the source is gone"
        self._changed.set()
