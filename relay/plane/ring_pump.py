"""The reference plane's ends of its rings: taps go out, injected packets come in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from relay.errors import PeerError
from relay.plane.shared_ring import RingReader, RingWriter, SharedRing

Tapped = tuple[int, bytes, int, int | None]
BATCH = 64  # packets that one wake-up takes from a ring, so that the loop's other work is never kept waiting for long


class _Inject:
    def __init__(self, reader: RingReader) -> None:
        self.reader = reader
        self.streams: dict[int, tuple[int, int]] = {}
        self.packets = self.dropped = 0
        self.corrupt = self.again = self.closed = False


class RingPump:
    """See `relay.plane.rings.RingEngine`. `inject` takes a packet and says whether it did; `settle` follows a batch."""

    def __init__(self, inject: Callable[[int, int, bytes], bool], settle: Callable[[], None]) -> None:
        self._inject, self._settle = inject, settle
        self._taps: dict[int, RingWriter] = {}
        self._injects: dict[int, _Inject] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        for one in self._injects.values():
            self._listen(one)

    def open_ring(self, number: int, ring: SharedRing, inject: bool) -> None:
        if inject:
            one = self._injects[number] = _Inject(ring.reader())
            self._listen(one)
        else:
            self._taps[number] = ring.writer()

    def bind_ring(self, number: int, stream: int, layer: tuple[int, int] | None) -> None:
        streams = self._injects[number].streams
        if layer is None:
            streams.pop(stream, None)
        else:
            streams[stream] = layer

    def close_ring(self, number: int) -> None:
        if (writer := self._taps.pop(number, None)) is not None:
            writer.close()
        one = self._injects.pop(number, None)
        if one is not None:
            self._deafen(one)
            one.closed = True
            one.reader.close()

    def ring_counts(self, number: int) -> tuple[int, int, bool] | None:
        if (writer := self._taps.get(number)) is not None:
            return writer.packets, writer.dropped, False
        one = self._injects.get(number)
        return None if one is None else (one.packets, one.dropped, one.corrupt)

    def put(self, tapped: list[Tapped]) -> list[tuple[int, bytes, int]]:
        """Put tapped packets into their rings and wake the readers. Returns those that are for no ring."""
        others, used = [], set()
        for tap, packet, arrival, ring in tapped:
            if ring is None:
                others.append((tap, packet, arrival))
            elif (writer := self._taps.get(ring)) is not None:
                writer.put(tap, arrival, packet, more=True)
                used.add(writer)
        for writer in used:
            writer.flush()
        return others

    def _listen(self, one: _Inject) -> None:
        if self._loop is not None:
            self._loop.add_reader(one.reader.fileno(), self._readable, one)
            self._loop.call_soon(self._readable, one)  # the first look asks to be woken

    def _deafen(self, one: _Inject) -> None:
        if self._loop is not None and not one.closed:
            self._loop.remove_reader(one.reader.fileno())

    def _readable(self, one: _Inject) -> None:
        one.again = False
        if one.corrupt or one.closed:
            return
        try:
            batch = one.reader.read(BATCH)
        except PeerError:
            one.corrupt = True
            self._deafen(one)
            one.reader.ring.life.shutdown(socket.SHUT_RDWR)  # whoever watches the ring hears of it
            return
        for stream, _, data in batch:
            layer = one.streams.get(stream)
            if layer is not None and self._inject(*layer, bytes(data)):
                one.packets += 1
            else:
                one.dropped += 1
        if not batch:
            if one.reader.ring.gone:
                self._deafen(one)
            return
        one.reader.release()
        self._go_on(one)
        self._settle()

    def _go_on(self, one: _Inject) -> None:
        """There may be more, of which no wake-up tells."""
        if self._loop is not None and not one.again:
            one.again = True
            self._loop.call_soon(self._readable, one)
