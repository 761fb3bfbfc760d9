"""The loop in virtual time: everything in the order of its time, and nobody waits for what does not come."""

from __future__ import annotations

import asyncio
import time

import pytest

from drills.simulation.loop import Deadlock, run


def test_timers_run_in_order_and_those_of_one_time_in_the_order_in_which_they_were_set() -> None:
    order: list[tuple[float, str]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def tell(name: str) -> None:
            order.append((loop.time(), name))

        for at, name in ((2.0, "late"), (1.0, "one"), (1.0, "other"), (86_400.0, "next day")):
            loop.call_at(at, tell, name)
        loop.call_later(1.5, tell, "cancelled").cancel()
        loop.call_at(1.0, loop.call_soon, tell, "soon after")
        loop.call_at(2.0, loop.call_at, 1.0, tell, "for the past")
        await asyncio.sleep(86_400.0)

    began = time.monotonic()
    run(main())
    assert order == [(1.0, "one"), (1.0, "other"), (1.0, "soon after"), (2.0, "late"), (2.0, "for the past"),
                     (86_400.0, "next day")]  # fmt: skip
    assert time.monotonic() - began < 3600


def test_time_outs_and_events_are_asyncios() -> None:
    async def main() -> float:
        news = asyncio.Event()
        asyncio.get_running_loop().call_later(5.0, news.set)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await news.wait()
        await asyncio.gather(news.wait(), asyncio.sleep(1.0))
        return asyncio.get_running_loop().time()

    assert run(main()) == 5.0


def test_nobody_waits_for_ever() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, lambda: None).cancel()
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())
