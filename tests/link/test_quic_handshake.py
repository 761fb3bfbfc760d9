"""Who gets in: right, wrong, missing and expired certificates on both sides, over real sockets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog

from relay.errors import SettingsError, UsageError
from relay.link.quic import Identity, Limits, identity_of, open_endpoint
from relay.link.transport import HandshakeFailed, IdentityRefused
from relay.settings import LinkSettings
from tests.link.quic_world import ROQ, cluster, forged, identity, linked, node, pair, proxy, until


def nobody() -> Identity:
    """A client that shows no certificate."""
    return replace(identity("b"), certificate=None, key=None)  # type: ignore[arg-type]


async def test_both_sides_know_each_other() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        assert (dialled.connection.peer, served.connection.peer) == ("a", "b")
        assert (dialled.connection.alpn, served.connection.alpn) == (ROQ, ROQ)
        assert not dialled.connection.early
        assert dialled.connection.remote == a.endpoint.address
        assert served.connection.remote == b.endpoint.address
        assert a.endpoint.counts.retries == 1


async def test_settings_make_an_endpoint() -> None:
    files = {"certificate": cluster() / "a.pem", "key": cluster() / "a.key", "ca": cluster() / "ca.pem"}
    settings = LinkSettings(host="127.0.0.1", port=0, **{name: str(path) for name, path in files.items()})
    who = identity_of(settings)
    assert who is not None
    assert who.name == "a"
    assert identity_of(LinkSettings()) is None
    endpoint = open_endpoint(settings, who, alpns=(ROQ,))
    try:
        with pytest.raises(SettingsError, match="cannot be opened for links"):
            open_endpoint(settings, who, port=endpoint.address[1])
    finally:
        await endpoint.close()
    with pytest.raises(UsageError):
        await endpoint.connect(("127.0.0.1", 1), ROQ, "a")


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (lambda: nobody(), "no certificate was shown"),
        (lambda: identity("b", of="other", trusts="one"), "not one of this cluster's nodes"),
        (lambda: forged(days=(-2, -1)), "the certificate expired at"),
        (lambda: forged(days=(1, 2)), "the certificate is not valid before"),
        (lambda: forged(uris=()), "where one is needed"),
    ],
    ids=["missing", "other-ca", "expired", "not-yet", "nameless"],
)
async def test_a_client_that_is_no_node_is_refused(who: Any, told: str) -> None:
    async with node("a", serves=True) as a, node(who()) as b:
        with structlog.testing.capture_logs() as lines, pytest.raises(IdentityRefused, match="refused our certificate"):
            await b.dial(a.endpoint.address)
        await until(lambda: a.refused)
        assert told in a.refused[0]
        assert a.records == []
        assert a.endpoint.counts.refused == 1
        ours = [line for line in lines if line["event"] == "link refused" and told in line["reason"]]
        assert ours
        assert all(line["log_level"] == "warning" for line in ours)


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (lambda: identity("b"), "for node 'b', not for 'a'"),
        (lambda: identity("a", of="other", trusts="one"), "not one of this cluster's nodes"),
        (lambda: forged(days=(-2, -1)), "the certificate expired at"),
    ],
    ids=["other-name", "other-ca", "expired"],
)
async def test_a_server_that_is_not_the_expected_node_is_refused(who: Any, told: str) -> None:
    async with node(who(), serves=True) as a, node("b") as b:
        with pytest.raises(IdentityRefused, match=told):
            await b.dial(a.endpoint.address)
        await until(lambda: a.refused)
        assert told in a.refused[0]
        assert a.records == []


async def test_what_a_refused_client_sends_is_never_seen() -> None:
    """The client believes it is connected as soon as it has sent its certificate, and sends right behind it."""
    async with node("a", serves=True) as a, node(identity("b", of="other", trusts="one")) as b:
        sent: list[Any] = []
        send = b.endpoint.send

        def hurry(datagrams: list[Any]) -> None:
            send(datagrams)
            for connection in b.endpoint.connections:
                if connection.quic._handshake_complete and not sent:
                    connection.quic.queue_datagram(b"early bird", None, 0.0)
                    connection.quic.send_stream_data(0, b"early bird", True)
                    sent.extend(connection.quic.datagrams_to_send(0.0))
                    send(sent)

        b.endpoint.send = hurry  # type: ignore[method-assign]
        with pytest.raises(IdentityRefused):
            await b.dial(a.endpoint.address)
        await until(lambda: a.refused)
        assert sum(len(data) for data, _ in sent) > 20
        assert a.records == []


async def test_nobody_answers() -> None:
    async with node("b", limits=Limits(handshake_s=0.3)) as b:
        with pytest.raises(HandshakeFailed, match=r"no handshake within 0\.3 s"):
            await b.dial(("127.0.0.1", 1))


async def test_a_dialler_that_gives_up_leaves_nothing() -> None:
    async with node("b") as b:
        dialling = asyncio.create_task(b.dial(("127.0.0.1", 1)))
        await until(lambda: b.endpoint.connections)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        assert b.endpoint.connections == ()


async def test_another_protocol_is_refused() -> None:
    async with pair() as (a, b):
        with pytest.raises(HandshakeFailed, match="No common ALPN"):
            await b.dial(a.endpoint.address, alpn="smtp")
        assert a.records == []


async def test_a_handshake_survives_loss_and_disorder() -> None:
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        count = 0

        def harm(data: bytes, towards_server: bool) -> bool:
            nonlocal count
            count += 1
            return count % 3 == 0 and count < 12

        between.harm = harm
        dialled, served = await linked(a, b, between.address)
        assert (dialled.connection.peer, served.connection.peer) == ("a", "b")


async def test_strangers_do_not_fill_the_server() -> None:
    """Handshakes that are never finished are bounded in number and in time; a node still gets in after them."""
    server = node("a", serves=True, limits=Limits(handshake_s=0.5), max_handshakes=4)
    async with server as a, node("b", limits=Limits(handshake_s=0.4)) as b, proxy(a.endpoint.address) as between:
        between.harm = lambda data, towards_server: not towards_server and data[0] & 0xF0 != 0xF0  # only Retry
        results = await asyncio.gather(*(b.dial(between.address) for _ in range(8)), return_exceptions=True)
        assert all(isinstance(result, HandshakeFailed) for result in results)
        assert a.endpoint.counts.dropped["busy"] > 0
        assert len(a.endpoint.connections) <= 4
        await until(lambda: not a.endpoint.connections)
        between.harm = lambda data, towards_server: False
        assert (await b.dial(between.address)).connection.peer == "a"


async def test_closing_is_told_to_the_other_side_at_once() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        dialled.connection.close("enough")
        assert dialled.closed == ["enough"]
        await until(lambda: served.closed)
        assert served.closed == ["enough"]
        assert a.endpoint.connections == b.endpoint.connections == ()
        dialled.connection.close("again")
        dialled.connection.ping()
        dialled.connection.send_stream(0, b"x")
        assert not dialled.connection.send_datagram(b"late")
        assert dialled.connection.max_datagram == 0
        assert dialled.connection.report(0).closed
        assert dialled.closed == ["enough"]


async def test_what_is_given_before_closing_leaves_before() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        dialled.connection.send_datagram(b"last", "token")
        stream = dialled.connection.open_stream()
        dialled.connection.send_stream(stream, b"words", True)
        dialled.connection.close("enough")
        assert dialled.lost == ["token"]  # nobody will answer for it
        await until(lambda: served.closed == ["enough"])
        assert served.datagrams == [b"last"]
        assert served.streams == {stream: b"words"}


async def test_a_goodbye_that_got_lost_is_said_again() -> None:
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        dialled, served = await linked(a, b, between.address)
        swallowed: list[bytes] = []

        def harm(data: bytes, towards_server: bool) -> bool:
            if towards_server:
                swallowed.append(data)
            return towards_server

        between.harm = harm
        dialled.connection.close("enough")
        await until(lambda: swallowed)
        between.harm = lambda data, towards_server: False
        assert served.closed == []
        served.connection.send_datagram(b"anybody there?")
        await until(lambda: served.closed == ["enough"])


async def test_an_endpoint_ends_all_its_connections() -> None:
    async with pair() as (a, b):
        _, first = await linked(a, b)
        _, second = await linked(a, b)
        tasks = len(asyncio.all_tasks())
        await b.endpoint.close("stopping")
        await until(lambda: first.closed and second.closed)
        assert first.closed == second.closed == ["stopping"]
        assert len(asyncio.all_tasks()) == tasks


async def test_a_callback_that_fails_costs_its_connection_only() -> None:
    async with pair() as (a, b):
        good, _ = await linked(a, b)
        bad, served = await linked(a, b)
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
        served.connection.on_datagrams = lambda batch: batch[7]  # type: ignore[func-returns-value,return-value]
        bad.connection.send_datagram(b"x")
        await until(lambda: bad.closed)
        assert [type(error) for error in told] == [IndexError]
        good.connection.send_datagram(b"x")
        await until(lambda: a.records[0].datagrams)
