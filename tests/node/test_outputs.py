"""Egress of a real node: from a publisher's packets to files, through silence, leaving and shutting down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.leases import RedisLeases
from relay.cluster.outbox import RedisOutbox
from relay.cluster.redis_store import events_key
from relay.egress.events import EgressRequest
from relay.egress.mp4 import box
from relay.egress.record import GROWING
from relay.errors import BadRequest, Conflict, NotFound
from relay.metrics import Metrics
from relay.node import Node
from relay.node.outputs import lease_name
from relay.settings import NodeSettings, dev_settings
from tests.egress.world import ffmpeg_errors
from tests.node.peers import Peer, until

RECORD = EgressRequest("demo", "recording", "alice")


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    given = {
        "media.port": 0,
        "media.plane": "reference",
        "node.state_dir": str(tmp_path),
        "egress.recording_min_free_bytes": 1,
        "egress.allow_private_targets": True,
        "room.empty_room_ttl_s": 0.3,
    }
    return dev_settings(environ={}, overrides=given)


@pytest.fixture
async def host(node: Node) -> AsyncIterator[Peer]:
    host = await Peer(node, "alice", "owner").publish()
    await until(lambda: node.knows("demo") and node.knows("demo")["publications"])
    yield host
    await host.close()


async def state(node: Node, egress: str, wanted: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while (facts := await node.egress.read_egress(egress))["state"] != wanted or not (
        wanted != "running" or facts["bytes"] > 0
    ):
        assert time.monotonic() < deadline, facts
        await asyncio.sleep(0.02)
    return facts


async def told(store: RedisStore) -> list[tuple[str, str]]:
    """What the room's stream says of egress: types and states or names."""
    found = []
    deadline = time.monotonic() + 15
    async for event in store.events("demo", 0):
        if event.type.startswith("egress."):
            found.append((event.type, event.data.get("state") or event.data["name"]))
            if event.type in {"egress.ended", "egress.failed"}:
                break
        assert time.monotonic() < deadline, found
    return found


async def test_a_recording_is_told_to_the_room_and_clean(
    node: Node, store: RedisStore, host: Peer, tmp_path: Path
) -> None:
    started = await node.egress.start_egress(RECORD)
    assert started["id"].startswith("n1~eg-")
    await state(node, started["id"], "running")
    assert [each["id"] for each in await node.egress.list_egress("demo")] == [started["id"]]
    stopped = await node.egress.stop_egress(started["id"])
    (name,) = stopped["files"]
    assert "~" not in name
    assert ffmpeg_errors(tmp_path / "recordings" / "demo" / name) == ""
    assert await told(store) == [
        ("egress.starting", "starting"),
        ("egress.running", "running"),
        ("egress.file", name),
        ("egress.ended", "ended"),
    ]


async def test_a_publication_can_be_the_source(node: Node, host: Peer) -> None:
    known = node.knows("demo")
    assert known is not None
    (publication,) = known["publications"]
    started = await node.egress.start_egress(EgressRequest("demo", "hls", publication))
    await state(node, started["id"], "running")
    assert await node.egress.find_hls("demo", publication) == started["id"]
    assert "#EXT-X-PART" in (await node.egress.playlist(started["id"], 0, 0)).text
    with pytest.raises(NotFound):
        await node.egress.find_hls("demo", "program")


async def test_what_cannot_be_taken_is_refused_and_leaves_nothing(node: Node, host: Peer) -> None:
    for source in ("program", "bob", "0" * 16):
        with pytest.raises(NotFound) as refused:
            await node.egress.start_egress(EgressRequest("demo", "hls", source))
        assert refused.value.code == "publication-not-found"
    with pytest.raises(NotFound):
        await node.egress.start_egress(EgressRequest("nowhere", "hls", "alice"))
    with pytest.raises(BadRequest):
        await node.egress.start_egress(EgressRequest("demo", "rtmp", "alice", "rtmp://host"))
    assert await node.egress.list_egress("demo") == []


