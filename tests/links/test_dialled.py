"""A dialled link as the relay sees it: judged offers, streams that follow the node's tracks, and a new process."""

from __future__ import annotations

from collections.abc import Sequence

from relay.link.hooks import LinkEvent
from relay.link.messages import Publication
from relay.links import messages as m
from relay.links.dialled import ProcessLink
from relay.ports import RoomEvent
from relay.stage.timeline import Reading
from tests.link.link_world import publication


class World:
    """A link to node `there`: what is said to the process, what the node hears, what the ring's streams go to."""

    def __init__(self) -> None:
        self.said: list[m.Order] = []
        self.refused: dict[tuple[str, int], str] = {}
        self.catalogs: list[dict[str, Publication]] = []
        self.events: list[tuple[str, int]] = []
        self.tracks: dict[str, int] = {}
        self.bound: dict[int, tuple[int, int]] = {}
        self.closed: list[int] = []
        self.placings: list[tuple[int, int, int, Reading | None]] = []
        self._streams = iter(range(100, 200))
        self.link = ProcessLink(
            1, "there", ("h:1",), self, self, self.said.append, self.closed.append,
        )  # fmt: skip
        self.link.start()

    def heard(self) -> list[m.Order]:
        said, self.said[:] = list(self.said), []
        return said

    def offer(self, *offered: Publication, anew: bool = False, removed: tuple[str, ...] = ()) -> None:
        self.link.offered(m.Offered(1, offered, removed, anew, True))

    def bind(self, stream: int, track: int, layer: int) -> None:
        self.bound[stream] = track, layer

    def unbind(self, stream: int) -> None:
        self.bound.pop(stream, None)

    def handle_of(self, node: str, publication: str) -> int | None:
        return self.tracks.get(publication)

    def placed(self, track: int, layer: int, clock_hz: int, reading: Reading | None) -> None:
        self.placings.append((track, layer, clock_hz, reading))

    def media_came(self, node: str) -> None: ...

    def new_stream(self) -> int:
        return next(self._streams)

    def admit(self, node: str, publication: Publication) -> str:
        return self.refused.get((publication.id, publication.epoch), "")

    def catalog_changed(self, node: str, publications: dict[str, Publication]) -> None:
        self.catalogs.append(publications)

    def subscribed(self, node: str, publication: str, layers: tuple[int, ...]) -> None: ...

    def layer_started(self, node: str, publication: str, layer: int, payload_type: int) -> None: ...

    def packets(self, node: str, publication: str, layer: int, packets: Sequence[bytes]) -> None:
        raise AssertionError("packets go by the ring")

    def room_events(self, node: str, room: str, events: Sequence[RoomEvent], gap: bool) -> None:
        self.events += [(room, event.sync_id) for event in events]

    def link_changed(self, event: LinkEvent) -> None: ...

    def goodbye(self, node: str, reason: str, instead: str) -> None: ...


def test_what_the_node_refuses_is_fenced_and_comes_back_when_it_may() -> None:
    world = World()
    world.refused["cam", 1] = "b holds it"
    world.heard()
    world.offer(publication("cam"), publication("mic"))
    assert list(world.link.catalog) == ["mic"]
    assert world.heard() == [m.Fence(1, "cam", 1, "b holds it")]
    world.offer(removed=("cam",))  # what the process does when it is told
    assert world.heard() == []
    world.link.recheck()
    assert world.heard() == []
    world.refused.clear()
    world.link.recheck()
    assert world.heard() == [m.Fence(1, "cam", 1, "")]
    world.offer(publication("cam"))
    assert sorted(world.link.catalog) == ["cam", "mic"]
    assert [sorted(catalog) for catalog in world.catalogs] == [["mic"], ["cam", "mic"]]


def test_a_later_epoch_of_what_was_fenced_is_judged_for_itself() -> None:
    world = World()
    world.refused["cam", 1] = "b holds it"
    world.offer(publication("cam"))
    world.offer(removed=("cam",))
    world.offer(publication("cam", epoch=2))
    assert world.link.offer("cam") == publication("cam", epoch=2)
    world.refused["cam", 2] = "c holds it"
    world.heard()
    world.link.recheck()
    assert world.link.offer("cam") is None
    assert world.heard() == [m.Fence(1, "cam", 1, ""), m.Fence(1, "cam", 2, "c holds it")]


def test_streams_go_where_the_node_has_the_track_and_nowhere_else() -> None:
    world = World()
    world.tracks["cam"] = 7
    world.link.subscribe("cam", 1, (0, 2))
    assert world.bound == {100: (7, 0), 101: (7, 2)}
    assert world.heard()[-1] == m.Subscribe(1, "cam", 1, (0, 2), (100, 101))
    world.tracks["cam"] = 8
    world.link.rebind()
    assert world.bound == {100: (8, 0), 101: (8, 2)}
    world.link.subscribe("cam", 1, (2,))
    assert world.bound == {101: (8, 2)}
    del world.tracks["cam"]
    world.link.rebind()
    assert world.bound == {}
    world.link.unsubscribe("cam")
    assert world.heard()[-1] == m.Subscribe(1, "cam", 1, (), ())


def test_a_track_is_told_when_its_frames_were_before_anything_is_injected_into_it() -> None:
    world = World()
    world.offer(publication("cam"))
    hz = publication("cam").clock_hz
    world.link.time_of("cam", 0, (1, 10, 100))  # nobody wants it yet
    world.tracks["cam"] = 7
    world.link.subscribe("cam", 1, (0,))
    assert world.placings == [(7, 0, hz, None)]
    world.link.time_of("cam", 0, (1, 20, 200))
    world.link.time_of("cam", 1, (1, 20, 200))  # nor this layer
    assert world.placings[1:] == [(7, 0, hz, (1, 20, 200))]
    world.tracks["cam"] = 8
    world.link.rebind()
    assert world.placings[2:] == [(8, 0, hz, (1, 20, 200))]
    del world.tracks["cam"]
    world.link.time_of("cam", 0, (1, 30, 300))
    world.tracks["cam"] = 9
    world.link.rebind()
    assert world.placings[3:] == [(9, 0, hz, (1, 30, 300))]
    world.link.subscribe("cam", 1, ())
    world.link.subscribe("cam", 1, (0,))
    assert world.placings[4:] == [(9, 0, hz, None)]


async def test_the_next_process_hears_all_that_is_wanted_and_where_events_went_on() -> None:
    world = World()
    world.tracks["cam"] = 7
    world.link.watch_room("r")
    world.link.subscribe("cam", 3, (1,))
    world.offer(publication("cam", epoch=3))
    world.link.events("r", (RoomEvent(40, "x", {}), RoomEvent(41, "x", {})), gap=False)
    world.link.events("other", (RoomEvent(42, "x", {}),), gap=False)
    world.heard()
    world.bound.clear()
    world.link.begin_anew()
    assert world.heard() == [
        m.Dial(1, "there", ("h:1",)),
        m.WatchRoom(1, "r", True, 41),
        m.Subscribe(1, "cam", 3, (1,), (100,)),
    ]
    assert world.bound == {100: (7, 1)}
    assert list(world.link.catalog) == ["cam"]  # until the new process has said what there is
    world.offer(publication("mic"), anew=True)
    assert list(world.link.catalog) == ["mic"]
    assert world.events == [("r", 40), ("r", 41)]
    await world.link.close()
    assert world.heard() == [m.Subscribe(1, "cam", 3, (), ()), m.HangUp(1)]
    assert (world.bound, world.closed) == ({}, [1])
    world.link.begin_anew()
    assert world.heard() == []
