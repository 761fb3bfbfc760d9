"""HTTP/3 on ALPN h3 over the same endpoint: requests, bodies, early requests, and peers that break the rules."""

from __future__ import annotations

from aioquic.h3.events import DataReceived, H3Event, HeadersReceived

from relay.link.quic.connection import Connection
from relay.link.quic.h3 import ALPN, Headers, Http3
from tests.link.quic_world import Node, Record, node, pair, until

REQUEST: Headers = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/v1")]


class Echo:
    """A server that answers each request with its body and the caller's verified name."""

    def __init__(self, connection: Connection) -> None:
        self.bodies: dict[int, bytes] = {}
        self.http = Http3(connection, self._event)

    def _event(self, event: H3Event) -> None:
        match event:
            case HeadersReceived(stream_id=stream, stream_ended=ended):
                self.bodies[stream] = b""
            case DataReceived(stream_id=stream, data=data, stream_ended=ended):
                self.bodies[stream] += data
            case _:
                return
        if ended:
            peer = self.http.connection.peer.encode()
            self.http.respond(stream, [(b":status", b"200"), (b"x-peer", peer)], self.bodies[stream])


class Client:
    def __init__(self, connection: Connection) -> None:
        self.headers: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.http = Http3(connection, self._event)

    def _event(self, event: H3Event) -> None:
        match event:
            case HeadersReceived(stream_id=stream, headers=headers, stream_ended=ended):
                self.headers[stream] = dict(headers)
            case DataReceived(stream_id=stream, data=data, stream_ended=ended):
                self.bodies[stream] = self.bodies.get(stream, b"") + data
            case _:
                return
        if ended:
            self.done.add(stream)


def serve(a: Node) -> list[Echo]:
    served: list[Echo] = []
    a.endpoint.on_connection = lambda connection: served.append(Echo(connection))  # type: ignore[arg-type]
    return served


async def test_requests_and_answers() -> None:
    async with pair() as (a, b):
        serve(a)
        client = Client(await b.endpoint.connect(a.endpoint.address, ALPN, "a"))
        small = client.http.request(REQUEST, b"hello")
        empty = client.http.request(REQUEST)
        large = client.http.request(REQUEST, b"x" * 400_000)
        pieces = client.http.request(REQUEST, b"1", ended=False)
        client.http.send(pieces, b"2")
        client.http.send(pieces, b"3", ended=True)
        await until(lambda: client.done >= {small, empty, large, pieces})
        assert client.headers[small] == {b":status": b"200", b"x-peer": b"b"}
        assert client.bodies == {small: b"hello", large: b"x" * 400_000, pieces: b"123"}


async def test_a_request_in_early_data() -> None:
    async with pair() as (a, b):
        served = serve(a)
        first = Client(await b.endpoint.connect(a.endpoint.address, ALPN, "a"))
        await until(lambda: b.endpoint.tickets._by_key)
        first.http.connection.close()
        again = Client(await b.endpoint.connect(a.endpoint.address, ALPN, "a"))
        assert again.http.connection.early
        stream = again.http.request(REQUEST, b"early")
        await until(lambda: stream in again.done)
        assert again.bodies == {stream: b"early"}
        assert len(served) == 2


async def test_media_and_metadata_share_a_socket() -> None:
    async with node("a", serves=True) as a, node("b") as b:
        media: list[Record] = []
        echo: list[Echo] = []
        a.endpoint.on_connection = lambda connection: (
            echo.append(Echo(connection)) if connection.alpn == ALPN else media.append(Record(connection))  # type: ignore[arg-type,func-returns-value]
        )
        client = Client(await b.endpoint.connect(a.endpoint.address, ALPN, "a"))
        path = await b.dial(a.endpoint.address)
        path.connection.send_datagram(b"media")
        stream = client.http.request(REQUEST, b"metadata")
        await until(lambda: stream in client.done and media and media[0].datagrams == [b"media"])


async def test_a_peer_that_breaks_http_is_closed_with_its_code() -> None:
    async with pair() as (a, b):
        serve(a)
        dialled = await b.dial(a.endpoint.address, alpn=ALPN)
        stream = dialled.connection.open_stream()
        dialled.connection.send_stream(stream, b"\x00\x05hello", True)  # DATA before HEADERS
        await until(lambda: dialled.closed)
        assert "DATA frame is not allowed" in dialled.closed[0]
        assert a.endpoint.connections == ()
