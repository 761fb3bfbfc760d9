"""A node mixes: real pools of processes, hosts and viewers by aiortc, the program as a publication like any other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import RedisStore
from relay.errors import Conflict, NotFound
from relay.ids import SYNC_IDS_PER_SECOND
from relay.metrics import Metrics
from relay.mix.layout import Box, cells
from relay.node import Node
from relay.ports import RoomEvent, SlotChange
from relay.settings import NodeSettings, dev_settings
from relay.stage import program as programs
from relay.stage import room as rooms
from relay.stage.document import Publication, RoomState, Seat
from relay.stage.layout import MAX_INPUTS, Layout
from relay.stage.permissions import Actor, Role
from relay.stage.room import changing
from tests.node.peers import until
from tests.node.program_peers import Peer, Watched

OWNER = Actor("alice", Role.OWNER)
WIDTH, HEIGHT, FPS = 640, 360, 12
PATIENCE_S = 60.0


@pytest.fixture
def settings() -> NodeSettings:
    picture = {"mix.video.width": WIDTH, "mix.video.height": HEIGHT, "mix.video.fps": FPS}
    return dev_settings(environ={}, overrides={"media.port": 0, "mix.video.bitrate_bps": 800_000, **picture})


async def change(store: RedisStore, make: object) -> RoomState:
    document, _ = await store.change("demo", changing(make))  # type: ignore[arg-type]
    return RoomState.from_json(document)


async def switch_on(store: RedisStore, **wanted: object) -> RoomState:
    return await change(store, lambda state: programs.switch_on(state, OWNER, time.time(), **wanted))


def grid(*identities: str) -> dict[str, Box]:
    return {cell.identity: cell.box for cell in cells(Layout(), identities, WIDTH, HEIGHT)}


@pytest.fixture
async def show(node: Node, store: RedisStore) -> AsyncIterator[tuple[Peer, Peer, Peer]]:
    """Alice and bob on air, the program on, and a viewer of it."""
    alice, bob, viewer = Peer(node, "alice", "owner"), Peer(node, "bob", "guest"), Peer(node, "vera", "viewer")
    try:
        await alice.publish(1, 440)
        await bob.publish(2, 1000)
        await switch_on(store)
        await viewer.watch()
        yield alice, bob, viewer
    finally:
        for peer in (alice, bob, viewer):
            await peer.close()


def amid(seen: Watched, box: Box, publisher: int, more: int = 5) -> Callable[[], bool]:
    """Whether `more` pictures from now on show a publisher in a cell."""
    since = len(seen.pictures)
    return lambda: len(seen.counters(box, publisher, since)) >= more


async def told(store: RedisStore, kind: str) -> list[dict[str, Any]]:
    """The room's events of a kind, so far."""
    found: list[RoomEvent] = []

    async def follow() -> None:
        async for event in store.events("demo", 0):
            found.append(event)  # noqa: PERF401  it never ends by itself

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(follow(), 0.5)
    return [event.data for event in found if event.type == kind]


