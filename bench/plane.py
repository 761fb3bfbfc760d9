"""Packets per second that one core sends: the reference plane beside its limit and beside stock aiortc.

The limit is the same process doing nothing but sealing and `sendto`. Stock aiortc forwards as far as it goes, through
`RTCPeerConnection` and `MediaRelay`, which decode and encode.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import httpx2

from bench.peer import Peer
from bench.plan import Plan
from bench.processes import json_of, publisher, stock
from bench.report import Figure, figure
from relay.edge.dtls import Certificate

FAN_OUTS = (1, 10, 100)
GOALS = {10: ">= 30000"}
STOCK_VIEWERS = 4


async def measure(plan: Plan) -> list[Figure]:
    """Measure each fan-out and the limit in one process per run; then stock aiortc."""
    seconds = 0.7 if plan.quick else 1.5
    sent: dict[int, list[float]] = defaultdict(list)
    limit: dict[int, list[float]] = defaultdict(list)
    peer: list[float] = []
    lost: list[float] = []
    for _ in range(plan.runs):
        results = await _fan_outs(plan, seconds)
        for result in results:
            sent[int(result["fan_out"])].append(result["packets_per_second"])
            limit[int(result["fan_out"])].append(result["limit_per_second"])
        peer.append(await _stock_per_second(plan, seconds + 1))
        lost.append(max(result["lost"] for result in results) * 100)
    unit = "per s of core"
    figures = [
        figure(
            f"packets out at fan-out {fan_out}",
            sent[fan_out],
            unit,
            goal=GOALS.get(fan_out, ""),
            beside="seal and sendto alone",
            beside_values=limit[fan_out],
        )
        for fan_out in FAN_OUTS
    ]
    figures.append(figure("of them lost on the way to the viewers, worst fan-out", lost, "%"))
    beside = f"stock aiortc, {STOCK_VIEWERS} viewers of 640x360"
    return [*figures, figure("fan-out 10 again", sent[10], unit, beside=beside, beside_values=peer)]


async def _fan_outs(plan: Plan, seconds: float) -> list[dict[str, float]]:
    wanted = [str(fan_out) for fan_out in FAN_OUTS]
    arguments = ["-m", "bench.plane_fanout", "--seconds", str(seconds), "--fan-out", *wanted]
    # it pins itself and its peers to the two cores
    return list(await json_of(arguments, plan.test, plan.load))


async def _stock_per_second(plan: Plan, seconds: float) -> float:
    certificate = Certificate.make()
    viewers = [Peer(certificate, "av") for _ in range(STOCK_VIEWERS)]
    received = 0

    def count(_: bytes) -> None:
        nonlocal received
        received += 1

    try:
        async with (
            stock(plan.test) as server,
            publisher(server, plan.load) as host,
            httpx2.AsyncClient(trust_env=False, timeout=20) as client,
        ):
            await asyncio.sleep(plan.settle_s)
            for number, viewer in enumerate(viewers):
                viewer.on_media = count
                await viewer.connect(client, server.whep, f"viewer{number}")
            await asyncio.sleep(1)
            before, cpu = received, server.cpu()
            await asyncio.sleep(seconds)
            host.alive()
            if received == before:
                raise RuntimeError(f"nothing came from stock aiortc\n{server.tail()}\n{host.tail()}")
            return (received - before) / (server.cpu() - cpu)
    finally:
        for viewer in viewers:
            viewer.close()
