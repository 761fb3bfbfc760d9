"""HTTP/3 (RFC 9114) on a connection with ALPN `h3`: aioquic's sans-IO `H3Connection`, fed and flushed by ours."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.h3.connection import H3Connection
from aioquic.h3.events import H3Event
from aioquic.quic.events import QuicEvent

from relay.link.quic.connection import Connection

ALPN = "h3"
Headers = list[tuple[bytes, bytes]]


class Http3:
    """One end of HTTP/3. `on_event` takes HeadersReceived and DataReceived as they come.

    Make it as soon as the connection is known; what arrived before is kept for it. A peer that breaks HTTP/3 is closed
    by aioquic with the RFC's error code.
    """

    def __init__(self, connection: Connection, on_event: Callable[[H3Event], None]) -> None:
        self.connection = connection
        self._on_event = on_event
        self._h3 = H3Connection(connection.quic)
        connection.on_event = self._receive
        connection.transmit_soon()

    def request(self, headers: Headers, body: bytes = b"", *, ended: bool = True) -> int:
        """Client: begin a request. Returns its stream, for `send` when not `ended`."""
        stream = self.connection.quic.get_next_available_stream_id()
        self.respond(stream, headers, body, ended=ended)
        return stream

    def respond(self, stream: int, headers: Headers, body: bytes = b"", *, ended: bool = True) -> None:
        """Send headers, and the first or only part of the body."""
        if self.connection.closed:
            return
        self._h3.send_headers(stream, headers, end_stream=ended and not body)
        if body:
            self._h3.send_data(stream, body, end_stream=ended)
        self.connection.transmit_soon()

    def send(self, stream: int, body: bytes, *, ended: bool = False) -> None:
        """Send a further part of a body."""
        if not self.connection.closed:
            self._h3.send_data(stream, body, end_stream=ended)
            self.connection.transmit_soon()

    def _receive(self, event: QuicEvent) -> None:
        for found in self._h3.handle_event(event):
            self._on_event(found)