async def test_a_source_that_leaves_and_returns(node: Node, store: RedisStore, host: Peer) -> None:
    started = await node.egress.start_egress(RECORD)
    await state(node, started["id"], "running")
    viewer = await Peer(node, "victor", "viewer").watch()  # so that the room stays here
    await node.close(host.session)
    waiting = await state(node, started["id"], "retrying")
    assert waiting["error"]["code"] == "no-source"
    again = await Peer(node, "alice", "owner").publish()
    facts = await state(node, started["id"], "running")
    await until(lambda: len(node.egress.facts()[0]["files"]) == 2)
    assert facts["restarts"] >= 1
    await viewer.close()
    await again.close()


async def test_the_end_of_the_room_ends_its_egress(node: Node, store: RedisStore, host: Peer, tmp_path: Path) -> None:
    started = await node.egress.start_egress(RECORD)
    await state(node, started["id"], "running")
    await store.delete("demo", ("room.ended", {"by": "alice"}))
    facts = await state(node, started["id"], "ended")
    assert ffmpeg_errors(*(tmp_path / "recordings" / "demo" / name for name in facts["files"])) == ""


async def test_a_playlist_ends_though_its_source_left_before(node: Node, store: RedisStore, host: Peer) -> None:
    """Nobody writes it by then. Players ask for more for as long as it does not say that there is none."""
    started = await node.egress.start_egress(EgressRequest("demo", "hls", "alice"))
    await state(node, started["id"], "running")
    viewer = await Peer(node, "victor", "viewer").watch()  # so that the room stays here
    await node.close(host.session)
    await state(node, started["id"], "retrying")
    before = await node.egress.playlist(started["id"], None, None)
    assert "ENDLIST" not in before.text
    await node.egress.stop_egress(started["id"])
    after = await node.egress.playlist(started["id"], None, None)
    assert after.text.endswith("\n#EXT-X-ENDLIST\n")
    assert "PRELOAD-HINT" not in after.text
    assert after.etag != before.etag
    await viewer.close()


async def test_webhooks_hear_of_files_that_end_with_the_room(
    node: Node, server: EmbeddedServer, store: RedisStore, host: Peer
) -> None:
    """As recordings usually do: who waits for `egress.file` would wait for ever."""
    started = await node.egress.start_egress(RECORD)
    await state(node, started["id"], "running")
    await store.delete("demo", ("room.ended", {"by": "alice"}))
    facts = await state(node, started["id"], "ended")
    outbox = RedisOutbox(server.url, socket_timeout_s=5.0)
    try:
        wanted = [("room.ended", None), ("egress.file", facts["files"][0]), ("egress.ended", None)]
        heard: list[tuple[str, Any]] = []
        deadline = time.monotonic() + 15
        while [each for each in heard if each in wanted] != wanted:
            assert time.monotonic() < deadline, heard
            await asyncio.sleep(0.05)
            heard = [(event.type, event.data.get("name")) for event in (await outbox.news(1000))["demo"]]
        with pytest.raises(NotFound):
            await store.append("demo", [("app.x", {})])
        assert 0 < await outbox._client.ttl(events_key("demo")) <= 60, "the stream still goes"
    finally:
        await outbox.close()


async def test_shutting_down_ends_files_and_says_so(node: Node, store: RedisStore, host: Peer, tmp_path: Path) -> None:
    started = await node.egress.start_egress(RECORD)
    hls = await node.egress.start_egress(EgressRequest("demo", "hls", "alice"))
    await state(node, started["id"], "running")
    await state(node, hls["id"], "running")
    await node.shut_down()
    assert {each["state"] for each in node.egress.facts()} == {"ended"}
    (name,) = (await node.egress.read_egress(started["id"]))["files"]
    assert ffmpeg_errors(tmp_path / "recordings" / "demo" / name) == ""
    assert not list((tmp_path / "hls").glob("*"))
    assert [what for what, _ in await told(store)][-1] == "egress.ended"


