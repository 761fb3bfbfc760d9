"""Datagrams: sizes, bounds, acknowledgement tokens under loss, and a path that swallows everything."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from random import Random
from typing import Any

from relay.link.quic import Limits
from relay.link.quic.inbox import UNHEARD
from tests.link.quic_world import ROQ, Node, Proxy, Record, linked, node, pair, proxy, until


def now_us() -> int:
    return time.monotonic_ns() // 1000


async def test_an_oversize_datagram_is_refused_and_the_others_flow() -> None:
    async with pair(client=Limits(max_packet=1200), server=Limits(max_packet=1200)) as (a, b):
        dialled, served = await linked(a, b)
        size = dialled.connection.max_datagram
        assert 1100 < size < 1200
        assert dialled.connection.send_datagram(b"1" * size, 1)
        assert not dialled.connection.send_datagram(b"2" * (size + 1), 2)
        assert dialled.connection.send_datagram(b"3" * size, 3)
        await until(lambda: len(served.datagrams) == 2)
        assert [len(data) for data in served.datagrams] == [size, size]
        await until(lambda: sorted(map(str, dialled.acked)) == ["1", "3"])
        assert dialled.connection.counts.oversize == 1
        assert dialled.lost == []


async def test_small_datagrams_share_packets() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        await asyncio.sleep(0.05)
        before = b.endpoint.counts.sent
        for number in range(100):
            assert dialled.connection.send_datagram(bytes([number]) * 100)
        await until(lambda: len(served.datagrams) == 100)
        assert served.datagrams == [bytes([number]) * 100 for number in range(100)]
        assert b.endpoint.counts.sent - before < 40  # some 12 in each packet, besides pings and acknowledgements


async def test_the_largest_packet_of_a_path_is_found() -> None:
    async with pair(client=Limits(max_packet=8952), server=Limits(max_packet=8952)) as (a, b):
        dialled, served = await linked(a, b)
        await until(lambda: dialled.connection.max_datagram > 8900 and served.connection.max_datagram > 8900)
        assert dialled.sizes == [dialled.connection.max_datagram]
        assert dialled.connection.send_datagram(b"x" * dialled.connection.max_datagram)
        await until(lambda: served.datagrams == [b"x" * dialled.connection.max_datagram])
        report = dialled.connection.report(now_us())
        assert report.lost == 0


async def test_a_path_with_a_smaller_packet_is_measured_and_probes_are_no_loss() -> None:
    async with pair(client=Limits(max_packet=8952)) as (a, b), proxy(a.endpoint.address) as between:
        between.harm = lambda data, towards_server: len(data) > 1400
        dialled, served = await linked(a, b, between.address)
        await until(lambda: 1330 < dialled.connection.quic.packet_size <= 1400)
        size = dialled.connection.max_datagram
        assert dialled.connection.send_datagram(b"x" * size)
        await until(lambda: served.datagrams == [b"x" * size])
        assert dialled.connection.report(now_us()).lost == 0
        assert dialled.connection.window >= 12_000


async def test_a_path_that_shrinks_falls_back_and_tells() -> None:
    limits = Limits(max_packet=1452, queue_age_s=30.0)
    async with pair(client=limits) as (a, b), proxy(a.endpoint.address) as between:
        dialled, served = await linked(a, b, between.address)
        await until(lambda: dialled.connection.max_datagram > 1400)
        between.harm = lambda data, towards_server: len(data) > 1300
        sent = 0
        while dialled.connection.max_datagram > 1200 and sent < 500:
            sent += dialled.connection.send_datagram(b"x" * 1400, sent)
            await asyncio.sleep(0.005)
        await until(lambda: dialled.connection.max_datagram < 1200)
        await until(lambda: len(dialled.lost) == sent)
        assert dialled.sizes[-1] == dialled.connection.max_datagram
        dialled.connection.send_datagram(b"short")
        await until(lambda: served.datagrams == [b"short"])


async def test_the_queue_is_bounded_and_flushed() -> None:
    limits = Limits(max_packet=1200, queue_bytes=50_000, queue_age_s=30.0)
    async with pair(client=limits) as (a, b), proxy(a.endpoint.address) as between:
        dialled, _ = await linked(a, b, between.address)
        between.harm = lambda data, towards_server: True
        results = [dialled.connection.send_datagram(bytes(1000), number) for number in range(60)]
        assert results == [True] * 50 + [False] * 10
        assert dialled.connection.counts.overflow == 10
        await asyncio.sleep(0.02)  # the window takes some
        waiting = dialled.connection.flush_datagrams()
        assert 0 < waiting < 50
        assert dialled.connection.counts.flushed == waiting
        assert dialled.lost == list(range(50 - waiting, 50))
        assert dialled.connection.send_datagram(b"room again", 99)
        dialled.connection.close()
        assert sorted(map(int, map(str, dialled.lost))) == [*range(50), 99]


async def test_late_media_is_dropped_from_the_queue() -> None:
    limits = Limits(max_packet=1200, queue_age_s=0.05)
    async with pair(client=limits) as (a, b), proxy(a.endpoint.address) as between:
        dialled, _ = await linked(a, b, between.address)
        between.harm = lambda data, towards_server: True
        for number in range(100):
            dialled.connection.send_datagram(bytes(1000), number)
        await until(lambda: dialled.connection.counts.stale > 0)
        assert not dialled.connection.quic.queue
        assert 99 in dialled.lost


async def test_every_token_comes_back_once_under_loss() -> None:
    random = Random(5)
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        dialled, served = await linked(a, b, between.address)
        between.harm = lambda data, towards_server: random.random() < 0.1
        for number in range(600):
            assert dialled.connection.send_datagram(number.to_bytes(2, "big") + bytes(1000), number)
            if number % 10 == 0:
                await asyncio.sleep(0.002)
        between.harm = lambda data, towards_server: False
        await until(lambda: len(dialled.acked) + len(dialled.lost) >= 600)
        arrived = {int.from_bytes(data[:2], "big") for data in served.datagrams}
        acked, lost = {int(str(token)) for token in dialled.acked}, {int(str(token)) for token in dialled.lost}
        assert len(dialled.acked) + len(dialled.lost) == 600
        assert acked | lost == set(range(600))
        assert acked <= arrived  # what is acknowledged has been received
        assert 20 <= 600 - len(arrived) <= 120
        assert set(range(600)) - arrived <= lost
        report = dialled.connection.report(now_us())
        assert report.lost >= 20
        assert report.sent >= 600
        assert report.rtt_us


async def test_jitter_that_reorders_is_no_loss() -> None:
    """Each packet is late by up to 50 ms, so hundreds overtake each other; none is lost, and none counts as lost."""
    random = Random(11)
    patient = Limits(queue_age_s=30.0)
    async with pair(client=patient, server=patient) as (a, b), proxy(a.endpoint.address) as between:
        dialled, served = await linked(a, b, between.address)

        def late(data: bytes, towards_server: bool) -> bool:
            between.deliver_later(data, towards_server, 0.05 + random.random() * 0.05)
            return True

        between.harm = late
        dialled.connection.open_window(3_000_000)
        await asyncio.sleep(0.5)  # it learns the round trip
        before = dialled.connection.report(now_us())
        for number in range(1500):
            dialled.connection.send_datagram(number.to_bytes(2, "big") + bytes(1100), number)
            if number % 3 == 0:
                await asyncio.sleep(0.002)
        await until(lambda: len(served.datagrams) == 1500)
        await until(lambda: len(dialled.acked) + len(dialled.lost) == 1500)
        numbers = [int.from_bytes(data[:2], "big") for data in served.datagrams]
        assert sorted(numbers) == list(range(1500))
        assert sum(later < earlier for earlier, later in pairwise(numbers)) > 300
        after = dialled.connection.report(now_us())
        assert after.lost - before.lost <= 0.05 * 1500  # by the order of packets it would be two thirds


async def test_keys_are_changed_and_packets_of_the_old_ones_still_count() -> None:
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        dialled, served = await linked(a, b, between.address)
        kept: list[bytes] = []
        between.harm = lambda data, towards_server: towards_server and not kept.append(data)  # type: ignore[func-returns-value]
        dialled.connection.send_datagram(b"old")
        await until(lambda: kept)
        between.harm = lambda data, towards_server: False
        for number in range(3):
            dialled.connection.quic.request_key_update()
            for connection in (dialled.connection, served.connection):
                assert connection.send_datagram(bytes([number]))
            if number == 0:
                await until(lambda: bytes([0]) in served.datagrams)
                for data in kept:
                    between._backs[b.endpoint.address].sendto(data, a.endpoint.address)
            await until(lambda: bytes([number]) in served.datagrams)  # noqa: B023
            await until(lambda: dialled.connection.report(now_us()).acked > 0)
        assert b"old" in served.datagrams
        served.connection.send_datagram(b"answer")
        await until(lambda: b"answer" in dialled.datagrams)
        assert dialled.closed == served.closed == []


async def test_reports_count_since_the_beginning_and_samples_since_the_last() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        for number in range(20):
            dialled.connection.send_datagram(bytes(1000), number)
        await until(lambda: len(dialled.acked) == 20)
        first = dialled.connection.report(now_us())
        assert first.sent >= first.acked >= 20
        assert first.rtt_us
        assert 0 < first.pto_us < 5_000_000
        assert not first.closed
        second = dialled.connection.report(now_us())
        assert second.acked >= first.acked
        assert len(second.rtt_us) <= 1
        assert served.connection.report(now_us()).sent > 0  # its keepalive pings


async def test_keepalive_measures_an_idle_path_and_holds_it_open() -> None:
    more: dict[str, Any] = {"limits": Limits(keepalive_s=0.02), "idle_timeout_s": 1.0}
    async with node("a", serves=True, **more) as a, node("b", **more) as b:
        dialled, served = await linked(a, b)
        window = dialled.connection.window
        samples: list[int] = []
        for _ in range(30):
            await asyncio.sleep(0.05)
            samples += dialled.connection.report(now_us()).rtt_us
        assert len(samples) > 15
        assert dialled.closed == served.closed == []
        assert dialled.connection.window == window


async def test_a_window_can_be_opened() -> None:
    async with pair() as (a, b):
        dialled, _ = await linked(a, b)
        assert dialled.connection.window < 100_000
        dialled.connection.open_window(500_000)
        assert dialled.connection.window == 500_000
        dialled.connection.open_window(1000)
        assert dialled.connection.window == 500_000


async def test_what_comes_before_anybody_listens_is_kept_within_bounds() -> None:
    async with pair() as (a, b):
        a.endpoint.on_connection = lambda connection: None
        dialled = await b.dial(a.endpoint.address)
        await until(lambda: a.endpoint.connections)
        served = a.endpoint.connections[0]
        for number in range(UNHEARD + 50):
            dialled.connection.send_datagram(number.to_bytes(2, "big"))
        stream = dialled.connection.open_stream(unidirectional=True)
        dialled.connection.send_stream(stream, b"kept", True)
        await until(lambda: served.counts.received == UNHEARD + 50)
        record = Record(served)
        await until(lambda: record.streams == {stream: b"kept"})
        await until(lambda: len(record.datagrams) == UNHEARD)
        assert record.datagrams[0] == b"\0\0"
        assert served.counts.unheard == 50


async def black_hole(a: Node, b: Node, between: Proxy) -> tuple[Record, Record]:
    dialled, served = await linked(a, b, between.address)
    await until(lambda: dialled.connection.report(now_us()).rtt_us)
    between.harm = lambda data, towards_server: True
    for number in range(5):
        dialled.connection.send_datagram(bytes(500), number)
    return dialled, served


async def test_a_black_hole_shows_as_an_overdue_acknowledgement() -> None:
    async with pair() as (a, b), proxy(a.endpoint.address) as between:
        dialled, _ = await black_hole(a, b, between)
        began = now_us()
        await until(lambda: now_us() - began > 250_000)
        report = dialled.connection.report(now_us())
        assert report.oldest_unacked is not None
        assert report.now - report.oldest_unacked > 60_000
        assert report.acked < report.sent


async def test_in_a_black_hole_closing_is_immediate_and_the_other_end_times_out() -> None:
    server, client = node("a", serves=True, idle_timeout_s=1.0), node("b", idle_timeout_s=1.0)
    async with server as a, client as b, proxy(a.endpoint.address) as between:
        dialled, served = await black_hole(a, b, between)
        dialled.connection.close("kill switch")
        assert dialled.closed == ["kill switch"]
        assert b.endpoint.connections == ()
        assert sorted(map(str, dialled.lost + dialled.acked)) == ["0", "1", "2", "3", "4"]
        await until(lambda: served.closed)
        assert served.closed == ["Idle timeout"]


async def test_a_server_follows_its_client_to_a_new_address() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        old = b.endpoint.address
        b.endpoint.rebind("127.0.0.1", 0)
        assert b.endpoint.address != old
        await until(lambda: served.connection.remote == b.endpoint.address)
        for number in range(20):
            dialled.connection.send_datagram(bytes([number]), number)
            served.connection.send_datagram(bytes([number]), number)
            await asyncio.sleep(0.005)
        await until(lambda: len(served.datagrams) == len(dialled.datagrams) == 20)
        assert served.connection.peer == "b"
        assert dialled.closed == served.closed == []


async def test_streams_carry_more_than_a_window() -> None:
    data = Random(3).randbytes(3_000_000)
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        stream = dialled.connection.open_stream(unidirectional=True)
        dialled.connection.send_stream(stream, data, True)
        await until(lambda: stream in served.ended)
        assert served.streams[stream] == data
        assert dialled.connection.alpn == ROQ


async def test_a_reset_stream_is_told() -> None:
    async with pair() as (a, b):
        dialled, served = await linked(a, b)
        told: list[tuple[int, int]] = []
        served.connection.on_reset = lambda stream, code: told.append((stream, code))
        stream = dialled.connection.open_stream(unidirectional=True)
        dialled.connection.send_stream(stream, b"half")
        await until(lambda: served.streams)
        dialled.connection.reset_stream(stream, 7)
        await until(lambda: told == [(stream, 7)])
