"""Leases on a real server: whatever the clients do and the clocks say, a publication has one owner at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from relay.cluster import EmbeddedServer
from relay.cluster.lease_holder import LeaseHolder
from relay.cluster.lease_keeper import LeaseConfirmed, LeaseDoubted, LeaseEvent, LeaseGained, LeaseLost, LeaseRefused
from relay.cluster.leases import LeaseEntry, RedisLeases
from relay.errors import LeaseHeld, StoreUnavailable, UsageError
from relay.ports import Lease
from tests.cluster.lease_checker import TwoOwners, check
from tests.cluster.servers import Server, clustered, eventually, single

ROOM, CAM, MIC = "demo", "p-cam", "p-mic"


@pytest.fixture
async def leases(server: EmbeddedServer) -> AsyncIterator[RedisLeases]:
    opened = RedisLeases(server.url, socket_timeout_s=10, connect_timeout_s=10)
    yield opened
    await opened.close()


async def shift(url: str, hours: float, room: str = ROOM) -> None:
    """Make the leases look as they do after the server's clock jumped: forwards by `hours`, or backwards."""
    async with Redis.from_url(url, decode_responses=True) as client:
        for publication, found in (await client.hgetall(f"costream:leases:{{{room}}}")).items():
            epoch, until, ttl, node = found.split(":", 3)
            moved = f"{epoch}:{max(0, int(until) - round(hours * 3_600_000))}:{ttl}:{node}"
            await client.hset(f"costream:leases:{{{room}}}", publication, moved)


async def test_one_owner_and_growing_epochs(leases: RedisLeases) -> None:
    first = await leases.acquire(ROOM, CAM, "a", 60)
    assert (first.room, first.publication, first.node, first.ttl_s) == (ROOM, CAM, "a", 60)
    with pytest.raises(LeaseHeld) as caught:
        await leases.acquire(ROOM, CAM, "b", 60)
    assert (caught.value.owner, caught.value.epoch) == ("a", first.epoch)
    assert (await leases.acquire(ROOM, MIC, "b", 60)).epoch > first.epoch
    again = await leases.acquire(ROOM, CAM, "a", 60)  # the same node, started anew
    assert again.epoch > first.epoch
    assert await leases.renew(ROOM, "a", {CAM: again.epoch}, 60) == {}
    (lost,) = (await leases.renew(ROOM, "a", {CAM: first.epoch}, 60)).values()
    assert lost is not None
    assert (lost.node, lost.epoch) == ("a", again.epoch)
    await leases.release(ROOM, "a", {CAM: first.epoch})  # not its to give
    owners = await leases.owners(ROOM)
    assert {name: lease.node for name, lease in owners.items()} == {CAM: "a", MIC: "b"}
    assert 50 < owners[CAM].ttl_s <= 60
    await leases.release(ROOM, "a", {CAM: again.epoch})
    assert list(await leases.owners(ROOM)) == [MIC]
    assert (await leases.acquire(ROOM, CAM, "b", 60)).epoch > again.epoch
    assert [entry.kind for entry in await leases.history(ROOM)] == [
        *("acquired:free", "acquired:free", "acquired:own", "renewed", "released", "acquired:free")
    ]
    assert check(await leases.history(ROOM)) == 0


async def test_an_owner_hands_over_by_telling_its_epoch(leases: RedisLeases) -> None:
    first = await leases.acquire(ROOM, CAM, "a", 60)
    with pytest.raises(LeaseHeld):
        await leases.acquire(ROOM, CAM, "b", 60, over=first.epoch - 1)
    second = await leases.acquire(ROOM, CAM, "b", 60, over=first.epoch)
    with pytest.raises(LeaseHeld):  # whoever saw the old epoch comes too late
        await leases.acquire(ROOM, CAM, "c", 60, over=first.epoch)
    assert await leases.renew(ROOM, "a", {CAM: first.epoch}, 60) == {
        CAM: Lease(ROOM, CAM, "b", second.epoch, pytest.approx(60, abs=10))  # type: ignore[arg-type]
    }
    assert check(await leases.history(ROOM)) == 1


