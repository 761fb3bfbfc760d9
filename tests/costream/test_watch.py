"""`costream watch`: what the table shows, and sentences for what goes wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from rich.console import Console

from costream.watch import WatchError, read_sessions, render

HOST: dict[str, Any] = {
    "id": "s1",
    "room": "demo",
    "identity": "alice",
    "role": "owner",
    "kind": "publisher",
    "state": "PUBLISHING",
    "bitrate_in_bps": 2_530_000,
    "bitrate_out_bps": 32_000,
    "loss": 0.081,
    "rtt_ms": 41.6,
    "publications": [
        {
            "id": "p1",
            "kind": "video",
            "codec": "VP8",
            "muted": True,
            "layers": [
                {"rid": "q", "bitrate_bps": 150_000, "active": True, "width": 320, "height": 180},
                {"rid": "f", "bitrate_bps": 0, "active": False, "width": 0, "height": 0},
            ],
        }
    ],
    "slots": [],
}
VIEWER: dict[str, Any] = {
    "identity": "[bold]vera[/]",
    "role": "viewer",
    "kind": "viewer",
    "state": "PLAYING",
    "rtt_ms": None,
    "slots": [
        {"index": 0, "kind": "video", "publication": "p1", "layer": "q", "paused": False, "bitrate_bps": 149_000},
        {"index": 1, "kind": "audio", "publication": None, "layer": None, "paused": True, "bitrate_bps": 0},
    ],
}


def shown(sessions: list[dict[str, Any]], note: str = "") -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render("demo", sessions, note))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_hosts_and_viewers() -> None:
    text = shown([HOST, VIEWER])
    for part in (
        "demo: 1 hosts",
        "alice (owner)",
        "2.5 Mbit/s",
        "32 kbit/s",
        "8.1%",
        "42 ms",
        "video VP8 muted: q 150 kbit/s 320x180",
        "demo: 1 viewers",
        "[bold]vera[/] (viewer)",
        "0 video: p1 q 149 kbit/s",
        "1 audio: empty paused",
    ):
        assert part in text


@pytest.mark.parametrize("session", [{}, {"kind": "publisher", "publications": [{}], "slots": [{}]}, {"slots": [{}]}])
def test_missing_fields_are_dashes(session: dict[str, Any]) -> None:
    assert " - " in shown([session])


def test_a_note_is_shown() -> None:
    assert "the relay went away" in shown([], "the relay went away")


def client(handle: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url="http://relay.test", transport=httpx2.MockTransport(handle))


async def test_sessions_are_read_from_the_room() -> None:
    asked: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path.decode())
        return httpx2.Response(200, content=json.dumps([HOST]))

    async with client(handle) as api:
        assert await read_sessions(api, "a/b ü") == [HOST]
    assert asked == ["/v1/rooms/a%2Fb%20%C3%BC/sessions"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, '{"title": "No such room", "detail": "there is no room demo"}', "404: there is no room demo"),
        (401, "{}", "401: Unauthorized"),
        (502, "<html>", "502: Bad Gateway"),
        (200, "<html>", "is it a costream relay"),
        (200, '{"a": 1}', "is it a costream relay"),
        (200, "[1]", "is it a costream relay"),
    ],
)
async def test_what_is_not_a_list_of_sessions_is_told(status: int, body: str, told: str) -> None:
    async with client(lambda _: httpx2.Response(status, content=body)) as api:
        with pytest.raises(WatchError, match=told):
            await read_sessions(api, "demo")


async def test_an_untrusted_certificate_is_told() -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    async with client(handle) as api:
        with pytest.raises(WatchError, match="--insecure"):
            await read_sessions(api, "demo")
