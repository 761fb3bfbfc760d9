"""Hostile and broken peers on a link's channel and paths: each is closed with a reason, and nobody else notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived

from relay.link import messages as m
from relay.link.media_path import BindRefused, Inlet
from relay.link.metadata import CATALOG_PATH, CONTROL_PATH
from relay.link.quic.connection import Connection
from relay.link.quic.h3 import Http3
from relay.ports import RoomEvent
from relay.settings import LinkFlowSettings
from tests.link.link_world import LinkWorld, publication, world
from tests.link.quic_world import ROQ, node, until

LIMIT = 1 << 18
LINK = "f" * 32


class Stranger:
    """A peer with a good certificate that says what it likes over HTTP/3."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.statuses: dict[int, bytes] = {}
        self.bodies: dict[int, bytes] = {}
        self.closed: list[str] = []
        connection.on_closed = self.closed.append
        self.http = Http3(connection, self._event)

    def _event(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.statuses[event.stream_id] = dict(event.headers)[b":status"]
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data

    def ask(self, method: bytes, path: bytes, body: bytes = b"", *, ended: bool = False) -> int:
        headers = [(b":method", method), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path)]
        return self.http.request(headers, body, ended=ended)

    def said(self, stream: int) -> list[m.Message]:
        return list(m.MessageReader(LIMIT).receive(self.bodies.get(stream, b"")))


@asynccontextmanager
async def stranger(w: LinkWorld, who: str = "b") -> AsyncIterator[Stranger]:
    async with node(who) as peer:
        yield Stranger(await peer.endpoint.connect(w.server._endpoint.address, "h3", "a"))


def hello(**more: object) -> bytes:
    return m.encode(m.Hello(**({"node": "b", "link": LINK} | more)), LIMIT)  # type: ignore[arg-type]


def raw(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (raw(b"not json"), "no JSON object"),
        (raw(b'{"type":"hello","version":9}'), "speaks version 9"),
        ((1 << 30).to_bytes(4, "big"), "longer than 262144"),
        (m.encode(m.Ping(id=1, at=1), LIMIT) + m.encode(m.Bound(), LIMIT), "began with a bound message"),
        (hello(node="c"), "b says that it is c"),
        (hello() + raw(b'{"type":"subscribe"}'), "subscribe: request: Field required"),
        (hello() + m.encode(m.Catalog(version=1), LIMIT), "does not send catalog messages"),
        (hello() + hello(), "does not send hello messages"),
    ],
)
async def test_a_channel_that_breaks_the_rules_is_closed_with_the_reason(sent: bytes, reason: str) -> None:
    async with world() as w:
        await w.watching()
        async with stranger(w) as peer:
            peer.ask(b"POST", CONTROL_PATH, sent)
            await until(lambda: peer.closed, "the channel is closed")
            assert reason in peer.closed[0]
        await w.publish(0.1)
        await until(lambda: w.lost() == 0, "the good link is not disturbed")
        assert w.client.dials["metadata"] == 1


async def test_requests_that_are_none_of_ours_get_their_status() -> None:
    async with world() as w, stranger(w) as peer:
        control = peer.ask(b"POST", CONTROL_PATH, hello())
        again = peer.ask(b"POST", CONTROL_PATH, hello())
        nowhere = peer.ask(b"GET", b"/etc/passwd", ended=True)
        catalog = peer.ask(b"GET", CATALOG_PATH, ended=True)
        await until(lambda: len(peer.statuses) == 4, "four answers")
        assert peer.statuses == {control: b"200", again: b"409", nowhere: b"404", catalog: b"200"}
        await until(lambda: b'"cam"' in peer.bodies.get(catalog, b""), "the catalog")
        (answer,) = [said for said in peer.said(control) if isinstance(said, m.Hello)]
        assert answer == m.Hello(node="a", link=LINK, capabilities=("parity", "absent"), instance=w.server.instance)
        for _ in range(70):
            peer.ask(b"GET", b"/", ended=True)
        await until(lambda: peer.closed, "too many requests")


async def test_who_says_nothing_or_falls_silent_is_let_go() -> None:
    async with world(LinkFlowSettings(call_timeout_ms=200, silence_ms=500, ping_ms=100)) as w:
        await w.up()
        async with stranger(w) as peer, stranger(w) as other:
            peer.ask(b"POST", CONTROL_PATH)
            other.ask(b"POST", CONTROL_PATH, hello())
            await until(lambda: peer.closed and other.closed, "both are let go")
            assert peer.closed == ["no hello in time"]
            assert other.closed == ["the metadata channel is silent"]
        await until(lambda: list(w.server.links) == [w.client.link], "the silent one's link is forgotten")
        assert w.client.dials["metadata"] == 1


