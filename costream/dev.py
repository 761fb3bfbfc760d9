"""`costream dev`: one node for trying out, with links that work, and with `--demo` a live show."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import uvloop
from rich.console import Console

from costream.serve import Running, serve
from costream.web_server import base_url
from relay.errors import Conflict
from relay.settings import NodeSettings
from relay.stage.permissions import Actor, Role
from relay.stage.room import create
from signaling.tokens import mint

ROOM = "demo"
TOKEN_TTL_S = 12 * 3600  # an evening of trying out


def run_dev(settings: NodeSettings, *, with_demo: bool) -> None:
    """Run a node, print its addresses, and put two synthetic hosts on stage when asked."""
    uvloop.run(serve(settings, while_up=lambda up: _while_up(up, with_demo)))


async def _while_up(up: Running, with_demo: bool) -> None:
    await _make_room(up)
    print_addresses(up.settings)
    if not with_demo:
        return
    try:
        import webrtc  # noqa: F401  the extra `demo` brings it
    except ImportError:
        Console(stderr=True).print("No demo: the synthetic hosts need `pip install 'costream[demo]'`.")
        return
    from costream import demo  # not for nodes without one: libwebrtc takes time to load, and memory

    base = base_url(up.settings.http)
    seats = [
        demo.Seat(f"{base}/whip/{ROOM}", token(up.settings, show.label.lower(), "guest"), index)
        for index, show in enumerate(demo.HOSTS)
    ]
    process = await demo.start(seats)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            await demo.stop(process)


async def _make_room(up: Running) -> None:
    actor = Actor("costream-dev", Role.SERVICE)
    state, _ = create(actor, ROOM, time.time(), max_seats=up.settings.room.max_seats)
    try:
        await up.store.create(ROOM, state.to_json())
    except Conflict:
        pass  # a store that outlives the node has it


def token(settings: NodeSettings, identity: str, role: str, room: str = ROOM) -> str:
    """Mint a token with the node's first key."""
    return mint(settings.auth.keys, room=room, identity=identity, role=role, ttl_s=TOKEN_TTL_S, now=time.time())


def print_addresses(settings: NodeSettings) -> None:
    """Print where everything is, with tokens that work."""
    base = base_url(settings.http)

    def page(name: str, identity: str, role: str, room: str = ROOM) -> str:
        return f"{base}/{name}.html#{urlencode({'room': room, 'token': token(settings, identity, role, room)})}"

    rows = [
        ("Watch", page("watch", "viewer", "viewer")),
        ("Studio", page("studio", "you", "owner")),
        ("Dashboard", page("dashboard", "operator", "service", "*")),
        ("REST API", f"{base}/docs"),
        ("WHIP", f"{base}/whip/{ROOM}"),
        ("WHEP", f"{base}/whep/{ROOM}"),
    ]
    if settings.http.plain_port:
        plain = f"http://{settings.http.plain_host}:{settings.http.plain_port}"
        rows.append(("without TLS", f"{plain}/whip/{ROOM}  (for encoders that refuse a self-signed certificate)"))
    rows.append(("token", token(settings, "guest", "guest")))
    console = Console(soft_wrap=True, highlight=False)  # a wrapped link cannot be clicked
    console.print("\ncostream is up. The certificate is self-signed, so the browser asks once.\n")
    for name, value in rows:
        console.print(f"[bold]{name:12}[/] {value}")
    console.print("\nCtrl-C ends it.\n")