async def test_an_expired_lease_is_free_to_the_first_who_comes(leases: RedisLeases) -> None:
    mine = await leases.acquire(ROOM, CAM, "a", 0.02)
    await asyncio.sleep(0.05)
    assert await leases.owners(ROOM) == {}
    assert await leases.renew(ROOM, "a", {CAM: mine.epoch}, 0.02) == {}  # nobody took it: still the owner
    await asyncio.sleep(0.05)
    other = await leases.acquire(ROOM, CAM, "b", 60)
    assert other.epoch > mine.epoch
    (lost,) = (await leases.renew(ROOM, "a", {CAM: mine.epoch}, 60)).values()
    assert lost is not None
    assert (lost.node, lost.epoch) == ("b", other.epoch)
    assert check(await leases.history(ROOM)) == 1


async def test_a_store_that_lost_everything_still_gives_greater_epochs(
    leases: RedisLeases, server: EmbeddedServer
) -> None:
    mine = await leases.acquire(ROOM, CAM, "a", 60)
    async with Redis.from_url(server.url) as client:
        await client.flushall()
    assert await leases.renew(ROOM, "a", {CAM: mine.epoch}, 60) == {CAM: None}
    assert (await leases.acquire(ROOM, CAM, "b", 60)).epoch > mine.epoch


async def test_a_clock_that_goes_back_does_not_make_leases_immortal(
    leases: RedisLeases, server: EmbeddedServer
) -> None:
    mine = await leases.acquire(ROOM, CAM, "a", 0.2)
    await shift(server.url, -1)
    with pytest.raises(LeaseHeld):
        await leases.acquire(ROOM, CAM, "b", 60)
    await asyncio.sleep(0.25)
    assert (await leases.acquire(ROOM, CAM, "b", 60)).epoch > mine.epoch
    async with Redis.from_url(server.url) as client:  # the last epoch was given in the future
        await client.set(f"costream:epoch:{{{ROOM}}}", 1 << 52)
    assert (await leases.acquire(ROOM, CAM, "b", 60)).epoch == (1 << 52) + 1


async def test_a_room_nobody_touches_is_forgotten(leases: RedisLeases, server: EmbeddedServer) -> None:
    await leases.acquire(ROOM, CAM, "a", 60)
    async with Redis.from_url(server.url) as client:
        keys = await client.keys("*")
        assert len(keys) == 3
        assert all([86_000 < await client.ttl(key) <= 86_400 for key in keys])


@pytest.mark.parametrize("ttl", [0, -1, 601, float("inf"), float("nan")])
async def test_absurd_times_are_refused(leases: RedisLeases, ttl: float) -> None:
    with pytest.raises(UsageError):
        await leases.acquire(ROOM, CAM, "a", ttl)


async def test_leases_on_a_cluster() -> None:
    async with clustered() as (_, url):
        opened = RedisLeases(url, socket_timeout_s=10, connect_timeout_s=10)
        for room in ("r1", "r2", "r3", "r4"):
            mine = await opened.acquire(room, CAM, "a", 60)
            assert await opened.renew(room, "a", {CAM: mine.epoch, MIC: 1}, 60) == {MIC: None}
            assert list(await opened.owners(room)) == [CAM]
        await opened.close()


def entry(kind: str, node: str, epoch: int, at: int, until: int) -> LeaseEntry:
    return LeaseEntry(kind, CAM, node, epoch, at, until)


@pytest.mark.parametrize(
    "history",
    [
        [entry("acquired:free", "a", 1, 0, 10), entry("acquired:expired", "b", 2, 9, 20)],
        [entry("acquired:free", "a", 1, 0, 10), entry("acquired:expired", "b", 1, 11, 20)],
        [entry("acquired:free", "a", 1, 0, 10), entry("renewed", "b", 1, 5, 20)],
        [entry("renewed", "a", 1, 0, 10)],
        [entry("acquired:free", "a", 2, 0, 5), entry("acquired:free", "b", 3, 6, 9), entry("renewed", "a", 2, 7, 9)],
        [entry("acquired:free", "a", 2, 0, 5), entry("renewed", "a", 2, 3, 8), entry("acquired:free", "b", 3, 6, 9)],
    ],
)
def test_the_checker_sees_two_owners(history: list[LeaseEntry]) -> None:
    with pytest.raises(TwoOwners):
        check(history)


