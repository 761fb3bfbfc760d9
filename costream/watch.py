"""`costream watch`: a live table of a room, read from the API once a second."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import httpx2
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from relay.errors import CostreamError

_INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
_BAD_LOSS = 0.05  # above it people hear and see it
_BAD_RTT_MS = 300.0  # above it people talk over each other (ITU-T G.114 starts to warn at 150 one way)


class WatchError(CostreamError):
    """The API cannot be read: wrong address, certificate, token or room."""


async def watch_room(room: str, url: str, token: str, *, verify: bool, once: bool, console: Console) -> None:
    """Show the room until interrupted (or once). Raises WatchError when the first read fails; later ones are shown."""
    async with httpx2.AsyncClient(
        base_url=url, headers={"Authorization": f"Bearer {token}"}, verify=_context(verify), timeout=_TIMEOUT_S
    ) as client:
        sessions = await read_sessions(client, room)
        if once:
            console.print(render(room, sessions))
            return
        with Live(render(room, sessions), console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(_INTERVAL_S)
                try:
                    sessions, note = await read_sessions(client, room), ""
                except WatchError as error:
                    note = str(error)
                live.update(render(room, sessions, note), refresh=True)


async def read_sessions(client: httpx2.AsyncClient, room: str) -> list[dict[str, Any]]:
    """Read `GET /v1/rooms/{room}/sessions`. Raises WatchError with a sentence that says what to do."""
    try:
        response = await client.get(f"/v1/rooms/{quote(room, safe='')}/sessions")
    except httpx2.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise WatchError("the certificate is not trusted: add --insecure if it is the self-signed one") from None
        raise WatchError(f"{client.base_url} does not answer: {error or type(error).__name__}") from None
    if response.status_code != 200:
        raise WatchError(_refusal(response))
    try:
        body = response.json()
    except ValueError:
        body = None
    sessions = body.get("sessions") if isinstance(body, dict) else body
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise WatchError(f"{response.url} does not answer with sessions; is it a costream relay?")
    return sessions


def render(room: str, sessions: Iterable[dict[str, Any]], note: str = "") -> RenderableType:
    """Return the tables of hosts and viewers. Missing fields are shown as a dash, so older nodes can be read."""
    listed = list(sessions)
    hosts = [session for session in listed if session.get("kind") == "publisher"]
    viewers = [session for session in listed if session.get("kind") != "publisher"]
    parts: list[RenderableType] = [
        _table(f"{room}: {len(hosts)} hosts", "publishes", hosts, _publications),
        _table(f"{room}: {len(viewers)} viewers", "slots", viewers, _slots),
    ]
    if note:
        parts.append(Text(note, style="red"))
    return Group(*parts)


def _table(title: str, what: str, sessions: list[dict[str, Any]], describe: Callable[[dict[str, Any]], Text]) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("who", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("in", "out", "loss", "RTT"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(what, ratio=1)
    for session in sorted(sessions, key=lambda session: str(session.get("identity", ""))):
        table.add_row(
            Text(f"{session.get('identity', '-')} ({session.get('role', '-')})"),
            Text(str(session.get("state", "-"))),
            _rate(session.get("bitrate_in_bps")),
            _rate(session.get("bitrate_out_bps")),
            _coloured(session.get("loss"), _BAD_LOSS, lambda loss: f"{loss:.1%}"),
            _coloured(session.get("rtt_ms"), _BAD_RTT_MS, lambda ms: f"{ms:.0f} ms"),
            describe(session),
        )
    return table


def _publications(session: dict[str, Any]) -> Text:
    lines = []
    for publication in session.get("publications") or []:
        layers = [
            f"{layer.get('rid') or 'single'} {_rate(layer.get('bitrate_bps'))} {_size(layer)}".rstrip()
            for layer in publication.get("layers") or []
            if layer.get("active")
        ]
        muted = " muted" if publication.get("muted") else ""
        lines.append(
            f"{publication.get('kind', '-')} {publication.get('codec', '-')}{muted}: {', '.join(layers) or '-'}"
        )
    return Text("\n".join(lines) or "-")


def _slots(session: dict[str, Any]) -> Text:
    lines = []
    for slot in session.get("slots") or []:
        shown = (
            "paused" if slot.get("paused") else f"{slot.get('layer') or ''} {_rate(slot.get('bitrate_bps'))}".strip()
        )
        lines.append(f"{slot.get('index', '-')} {slot.get('kind', '-')}: {slot.get('publication') or 'empty'} {shown}")
    return Text("\n".join(lines) or "-")


def _size(layer: dict[str, Any]) -> str:
    return f"{layer['width']}x{layer['height']}" if layer.get("width") and layer.get("height") else ""


def _rate(bps: object) -> str:
    """Return a bitrate as people say it: `2.5 Mbit/s`, `32 kbit/s`."""
    if not isinstance(bps, int | float):
        return "-"
    return f"{bps / 1e6:.1f} Mbit/s" if bps >= 1e6 else f"{bps / 1e3:.0f} kbit/s"


def _coloured(value: object, limit: float, show: Callable[[float], str]) -> Text:
    if not isinstance(value, int | float):
        return Text("-")
    return Text(show(value), style="red" if value > limit else "")


def _refusal(response: httpx2.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    detail = problem.get("detail") or problem.get("title") if isinstance(problem, dict) else None
    return f"the relay answered {response.status_code}: {detail or response.reason_phrase}"


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
