"""A host of a drill: a painted picture and a tone by WHIP, published again when the connection fails.

`python -m drills.publisher PLAN.json`. Lines of `out` are like those of `drills.viewer`, with the events `joining`,
`joined` (connected: `url`, `session`, `took`, and the picture's `counter`), `moving`, `moved` (its node drains;
`counter` is the next picture's in the session that it leaves), `refused`, `failed` and `left`. Counters start again
at 0 with each session; the painted clock goes on.
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
from drills.client import Tell, read_plan, teller, until_told_to_end
from drills.session_events import Following, following, session_of

_RETRY_S = 0.2
_CONNECT_S = 8.0
_LOOK_S = 0.1
_LINGER_S = (
    1.0  # as the studio does: those who watch on other nodes take it from the old one until they have the new one
)


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
    video: bool = True
    silence_s: float = 0.5
    """Without a packet (feedback, mostly) from the relay, and when its session is gone, it publishes anew; 0: only when
    ICE has failed."""


async def publish(plan: PublisherPlan, tell: Tell) -> None:
    """Until cancelled; then it leaves. When its node drains, the new session sends before the old one is let go."""
    turn = 0
    publishing: Publishing | None = None
    leaving: set[asyncio.Task[None]] = set()
    try:
        while True:
            if publishing is None:
                publishing = await _began(plan, plan.urls[turn % len(plan.urls)], tell)
                turn += 1
                continue
            reason = await publishing.lost()
            if reason is not None:
                tell("failed", url=publishing.url, reason=reason)
                await publishing.stop()
                publishing = None
                continue
            new = await _began(plan, plan.urls[turn % len(plan.urls)], tell, "moving")
            turn += 1
            if new is not None:
                tell("moved", url=new.url, session=new.session, counter=publishing.counter)
                leaving.add(asyncio.create_task(publishing.stop(_LINGER_S)))
                publishing = new
    finally:
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        if publishing is not None:
            await publishing.stop()
        tell("left")


async def _began(plan: PublisherPlan, url: str, tell: Tell, event: str = "joining") -> Publishing | None:
    """A session that sends; None, told, when there is none."""
    began = time.monotonic()
    tell(event, url=url)
    publishing = Publishing(plan, url)
    try:
        await publishing.start()
    except Refused as error:
        tell("refused", url=url, reason=str(error)[:200])
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        tell("failed", url=url, reason=f"{type(error).__name__}: {error}"[:200])
    else:
        took = time.monotonic() - began
        tell("joined", url=url, session=publishing.session, took=took, counter=publishing.counter)
        return publishing
    await publishing.stop()
    await asyncio.sleep(_RETRY_S)
    return None


class Publishing:
    """One WHIP session."""

    def __init__(self, plan: PublisherPlan, url: str) -> None:
        show = Show(
            publisher=plan.publisher,
            label=plan.name,
            width=plan.width,
            height=plan.height,
            fps=plan.fps,
            codec=plan.codec,
            tone=plan.tone,
            simulcast=plan.simulcast,
            video=plan.video,
        )
        self.url = url
        self._plan = plan
        self._host = SyntheticHost(url, plan.token, show, verify=False)
        self._following: Following | None = None

    @property
    def session(self) -> str:
        """The session's id; empty before `start`."""
        return session_of(self._host.resource) if self._host.resource else ""

    @property
    def counter(self) -> int:
        """The counter of its next picture."""
        return self._host.counter

    async def start(self) -> None:
        """Return when media is connected. Raises Refused, httpx2.HTTPError, ConnectionError, TimeoutError."""
        await self._host.start()
        await self._host.connected(_CONNECT_S)
        assert self._host.resource is not None
        self._following = following(self._host.resource, self._plan.token, self._plan.urls)

    async def lost(self) -> str | None:
        """Wait until it is of no more use and return why; None when its node asks to go elsewhere. An error of the
        painter surfaces."""
        assert self._following is not None
        silence_s = self._plan.silence_s
        ended = asyncio.create_task(self._host.ended())
        received, heard = -1, time.monotonic()
        try:
            while not ended.done():
                await asyncio.wait([ended], timeout=_LOOK_S)
                if self._following.moved_on.is_set():
                    self._following.moved_on.clear()
                    return None
                if not silence_s or ended.done():
                    continue
                before, received = received, await _received(self._host)
                if received != before:
                    heard = time.monotonic()
                elif time.monotonic() - heard > silence_s and await self._following.is_lost():
                    return f"nothing from the relay for {silence_s:g} s, and nobody knows the session"
            ended.result()
            return f"the connection is {self._host.state}"
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def stop(self, after_s: float = 0.0) -> None:
        """End the session and release everything, `after_s` from now."""
        try:
            if self._following is not None:
                await self._following.close()
            await asyncio.sleep(after_s)
        finally:
            await self._host.stop()


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
