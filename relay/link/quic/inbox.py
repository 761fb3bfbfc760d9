"""What comes in on a connection, kept until somebody takes it, and no more than that."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.quic import events

from relay.link.transport import DatagramCounts

UNHEARD = 256  # datagrams kept, and stream pieces, until their callback is set


class Inbox:
    """The callbacks of one connection: datagrams, and streams as their pieces or as aioquic's events."""

    def __init__(self, counts: DatagramCounts) -> None:
        self.on_datagrams: Callable[[list[bytes]], None] | None = None
        self.on_stream: Callable[[int, bytes, bool], None] | None = None
        self.on_event: Callable[[events.QuicEvent], None] | None = None
        self._counts = counts
        self._datagrams: list[bytes] = []
        self._pieces: list[events.StreamDataReceived] = []

    @property
    def waits(self) -> bool:
        """Whether anything was kept."""
        return bool(self._datagrams or self._pieces)

    def piece(self, event: events.StreamDataReceived) -> bool:
        """Take a piece of a stream; False when nobody reads and more than is kept has come."""
        if self.on_event is not None:
            self.on_event(event)
        elif self.on_stream is not None:
            self.on_stream(event.stream_id, event.data, event.end_stream)
        elif len(self._pieces) < UNHEARD:
            self._pieces.append(event)
        else:
            return False
        return True

    def reread(self) -> None:
        """Hand out the pieces that were kept, when somebody reads by now."""
        if self._pieces and (self.on_stream or self.on_event):
            waiting, self._pieces = self._pieces, []
            for event in waiting:
                self.piece(event)

    def deliver(self, arrived: list[bytes]) -> None:
        """Hand out datagrams, with those that were kept."""
        self._counts.received += len(arrived)
        if self._datagrams:
            arrived, self._datagrams = self._datagrams + arrived, []
        if not arrived:
            return
        if self.on_datagrams is not None:
            self.on_datagrams(arrived)
        else:
            self._datagrams = arrived[:UNHEARD]
            self._counts.unheard += len(arrived) - len(self._datagrams)
