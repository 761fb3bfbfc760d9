"""A plane's rings as their owner sees them: opened for one worker each, watched, freed when the worker is gone.

A ring is one worker's: after its death open another. `on_gone` is told what became of it, in the loop and once, but not
of a ring that was closed here: "closed" (the worker did), "died", or "corrupt" (it wrote what cannot be). The ring is
free by then, and its taps are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from relay.errors import Overloaded, UsageError
from relay.plane.contract import AddTap, Command, RemoveRingTaps
from relay.plane.ring_words import CONSUMER_CLOSED, PRODUCER_CLOSED
from relay.plane.shared_ring import SLOT_SIZE, SLOTS, SharedRing

Gone = Literal["closed", "died", "corrupt"]
OnGone = Callable[[Gone], None]


class RingCounts(NamedTuple):
    """What went through a ring. `dropped` counts packets that found a tap's ring full or were too long for it, or that
    a worker injected for a stream without a layer or a track that was gone."""

    packets: int
    dropped: int


class RingEngine(Protocol):
    """What a plane does with rings. Numbers are never used again."""

    def open_ring(self, number: int, ring: SharedRing, inject: bool) -> None: ...

    def bind_ring(self, number: int, stream: int, layer: tuple[int, int] | None) -> None: ...

    def close_ring(self, number: int) -> None: ...

    def ring_counts(self, number: int) -> tuple[int, int, bool] | None:
        """Packets, drops, and whether the worker wrote what cannot be."""
        ...


class RingHandle:
    """A ring of a plane. Give `fds` to the worker, which attaches `SharedRing` to them, then call `passed`."""

    def __init__(self, rings: PlaneRings, number: int, ring: SharedRing, inject: bool, on_gone: OnGone | None) -> None:
        self.number = number
        self._rings, self._ring, self._on_gone = rings, ring, on_gone
        self._inject = inject
        self._counts = RingCounts(0, 0)
        self._closed = False

    @property
    def fds(self) -> tuple[int, ...]:
        """The worker's end; empty once `passed`."""
        return self._ring.fds

    def passed(self) -> None:
        """The worker has its end: close our copy, so that its death shows. Repeatable."""
        self._ring.passed()

    @property
    def closed(self) -> bool:
        """By us, or because the worker is gone."""
        return self._closed

    def counts(self) -> RingCounts:
        """Up to now, to the end of a closed ring, or to when it was looked at last before its shard was lost."""
        if not self._closed:
            found = self._rings.engine.ring_counts(self.number)
            if found is not None:
                self._counts = RingCounts(*found[:2])
        return self._counts

    def close(self) -> None:
        """Remove its taps and free it. Repeatable."""
        if self._closed:
            return
        self._rings.forget(self)
        with contextlib.suppress(Overloaded):  # a failed plane; what is ours is freed all the same
            self.counts()
            if not self._inject:
                self._rings.submit(RemoveRingTaps(self.number))
            self._rings.engine.close_ring(self.number)
        self._closed = True
        self._ring.close()

    def _gone(self) -> None:
        """`life` has ended, by the worker or by an engine that found the ring corrupt."""
        why: Gone = "died"
        with contextlib.suppress(Overloaded):
            found = self._rings.engine.ring_counts(self.number)
            if found is not None and found[2]:
                why = "corrupt"
        if why == "died" and self._ring.words.load(PRODUCER_CLOSED if self._inject else CONSUMER_CLOSED):
            why = "closed"
        self.close()
        if self._on_gone is not None:
            self._on_gone(why)


class TapRing(RingHandle):
    """A ring that taps go to: `AddTap(…, ring=ring.number)`. A packet's stream is its tap."""


class InjectRing(RingHandle):
    """A ring by which a worker injects. Only streams that were bound here count, so that it reaches nothing else."""

    def bind(self, stream: int, track: int, layer: int) -> None:
        """Inject packets of `stream` into a layer of a track without session. UsageError when the ring is closed."""
        self._bind(stream, (track, layer))

    def unbind(self, stream: int) -> None:
        """Drop what comes of `stream`."""
        self._bind(stream, None)

    def _bind(self, stream: int, layer: tuple[int, int] | None) -> None:
        if self._closed:
            raise UsageError(f"ring {self.number} is closed")
        self._rings.engine.bind_ring(self.number, stream, layer)


class PlaneRings:
    """All rings of a plane."""

    def __init__(self, engine: RingEngine, submit: Callable[[Command], None]) -> None:
        self.engine, self.submit = engine, submit
        self._handles: dict[int, RingHandle] = {}
        self._taps: set[int] = set()
        self._numbers = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        for handle in self._handles.values():
            self._watch(handle)

    def open_tap(self, slots: int, slot_size: int, on_gone: OnGone | None) -> TapRing:
        number, ring = self._open(slots, slot_size, inject=False)
        handle = TapRing(self, number, ring, False, on_gone)
        self._taps.add(number)
        self._add(handle)
        return handle

    def open_inject(self, slots: int, slot_size: int, on_gone: OnGone | None) -> InjectRing:
        number, ring = self._open(slots, slot_size, inject=True)
        handle = InjectRing(self, number, ring, True, on_gone)
        self._add(handle)
        return handle

    def known(self, commands: Sequence[Command]) -> int:
        """How many commands come before the first tap to a ring that is not there."""
        for index, command in enumerate(commands):
            if isinstance(command, AddTap) and command.ring is not None and command.ring not in self._taps:
                return index
        return len(commands)

    def refuse(self, commands: Sequence[Command]) -> None:
        """Raise UsageError for what `known` left over, if anything."""
        for command in commands:
            raise UsageError(f"there is no such ring: {command}")

    def forget(self, handle: RingHandle) -> None:
        self._taps.discard(handle.number)
        if self._handles.pop(handle.number, None) is not None and self._loop is not None:
            self._loop.remove_reader(handle._ring.life.fileno())

    def close(self) -> None:
        """Free all, without a word. None can be opened any more."""
        self._closed = True
        for handle in list(self._handles.values()):
            handle.close()

    def _open(self, slots: int, slot_size: int, *, inject: bool) -> tuple[int, SharedRing]:
        if self._closed:
            raise UsageError("the plane is closed")
        ring = SharedRing.create(slots, slot_size)
        self._numbers += 1
        try:
            self.engine.open_ring(self._numbers, ring, inject)
        except BaseException:
            ring.close()
            raise
        return self._numbers, ring

    def _add(self, handle: RingHandle) -> None:
        self._handles[handle.number] = handle
        self._watch(handle)

    def _watch(self, handle: RingHandle) -> None:
        if self._loop is not None:
            self._loop.add_reader(handle._ring.life.fileno(), handle._gone)


class RingOpener:
    """The methods of a plane that open rings."""

    _rings: PlaneRings

    def open_tap_ring(
        self, *, slots: int = SLOTS, slot_size: int = SLOT_SIZE, on_gone: OnGone | None = None
    ) -> TapRing:
        return self._rings.open_tap(slots, slot_size, on_gone)

    def open_inject_ring(
        self, *, slots: int = SLOTS, slot_size: int = SLOT_SIZE, on_gone: OnGone | None = None
    ) -> InjectRing:
        return self._rings.open_inject(slots, slot_size, on_gone)
