"""A link's two ends over real QUIC on loopback, while a proxy harms one connection. Figures are printed, not judged."""

from __future__ import annotations

import pytest

from relay.link import messages as m
from relay.link.hooks import LinkMoved, PathChanged
from relay.ports import RoomEvent
from relay.settings import LinkFlowSettings
from tests.link.link_world import LinkWorld, now_us, publication, world
from tests.link.quic_world import until


def tell(w: LinkWorld, what: str, since: int) -> None:
    moves = [(at, move) for at, move in w.origin.moves() if at >= since]
    trips = [f"{move.state} after {(at - since) / 1000:.0f} ms ({move.reason})" for at, move in moves]
    print(
        f"\n{what}: {', '.join(trips) or 'no move'}; longest gap {w.subscriber.longest_gap_us(since) / 1000:.0f} ms; "
        f"lost {w.lost()}, doubled {w.subscriber.duplicates()} of {w.subscriber.count()}"
    )


async def settled(w: LinkWorld) -> None:
    await until(lambda: w.lost() == 0, "every packet arrives")


async def test_a_subscription_brings_each_packet_once() -> None:
    async with world() as w:
        await w.watching((0, 1))
        await w.publish(0.5)
        await settled(w)
        assert w.subscriber.duplicates() == 0
        assert sorted(w.subscriber.started) == [("cam", 0, 96), ("cam", 1, 96)]
        assert w.subscriber.answers[-1] == ("cam", (0, 1))
        assert set(w.origin.keyframes) == {("cam", 0), ("cam", 1)}
        w.client.request_keyframe("cam", 1)
        w.client.request_keyframe("cam", 1)
        await until(lambda: len(w.origin.keyframes) == 3, "one keyframe request")
        w.client.unsubscribe("cam")
        await until(lambda: not w.origin.taps, "the taps end")
        assert w.client.receiver.flow_numbers == ()


@pytest.mark.parametrize("sides", [{"client"}, {"client", "server"}, {"server"}])
async def test_a_black_hole_on_the_primary_loses_nothing(sides: set[str]) -> None:
    async with world() as w:
        await w.watching()
        await w.publish(0.6, packets=16)
        since = now_us()
        w.harm["primary"].hole = set(sides)
        await w.publish(1.5, packets=16)
        await settled(w)
        tell(w, f"black hole towards {sorted(sides)}", since)
        assert w.subscriber.duplicates() == 0
        await until(lambda: w.served.breaker.carrying == ("backup",), "the backup carries alone")
        await until(lambda: w.client.breaker_state == "open", "the subscriber is told")
        told = [event for event in w.subscriber.events if isinstance(event, LinkMoved)]
        assert told[-1].code == "LINK_UNSTABLE"
        assert told[-1].sync_id in {sync_id for kind, sync_id in w.subscriber.order if kind == "frame"}


async def test_loss_of_an_eighth_is_repaired() -> None:
    async with world() as w:
        await w.watching()
        since = now_us()
        w.harm["primary"].loss = 0.12
        await w.publish(2.0, packets=16)
        w.harm["primary"].loss = 0.0
        await w.publish(0.3)
        await settled(w)
        tell(w, "12 % loss", since)
        counts = w.client.receiver.counts(w.client.receiver.flow_numbers[0])
        print(f"repaired {counts.repaired}, from parity {counts.rebuilt}, asked for {counts.nacks}")
        assert w.subscriber.duplicates() == 0


async def test_a_storm_on_the_primary_moves_media() -> None:
    async with world() as w:
        await w.watching()
        await w.publish(0.4)
        since = now_us()
        w.harm["primary"].delay_s = 0.3
        await w.publish(2.0)
        await settled(w)
        tell(w, "storm, 600 ms both ways", since)
        assert w.subscriber.duplicates() == 0
        await until(lambda: w.origin.moves(), "the breaker moves")


