"""The program of a relay as people run it: two libwebrtc hosts become one picture and one sound for a viewer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from relay.mix.layout import Box, cells
from relay.stage.layout import Layout
from tests.interop.clients.chromium import Chromium
from tests.interop.clients.painting import Painted, read
from tests.interop.clients.tones import RATE, level
from tests.interop.clients.wrtc_client import Slot, Watcher
from tests.interop.relays import Relay, Room, eventually, is_advancing, on_stage, session_of, tone_of
from tests.interop.test_pages import join
from tests.processes import ended

WIDTH, HEIGHT, FPS = 640, 360, 15
PATIENCE_S = 40.0
PLAYS_PROGRAM = "() => costream.viewer.slots.map((slot) => slot.identity).join() === 'program,program'"
SMALL = {"mix__video__width": WIDTH, "mix__video__height": HEIGHT, "mix__video__fps": FPS}


def _parts(box: Box) -> tuple[float, float, float, float]:
    return box.x / WIDTH, box.y / HEIGHT, box.width / WIDTH, box.height / HEIGHT


class ProgramWatcher(Watcher):
    """Reads the marks of both hosts where the layout has their tiles."""

    def __init__(self, room: Room) -> None:
        super().__init__(f"{room.whep}?play=program", room.token("viewer", "viewer"))
        self.marks: list[dict[str, Painted | None]] = []

    def tiles(self) -> dict[str, tuple[float, float, float, float]]:
        """Left, top, width and height of both tiles, in parts of the picture."""
        found = cells(Layout(), ("h1", "h2"), WIDTH, HEIGHT)
        return {cell.identity: _parts(cell.box) for cell in found}

    def _picture(self, slot: Slot, frame: Any) -> None:
        slot.frames += 1
        width, height = frame.coded_width, frame.coded_height
        data = bytearray(frame.allocation_size())
        frame.copy_to(data).result()
        luma = np.frombuffer(data, np.uint8, width * height).reshape(height, width)
        # whatever its size is: a busy machine's pictures get smaller
        self.marks.append({name: read(luma, part) for name, part in self.tiles().items()})

    def counters(self, host: int, since: int = 0) -> list[int]:
        """Of a host's pictures, in whichever tile: the first to come on stage has the first one."""
        marks = (mark for marks in self.marks[since:] for mark in marks.values())
        return [mark.counter for mark in marks if mark is not None and mark.publisher == host]

    def hears(self, host: int) -> bool:
        """Whether a host's tone is in the last sound, well above what is between the tones."""
        (slot,) = self.audios
        sound = np.concatenate(list(slot.sound))[-RATE // 2 :] if slot.sound else np.zeros(0, np.int16)
        return len(sound) == RATE // 2 and level(sound, tone_of(host)) > max(-30.0, level(sound, 1900.0) + 15)

    async def complete(self, more: int = 10) -> None:
        """Wait until both hosts are seen, advancing, and heard from now on."""
        since = len(self.marks)
        await self.until(lambda: min(len(self.counters(host, since)) for host in (1, 2)) >= more, PATIENCE_S)
        await self.until(lambda: self.hears(1) and self.hears(2), PATIENCE_S)
        for host in (1, 2):
            assert is_advancing(sorted(set(self.counters(host, since))))
            assert self.counters(host, since) == sorted(self.counters(host, since))


@pytest.fixture
def mixing(relay_with: Callable[..., Relay]) -> Iterator[Relay]:
    return relay_with(**SMALL)


def workers(relay: Relay, module: str) -> list[psutil.Process]:
    return [each for each in psutil.Process(relay.process.pid).children() if module in " ".join(each.cmdline())]


async def program(room: Room) -> dict[str, Any]:
    return dict(await room.ask("GET", "program"))


async def test_two_hosts_are_one_picture_and_one_sound_whatever_dies(mixing: Relay) -> None:
    room = await mixing.room(codecs=["opus", "vp8"])
    async with on_stage(room.host(1), room.host(2)), ProgramWatcher(room) as watcher:
        await room.ask("PUT", "program", {})
        await watcher.complete()
        assert (await program(room))["state"] == "live"
        found = await room.publications("program")
        assert {(each["kind"], each["codec"], each["source"]) for each in found} == {
            ("video", "vp8", "program"),
            ("audio", "opus", "program"),
        }
        slots = (await room.session(session_of(watcher)))["slots"]
        assert {slot["identity"] for slot in slots} == {"program"}

        (audio, *_), videos = workers(mixing, "relay.mix.audio"), workers(mixing, "relay.mix.video")
        busiest = max(videos, key=lambda each: sum(each.cpu_times()[:2]))
        for victim in (busiest, audio):
            victim.kill()
        await ended(busiest.pid, audio.pid)
        await watcher.complete()

        assert (await room.request("DELETE", "program")).status_code == 204
        await eventually(lambda: room.publications("program"), lambda left: not left)
        await eventually(lambda: _quiet(watcher.videos[0]), bool)
        assert watcher.state == "connected"
    assert mixing.stop() == 0


async def _quiet(slot: Slot) -> bool:
    """Whether no picture comes for a second."""
    before = slot.frames
    await asyncio.sleep(1)
    return slot.frames == before


async def test_the_pages_switch_arrange_and_show_it(mixing: Relay, chromium: Chromium) -> None:
    room = await mixing.room()
    async with on_stage(room.host(1), room.host(2)):
        studio = await join(await chromium.tab(room.page("studio", "olga", "owner"), helpers=False))
        await studio.page.click("#program-switch")
        await studio.page.wait_for_function("() => document.querySelector('#program-state').textContent === 'on air'")
        watch = await chromium.tab(room.page("watch", "vera", "viewer") + "&mode=program", helpers=False)
        await watch.page.wait_for_function(
            "() => [...document.querySelectorAll('#stage video')].some((v) => v.videoWidth === 640)"
        )
        await watch.page.wait_for_function(PLAYS_PROGRAM)
        await studio.page.select_option("#program-layout", "speaker")
        await eventually(lambda: program(room), lambda found: found["layout"]["kind"] == "speaker")
        await studio.page.click("#program-switch")
        await watch.page.wait_for_function("() => costream.viewer.slots.every((slot) => slot.publication === null)")
