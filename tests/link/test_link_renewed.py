"""A lease that the store had forgotten and gave again, to the same origin: what flows on a link goes on flowing."""

from __future__ import annotations

from tests.link.link_world import publication, world
from tests.link.quic_world import until


async def test_a_later_epoch_of_the_same_origin_breaks_nothing() -> None:
    async with world() as w:
        await w.watching()
        await w.publish(0.2)
        taps = dict(w.origin.taps)
        w.server.set_catalog([publication(epoch=2)])
        await until(lambda: w.client.catalog["cam"].epoch == 2, "the catalog with the later epoch")
        await w.publish(0.2)
        w.client.subscribe("cam", 2, (0,))  # when the room's document tells of it, too
        await w.publish(0.2)
        await until(lambda: w.lost() == 0, "every packet arrives")
        assert w.subscriber.duplicates() == 0
        assert w.origin.taps == taps
        assert ("cam", ()) not in w.subscriber.answers


async def test_the_document_may_tell_first() -> None:
    async with world() as w:
        await w.watching()
        taps = dict(w.origin.taps)
        w.client.subscribe("cam", 2, (0,))
        await until(lambda: w.subscriber.answers[-1] == ("cam", ()), "not yet: epoch 1 holds there")
        w.server.set_catalog([publication(epoch=2)])
        await until(lambda: w.subscriber.answers[-1] == ("cam", (0,)), "now")
        await w.publish(0.2)
        assert w.origin.taps == taps


async def test_an_earlier_epoch_ends_what_flows() -> None:
    async with world() as w:
        await w.watching()
        w.server.set_catalog([publication(epoch=0)])
        await until(lambda: not w.origin.taps, "the taps end")
        await until(lambda: w.subscriber.answers[-1] == ("cam", ()), "and the flows")