async def test_a_primary_that_never_connects_does_not_keep_media_waiting() -> None:
    async with world() as w:
        w.harm["primary"].hole = {"server", "client"}
        await until(lambda: set(w.client.connected) == {"metadata", "backup"}, "all but the primary")
        w.client.subscribe("cam", 1, (0,))
        await until(lambda: w.origin.taps, "the tap")

        def seen() -> bool:
            w.origin.frame(2)
            return w.subscriber.count() > 0

        await until(seen, "the first packets")
        await until(lambda: "backup" in w.served.breaker.carrying, "the backup carries")
        before = len(w.origin.sent[4])
        await w.publish(0.2)
        got = w.subscriber.got["cam", 0]
        await until(lambda: all(seq in got for seq in w.origin.sent[4][before:]), "every packet from then on")
        w.harm["primary"].hole = set()
        await w.up()
        await w.publish(0.2)
        await until(lambda: w.served.breaker.verdict("primary").level.name == "GOOD", "the primary looks good")


async def test_by_hand() -> None:
    async with world() as w:
        await w.watching()
        since = now_us()
        link = w.server.link(w.client.link)
        link.force_open()
        await w.publish(0.3)
        assert link.state()["carrying"] == ["backup"]
        assert link.state()["forced"] is True
        link.reset()
        await w.publish(0.3)
        await settled(w)
        tell(w, "forced over and back", since)
        assert w.subscriber.duplicates() == 0
        assert [move.state for _, move in w.origin.moves()] == ["open", "closed"]
        assert w.client.state()["connected"] == ["metadata", "primary", "backup"]


async def test_connections_that_are_lost_come_back_early_and_nothing_is_doubled() -> None:
    async with world() as w:
        await w.watching()
        await w.publish(0.3)
        for name in ("primary", "metadata", "backup"):
            dials = w.client.dials[name]
            if name == "metadata":
                assert w.served.channel is not None
                w.served.channel.close("test")
            else:
                w.served.paths[name].connection.close("test")  # type: ignore[index]
            await until(lambda name=name: w.subscriber.lost_paths(name), f"{name} is lost")  # type: ignore[misc]
            await w.publish(0.3)
            await w.up()
            assert w.client.dials[name] == dials + 1
        await settled(w)
        assert w.subscriber.duplicates() == 0
        assert w.client.early_dials >= 2
        assert len(w.server.links) == 1


async def test_events_meet_their_frames_in_order_and_survive_the_channel() -> None:
    async with world() as w:
        w.client.watch_room("r")
        await w.watching()
        await until(lambda: w.origin.rooms.get("r"), "the room is watched")
        for index in range(6):
            w.origin.frame()
            now = w.server._clock.next(0)
            w.server.room_events("r", [RoomEvent(now, "score", {"n": index})])
            if index == 2:
                assert w.served.channel is not None
                w.served.channel.close("test")
                await until(lambda: w.subscriber.lost_paths("metadata"), "the channel is lost")
            if index == 4:
                await w.up()
        w.origin.frame()
        await until(lambda: sum(kind == "event" for kind, _ in w.subscriber.order) == 6, "all events")
        events = [sync_id for kind, sync_id in w.subscriber.order if kind == "event"]
        assert events == sorted(set(events))
        assert w.subscriber.gaps == 0


async def test_a_catalog_changes_and_a_false_claim_is_fenced() -> None:
    async with world() as w:
        w.subscriber.fence["stolen"] = "node c holds it"
        await w.watching()
        w.server.set_catalog([publication(), publication("stolen"), publication("other")])
        await until(lambda: set(w.client.catalog) == {"cam", "other"}, "the catalog without the stolen one")
        await until(lambda: w.server.refused == 1, "the claim is refused")
        w.client.subscribe("other", 7, (0,))
        await until(lambda: w.subscriber.answers[-1] == ("other", ()), "a wrong epoch is fenced")
        w.subscriber.fence["cam"] = "epoch 2 is on node c"
        w.client.recheck()
        assert ("cam", ()) in w.subscriber.answers
        assert "cam" not in w.client.catalog
        w.server.set_catalog([publication("other")])
        await until(lambda: set(w.client.catalog) == {"other"}, "a publication ends")
        await until(lambda: not w.origin.taps, "and its taps")


