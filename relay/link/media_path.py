"""One media path as the drivers use it: how it is tied to its link, and packets that are too long for a datagram.

A fresh connection carries a `bind` message on its first bidirectional stream, answered by `bound` (RTP over QUIC itself
uses unidirectional streams only). Media is sent as datagrams; a packet that is longer than the path takes goes on a
unidirectional stream of its flow (draft-ietf-avtcore-rtp-over-quic-14 section 5.1), reliably.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from relay.errors import PeerError
from relay.link import roq, varint
from relay.link.messages import Bind, Bound, Malformed, MessageReader, encode
from relay.link.path import PathName
from relay.link.transport import Connection

MAX_BINDING_BYTES = 4096
MAX_STREAMS = 1024  # of one path at a time
_FROM_CLIENT_BOTH_WAYS = 0  # low two bits of a stream id, RFC 9000 section 2.1
_ONE_WAY = 2


class BindRefused(PeerError):
    """The origin does not take this path: it does not know the link, or the link is another node's."""


class MediaPath:
    """One connection that carries media. `waiting` counts datagrams that the transport has not sent yet."""

    def __init__(self, name: PathName, connection: Connection, generation: int) -> None:
        self.name = name
        self.connection = connection
        self.generation = generation
        self.long_packets = 0
        self._streams: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """Datagrams that are queued in the transport."""
        counts = self.connection.counts
        return counts.queued - counts.sent - counts.stale - counts.flushed

    def send(self, datagram: bytes, token: object = None) -> bool:
        """Send a datagram, or, when it is too long for the path, its packet on the flow's stream."""
        connection = self.connection
        if len(datagram) <= connection.max_datagram or connection.closed:
            return connection.send_datagram(datagram, token)
        flow, start = varint.decode(datagram)
        stream = self._streams.get(flow)
        data = roq.stream_packet(datagram[start:])
        if stream is None:
            stream = self._streams[flow] = connection.open_stream(unidirectional=True)
            data = roq.stream_header(flow) + data
        connection.send_stream(stream, data)
        self.long_packets += 1
        return True

    def flush(self) -> None:
        """Drop what has not been sent yet: another path carries now."""
        self.connection.flush_datagrams()
        for stream in self._streams.values():
            self.connection.reset_stream(stream, 0)
        self._streams.clear()


class Binding:
    """The origin's end of a connection that is not tied to a link yet. `on_bind` takes its one message, `on_refused`
    why there is none that can be taken."""

    def __init__(
        self,
        connection: Connection,
        on_bind: Callable[[Binding, Bind], None],
        timeout_s: float,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.connection = connection
        self._on_bind = on_bind
        self._on_refused = on_refused
        self._reader = MessageReader(MAX_BINDING_BYTES)
        self._stream: int | None = None
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self.refuse, "no link was named in time")
        connection.on_closed = lambda reason: self._deadline.cancel()
        connection.on_stream = self._receive

    def _receive(self, stream: int, data: bytes, ended: bool) -> None:
        if stream & 3 != _FROM_CLIENT_BOTH_WAYS or self._stream not in {None, stream}:
            self.refuse("a stream that a path does not have")
            return
        self._stream = stream
        try:
            for message in self._reader.receive(data):
                self._deadline.cancel()
                if isinstance(message, Bind):
                    self._on_bind(self, message)
                else:
                    self.refuse(f"a path began with a {message.type} message")
                return
        except Malformed as error:
            self.refuse(str(error))

    def accept(self) -> None:
        """Tell the subscriber that media comes here."""
        if self._stream is not None:
            self.connection.send_stream(self._stream, encode(Bound(), MAX_BINDING_BYTES), True)

    def refuse(self, reason: str) -> None:
        """Close, which tells why."""
        self._deadline.cancel()
        self._on_refused(reason)
        self.connection.close(reason)


class Inlet:
    """The subscriber's end of a path: binds it, and takes its datagrams and streams.

    `on_datagrams` takes what came, all in datagram framing.
    """

    def __init__(self, connection: Connection, on_datagrams: Callable[[list[bytes]], None]) -> None:
        self.connection = connection
        self.malformed = 0
        self._on_datagrams = on_datagrams
        self._reader = MessageReader(MAX_BINDING_BYTES)
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._readers: dict[int, roq.StreamReader] = {}
        connection.on_stream = self._receive
        connection.on_reset = lambda stream, code: self._forget(stream)
        connection.on_datagrams = on_datagrams

    async def bind(self, link: str, path: PathName, generation: int, timeout_s: float) -> None:
        """Tie the connection to a link. Raises BindRefused (see `lost`), TimeoutError."""
        stream = self.connection.open_stream()
        self.connection.send_stream(
            stream, encode(Bind(link=link, path=path, generation=generation), MAX_BINDING_BYTES), True
        )
        async with asyncio.timeout(timeout_s):
            refusal = await self._answer
        if refusal:
            raise BindRefused(refusal)

    def lost(self, reason: str) -> None:
        """Tell that the connection ended, and why: there will be no other answer."""
        if not self._answer.done():
            self._answer.set_result(reason or "closed")

    def _receive(self, stream: int, data: bytes, ended: bool) -> None:
        try:
            if stream & _ONE_WAY:
                self._media(stream, data, ended)
                return
            for message in self._reader.receive(data):
                if not self._answer.done() and isinstance(message, Bound):
                    self._answer.set_result("")
        except (Malformed, varint.Malformed) as error:
            self.malformed += 1
            self.connection.close(str(error))

    def _media(self, stream: int, data: bytes, ended: bool) -> None:
        reader = self._readers.get(stream)
        if reader is None:
            if len(self._readers) >= MAX_STREAMS:
                raise Malformed(f"more than {MAX_STREAMS} media streams at a time")
            reader = self._readers[stream] = roq.StreamReader()
        found = reader.receive(data, ended)
        if ended:
            self._forget(stream)
        if found:
            self._on_datagrams([roq.frame(part.flow, part.packet) for part in found])

    def _forget(self, stream: int) -> None:
        with suppress(KeyError):
            del self._readers[stream]
