"""Egress over HTTP: the real app before a real manager; who may, what is refused, and how playlists are waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import m3u8
import pytest

from relay.egress.manager import EgressManager
from relay.settings import EgressSettings
from signaling.egress import tickets
from tests.egress.local import LocalEgress
from tests.egress.show import LiveFeeds
from tests.egress.world import until
from tests.signaling.api_client import Api, problem

EGRESS = "/v1/rooms/demo/egress"


class Site:
    """The app with egress; `play` fetches below the playlist's address."""

    def __init__(self, api: Api, manager: EgressManager) -> None:
        self.api, self.manager = api, manager
        self.base = ""

    async def start_hls(self) -> str:
        started = await self.api.call("POST", EGRESS, "owner", json={"kind": "hls"})
        assert started.status_code == 201, started.text
        found = await self.api.call("GET", "/v1/rooms/demo/hls", "viewer")
        assert found.status_code == 200, found.text
        self.base = found.json()["url"].removesuffix("index.m3u8")
        return str(started.json()["id"])

    async def play(self, name: str, **headers: str) -> Any:
        return await self.api.call("GET", self.base + name, headers={"Accept-Encoding": "identity", **headers})


@pytest.fixture
async def site(api: Api, tmp_path: Path) -> AsyncIterator[Site]:
    feeds = LiveFeeds()
    feeds.start()
    manager = EgressManager(EgressSettings(max_outputs=3), tmp_path, feeds, node=api.node.node_id)
    api.node.egress = LocalEgress(manager)
    yield Site(api, manager)
    await manager.close()
    feeds.stop()


async def test_start_list_read_stop(site: Site) -> None:
    egress = await site.start_hls()
    listed = await site.api.call("GET", EGRESS, "moderator")
    assert [each["id"] for each in listed.json()["egress"]] == [egress]
    read = await site.api.call("GET", f"{EGRESS}/{egress}", "service")
    assert (read.json()["kind"], read.json()["source"], read.json()["error"]) == ("hls", "program", None)
    stopped = await site.api.call("DELETE", f"{EGRESS}/{egress}", "owner")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "ended")
    assert (await site.api.call("DELETE", f"{EGRESS}/{egress}", "owner")).json()["state"] == "ended"
    assert problem(await site.api.call("GET", "/v1/rooms/demo/hls", "viewer")) == (404, "egress-not-found")


@pytest.mark.parametrize("who", ["guest", "viewer"])
async def test_only_the_crew_and_services_manage(site: Site, who: str) -> None:
    assert problem(await site.api.call("POST", EGRESS, who, json={"kind": "hls"})) == (403, "forbidden")
    assert problem(await site.api.call("GET", EGRESS, who)) == (403, "forbidden")
    assert problem(await site.api.call("DELETE", f"{EGRESS}/eg-1", who)) == (403, "forbidden")


async def test_refusals(site: Site) -> None:
    call = site.api.call
    assert problem(await call("POST", EGRESS, json={"kind": "hls"})) == (401, "missing-token")
    assert problem(await call("POST", EGRESS, "owner:o@other", json={"kind": "hls"})) == (403, "wrong-room")
    assert problem(await call("POST", "/v1/rooms/none/egress", "service", json={"kind": "hls"})) == (
        404,
        "room-not-found",
    )
    for body in ({"kind": "dash"}, {}, {"kind": "hls", "more": 1}, {"kind": "hls", "source": "a/b"}):
        assert problem(await call("POST", EGRESS, "owner", json=body)) == (422, "invalid-request")
    for body in ({"kind": "rtmp"}, {"kind": "hls", "url": "rtmp://a/b/c"}, {"kind": "rtmp", "url": "http://a/b/c"}):
        assert problem(await call("POST", EGRESS, "owner", json=body)) == (400, "bad-request")
    private = {"kind": "rtmp", "url": "rtmp://127.0.0.1/live/hidden"}
    refused = await call("POST", EGRESS, "owner", json=private)
    assert problem(refused) == (400, "target-not-allowed")
    assert "hidden" not in refused.text
    assert problem(await call("GET", f"{EGRESS}/eg-0", "owner")) == (404, "egress-not-found")
    await site.start_hls()
    assert problem(await call("POST", EGRESS, "owner", json={"kind": "hls"})) == (409, "egress-exists")
    for _ in range(2):
        assert (await call("POST", EGRESS, "owner", json={"kind": "recording"})).status_code == 201
    assert problem(await call("POST", EGRESS, "owner", json={"kind": "recording"})) == (503, "overloaded")