async def test_what_is_wanted_before_it_is_there_comes_when_it_is() -> None:
    async with world() as w:
        w.client.subscribe("late", 1, (0,))
        await w.up()
        await until(lambda: ("late", ()) in w.subscriber.answers, "not yet")
        w.origin.has.add(("late", 0))
        w.server.set_catalog([publication("late")])
        await until(lambda: ("late", (0,)) in w.subscriber.answers, "now")


async def test_paused_layers_keep_their_flows() -> None:
    async with world() as w:
        await w.watching((0, 1))
        w.client.demand("cam", (1,))
        paused = next(flow for flow, key in w.origin.taps.items() if key == ("cam", 0))

        def pauses() -> bool:
            w.origin.frame()
            return w.served.sender.counts(paused).while_paused > 0

        await until(pauses, "the pause")
        w.client.demand("cam", (0, 1))
        before = w.subscriber.got["cam", 0].total()

        def resumes() -> bool:
            w.origin.frame()
            return w.subscriber.got["cam", 0].total() > before

        await until(resumes, "the flow goes on")
        assert w.client.receiver.flow_numbers == (4, 8)


async def test_packets_longer_than_the_path_takes_arrive_all_the_same() -> None:
    async with world() as w:
        await w.watching()
        w.origin.frame(4, size=3000)
        await settled(w)
        assert any(path.long_packets for path in w.served.paths.values())


async def test_a_draining_origin_says_where_to_go() -> None:
    async with world() as w:
        await w.watching()
        w.server.drain("c")
        await until(lambda: w.subscriber.goodbyes == [("draining", "c")], "the goodbye")
        await w.publish(0.2)
        await settled(w)
        w.client.subscribe("cam", 1, (0, 1))
        await until(lambda: w.subscriber.answers[-1] == ("cam", ()), "nothing new is taken on")


async def test_a_subscriber_that_is_gone_for_long_is_forgotten() -> None:
    async with world(LinkFlowSettings(silence_ms=300, ping_ms=50)) as w:
        await w.watching()
        for harm in w.harm.values():
            harm.hole = {"client", "server"}
        await until(lambda: not w.server.links, "the link ends at the origin")
        assert not w.origin.taps
        for harm in w.harm.values():
            harm.hole = set()
        await w.up()
        await until(lambda: w.origin.taps, "it comes back by itself")
        assert any(isinstance(event, PathChanged) and not event.up for event in w.subscriber.events)


async def test_the_catalog_is_there_for_probes() -> None:
    async with world() as w:
        await w.up()
        assert b'"cam"' in w.server._catalog_json()
        assert m.Publication.model_validate_json(w.server._catalog_json()[1:-1]).id == "cam"


async def test_the_channel_leaves_a_dead_path_and_the_link_goes_on() -> None:
    """The channel goes where the primary goes: what kills both must not hold its events back, nor end the link."""
    async with world() as w:
        w.client.watch_room("r")
        await w.watching()
        await until(lambda: w.origin.rooms.get("r"), "the room is watched")
        link, channel = w.served, w.served.channel
        for name in ("metadata", "primary"):
            w.harm[name].hole = {"client", "server"}
        began = now_us()
        w.server.room_events("r", [RoomEvent(w.server._clock.next(0), "score", {"n": 1})])
        w.origin.frame()
        await until(lambda: any(kind == "event" for kind, _ in w.subscriber.order), "the event, on the other route")
        print(f"\nthe event came {(now_us() - began) / 1000:.0f} ms into the black hole")
        assert list(w.server.links.values()) == [link]
        assert link.channel not in {None, channel}
        await w.publish(0.3)
        await settled(w)
        assert w.subscriber.gaps == 0
