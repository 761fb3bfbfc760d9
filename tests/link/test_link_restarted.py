"""An origin whose process is killed and started again at the same address, knowing nothing of what was."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from relay.clock import now_us
from relay.ids import HybridClock
from relay.link.dial import ANEW
from relay.link.serve import LinkServer
from tests.link.link_world import PATIENT, LinkWorld, Origin, publication, world
from tests.link.quic_world import node, until


@contextlib.asynccontextmanager
async def restarted(w: LinkWorld) -> AsyncIterator[Origin]:
    """Once the link is up: kill its origin's process, and have the next one answer at its address."""
    async with node("a", serves=True) as again:
        await w.watching()
        await w.publish(0.3)
        origin = Origin()
        server = origin.server = LinkServer(again.endpoint, "a", origin, HybridClock(), PATIENT)
        server.start()
        server.set_catalog([publication()])
        try:
            w.server._endpoint.send = lambda datagrams: None  # type: ignore[method-assign]
            for each in w.harm.values():
                each._server = again.endpoint.address
            yield origin
        finally:
            await w.client.close()
            await server.close()


async def test_a_restarted_origin_is_dialled_anew_before_time_runs_out() -> None:
    async with world() as w, restarted(w) as origin:
        began, server = now_us(), origin.server
        assert server is not None
        await until(lambda: bool(origin.taps), "the subscription at the new process")
        ((link, served),) = server.links.items()
        assert link == w.client.link
        await until(lambda: len(served.paths) == 2, "both paths")
        print(f"\nrestarted origin: media flows again after {(now_us() - began) / 1e6:.2f} s")
        before = w.subscriber.count()

        def seen() -> bool:
            origin.frame(2)
            return w.subscriber.count() > before

        await until(seen, "packets of the new process")
        assert server.refused == 0, "the question is no failure"


async def test_paths_to_the_former_process_are_left_when_the_channel_finds_the_next_one_by_itself() -> None:
    """It may be the first to be given up: while a path still seems to be answered."""
    async with world() as w, restarted(w) as origin:
        server = origin.server
        assert server is not None
        assert w.client._channel is not None
        w.client._channel.close("no answer on the metadata channel")
        await until(lambda: any(len(served.paths) == 2 for served in server.links.values()), "both paths")
        assert [w.client.last_error[name] for name in ("primary", "backup")] == [ANEW, ANEW]


@pytest.mark.parametrize("seconds", [1.6])
async def test_a_silent_network_ends_no_connection(seconds: float) -> None:
    """Both routes swallow everything for longer than it takes to ask: what is there when they are back goes on."""
    async with world() as w:
        await w.watching()
        await w.publish(0.3)
        for each in w.harm.values():
            each.hole = {"server", "client"}
        await w.publish(seconds)
        for each in w.harm.values():
            each.hole = set()
        await w.publish(0.5)
        await until(lambda: w.lost() == 0, "every packet arrives")
        assert w.subscriber.duplicates() == 0
        assert w.subscriber.lost_paths("primary") == w.subscriber.lost_paths("backup") == 0
        assert w.server.refused == 0
