"""One headless Chromium, driven by playwright, with what WebRTC in it needs where nobody looks on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

FLAGS = [
    "--no-sandbox",  # tests and drills run as root
    "--use-fake-device-for-media-stream=fps=30",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--ignore-certificate-errors",
    "--disable-features=WebRtcHideLocalIpsWithMdns",  # a host without mDNS could not resolve the candidates
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


@asynccontextmanager
async def launched(executable: str, extra_flags: Sequence[str] = ()) -> AsyncIterator[Browser]:
    """A browser process, ended when the context is left, and what it kept in files with it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=[*FLAGS, *extra_flags])
        try:
            yield browser
        finally:
            await browser.close()
