"""Janus, as Debian packages it, as a child process: its videoroom plugin and its HTTP transport.

`python -m bench.janus_server PORT JANUS` is a WHIP address in front of it, for publishers that speak nothing else.

What is set beside Janus's defaults: one address, of this machine, without STUN; one room for one publisher without a
bandwidth cap; sessions that need no keep-alives for as long as a bench runs. Only the one plugin and the one transport
are loaded. NACK, PLI and transport-cc are as they come; nothing is recorded. Each handle has a thread of its own
(`event_loops` unset, the default) unless told otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bench.janus_client import ROOM_NUMBER, Session
from bench.mix_clips import run
from bench.processes import Server, free_port, serving

PACKAGE = "janus"
_SESSION_S = 600
_MODULES = {"plugins": "libjanus_videoroom.so", "transports": "libjanus_http.so"}


async def janus_missing() -> str:
    """Why its figures cannot be had; empty when they can. As root it is installed by apt when it is not there."""
    if shutil.which("janus") is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            return f"install {PACKAGE}"
        try:
            await _install()
        except RuntimeError as error:
            return str(error).splitlines()[-1]
    if not own_address():
        return "this machine has no address beside loopback, where Janus gathers no candidates"
    for folder, name in _MODULES.items():
        if _module(folder, name) is None:
            return f"no {folder}/{name} of Janus in /usr/lib or /usr/local/lib"
    return ""


def _has_systemd() -> bool:
    return Path("/run/systemd/system").exists()


async def _install() -> None:
    """Without the service that the package would start, for all of the network."""
    has_systemd = _has_systemd()
    if has_systemd:
        await run(["systemctl", "mask", "--runtime", "--quiet", "janus"])
    await run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", PACKAGE])
    if has_systemd:
        await run(["systemctl", "unmask", "--runtime", "--quiet", "janus"])
        await run(["systemctl", "disable", "--quiet", "janus"])


async def janus_name(server: Server) -> str:
    """Like "Janus 1.1.2"."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        return f"Janus {(await client.get(f'{server.base}/info')).json()['version_string']}"


def own_address() -> str:
    """The IPv4 address of this machine that others would see; "" where it has none. Janus gathers no loopback
    candidates, but what is sent to an own address takes the loopback interface all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing (RFC 5737: documentation)
        return str(probe.getsockname()[0])
    return ""


@contextlib.asynccontextmanager
async def janus(core: int, *, event_loops: int = 0) -> AsyncIterator[Server]:
    """Janus, ready to answer at `base`; 0 `event_loops` are a thread for each handle."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="costream-bench-janus-") as name:
        folder = Path(name)
        _configure(folder, port, event_loops)
        words = ["-F", name, "-C", str(folder / "janus.jcfg")]
        async with serving(words, [core], port, "/janus/info", program="janus") as server:
            server.base += "/janus"
            yield server


@contextlib.asynccontextmanager
async def whip_door(server: Server, core: int) -> AsyncIterator[Server]:
    """A WHIP address in front of Janus, in a process of its own."""
    port = free_port()
    async with serving(["-m", "bench.janus_server", str(port), server.base], [core], port, "/") as door:
        yield door


def _module(folder: str, name: str) -> Path | None:
    places = (
        place for root in ("/usr/lib", "/usr/local/lib") for place in Path(root).glob(f"**/janus/{folder}/{name}")
    )
    return next(places, None)


def _configure(folder: Path, port: int, event_loops: int) -> None:
    for kind, name in _MODULES.items():
        (folder / kind).mkdir()
        found = _module(kind, name)
        assert found is not None
        (folder / kind / name).symlink_to(found)
    general = [f'{kind}_folder = "{folder / kind}"' for kind in ("plugins", "transports", "events", "loggers")]
    general += [f'configs_folder = "{folder}"', "debug_colors = false", f"session_timeout = {_SESSION_S}"]
    general += [f"event_loops = {event_loops}"] if event_loops else []
    room = ['description = "bench"', "publishers = 1", "bitrate = 0", "record = false"]
    http = ['json = "compact"', 'base_path = "/janus"', "http = true", f"port = {port}", 'ip = "127.0.0.1"']
    files = {
        "janus.jcfg": {"general": general, "nat": [f'ice_enforce_list = "{own_address()}"']},
        "janus.transport.http.jcfg": {"general": [*http, "https = false"], "admin": ["admin_http = false"]},
        "janus.plugin.videoroom.jcfg": {f"room-{ROOM_NUMBER}": room},
    }
    for name, sections in files.items():
        text = "".join(f"{title}: {{\n" + "".join(f"  {x}\n" for x in rows) + "}\n" for title, rows in sections.items())
        (folder / name).write_text(text)


# --- the WHIP address -------------------------------------------------------------------------------------------------


class _Door:
    def __init__(self, base: str) -> None:
        self._base = base
        self._client = httpx2.AsyncClient(trust_env=False, timeout=20)
        self._sessions: dict[str, Session] = {}

    async def publish(self, request: Request) -> Response:
        session = await Session.open(self._client, self._base)
        answer = await session.publish((await request.body()).decode())
        path = f"/session/{session.number}"
        self._sessions[path] = session
        return Response(answer, 201, {"Location": path}, "application/sdp")

    async def end(self, request: Request) -> Response:
        if session := self._sessions.pop(request.url.path, None):
            await session.close()
        return Response(status_code=200)


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m bench.janus_server", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("janus", help="like http://127.0.0.1:8088/janus")
    options = parser.parse_args()
    door = _Door(options.janus)

    async def ready(_: Request) -> Response:
        return PlainTextResponse("ready")

    routes = [
        Route("/whip/{room}", door.publish, methods=["POST"]),
        Route("/session/{number:int}", door.end, methods=["DELETE"]),
        Route("/", ready),
    ]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error", lifespan="off")


if __name__ == "__main__":
    main()
