"""A host of a drill: a painted picture and a tone by WHIP, published again when the connection fails.

`python -m drills.publisher PLAN.json`. Lines of `out` are like those of `drills.viewer`, with the events `joining`,
`joined` (connected: `url`, `session`, `took`, and the picture's `counter`), `refused`, `failed` and `left`. Counters
start again at 0 with each session; the painted clock goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2

from costream.synthetic import Show, SyntheticHost
from costream.whip import Refused
from drills.viewer import Tell, read_plan, teller, until_told_to_end

_RETRY_S = 0.2
_CONNECT_S = 8.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherPlan:
    """Who publishes what. `urls` are WHIP addresses, tried in turn."""

    urls: Sequence[str]
    name: str
    token: str
    out: str
    publisher: int = 1
    """The number in its picture, 0 to 65535."""
    width: int = 320
    height: int = 180
    fps: int = 20
    codec: str = "VP8"
    tone: float = 440.0
    simulcast: bool = False
    silence_s: float = 1.0
    """Without a packet (feedback, mostly) from the relay it publishes anew; 0: only when ICE has failed."""


async def publish(plan: PublisherPlan, tell: Tell) -> None:
    """Until cancelled; then it leaves."""
    show = Show(
        publisher=plan.publisher,
        label=plan.name,
        width=plan.width,
        height=plan.height,
        fps=plan.fps,
        codec=plan.codec,
        tone=plan.tone,
        simulcast=plan.simulcast,
    )
    turn = 0
    try:
        while True:
            url = plan.urls[turn % len(plan.urls)]
            await _session(SyntheticHost(url, plan.token, show, verify=False), url, plan.silence_s, tell)
            turn += 1
            await asyncio.sleep(_RETRY_S)
    finally:
        tell("left")


async def _session(host: SyntheticHost, url: str, silence_s: float, tell: Tell) -> None:
    began = time.monotonic()
    tell("joining", url=url)
    try:
        await host.start()
        await host.connected(_CONNECT_S)
        session = host.resource.location.rsplit("/", 1)[1] if host.resource else ""
        tell("joined", url=url, session=session, took=time.monotonic() - began, counter=host.counter)
        tell("failed", url=url, reason=await _lost(host, silence_s))
    except Refused as error:
        tell("refused", url=url, reason=str(error)[:200])
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        tell("failed", url=url, reason=f"{type(error).__name__}: {error}"[:200])
    finally:
        await host.stop()


async def _lost(host: SyntheticHost, silence_s: float) -> str:
    """Wait until the connection is of no more use; returns why. An error of the painter surfaces."""
    ended = asyncio.create_task(host.ended())
    received, heard = -1, time.monotonic()
    try:
        while not ended.done():
            await asyncio.wait([ended], timeout=_LOOK_S)
            if not silence_s or ended.done():
                continue
            before, received = received, await _received(host)
            if received != before:
                heard = time.monotonic()
            elif time.monotonic() - heard > silence_s:
                return f"nothing from the relay for {silence_s:g} s"
        ended.result()
        return f"the connection is {host.state}"
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _received(host: SyntheticHost) -> int:
    """Bytes that have come from the relay."""
    return sum(
        int(entry.get("bytes_received") or 0) for entry in await host.stats() if str(entry["type"]) == "transport"
    )


async def _publish(plan: PublisherPlan) -> None:
    with open(plan.out, "a", encoding="utf-8") as out:  # noqa: ASYNC230 - lines to a local file
        await until_told_to_end(asyncio.create_task(publish(plan, teller(out, plan.name))))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_publish(read_plan(PublisherPlan, "Publish a painted picture and a tone by WHIP.")))