async def test_what_a_player_fetches(site: Site) -> None:
    await site.start_hls()
    first = await site.play("index.m3u8")
    assert first.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert first.headers["access-control-allow-origin"] == "*"
    playlist = m3u8.loads(first.text)
    init = await site.play(playlist.segment_map[0].uri)
    assert (init.status_code, init.headers["content-type"]) == (200, "video/mp4")
    part = await site.play(playlist.segments[0].parts[0].uri)
    assert part.content[4:8] == b"moof"
    assert "immutable" in part.headers["cache-control"]
    assert (
        await site.play(playlist.segments[0].parts[0].uri, **{"If-None-Match": part.headers["etag"]})
    ).status_code == 304
    head = await site.api.call("HEAD", site.base + "index.m3u8")
    assert (head.status_code, head.content) == (200, b"")
    zipped = await site.play("index.m3u8", **{"Accept-Encoding": "gzip"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.text.startswith("#EXTM3U")
    plain = await site.play("index.m3u8", **{"Accept-Encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in plain.headers
    assert zipped.headers["etag"] != plain.headers["etag"]  # two representations
    again = {"Accept-Encoding": "gzip", "If-None-Match": zipped.headers["etag"]}
    while (reply := await site.play("index.m3u8", **again)).status_code != 304:  # it went on meanwhile
        again["If-None-Match"] = reply.headers["etag"]


async def test_players_on_other_sites_pages_may_ask_first(site: Site) -> None:
    """A player that adds a header of its own, or a range, has the browser send a preflight."""
    await site.start_hls()
    preflight = {
        "Origin": "https://example.org",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "range",
    }
    for name in ("index.m3u8", "init0.mp4"):
        asked = await site.api.call("OPTIONS", site.base + name, headers=preflight)
        assert (asked.status_code, asked.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert asked.headers["access-control-allow-origin"] == "*"
        assert "Range" in asked.headers["access-control-allow-headers"]
        assert problem(await site.api.call("POST", site.base + name)) == (405, "method-not-allowed")


async def test_a_server_that_can_sends_files_from_the_kernel(site: Site) -> None:
    """The ASGI extension `http.response.pathsend`: the app names the file, and the server sends it."""
    await site.start_hls()
    playlist = m3u8.loads((await site.play("index.m3u8")).text)
    name = playlist.segments[0].parts[0].uri
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": site.base + name, "raw_path": (site.base + name).encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"test")], "client": ("127.0.0.1", 1), "server": ("test", 80),
        "extensions": {"http.response.pathsend": {}},
    }  # fmt: skip
    await site.api.app(scope, receive, send)
    start, *body = sent
    headers = {key.decode(): value.decode() for key, value in start["headers"]}
    assert start["status"] == 200
    assert headers["etag"] == (await site.play(name)).headers["etag"]
    assert headers["access-control-allow-origin"] == "*"
    assert [message["type"] for message in body] == ["http.response.pathsend"]
    assert body[0]["path"] == str(await site.manager.file(site.base.split("/")[3], name))


async def test_a_blocking_reload_waits_for_exactly_what_was_asked(site: Site) -> None:
    await site.start_hls()
    await site.play("index.m3u8")
    for segment, part in ((0, 2), (0, 99), (1, 1)):
        reply = await site.play(f"index.m3u8?_HLS_msn={segment}&_HLS_part={part}")
        assert reply.status_code == 200
        found = m3u8.loads(reply.text).segments[-1].parts
        assert found
        asked = f"part{segment}.{part}.m4s" if part < 99 else "part1.0.m4s"
        assert asked in reply.text
    whole = await site.play("index.m3u8?_HLS_msn=1")
    assert "seg1.m4s" in whole.text
    hint = m3u8.loads(whole.text).preload_hint.uri
    early, reply = await asyncio.gather(site.play(hint), site.play("index.m3u8"))
    assert early.status_code == 200
    assert early.content[4:8] == b"moof"
    tag = reply.headers["etag"]
    assert (await site.play("index.m3u8", **{"If-None-Match": '"other"'})).status_code == 200
    assert tag.startswith('"n1~eg-')


@pytest.mark.parametrize(
    "query", ["_HLS_msn=999", "_HLS_part=1", "_HLS_msn=-1", "_HLS_msn=x", "_HLS_msn=0&_HLS_part=99999"]
)
async def test_reloads_that_cannot_be(site: Site, query: str) -> None:
    await site.start_hls()
    assert problem(await site.play(f"index.m3u8?{query}"))[0] == 400


async def test_files_that_are_not_there(site: Site) -> None:
    await site.start_hls()
    await site.play("index.m3u8")
    for name in ("seg99.m4s", "part99.0.m4s", "init9.mp4", "x", "..%2f..%2fsecret", "seg1.m4s.bak", "part0.0.m4s%00"):
        assert problem(await site.play(name))[0] == 404, name


async def test_waiters_are_let_go_when_the_stream_ends(site: Site) -> None:
    egress = await site.start_hls()
    reply = await site.play("index.m3u8")
    sequence = m3u8.loads(reply.text).media_sequence + 2
    waiting = asyncio.create_task(site.play(f"index.m3u8?_HLS_msn={sequence}"))
    await asyncio.sleep(0)
    await site.api.call("DELETE", f"{EGRESS}/{egress}", "owner")
    ended = await waiting
    assert ended.status_code == 200
    assert m3u8.loads(ended.text).is_endlist


async def test_players_play_to_the_end_and_then_the_files_go(site: Site, tmp_path: Path) -> None:
    """They are some seconds behind: what the last playlist names can be fetched while they are."""
    site.manager._settings = EgressSettings(hls_part_ms=100, hls_segment_ms=500, hls_window=3)
    egress = await site.start_hls()

    async def has_whole_segments() -> bool:
        return "seg1.m4s" in (await site.play("index.m3u8")).text

    await until(has_whole_segments)
    assert (await site.api.call("DELETE", f"{EGRESS}/{egress}", "owner")).json()["state"] == "ended"
    playlist = m3u8.loads((await site.play("index.m3u8")).text)
    assert playlist.is_endlist
    named = [each.uri for each in playlist.segment_map]
    named += [segment.uri for segment in playlist.segments]
    assert len(named) >= 3
    for name in named:
        assert (await site.play(name)).status_code == 200, name
    await until(lambda: not list((tmp_path / "hls").iterdir()))
    gone = await site.api.call("GET", f"{EGRESS}/{egress}", "owner")
    assert gone.json()["state"] == "ended"


async def test_tickets_open_one_stream_until_they_expire(site: Site) -> None:
    egress = await site.start_hls()
    keys = site.api.settings.auth.keys
    now = time.time()
    good = tickets.make(keys, egress, int(now) + 60)
    assert tickets.check(keys, good, egress, now)
    assert tickets.check(keys | {"new": "n" * 40}, good, egress, now)
    assert not tickets.check(keys, good, "eg-other", now)
    assert not tickets.check(keys, good, egress, now + 61)
    assert not tickets.check({"other": "o" * 40}, good, egress, now)
    later = f"{int(now) + 9000:08x}.{good.partition('.')[2]}"
    for ticket in (later, good[:-1], "x", good + "a", "0" * 8 + "." + "A" * 22):
        refused = await site.api.call("GET", f"/hls/{ticket}/{egress}/index.m3u8")
        assert problem(refused) == (401, "invalid-token")
    assert (
        problem(await site.api.call("GET", f"/hls/{tickets.make(keys, 'eg-x', int(now) + 60)}/eg-x/index.m3u8"))[0]
        == 404
    )


async def test_a_ticket_does_not_outlive_its_token(site: Site) -> None:
    await site.start_hls()
    found = await site.api.call("GET", "/v1/rooms/demo/hls", "viewer")
    expires = int(found.json()["url"].split("/")[2].partition(".")[0], 16)
    assert site.api.settings.egress.hls_ticket_s > 3600
    assert expires - site.api.now <= 3600