def children() -> list[int]:
    """The worker processes of this one."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in found if b"relay.mix" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_two_hosts_become_one_picture_and_one_sound(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    seen, boxes = show[2].watched, grid("alice", "bob")
    await until(lambda: len(seen.counters(boxes["alice"], 1)) > 5, PATIENCE_S)
    await until(lambda: len(seen.counters(boxes["bob"], 2)) > 5, PATIENCE_S)
    await until(lambda: min(seen.hears(440), seen.hears(1000)) > 0.05, PATIENCE_S)
    state = RoomState.from_json(await store.read("demo"))
    published = programs.publications_of(state)
    assert {kind: (each.identity, each.state, each.node) for kind, each in published.items()} == {
        "video": ("program", "live", "n1"),
        "audio": ("program", "live", "n1"),
    }


async def both_on(seen: Watched) -> dict[str, Box]:
    """Wait until both hosts are seen and heard; returns where they are seen."""
    boxes = grid("alice", "bob")
    for identity, publisher in (("alice", 1), ("bob", 2)):
        await until(amid(seen, boxes[identity], publisher), PATIENCE_S)
    await until(lambda: min(seen.hears(440), seen.hears(1000)) > 0.05, PATIENCE_S)
    return boxes


async def test_it_goes_on_when_workers_are_killed(node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]) -> None:
    seen = show[2].watched
    boxes = await both_on(seen)
    pools = node.mixing
    await until(lambda: pools.audio.has_reserve, PATIENCE_S)
    session = show[2].session
    for victim in (int(pools.video.worker_of("demo").removeprefix("local:")), pools.audio.pid):
        os.kill(victim or 0, signal.SIGKILL)
    await until(lambda: victim not in children(), PATIENCE_S)
    await until(lambda: pools.video.worker_of("demo") != "", PATIENCE_S)
    seen.sound = seen.sound[:0]
    await both_on(seen)
    assert node.session(session)["state"] == "watching"
    counters = seen.counters(boxes["alice"], 1)
    assert counters == sorted(counters)
    interrupted = await told(store, "program.interrupted")
    assert {one["part"] for one in interrupted} == {"video", "audio"}
    recovered = await told(store, "program.recovered")
    print("without a picture for, ms:", [one["gap_ms"] for one in recovered])
    assert {one["part"] for one in recovered} == {"video", "audio"}


async def test_a_layout_change_is_on_exactly_the_frame_that_was_named(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    seen, step = show[2].watched, 90_000 // FPS
    lines: list[tuple[int, int]] = []

    async def follow() -> None:
        async for event in node.session_events(show[2].session):
            data = event.data
            if event.type == "slot.timeline" and data["clock_hz"] == 90_000:
                lines.append((data["rtp_timestamp"], int(data["sync_id"])))

    follower = asyncio.create_task(follow())
    try:
        boxes = await both_on(seen)
        await until(lambda: lines, PATIENCE_S)
        timestamp, sync_id = lines[-1]
        wanted = seen.pictures[-1][0] + 2 * FPS * step
        ticks = (wanted + show[2].origin() - timestamp + (1 << 31)) % (1 << 32) - (1 << 31)
        at = sync_id + ticks * SYNC_IDS_PER_SECOND // 90_000
        swapped = Layout(order=("bob", "alice"))
        await change(store, lambda state: programs.change_layout(state, OWNER, time.time(), swapped, at=at))
        await until(lambda: seen.pictures[-1][0] > wanted + FPS * step, PATIENCE_S)
    finally:
        follower.cancel()
    marks = [(pts, seen.mark(boxes["alice"], number)) for number, (pts, _) in enumerate(seen.pictures)]
    before = {mark.publisher for pts, mark in marks if mark is not None and wanted - FPS * step < pts < wanted}
    after = {mark.publisher for pts, mark in marks if mark is not None and pts >= wanted}
    assert (before, after) == ({1}, {2})
    near = [mark is not None for pts, mark in marks if wanted - 2 * step < pts < wanted + 2 * step]
    assert near
    assert all(near), "marks next to the change have to be readable for this to prove anything"


async def test_the_layout_of_a_speaker_shows_who_speaks_unless_it_names_somebody(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    def large(identity: str) -> Box:
        found = cells(Layout("speaker", order=(identity,)), ("alice", "bob"), WIDTH, HEIGHT)
        return next(cell.box for cell in found if cell.identity == identity)

    async def only(identity: str) -> None:
        for each in ("alice", "bob"):
            await change(store, lambda s, n=each: rooms.mute(s, OWNER, n, audio=n != identity, video=False))  # type: ignore[misc]

    seen = show[2].watched
    await both_on(seen)
    await only("bob")
    await change(store, lambda state: programs.change_layout(state, OWNER, time.time(), Layout("speaker")))
    await until(amid(seen, large("bob"), 2), PATIENCE_S)
    await only("alice")
    await until(amid(seen, large("alice"), 1), PATIENCE_S)
    named = Layout("speaker", order=("bob",))
    await change(store, lambda state: programs.change_layout(state, OWNER, time.time(), named))
    await until(amid(seen, large("bob"), 2), PATIENCE_S)
    await change(store, lambda state: programs.change_layout(state, OWNER, time.time(), Layout("speaker")))
    await until(amid(seen, large("alice"), 1), PATIENCE_S)
    state = RoomState.from_json(await store.read("demo"))
    assert programs.program_view(state)["layout"] == {"kind": "speaker", "fit": "letterbox"}


async def test_hosts_come_mute_go_and_the_program_ends(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    alice, _, viewer = show
    seen = viewer.watched
    await both_on(seen)
    carol = Peer(node, "carol", "guest")
    try:
        await carol.publish(3, 1700, video=False)
        boxes = grid("alice", "bob", "carol")
        await until(amid(seen, boxes["alice"], 1), PATIENCE_S)
        await until(lambda: seen.hears(1700) > 0.05, PATIENCE_S)

        await change(store, lambda state: rooms.mute(state, OWNER, "bob", audio=True, video=True))
        await until(lambda: seen.mark(boxes["bob"]) is None and seen.hears(1000) < 0.01, PATIENCE_S)
        await until(lambda: seen.hears(440) > 0.05, PATIENCE_S)
        await change(store, lambda state: rooms.mute(state, OWNER, "bob", audio=False, video=False))
        await until(amid(seen, boxes["bob"], 2), PATIENCE_S)
        await until(lambda: seen.hears(1000) > 0.05, PATIENCE_S)

        await node.close(alice.session)
        boxes = grid("bob", "carol")
        await until(amid(seen, boxes["bob"], 2), PATIENCE_S)
        await until(lambda: seen.hears(440) < 0.01, PATIENCE_S)
        await change(store, lambda state: rooms.change_role(state, OWNER, "bob", Role.VIEWER, time.time()))
        await until(lambda: seen.mark(boxes["bob"]) is None, PATIENCE_S)
    finally:
        await carol.close()

    await change(store, lambda state: programs.switch_off(state, OWNER, time.time()))
    slots = node.session(viewer.session)["slots"]
    await until(lambda: [slot["publication"] for slot in node.session(viewer.session)["slots"]] == [None, None], 20)
    assert all(slots), "they played before"
    state = RoomState.from_json(await store.read("demo"))
    assert (state.program, programs.publications_of(state)) == (None, {})
    assert node.mixing.video.stages == []


async def test_who_watches_the_stage_gets_the_program_by_a_pin_only(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    await both_on(show[2].watched)
    state = RoomState.from_json(await store.read("demo"))
    program = programs.publications_of(state)["video"].id
    other = Peer(node, "walt", "viewer")
    try:
        await other.watch("VP8", program=False)
        await until(lambda: {slot["identity"] for slot in node.session(other.session)["slots"]} <= {"alice", "bob"})
        with pytest.raises(Conflict):  # the program is H264
            await node.change_slot(other.session, 1, SlotChange({"publication": program}))
        slot = await node.change_slot(show[2].session, 1, SlotChange({"publication": program}))
        assert (slot["identity"], slot["pinned"]) == ("program", True)
        with pytest.raises(NotFound):
            await node.change_slot(show[2].session, 1, SlotChange({"publication": "nothing"}))
    finally:
        await other.close()


async def test_another_form_begins_the_picture_anew(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    seen = show[2].watched
    await both_on(seen)
    before = RoomState.from_json(await store.read("demo")).publications.keys()
    await switch_on(store, form=programs.Form(320, 180, 10), layout=Layout(order=("bob",)))
    boxes = {cell.identity: cell.box for cell in cells(Layout(), ("bob", "alice"), 320, 180)}
    await until(lambda: seen.pictures[-1][1].shape == (180, 320), PATIENCE_S)
    for identity, publisher in (("alice", 1), ("bob", 2)):
        await until(amid(seen, boxes[identity], publisher), PATIENCE_S)
    assert RoomState.from_json(await store.read("demo")).publications.keys() == before


async def test_nothing_is_left_when_the_node_ends(store: RedisStore, settings: NodeSettings) -> None:
    before = children()
    node = Node(settings, store, Metrics(), node_id="n2", version="test", advertised=["127.0.0.1"])
    await node.start()
    alice = Peer(node, "alice", "owner")
    try:
        await alice.publish(1, 440)
        assert children() == before, "no process before the first program"
        await switch_on(store)
        await until(lambda: node.mixing.ready and node.mixing.video.stages == ["demo"], PATIENCE_S)
        assert len(children()) > len(before)
    finally:
        await alice.close()
        await node.shut_down()
    assert children() == before
    state = RoomState.from_json(await store.read("demo"))
    assert state.program is not None
    assert state.program.node == "", "another node may mix"


def spoil(peer: Peer) -> None:
    """From now on nothing of a host's pictures can be decoded; his sound stops."""
    for sender in peer.pc.getSenders():
        if sender.kind == "audio":
            sender.replaceTrack(None)
            continue
        encoded = sender._next_encoded_frame

        async def rubbish(codec: Any, encoded: Any = encoded) -> Any:
            frame = await encoded(codec)
            if frame is not None:
                frame.payloads = [each[:4] + b"\xff" * (len(each) - 4) for each in frame.payloads]
            return frame

        sender._next_encoded_frame = rubbish


