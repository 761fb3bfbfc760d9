"""Chromium, driven by playwright: a page that publishes painted canvases by WHIP and watches slots by WHEP."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from drills.chromium import launching
from tests.interop.clients.painting import JAVASCRIPT, Painted
from tests.interop.clients.requirements import need

ARTIFACTS = Path(__file__).resolve().parents[2] / "artifacts"
CLIENTS_JS = Path(__file__).with_name("webrtc.js").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class SlotReport:
    """What a video slot of a page has shown. `seen` pairs the page's clock (ms) with what each picture said."""

    frames: int
    unread: int
    seen: list[tuple[int, Painted]]
    width: int
    height: int

    @property
    def publishers(self) -> list[int]:
        """The publishers shown, in order, without repetition of neighbours."""
        order: list[int] = []
        for _, painted in self.seen:
            if not order or order[-1] != painted.publisher:
                order.append(painted.publisher)
        return order


class Tab:
    """A page with painting.js and webrtc.js in it. Publishers and viewers are known by the numbers that calls return.

    `rtc` is the raw page for anything else: `await tab.page.evaluate(...)`.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    async def open(self, url: str) -> None:
        """Load `url` (its origin must allow the WHIP and WHEP calls) and put the helpers into it."""
        await self.page.goto(url, wait_until="domcontentloaded")

    async def publish(self, url: str, token: str = "", **options: Any) -> int:
        """WHIP. Options: publisher, width, height, fps, codec, simulcast, tone, gatherMs (see webrtc.js)."""
        call = "options => clients.publish(options)"
        return int(await self.page.evaluate(call, {"url": url, "token": token} | options))

    async def view(self, url: str, token: str = "", **options: Any) -> int:
        """WHEP. Options: videos, audios, codec, gatherMs."""
        return int(await self.page.evaluate("options => clients.view(options)", {"url": url, "token": token} | options))

    async def unpublish(self, publisher: int) -> int:
        """DELETE; returns the status."""
        return int(await self.page.evaluate("index => clients.unpublish(index)", publisher))

    async def unview(self, viewer: int) -> int:
        """DELETE; returns the status."""
        return int(await self.page.evaluate("index => clients.unview(index)", viewer))

    async def slots(self, viewer: int = 0, *, clear: bool = False) -> list[SlotReport]:
        """The video slots of a viewer; `clear` forgets what they have shown so far."""
        report = await self.page.evaluate("([i, clear]) => clients.report(i, clear)", [viewer, clear])
        return [
            SlotReport(
                slot["frames"],
                slot["unread"],
                [(at, Painted(publisher, counter, clock)) for at, publisher, counter, clock in slot["seen"]],
                slot["width"],
                slot["height"],
            )
            for slot in report["slots"]
            if slot["kind"] == "video"
        ]

    async def rates(self, viewer: int = 0, ms: int = 2000) -> list[dict[int, float]]:
        """Readable pictures a second per publisher, for every video slot, over the last `ms`."""
        rates = await self.page.evaluate("([i, ms]) => clients.rates(i, ms)", [viewer, ms])
        return [{int(publisher): rate for publisher, rate in slot.items()} for slot in rates]

    async def heard(self, viewer: int = 0) -> list[tuple[float, float] | None]:
        """The strongest tone (Hz, within 3, and dB) in every audio slot; None in silence."""
        report = await self.page.evaluate("i => clients.report(i)", viewer)
        return [
            tuple(slot["heard"]) if slot["heard"] and slot["heard"][1] > -80 else None
            for slot in report["slots"]
            if slot["kind"] == "audio"
        ]

    async def publisher_stats(self, publisher: int = 0, kind: str = "outbound-rtp") -> list[dict[str, Any]]:
        """W3C statistics of one type ("" for all), camelCase names."""
        return list(await self.page.evaluate("([i, t]) => clients.publisherStats(i, t)", [publisher, kind]))

    async def viewer_stats(self, viewer: int = 0, kind: str = "inbound-rtp") -> list[dict[str, Any]]:
        return list(await self.page.evaluate("([i, t]) => clients.viewerStats(i, t)", [viewer, kind]))

    async def layers(self, publisher: int = 0) -> dict[str, dict[str, Any]]:
        """The simulcast layers that are being sent, by rid: those with frames encoded."""
        stats = await self.publisher_stats(publisher)
        return {s["rid"]: s for s in stats if s.get("rid") and s.get("framesEncoded", 0) > 0}

    async def until(self, ask: Callable[[], Any], condition: Callable[[Any], object], seconds: float = 20.0) -> Any:
        """Ask (`ask` returns an awaitable) every 100 ms until the condition holds; returns the answer.

        Raises AssertionError with the last answer and the page's errors when the time is over.
        """
        end = time.monotonic() + seconds
        while True:
            answer = await ask()
            if condition(answer):
                return answer
            if time.monotonic() > end:
                log = await self.page.evaluate("() => clients.log")
                raise AssertionError(f"not within {seconds} s: {str(answer)[-1500:]}; log {log}; errors {self.errors}")
            await asyncio.sleep(0.1)

    async def screenshot(self, name: str) -> Path:
        """Keep what the page shows in tests/artifacts/; returns the file."""
        ARTIFACTS.mkdir(exist_ok=True)
        path = ARTIFACTS / (re.sub(r"[^\w.-]+", "_", name) + ".png")
        await self.page.screenshot(path=path, full_page=True)
        return path


class Chromium:
    """One browser process; every tab has a context (profile) of its own."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.tabs: list[Tab] = []

    async def tab(self, url: str, *, helpers: bool = True, **context: Any) -> Tab:
        """Open `url`. `helpers=False` leaves the project's own pages as they are (no scripts of ours)."""
        profile = await self.browser.new_context(ignore_https_errors=True, **context)
        if helpers:
            await profile.add_init_script(JAVASCRIPT)
            await profile.add_init_script(CLIENTS_JS)
        tab = Tab(await profile.new_page())
        self.tabs.append(tab)
        await tab.open(url)
        return tab

    async def screenshots(self, name: str) -> list[Path]:
        """A screenshot of every open tab: what a failed test leaves behind."""
        return [await tab.screenshot(f"{name}-{i}") for i, tab in enumerate(self.tabs) if not tab.page.is_closed()]

    async def close_tabs(self) -> None:
        tabs, self.tabs = self.tabs, []
        for tab in tabs:
            await tab.page.context.close()


@asynccontextmanager
async def launched(extra_flags: list[str] | None = None) -> AsyncIterator[Chromium]:
    """Debian's Chromium, headless. Skips (fails under CI) where it is missing."""
    async with launching.launched(need("chromium"), extra_flags or ()) as browser:
        yield Chromium(browser)