async def test_who_does_not_confirm_what_it_reads_is_let_go() -> None:
    small = LinkFlowSettings(channel_buffer_bytes=20_000)
    async with world(small) as w, stranger(w) as peer:
        await w.up()
        w.client.watch_room("r")
        peer.ask(b"POST", CONTROL_PATH, hello() + m.encode(m.WatchRoom(room="r"), LIMIT))
        await until(lambda: sum("r" in link.rooms for link in w.server.links.values()) == 2, "both watch")
        sent: list[int] = []

        def read() -> bool:
            return [sync_id for kind, sync_id in w.subscriber.order if kind == "event"] == sent

        while not peer.closed:
            sent.append(len(sent) + 1)
            w.server.room_events("r", [RoomEvent(sent[-1], "noise", {"x": "y" * 500})])
            await until(read, "the good one reads")
        assert peer.closed == ["the peer does not read its metadata"]
        assert w.client.dials["metadata"] == 1


async def test_a_link_belongs_to_who_began_it() -> None:
    async with world() as w:
        await w.watching()
        async with stranger(w, "a") as peer:
            peer.ask(b"POST", CONTROL_PATH, hello(node="a", link=w.client.link))
            await until(lambda: peer.closed, "the thief is refused")
            assert peer.closed == ["this link is another node's"]
        for who, link, generation, reason in (
            ("b", LINK, 9, "no such link"),
            ("a", w.client.link, 9, "no such link"),
            ("b", w.client.link, 0, "a newer connection of this path is known"),
        ):
            async with node(who) as thief:
                connection = await thief.endpoint.connect(w.server._endpoint.address, ROQ, "a")
                inlet = Inlet(connection, lambda batch: None)
                connection.on_closed = inlet.lost
                with pytest.raises(BindRefused, match=reason):
                    await inlet.bind(link, "primary", generation, 5.0)
        await w.publish(0.1)
        await until(lambda: w.lost() == 0, "the owner's media flows on")


@pytest.mark.parametrize("first", [raw(b"{"), raw(b'{"type":"bound"}'), b"\xff" * 8, b""])
async def test_a_path_that_does_not_name_its_link_is_closed(first: bytes) -> None:
    async with world(LinkFlowSettings(call_timeout_ms=300)) as w, node("b") as peer:
        await w.up()
        connection = await peer.endpoint.connect(w.server._endpoint.address, ROQ, "a")
        closed: list[str] = []
        connection.on_closed = closed.append
        if first:
            connection.send_stream(connection.open_stream(), first)
        await until(lambda: closed, "the path is closed")
        assert len(w.served.paths) == 2


async def test_garbage_on_a_bound_path_is_counted() -> None:
    async with world() as w:
        await w.watching()
        path = w.client._paths["primary"]
        for garbage in (b"\xff", b"\x05", b"\x05\x80\xcd\x00\x00", b"\x05" + bytes(50), b"\x99garbage"):
            path.send_datagram(garbage)
        await until(lambda: w.served.sender.malformed_feedback + w.served.sender.unknown_flow >= 5, "five are counted")
        await w.publish(0.1)
        await until(lambda: w.lost() == 0, "and nothing else happens")


async def test_limits_and_unknown_publications_are_refused_by_code() -> None:
    async with world(LinkFlowSettings(max_flows=1)) as w, stranger(w) as peer:
        wishes = [
            m.Subscribe(request=1, publication="nothing", epoch=1, layers=(0,)),
            m.Subscribe(request=2, publication="cam", epoch=0, layers=(0,)),
            m.Subscribe(request=3, publication="cam", epoch=1, layers=(0, 1)),
            m.Subscribe(request=4, publication="cam", epoch=1, layers=(0, 0)),
            m.Subscribe(request=5, publication="cam", epoch=1, layers=(9,)),
            m.Subscribe(request=6, publication="cam", epoch=1, layers=()),
            m.KeyframeRequest(publication="cam", layer=0),
        ]
        stream = peer.ask(b"POST", CONTROL_PATH, hello() + b"".join(m.encode(wish, LIMIT) for wish in wishes))
        await until(lambda: len(peer.said(stream)) == 8, "hello, catalog and six answers")
        answers = {said.request: said for said in peer.said(stream) if isinstance(said, m.Refused | m.Subscribed)}
        assert [getattr(answers[at], "code", "") for at in (1, 2, 3)] == ["NOT_FOUND", "FENCED", "LIMIT"]
        assert [len(getattr(answers[at], "flows", "?")) for at in (4, 5, 6)] == [1, 0, 0]
        assert w.origin.keyframes == [("cam", 0)]
        assert not w.origin.taps
        peer.http.send(stream, m.encode(m.Goodbye(), LIMIT))
        await until(lambda: LINK not in w.server.links, "the goodbye ends the link")


async def test_a_large_catalog_comes_in_parts() -> None:
    async with world() as w:
        await w.up()
        many = [publication(f"p{index}") for index in range(300)]
        w.server.set_catalog(many)
        await until(lambda: len(w.client.catalog) == 300, "all of it")
        assert w.served.channel is not None
        w.served.channel.close("test")
        await until(lambda: w.subscriber.lost_paths("metadata"), "the channel is lost")
        await w.up()
        await until(lambda: w.client._wants._version == w.server._version, "the catalog again")
        await until(lambda: len(w.client.catalog) == 300, "in full")