async def test_a_corrupt_and_silent_host_is_told_of_and_the_mix_goes_on(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    seen = show[2].watched
    boxes = await both_on(seen)
    spoil(show[1])
    deadline, faults = time.monotonic() + PATIENCE_S, set[tuple[str, str]]()
    while not {("bob", "corrupt"), ("bob", "silent")} <= faults:
        assert time.monotonic() < deadline, faults
        faults = {(one["identity"], one["fault"]) for one in await told(store, "program.input_troubled")}
    assert {identity for identity, _ in faults} == {"bob"}
    await until(amid(seen, boxes["alice"], 1, 15), PATIENCE_S)
    await until(lambda: seen.hears(440) > 0.05 and seen.hears(1000) < 0.01, PATIENCE_S)
    assert await told(store, "program.interrupted") == []


async def test_too_many_for_one_picture_are_told_and_come_in_when_others_go(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    await both_on(show[2].watched)
    await change(store, lambda state: (crowded(state, MAX_INPUTS - 1), [("stage.seat_changed", {})]))
    refused = f"p{MAX_INPUTS - 2}"
    await until(lambda: len(node.knows("demo")["seats"]) == MAX_INPUTS + 1, 20)  # type: ignore[index]
    deadline = time.monotonic() + PATIENCE_S
    while not (events := await told(store, "program.input_refused")):
        assert time.monotonic() < deadline
    assert [one["identity"] for one in events] == [refused]
    boxes = grid("alice", "bob", *(f"p{number}" for number in range(MAX_INPUTS - 2)))
    await until(amid(show[2].watched, boxes["bob"], 2), PATIENCE_S)
    await change(store, lambda state: (crowded(state, 0), [("stage.seat_changed", {})]))
    await both_on(show[2].watched)
    assert len(await told(store, "program.input_refused")) == 1


def crowded(state: RoomState, more: int) -> RoomState:
    """With so many people on air, beside those who publish, as would only watch each other."""
    seats = {name: seat for name, seat in state.seats.items() if name in ("alice", "bob")}
    for number in range(more):
        seats[f"p{number}"] = Seat(f"p{number}", "on_air", time.time(), time.time())
    return replace(state, seats=seats)


async def test_a_node_that_did_not_know_the_publications_takes_their_names(
    node: Node, store: RedisStore, show: tuple[Peer, Peer, Peer]
) -> None:
    await both_on(show[2].watched)

    def renamed(state: RoomState) -> RoomState:
        made = {f"{each.kind}-before": replace(each, id=f"{each.kind}-before") for each in published(state)}
        rest = {name: each for name, each in state.publications.items() if each.source != "program"}
        return replace(state, publications=rest | made)

    def published(state: RoomState) -> list[Publication]:
        return list(programs.publications_of(state).values())

    await change(store, lambda state: (renamed(state), [("publication.resumed", {})]))
    slots = lambda: {slot["publication"] for slot in node.session(show[2].session)["slots"]}  # noqa: E731
    await until(lambda: slots() == {"audio-before", "video-before"}, PATIENCE_S)
    await both_on(show[2].watched)
    assert {each.id for each in published(RoomState.from_json(await store.read("demo")))} == slots()