# --- any sequence -----------------------------------------------------------------------------------------------------

NODES = st.sampled_from(["a", "b", "c"])
PUBLICATIONS = st.sampled_from([CAM, MIC])
STEPS = st.one_of(
    st.tuples(st.just("acquire"), NODES, PUBLICATIONS),
    st.tuples(st.just("over"), NODES, PUBLICATIONS),
    st.tuples(st.just("renew"), NODES, PUBLICATIONS),
    st.tuples(st.just("release"), NODES, PUBLICATIONS),
    st.tuples(st.just("together"), NODES, PUBLICATIONS),
    st.tuples(st.just("wait"), st.just(""), st.just("")),
    st.tuples(st.just("jump"), st.sampled_from(["+", "-"]), st.just("")),
)
TTL_S = 0.02


async def play(url: str, room: str, steps: list[tuple[str, str, str]]) -> None:
    """Let three nodes do as told, each remembering the last epoch it was given, and check the history."""
    clients = {name: RedisLeases(url, socket_timeout_s=10, connect_timeout_s=10) for name in "abc"}
    epochs: dict[tuple[str, str], int] = {}
    greatest: dict[str, int] = {}

    async def acquire(node: str, publication: str, over: int | None = None) -> None:
        with suppress(LeaseHeld):
            lease = await clients[node].acquire(room, publication, node, TTL_S, over)
            epochs[node, publication] = lease.epoch
            greatest[publication] = max(lease.epoch, greatest.get(publication, 0))

    for what, node, publication in steps:
        epoch = epochs.get((node, publication), 1)
        if what == "acquire":
            await acquire(node, publication)
        elif what == "over":
            await acquire(node, publication, greatest.get(publication))
        elif what == "renew":
            lost = await clients[node].renew(room, node, {publication: epoch}, TTL_S)
            assert lost or epoch == greatest[publication]
        elif what == "release":
            await clients[node].release(room, node, {publication: epoch})
        elif what == "together":
            await asyncio.gather(*(acquire(name, publication) for name in "abc"))
        elif what == "wait":
            await asyncio.sleep(TTL_S * 1.2)
        else:
            await shift(url, 1 if node == "+" else -1, room)
    check(await clients["a"].history(room), clock_jumped=any(step[0] == "jump" for step in steps))
    await asyncio.gather(*(client.close() for client in clients.values()))


def test_any_sequence_leaves_one_owner() -> None:
    rooms = (f"r{number}" for number in itertools.count())
    with asyncio.Runner() as runner:
        context = single()
        _, url = runner.run(context.__aenter__())
        try:

            @settings(max_examples=60, deadline=None)
            @given(st.lists(STEPS, max_size=25))
            def any_sequence(steps: list[tuple[str, str, str]]) -> None:
                runner.run(play(url, next(rooms), steps))

            any_sequence()
        finally:
            runner.run(context.__aexit__(None, None, None))


# --- kept alive -------------------------------------------------------------------------------------------------------


class Kept:
    """A node that wants what it is told, and what it was told in return."""

    def __init__(self, url: str, node: str, ttl_s: float) -> None:
        self.events: list[LeaseEvent] = []
        self.holder = LeaseHolder(RedisLeases(url), node, ttl_s, self.events.append)
        self.holder.start()

    async def until(self, *kinds: type[LeaseEvent]) -> None:
        """Wait for the kinds of events. A busy machine renews late, so there may be more doubts, each confirmed."""

        async def came() -> bool:
            found = [type(event) for event in self.events]
            while len(found) > len(kinds) and (at := _first_pair(found)) is not None:
                del found[at : at + 2]
            return found == list(kinds)

        await eventually(came, f"{[kind.__name__ for kind in kinds]} instead of {self.events}")


def _first_pair(kinds: list[type[LeaseEvent]]) -> int | None:
    pairs = itertools.pairwise(kinds)
    return next((at for at, pair in enumerate(pairs) if pair == (LeaseDoubted, LeaseConfirmed)), None)


