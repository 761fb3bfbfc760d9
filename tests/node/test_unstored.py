"""What a session's followers hear from the node itself: where its frames stand in time, and, while the store is away,
what else happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from relay.cluster import EmbeddedServer, RedisStore
from relay.ids import make_sync_id, sync_id_microseconds
from relay.node import Node
from relay.ports import RoomEvent
from tests.node.peers import Peer, until


@asynccontextmanager
async def following(node: Node, session: str) -> AsyncIterator[Callable[[str], list[RoomEvent]]]:
    """Yields what was told so far, by type."""
    told: list[RoomEvent] = []

    async def follow() -> None:
        async for event in node.session_events(session):
            told.append(event)  # noqa: PERF401 - each as it comes

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    try:
        yield lambda kind: [event for event in told if event.type == kind]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_follower_is_told_where_the_frames_stand_in_time(node: Node, store: RedisStore) -> None:
    alice = await Peer(node, "alice", "owner").publish()
    vera = await Peer(node, "vera", "viewer").watch()
    await until(lambda: node.active_speaker("demo") == "alice")
    async with following(node, vera.session) as told:
        await until(lambda: told("slot.timeline"))
        first = told("slot.timeline")[0].data
        assert (first["session"], first["clock_hz"]) == (vera.session, 48_000)
        assert abs(sync_id_microseconds(int(first["sync_id"])) / 1e6 - time.time()) < 30
        await until(lambda: len(told("slot.timeline")) > 1)
        second = told("slot.timeline")[1].data
        # one line fits both: as many ticks of the RTP clock as the sync ids are apart
        apart = sync_id_microseconds(int(second["sync_id"])) - sync_id_microseconds(int(first["sync_id"]))
        ticks = (second["rtp_timestamp"] - first["rtp_timestamp"]) % (1 << 32)
        assert abs(ticks * 1_000_000 // 48_000 - apart) < 500_000
    for peer in (alice, vera):
        await peer.close()


async def test_who_speaks_is_told_while_the_store_is_away(
    node: Node, store: RedisStore, server: EmbeddedServer
) -> None:
    alice = await Peer(node, "alice", "owner").publish()
    vera = await Peer(node, "vera", "viewer").watch()
    await until(lambda: node.active_speaker("demo") == "alice")
    async with following(node, vera.session) as told:
        await until(lambda: told("slot.timeline"))
        assert told("speaker.changed") == []  # the store's stream has told it
        await server.stop()
        await node.close(alice.session)
        await until(lambda: told("speaker.changed"))
        (event,) = told("speaker.changed")
        assert (event.data, event.stored) == ({"identity": None}, False)
        assert event.sync_id > make_sync_id(int(time.time() * 1000) - 60_000, 0)
    for peer in (alice, vera):
        await peer.close()


async def test_of_what_links_bring_only_what_no_store_has_is_told(node: Node, store: RedisStore) -> None:
    vera = await Peer(node, "vera", "viewer").watch()
    async with following(node, vera.session) as told:
        room = node._rooms.get("demo")
        assert room is not None
        now = int(time.time() * 1000)
        room.linked_events(
            [
                RoomEvent(make_sync_id(now, 0), "speaker.changed", {"identity": "ann"}),
                RoomEvent(make_sync_id(now, 1), "speaker.changed", {"identity": "bob"}, stored=False),
            ]
        )
        await until(lambda: told("speaker.changed"))
        assert [event.data["identity"] for event in told("speaker.changed")] == ["bob"]
    await vera.close()
