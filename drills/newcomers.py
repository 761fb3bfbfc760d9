"""People at the door: offers at a fixed rate, each answered or refused, and ended at once if it was let in.

`python -m drills.newcomers PLAN.json`. Each line of `out` has `at`, `viewer` (its name), `event` (`offered`), `took` in
seconds and `status` (0: no answer). The offer is one of libwebrtc's; nothing is sent to what it asks for.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
import webrtc

from drills.client import Tell, read_plan, teller, until_told_to_end

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewcomerPlan:
    """`rate` offers a second to `url`, with the tokens in turn."""

    url: str
    tokens: Sequence[str]
    rate: float
    out: str


async def knock(plan: NewcomerPlan, tell: Tell) -> None:
    """Until cancelled. An offer that takes long holds up no other."""
    offer = await _offer()
    async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=False) as client:
        waiting: set[asyncio.Task[None]] = set()
        try:
            for token in itertools.cycle(plan.tokens):
                task = asyncio.create_task(_one(client, plan.url, token, offer, tell))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                await asyncio.sleep(1 / plan.rate)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _one(client: httpx2.AsyncClient, url: str, token: str, offer: str, tell: Tell) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    began = time.monotonic()
    try:
        response = await client.post(url, content=offer, headers=headers)
    except httpx2.HTTPError:
        tell("offered", took=time.monotonic() - began, status=0)
        return
    tell("offered", took=time.monotonic() - began, status=response.status_code)
    if response.status_code == 201:
        try:
            await client.delete(str(httpx2.URL(url).join(response.headers["Location"])), headers=headers)
        except httpx2.HTTPError:
            pass  # the relay ends a session that never connects by itself


async def _offer() -> str:
    pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
    try:
        for kind in ("audio", "video"):
            pc.add_transceiver(kind, webrtc.RTCRtpTransceiverInit(direction="recvonly"))
        return str((await pc.create_offer()).sdp)
    finally:
        pc.close()


async def _knock(plan: NewcomerPlan) -> None:
    with open(plan.out, "a", encoding="utf-8") as out:  # noqa: ASYNC230 - lines to a local file
        await until_told_to_end(asyncio.create_task(knock(plan, teller(out, "newcomer"))))


if __name__ == "__main__":
    asyncio.run(_knock(read_plan(NewcomerPlan, "Offer, and be refused or leave.")))
