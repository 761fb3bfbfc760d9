"""Every command in docs/clients is run as it stands there, and its media must arrive."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.interop.clients.process import ROOT
from tests.interop.clients.requirements import need
from tests.interop.relays import Relay, Room, eventually, on_stage

PAGES = ROOT / "docs" / "clients"
NEEDS = {
    "chromium": "chromium",
    "ffmpeg": "ffmpeg",
    "firefox": "firefox",
    "gstreamer": "whip-client",
    "libdatachannel": "libdatachannel",
    "obs": "libdatachannel",
    "whip-client": "whip-client",
    "wrtc": "wrtc",
}
"""What the commands of a page need; every page must be named here."""

ARRIVAL_S = 60.0
END_S = 5.0


def blocks() -> list[tuple[str, int, str]]:
    """Page, number and text of every block of shell."""
    return [
        (page.stem, number, text)
        for page in sorted(PAGES.glob("*.md"))
        for number, text in enumerate(
            re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        )
    ]


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for the commands; pytest's own are too long for the sockets that Chromium makes in it."""
    directory = Path(tempfile.mkdtemp(prefix="cs-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_every_page_has_a_command_that_is_run() -> None:
    assert {page for page, _, _ in blocks()} == set(NEEDS) == {page.stem for page in PAGES.glob("*.md")}


@pytest.mark.parametrize(("page", "number"), [(page, number) for page, number, _ in blocks()])
async def test_a_command_of_the_docs(
    relay: Relay, relay_with: Callable[..., Relay], home: Path, page: str, number: int
) -> None:
    python = need(NEEDS[page]) if NEEDS[page] == "libdatachannel" else sys.executable
    need(NEEDS[page])
    text = next(text for *key, text in blocks() if key == [page, number])
    if "--lan" in (PAGES / f"{page}.md").read_text("utf-8"):
        relay = relay_with(lan=True)
    room = await relay.room()
    is_viewer = "whep" in text or "watch.html" in text
    others = [room.host(publisher, f"other{publisher}") for publisher in ((1, 2) if is_viewer else ())]
    replaced = {
        ":7443": f":{relay.port}",
        ":7080": f":{relay.plain_port}",
        "/demo": f"/{room.id}",
        "room=demo": f"room={room.id}",
        ".cache/interop/bin/python": python,
    }
    for old, new in replaced.items():
        text = text.replace(old, new)
    async with on_stage(*others), running(text, room, home) as output:
        try:
            await eventually(
                lambda: room.sessions("reader"), lambda found: found and flows(found, is_viewer), ARRIVAL_S
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\nit said:\n{output.read_text(errors='replace')[-4000:]}") from None


def flows(sessions: list[dict[str, object]], is_viewer: bool) -> bool:
    """Whether media of both kinds passes: a viewer's slots carry it, a publisher's layers are active."""
    (session,) = sessions
    if is_viewer:
        slots: list[dict[str, object]] = session["slots"]  # type: ignore[assignment]
        return {slot["kind"] for slot in slots if slot["bitrate_bps"]} == {"audio", "video"}
    publications: list[dict[str, list[dict[str, object]]]] = session["publications"]  # type: ignore[assignment]
    active = {str(p["kind"]) for p in publications if any(layer["active"] for layer in p["layers"])}
    return active == {"audio", "video"} and bool(session["packets_in"])


@asynccontextmanager
async def running(text: str, room: Room, directory: Path) -> AsyncIterator[Path]:
    """Run a block in a shell with $TOKEN and this Python first in the path; gives the file of its output."""
    output = directory / "output"
    environment = os.environ | {
        "TOKEN": room.token("reader", "guest"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory),
        "TMPDIR": str(directory),
    }
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", text, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file,
            cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield output
    finally:
        await end_group(process)


async def end_group(process: asyncio.subprocess.Process) -> None:
    """End the shell and all that it started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_S if number == signal.SIGINT else 1.0)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlived the shell
    await process.wait()