async def test_what_a_crash_left_is_tidied_unless_another_node_runs_there(
    store: RedisStore, settings: NodeSettings, tmp_path: Path
) -> None:
    left = tmp_path / "hls" / "eg-1" / "seg0.m4s"
    left.parent.mkdir(parents=True)

    async def started(name: str) -> Node:
        made = Node(settings, store, Metrics(), node_id=name, version="test", advertised=["127.0.0.1"])
        await made.start()
        return made

    left.write_bytes(b"x")
    torn = tmp_path / "recordings" / "demo" / f"alice-eg-1-0001{GROWING}"
    torn.parent.mkdir(parents=True)
    whole = b"".join(box(kind, b"x") for kind in (b"ftyp", b"moov", b"moof", b"mdat"))
    torn.write_bytes(whole + box(b"moof", b"y"))
    first = await started("n1")
    assert not left.exists()
    assert [path.name for path in torn.parent.iterdir()] == ["alice-eg-1-0001.mp4"]
    assert (torn.parent / "alice-eg-1-0001.mp4").read_bytes() == whole
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    second = await started("n2")
    assert left.exists()
    await second.shut_down()
    await first.shut_down()


async def test_one_node_owns_an_hls_and_loses_it_when_another_took_it(
    server: EmbeddedServer, store: RedisStore, settings: NodeSettings
) -> None:
    nodes = []
    for name in ("n1", "n2"):
        made = Node(settings, store, Metrics(), node_id=name, version="test", advertised=["127.0.0.1"])
        made.egress.share(RedisLeases(server.url, socket_timeout_s=5.0))
        await made.start()
        nodes.append(made)
    first, second = nodes
    thief = RedisLeases(server.url, socket_timeout_s=5.0)
    host = await Peer(first, "alice", "owner").publish()
    await until(lambda: first.knows("demo") and first.knows("demo")["publications"])
    wanted = EgressRequest("demo", "hls", "alice")
    started = await first.egress.start_egress(wanted)
    with pytest.raises(Conflict) as refused:
        await second.egress.start_egress(wanted)
    assert (refused.value.code, "n1" in str(refused.value)) == ("egress-exists", True)
    with pytest.raises(Conflict):
        await first.egress.start_egress(wanted)
    await first.egress.stop_egress(started["id"])
    with pytest.raises(NotFound):  # free for the other, which has no such source
        await second.egress.start_egress(wanted)
    again = await first.egress.start_egress(wanted)
    held = (await thief.owners("egress/demo"))[lease_name(wanted)]
    await thief.acquire("egress/demo", lease_name(wanted), "n3", 60, over=held.epoch)
    lost = await state(first, again["id"], "failed")
    assert lost["error"] == {"code": "taken-over", "detail": "node n3 does this now"}
    await host.close()
    await thief.close()
    for each in nodes:
        await each.shut_down()


async def test_the_figures_of_egress(store: RedisStore, settings: NodeSettings) -> None:
    metrics = Metrics()
    node = Node(settings, store, metrics, node_id="n1", version="test", advertised=["127.0.0.1"])
    await node.start()
    host = await Peer(node, "alice", "owner").publish()
    await until(lambda: node.knows("demo") and node.knows("demo")["publications"])
    started = await node.egress.start_egress(RECORD)
    await state(node, started["id"], "running")
    text = metrics.render()[0].decode()
    assert 'costream_egress{kind="recording",state="running"} 1.0' in text
    (line,) = [line for line in text.splitlines() if line.startswith('costream_egress_bytes_total{kind="recording"}')]
    assert float(line.split()[1]) > 0
    await node.egress.stop_egress(started["id"])
    assert 'costream_egress{kind="recording",state="running"} 0.0' in metrics.render()[0].decode()
    await node.shut_down()
    await host.close()
