"""Coming back: tickets used once, early data, replays that find nothing, identities bound to tickets."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import pytest

from relay.link.quic import HeldTickets
from relay.link.quic.tickets import MAX_HELD, MAX_PATHS, Held, Issued, IssuedTickets
from relay.link.transport import IdentityRefused
from tests.link.quic_world import ROQ, UTC, linked, node, pair, proxy, until

LATER = datetime.datetime.now(UTC) + datetime.timedelta(days=1)
KEY = ("a", ROQ, "")


async def know_each_other(a: Any, b: Any, remote: Any = None, **more: Any) -> None:
    dialled, _ = await linked(a, b, remote, **more)
    await until(lambda: any(b.endpoint.tickets._by_key.values()), "a ticket came")
    dialled.connection.close()


async def test_early_datagrams_and_streams_arrive_without_waiting() -> None:
    async with pair() as (a, b):
        await know_each_other(a, b)
        again = await b.dial(a.endpoint.address)
        assert again.connection.early
        assert again.connection.send_datagram(b"early", "token")
        stream = again.connection.open_stream()
        again.connection.send_stream(stream, b"early too", True)
        await until(lambda: len(a.records) > 1 and a.records[1].streams.get(stream) == b"early too")
        served = a.records[1]
        await until(lambda: served.datagrams == [b"early"])
        assert served.connection.peer == "b"
        await again.connection.wait_ready()
        assert not again.connection.early
        await until(lambda: again.acked == ["token"])
        assert a.endpoint.counts.retries == 1  # of the first time: a token of then spared the second


async def test_a_flight_sent_twice_is_heard_once() -> None:
    """All that the client sent, in 0-RTT and after, again: from another address, and from its own."""
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        await know_each_other(a, b, between.address)
        between.to_server.clear()
        again = await b.dial(between.address)
        again.connection.send_datagram(b"once")
        again.connection.send_stream(again.connection.open_stream(), b"once", True)
        await again.connection.wait_ready()
        await until(lambda: len(a.records) == 2 and a.records[1].datagrams and a.records[1].streams)
        recorded = list(between.to_server)
        again.connection.close()
        await until(lambda: a.records[1].closed)
        before = a.endpoint.counts.received
        back = next(iter(between._backs.values()))
        with_other_port = between._open(lambda opened: None)
        try:
            for datagram in recorded:
                back.sendto(datagram, a.endpoint.address)
                with_other_port.sendto(datagram, a.endpoint.address)
            await until(lambda: a.endpoint.counts.received >= before + 2 * len(recorded))
        finally:
            asyncio.get_running_loop().remove_reader(with_other_port.fileno())
            with_other_port.close()
        assert len(a.records) == 2
        assert a.records[1].datagrams == [b"once"]
        assert list(a.records[1].streams.values()) == [b"once"]


async def test_a_ticket_is_used_once_and_belongs_to_a_path() -> None:
    async with pair() as (a, b):
        await know_each_other(a, b, path="primary")
        backup = await b.dial(a.endpoint.address, path="backup")
        assert not backup.connection.early
        primary = await b.dial(a.endpoint.address, path="primary")
        assert primary.connection.early
        late = await b.dial(a.endpoint.address, path="primary", early=False)
        assert not late.connection.early


async def test_a_server_that_forgot_rejects_early_data_and_says_so() -> None:
    """Restarted: tickets and keys of tokens are gone. Datagrams come back as lost; stream data is sent again."""
    tickets = HeldTickets()
    async with node("b", tickets=tickets) as b:
        async with node("a", serves=True) as a:
            port = a.endpoint.address[1]
            await know_each_other(a, b)
        async with node("a", serves=True, port=port) as a:
            again = await b.dial(a.endpoint.address)
            assert again.connection.early
            again.connection.send_datagram(b"early", "token")
            stream = again.connection.open_stream()
            again.connection.send_stream(stream, b"kept", True)
            await again.connection.wait_ready()
            await until(lambda: again.lost == ["token"])
            await until(lambda: a.records and a.records[0].streams.get(stream) == b"kept")
            assert a.records[0].datagrams == []
            assert a.records[0].connection.peer == "b"


async def test_a_ticket_does_not_pass_for_another_node() -> None:
    """What a held ticket is filed under decides: the name is part of the key."""
    async with pair() as (a, b):
        await know_each_other(a, b)
        with pytest.raises(IdentityRefused, match="not for 'c'"):
            await b.dial(a.endpoint.address, "c")
        assert (await b.dial(a.endpoint.address)).connection.early


class _Ticket:
    """As much of a ticket as the stores look at."""

    def __init__(self, label: bytes, valid: bool = True) -> None:
        self.ticket, self.is_valid = label, valid


def issued(label: bytes = b"1", until: datetime.datetime = LATER, valid: bool = True) -> Issued:
    return Issued(_Ticket(label, valid), "b", ROQ, until)  # type: ignore[arg-type]


def test_an_issued_ticket_is_taken_once() -> None:
    store = IssuedTickets()
    store.put(issued())
    now = datetime.datetime.now(UTC)
    taken = store.take(b"1", ROQ, now)
    assert taken is not None
    assert taken.peer == "b"
    assert store.take(b"1", ROQ, now) is None


@pytest.mark.parametrize(
    ("ticket", "alpn", "now"),
    [
        (issued(), "h3", datetime.datetime.now(UTC)),
        (issued(), None, datetime.datetime.now(UTC)),
        (issued(), ROQ, LATER + datetime.timedelta(seconds=1)),
        (issued(valid=False), ROQ, datetime.datetime.now(UTC)),
        (issued(b"2"), ROQ, datetime.datetime.now(UTC)),
    ],
    ids=["other-protocol", "no-protocol", "certificate-expired", "too-old", "unknown"],
)
def test_an_issued_ticket_is_refused(ticket: Issued, alpn: str | None, now: datetime.datetime) -> None:
    store = IssuedTickets()
    store.put(ticket)
    assert store.take(b"1", alpn, now) is None


def test_the_stores_are_bounded() -> None:
    store = IssuedTickets(limit=10)
    for number in range(50):
        store.put(issued(bytes([number])))
    assert len(store) == 10
    held = HeldTickets()
    for number in range(MAX_HELD + 3):
        held.put(KEY, Held(_Ticket(bytes([number])), LATER))  # type: ignore[arg-type]
    now = datetime.datetime.now(UTC)
    taken = [held.take(KEY, now) for _ in range(MAX_HELD + 1)]
    assert [one and one.ticket.ticket for one in taken] == [bytes([MAX_HELD + 2 - n]) for n in range(MAX_HELD)] + [None]
    for number in range(MAX_PATHS + 5):
        held.put((str(number), ROQ, ""), Held(_Ticket(b""), LATER))  # type: ignore[arg-type]
        held.put_token(("host", number), b"token")
    assert len(held._by_key) == len(held._tokens) == MAX_PATHS
    assert held.token(("host", MAX_PATHS)) == b"token"
    assert held.token(("host", 0)) == b""
