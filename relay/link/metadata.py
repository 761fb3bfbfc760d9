"""The metadata channel: messages over HTTP/3 (RFC 9114), one long request with a body in each direction.

The subscriber sends `POST /link/v1/control`; the bodies are streams of messages. `GET /link/v1/catalog` answers with
the catalog as JSON, for people and probes. A message that breaks the rules closes the channel with the reason, and
nothing else: media paths do not notice.

What is sent is bounded without a look into the transport: a `ping` goes out with the bytes, and when more than
`channel_buffer_bytes` were written since the newest `pong`, the peer does not read, and the channel is closed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from aioquic.h3.events import DataReceived, H3Event, HeadersReceived

from relay.errors import UsageError
from relay.link.messages import Malformed, Message, MessageReader, Ping, Pong, encode
from relay.link.quic.connection import Connection
from relay.link.quic.h3 import Http3
from relay.settings import LinkFlowSettings

CONTROL_PATH = b"/link/v1/control"
CATALOG_PATH = b"/link/v1/catalog"
CONTENT_TYPE = b"application/vnd.costream.link"
MAX_REQUESTS = 64  # other requests on one channel: probes ask a few


def _nothing(_: object) -> None:
    """Ignore a call until a callback is set."""


ASKED = "only asked whether somebody is there"
"""Why a subscriber closes a connection that it dialled to learn whether the origin lives."""


class MetadataChannel:
    """One end. `on_message` takes what the peer says, pings excepted; `on_closed` comes once, with the reason.

    `now` is monotonic microseconds; call `tick` every so often.
    """

    def __init__(
        self,
        connection: Connection,
        settings: LinkFlowSettings,
        now: int,
        *,
        catalog: Callable[[], bytes] = lambda: b"[]",
        newest_sync_id: Callable[[], int] = lambda: 0,
    ) -> None:
        self.connection = connection
        self.on_message: Callable[[Message], None] = _nothing
        self.on_closed: Callable[[str], None] = _nothing
        self.closed = False
        self.rtt_us = 0
        self.sent = self.received = 0
        self._settings = settings
        self._catalog = catalog
        self._newest_sync_id = newest_sync_id
        self._reader = MessageReader(settings.max_message_bytes)
        self._stream: int | None = None
        self._requests = 0
        self._bytes = self._bytes_read = self._pinged_bytes = 0
        self._pings: OrderedDict[int, int] = OrderedDict()
        self._next_ping = 1
        self._pinged_at = self.heard_at = self._now = now
        connection.on_closed = lambda reason: self._end(reason)
        self._http = Http3(connection, self._receive)

    def open(self) -> None:
        """Subscriber: begin the request."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"https"),
            (b":authority", self.connection.peer.encode()),
            (b":path", CONTROL_PATH),
            (b"content-type", CONTENT_TYPE),
        ]
        self._stream = self._http.request(headers, ended=False)

    @property
    def unread_bytes(self) -> int:
        """Bytes written that the peer has not confirmed to have read."""
        return self._bytes - self._bytes_read

    def send(self, message: Message) -> None:
        """Send a message. Ignored once closed. Raises UsageError before there is a request, or when it is too long."""
        if self.closed:
            return
        if self._stream is None:
            raise UsageError("the metadata channel has no request yet")
        data = encode(message, self._settings.max_message_bytes)
        self._bytes += len(data)
        self.sent += 1
        if self.unread_bytes > self._settings.channel_buffer_bytes:
            self.close("the peer does not read its metadata")
            return
        self._http.send(self._stream, data)
        if self._bytes - self._pinged_bytes > self._settings.channel_buffer_bytes // 8:
            self._ping(self._now)

    def tick(self, now: int) -> None:
        """Ping when it is time; close when the peer has been silent for too long."""
        self._now = now
        if self.closed:
            return
        if now - self.heard_at > self._settings.silence_ms * 1000:
            self.close("the metadata channel is silent")
        elif self._stream is not None and now - self._pinged_at >= self._settings.ping_ms * 1000:
            self._ping(now)

    def close(self, reason: str) -> None:
        """End the channel and its connection."""
        if not self.closed:
            self.connection.close(reason)
            self._end(reason)

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.on_closed(reason)

    def _ping(self, now: int) -> None:
        number, self._next_ping = self._next_ping, self._next_ping + 1
        self._pinged_at = now
        self._pinged_bytes = self._bytes
        self._pings[number] = self._bytes
        if len(self._pings) > MAX_REQUESTS:
            self._pings.popitem(last=False)
        self.send(Ping(id=number, at=now))

    def _receive(self, event: H3Event) -> None:
        if self.closed:
            return
        self.heard_at = self._now
        if isinstance(event, HeadersReceived):
            self._headers(event)
        elif isinstance(event, DataReceived) and event.stream_id == self._stream:
            self._body(event.data)
        if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended and event.stream_id == self._stream:
            self.close("the peer ended the metadata channel")

    def _headers(self, event: HeadersReceived) -> None:
        fields = dict(event.headers)
        if self.connection.is_client:
            status = fields.get(b":status", b"")
            if event.stream_id == self._stream and status != b"200":
                self.close(f"the metadata channel was answered with {status.decode(errors='replace')}")
            return
        self._requests += 1
        method, path = fields.get(b":method"), fields.get(b":path")
        if self._requests > MAX_REQUESTS:
            self.close("too many requests on one metadata channel")
        elif (method, path) == (b"GET", CATALOG_PATH):
            headers = [(b":status", b"200"), (b"content-type", b"application/json")]
            self._http.respond(event.stream_id, headers, self._catalog())
        elif (method, path) == (b"POST", CONTROL_PATH) and self._stream is None:
            self._stream = event.stream_id
            headers = [(b":status", b"200"), (b"content-type", CONTENT_TYPE)]
            self._http.respond(event.stream_id, headers, ended=False)
        else:
            self._http.respond(event.stream_id, [(b":status", b"409" if path == CONTROL_PATH else b"404")])

    def _body(self, data: bytes) -> None:
        try:
            for message in self._reader.receive(data):
                self.received += 1
                if isinstance(message, Ping):
                    self.send(Pong(id=message.id, at=message.at, sync_id=self._newest_sync_id()))
                elif isinstance(message, Pong):
                    self._ponged(message)
                else:
                    self.on_message(message)
                if self.closed:
                    return
        except Malformed as error:
            self.close(str(error))

    def _ponged(self, message: Pong) -> None:
        read = self._pings.pop(message.id, None)
        if read is not None:
            self._bytes_read = max(self._bytes_read, read)
            self.rtt_us = max(0, self._now - message.at)
