"""Viewers in Chromium: each is the project's watch page, and what it shows is written down as `drills.viewer` does.

`python -m drills.chromium.viewer PLAN.json` runs one headless browser with a page for each viewer on a host. The lines
of `out` are those of `drills.viewer`, without `sound`. A `frame` is a picture that the page has shown, at the time when
it was handed to the compositor; one that came twice is told once, because what a page reads of a picture may be the
next one already. The page joins, comes back and moves by its own rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Error, Page, ViewportSize

from costream.painting import JAVASCRIPT_FILE
from drills.chromium.launching import launched
from drills.client import Tell, read_plan, teller, until_told_to_end

WATCH_FILE = Path(__file__).with_name("watch.js")
_SIZE: ViewportSize = {"width": 800, "height": 480}
_TAKE_S = 0.1
_OPEN_S = 20.0
_AGAIN_S = 0.2
_LEAVE_S = 1.5
_QUESTIONS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserPlan:
    """What one browser does. `pages` are (name, addresses of the watch page, tried in turn until one opens).

    All its files are in a directory of `scratch`, a path of 50 characters at most: a socket is among them.
    """

    executable: str
    scratch: str
    pages: Sequence[tuple[str, Sequence[str]]]
    out: str
    every_s: float = 0.1
    """Between the joins of two viewers."""


class WatchPage:
    """One viewer."""

    def __init__(self, page: Page, tell: Tell) -> None:
        self._page, self._tell = page, tell
        self._ahead = 0.0
        """CLOCK_MONOTONIC minus the page's clock, seconds."""

    async def watch(self, urls: Sequence[str]) -> None:
        """Until cancelled; then it leaves. Raises playwright's Error when the page or its browser is gone."""
        try:
            await self._open(urls)
            self._ahead = await _ahead_of(self._page)
            while True:
                await self._take()
                await asyncio.sleep(_TAKE_S)
        finally:
            await self._leave()

    async def _open(self, urls: Sequence[str]) -> None:
        turn = 0
        while True:
            url = urls[turn % len(urls)]
            try:
                await self._page.goto(url, wait_until="load", timeout=_OPEN_S * 1000)
            except Error as error:
                if self._page.is_closed():
                    raise
                plain = url.partition("#")[0]  # what follows has a token
                reason = f"the page does not open: {error.message.splitlines()[0].replace(url, plain)}"
                self._tell("failed", url=plain, reason=reason[:200])
            else:
                return
            turn += 1
            await asyncio.sleep(_AGAIN_S)

    async def _take(self) -> None:
        """Write down what the page has told since the last time."""
        taken: dict[str, Any] = await self._page.evaluate("() => drill.take()")
        if taken["untold"]:
            raise RuntimeError(f"{taken['untold']} lines of a page were lost: nobody took them")
        for line in taken["lines"]:
            event, at = line.pop("event"), line.pop("at") / 1000 + self._ahead
            self._tell(event, at=at, **line)

    async def _leave(self) -> None:
        """As a page does that is closed; one that does not answer is left."""
        with contextlib.suppress(Error, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._page.evaluate("() => globalThis.costream?.viewer.stop()")
                if self._ahead:
                    await self._take()


async def _ahead_of(page: Page) -> float:
    """CLOCK_MONOTONIC minus the page's clock, in seconds, by the quickest of some questions."""
    quickest, found = math.inf, 0.0
    for _ in range(_QUESTIONS):
        asked = time.monotonic()
        told = float(await page.evaluate("() => performance.now()"))
        answered = time.monotonic()
        if answered - asked < quickest:
            quickest, found = answered - asked, (asked + answered) / 2 - told / 1000
    return found


async def _one(browser: Browser, wait: float, urls: Sequence[str], tell: Tell) -> None:
    await asyncio.sleep(wait)
    profile = await browser.new_context(ignore_https_errors=True, viewport=_SIZE)
    await profile.add_init_script(path=JAVASCRIPT_FILE)
    await profile.add_init_script(path=WATCH_FILE)
    page = await profile.new_page()
    page.on("pageerror", lambda error: print(error, file=sys.stderr, flush=True))
    await WatchPage(page, tell).watch(urls)


async def _browse(plan: BrowserPlan) -> None:
    """All pages, until cancelled. What the browser keeps in files goes with it."""
    with (
        open(plan.out, "a", encoding="utf-8") as out,  # noqa: ASYNC230 - lines to a local file
        tempfile.TemporaryDirectory(dir=plan.scratch, prefix="b", ignore_cleanup_errors=True) as directory,
    ):
        os.environ.update(TMPDIR=directory, HOME=directory)
        async with launched(plan.executable) as browser, asyncio.TaskGroup() as group:
            for number, (name, urls) in enumerate(plan.pages):
                group.create_task(_one(browser, number * plan.every_s, urls, teller(out, name)))


async def _main(plan: BrowserPlan) -> None:
    await until_told_to_end(asyncio.create_task(_browse(plan)))


if __name__ == "__main__":
    asyncio.run(_main(read_plan(BrowserPlan, "Watch in Chromium and write down what it shows.")))