async def test_a_lease_is_kept_handed_over_and_given_back() -> None:
    async with single() as (_, url):
        reader = RedisLeases(url, socket_timeout_s=10, connect_timeout_s=10)
        a, b, c = (Kept(url, name, 0.6) for name in "abc")
        a.holder.want(ROOM, CAM)
        a.holder.want(ROOM, MIC)
        await a.until(LeaseGained, LeaseGained)
        b.holder.want(ROOM, CAM)
        await b.until(LeaseRefused)
        await asyncio.sleep(1.5)  # lives on by renewals, one call for both
        epoch = next(each.epoch for each in a.events if isinstance(each, LeaseGained) and each.publication == CAM)
        assert (await reader.owners(ROOM))[CAM].node == "a"
        c.holder.want(ROOM, CAM, over=epoch)
        await c.until(LeaseGained)
        await a.until(LeaseGained, LeaseGained, LeaseLost)
        assert (a.holder.epoch(ROOM, CAM), b.holder.epoch(ROOM, CAM)) == (None, None)
        c.holder.give_up(ROOM, CAM)
        await a.holder.close()

        async def free() -> bool:
            return await reader.owners(ROOM) == {}

        await eventually(free, "what was given back is free")
        assert check(await reader.history(ROOM)) == 1
        await asyncio.gather(b.holder.close(), c.holder.close(), reader.close())


async def cut_off(server: Server, how: str) -> None:
    (server.hang if how == "hang" else server.kill)()


async def back(server: Server, how: str) -> None:
    (server.wake if how == "hang" else server.start)()
    await server.ready()


@pytest.mark.parametrize("how", ["hang", "kill"])
async def test_an_owner_without_the_store_doubts_and_then_knows(how: str) -> None:
    """A store that hung still knows the owner; one that was killed has forgotten it, and gives a greater epoch."""
    async with single() as (server, url):
        kept = Kept(url, "a", 0.4)
        kept.holder.want(ROOM, CAM)
        await kept.until(LeaseGained)
        epoch = kept.events[0].epoch  # type: ignore[union-attr]
        await cut_off(server, how)
        await kept.until(LeaseGained, LeaseDoubted)
        assert kept.holder.epoch(ROOM, CAM) is None
        await back(server, how)
        await kept.until(LeaseGained, LeaseDoubted, LeaseConfirmed if how == "hang" else LeaseGained)
        now = kept.events[-1].epoch  # type: ignore[union-attr]
        assert now == epoch if how == "hang" else now > epoch
        await kept.holder.close()


async def test_an_owner_that_was_cut_off_learns_of_its_successor() -> None:
    async with single() as (_, url):
        kept = Kept(url, "a", 0.4)
        kept.holder.want(ROOM, CAM)
        await kept.until(LeaseGained)
        reachable = kept.holder._store

        class Cut:
            async def renew(self, *_: object) -> None:
                raise StoreUnavailable("cut off")

        kept.holder._store = Cut()  # type: ignore[assignment]
        successor = Kept(url, "b", 0.4)
        while not any(isinstance(event, LeaseGained) for event in successor.events):
            successor.holder.want(ROOM, CAM)
            await asyncio.sleep(0.05)
            # Never both certain: the cut-off one doubts before the store gives the publication away.
            assert None in {kept.holder.epoch(ROOM, CAM), successor.holder.epoch(ROOM, CAM)}
        kept.holder._store = reachable
        await kept.until(LeaseGained, LeaseDoubted, LeaseLost)
        lost, gained = kept.events[-1], next(each for each in successor.events if isinstance(each, LeaseGained))
        assert isinstance(lost, LeaseLost)
        assert (lost.owner, lost.owner_epoch) == ("b", gained.epoch)
        await asyncio.gather(kept.holder.close(), successor.holder.close())


async def test_closing_does_not_wait_for_a_store_that_is_gone() -> None:
    async with single() as (server, url):
        kept = Kept(url, "a", 0.4)
        kept.holder.want(ROOM, CAM)
        await kept.until(LeaseGained)
        server.kill()
        async with asyncio.timeout(10):
            await kept.holder.close()
