"""Viewers of a load who follow their stories: one process of them, by the classes of `drills.viewer`.

`python -m drills.load.viewers PLAN.json`. Beside the lines of `drills.viewer` it writes `switched` (`layer`, `status`
of the API, 0 for no answer, `reason` when it refused).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from costream.synthetic import allow_loopback
from drills.client import Tell, read_plan, teller, until_told_to_end
from drills.viewer import Viewer, ViewerPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdPlan:
    """`viewers` are (name, token, steps), a step being (at, action, layer); `begin` is CLOCK_MONOTONIC."""

    urls: Sequence[str]
    viewers: Sequence[tuple[str, str, Sequence[tuple[float, str, str | None]]]]
    out: str
    begin: float
    videos: int = 1
    audios: int = 1


class Story:
    """One viewer's."""

    def __init__(self, plan: CrowdPlan, token: str, tell: Tell) -> None:
        self._token, self._tell = token, tell
        self._plan = ViewerPlan(urls=plan.urls, viewers=(), out=plan.out, videos=plan.videos, audios=plan.audios)
        self._viewer: Viewer | None = None
        self._watching: asyncio.Task[None] | None = None

    async def run(self, begin: float, steps: Sequence[tuple[float, str, str | None]]) -> None:
        """Do all steps in time, then go on watching until cancelled; then leave."""
        try:
            for at, action, layer in steps:
                await self._wait(begin + at - time.monotonic())
                if action == "join":
                    self._viewer = Viewer(self._plan, self._token, self._tell)
                    self._watching = asyncio.create_task(self._viewer.run())
                elif action == "leave":
                    await self._leave()
                else:
                    await self._switch(layer)
            await self._wait(None)
        finally:
            await self._leave()

    async def _wait(self, seconds: float | None) -> None:
        """An error of the viewer surfaces meanwhile."""
        waiting = {self._watching} if self._watching is not None else {asyncio.create_task(asyncio.Event().wait())}
        done, _ = await asyncio.wait(waiting, timeout=None if seconds is None else max(0.0, seconds))
        for task in done:
            if task is not None:
                task.result()

    async def _leave(self) -> None:
        watching, self._watching, self._viewer = self._watching, None, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _switch(self, layer: str | None) -> None:
        resource = self._viewer.resource if self._viewer is not None else None
        if resource is None:
            return  # has not joined yet, or joins anew just now
        parts = urlsplit(resource.location)
        slot = self._plan.audios  # the first picture comes after the sounds
        path = f"/v1/sessions/{parts.path.rsplit('/', 1)[1]}/slots/{slot}"
        headers = {"Authorization": f"Bearer {self._token}"}
        status, reason = 0, ""
        with contextlib.suppress(httpx2.HTTPError):
            async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=3.0, headers=headers) as client:
                answer = await client.patch(f"{parts.scheme}://{parts.netloc}{path}", json={"max_layer": layer})
                status, reason = answer.status_code, "" if answer.is_success else answer.text[:200]
        self._tell("switched", layer=layer, status=status, reason=reason)


async def _watch(plan: CrowdPlan) -> None:
    allow_loopback()
    with open(plan.out, "a", encoding="utf-8") as out:  # noqa: ASYNC230 - lines to a local file
        stories: list[Any] = [
            asyncio.create_task(Story(plan, token, teller(out, name)).run(plan.begin, steps))
            for name, token, steps in plan.viewers
        ]
        await until_told_to_end(*stories)


if __name__ == "__main__":
    asyncio.run(_watch(read_plan(CrowdPlan, "Watch as a plan's stories tell.")))
