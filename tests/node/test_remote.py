"""Publications of other nodes: a document, catalogs and viewers in; subscriptions and plane commands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from relay.link import messages
from relay.node.remote import KEEP_LAYER_S, KEEP_TRACK_S, RemotePublications
from relay.plane.contract import AddTrack, BindSlot, Command, Kind, PayloadType, RemoveTrack
from relay.stage import publications
from relay.stage.live import LiveRoom
from relay.stage.live_model import SlotSpec
from relay.stage.permissions import Role
from relay.stage.sender_clock import Anchor
from tests.stage.rooms import GUEST, new_room, publish

VP8 = PayloadType(96, "vp8", 90_000)
CAMERA = f"{GUEST.identity}-video"


class Links:
    """Notes what is asked of the links."""

    def __init__(self) -> None:
        self.followed: frozenset[str] = frozenset()
        self.wanted: dict[str, tuple[str, int, tuple[int, ...]]] = {}
        self.keyframes: list[tuple[str, str, int]] = []
        self.catalogs: dict[str, dict[str, messages.Publication]] = {}

    def follow(self, room: str, nodes: frozenset[str]) -> None:
        self.followed = nodes

    def subscribe(self, node: str, publication: str, epoch: int, layers: tuple[int, ...]) -> None:
        if layers:
            self.wanted[publication] = (node, epoch, layers)
        elif self.wanted.get(publication, ("", 0, ()))[:2] == (node, epoch):
            del self.wanted[publication]

    def request_keyframe(self, node: str, publication: str, layer: int) -> None:
        self.keyframes.append((node, publication, layer))

    def catalog(self, node: str) -> Mapping[str, messages.Publication]:
        return self.catalogs.get(node, {})


class World:
    """The room as node `here` has it; a guest publishes a camera in three layers elsewhere."""

    def __init__(self) -> None:
        self.now = 100.0
        self.links = Links()
        self.live = LiveRoom(lambda slot, track: track.number)
        self.submitted: list[Command] = []
        self.owned: set[int] = set()
        self.captured: dict[tuple[int, int], Anchor | None] = {}
        self.handles = iter(range(1, 100))
        self.state, _ = publish(new_room(), GUEST, node="there", epoch=5)
        self.remote = RemotePublications(
            "show", "here", self.live, self.links, self.submit, lambda: next(self.handles), self.owns, self.learns
        )

    def submit(self, *commands: Command) -> None:
        self.submitted.extend(commands)

    def owns(self, handle: int, present: bool) -> None:
        (self.owned.add if present else self.owned.discard)(handle)

    def learns(self, handle: int, layer: int, captured: Anchor | None) -> None:
        self.captured[handle, layer] = captured

    def update(self, *, watched: bool = True) -> None:
        self.live.update(self.state, self.now)
        self.remote.update(self.state, self.now, watched=watched)

    def offer(self, node: str = "there", epoch: int = 5, active: tuple[bool, ...] = (True, True, True)) -> None:
        layers = tuple(
            messages.Layer(rid=rid, active=lives, bps=bps)
            for rid, lives, bps in zip("qhf", active, (150_000, 500_000, 1_500_000), strict=True)
        )
        codecs = (messages.Codec(number=96, codec="vp8", clock_hz=90_000),)
        entry = messages.Publication(id=CAMERA, epoch=epoch, room="show", kind="video", codecs=codecs, layers=layers)
        self.links.catalogs[node] = {CAMERA: entry}
        self.remote.offered(node, self.links.catalogs[node], self.now)

    def watch(self) -> None:
        specs = [SlotSpec(50, 0, "0", Kind.VIDEO, (VP8,))]
        self.live.add_viewer_session(7, "w7", "vera", Role.VIEWER, specs, self.now)
        self.flush()

    def flush(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.submitted += self.live.commands()
        self.remote.demand(self.now, listen=False)

    def taken(self, kind: type[Any]) -> list[Any]:
        found = [command for command in self.submitted if isinstance(command, kind)]
        self.submitted = [command for command in self.submitted if not isinstance(command, kind)]
        return found


def playing() -> World:
    world = World()
    world.update()
    world.offer()
    world.watch()
    return world


def test_what_the_origin_knows_of_capture_times_comes_with_its_catalog() -> None:
    world = playing()
    (handle,) = world.owned
    assert world.captured == {(handle, layer): None for layer in range(3)}
    entry = world.links.catalogs["there"][CAMERA]
    layers = (entry.layers[0], entry.layers[1].model_copy(update={"captured": (7, 3000, 10**15)}), entry.layers[2])
    offered = messages.Catalog(version=1, publications=(entry.model_copy(update={"layers": layers}),))
    told = messages.decode(messages.encode(offered, 65_536)[messages.LENGTH_BYTES :])
    assert isinstance(told, messages.Catalog)
    world.remote.offered("there", {CAMERA: told.publications[0]}, world.now)
    assert world.captured[handle, 1] == Anchor(7, 3000, 10**15)
    assert world.captured[handle, 2] is None


def test_how_long_sound_waits_in_another_node_s_program_comes_with_its_catalog() -> None:
    world = playing()
    assert world.remote.sound_waits == {}
    entry = world.links.catalogs["there"][CAMERA]
    waits = (messages.SoundWait(participant="gus", ms=180), messages.SoundWait(participant="greta", ms=60))
    offered = messages.Catalog(version=1, publications=(entry.model_copy(update={"waits": waits}),))
    told = messages.decode(messages.encode(offered, 65_536)[messages.LENGTH_BYTES :])
    assert isinstance(told, messages.Catalog)
    world.remote.offered("there", {CAMERA: told.publications[0]}, world.now)
    assert world.remote.sound_waits == {"gus": 180, "greta": 60}
    world.state = replace(world.state, publications={})
    world.update()
    assert world.remote.sound_waits == {}


def test_what_a_slot_shows_is_subscribed_to() -> None:
    world = World()
    world.update()
    assert world.links.followed == {"there"}
    assert world.submitted == []
    world.offer()
    (added,) = world.taken(AddTrack)
    assert (added.session, added.kind, [layer.rid for layer in added.layers]) == (None, Kind.VIDEO, ["q", "h", "f"])
    assert world.owned == {added.track}
    world.flush()
    assert world.links.wanted == {}
    world.watch()
    (bound,) = world.taken(BindSlot)
    assert bound.track == added.track
    assert world.links.wanted == {CAMERA: ("there", 5, (bound.layer,))}
    assert world.remote.handle_of("there", CAMERA) == added.track
    assert world.remote.handle_of("elsewhere", CAMERA) is None
    world.remote.request_keyframe(added.track, 1)
    assert world.links.keyframes == [("there", CAMERA, 1)]


def test_a_layer_is_kept_for_a_while_when_it_is_not_needed_any_more() -> None:
    world = playing()
    (first,) = world.links.wanted[CAMERA][2]
    other = 0 if first else 1
    world.live.change_slot(7, 0, {"layer": "qhf"[other]}, world.now)
    world.flush()
    assert world.links.wanted[CAMERA][2] == tuple(sorted((first, other)))
    world.live.on_slot_switched(50, world.remote.handle_of("there", CAMERA) or 0, other, 9000)
    world.flush(KEEP_LAYER_S + 0.1)
    assert world.links.wanted[CAMERA][2] == (other,)


def test_without_viewers_no_link_is_kept() -> None:
    world = playing()
    handle = world.remote.handle_of("there", CAMERA)
    world.live.remove_session(7)
    world.update(watched=False)
    assert world.links.followed == frozenset()
    assert world.links.wanted == {}
    assert [removed.track for removed in world.taken(RemoveTrack)] == [handle]
    assert world.owned == set()


def test_the_old_origin_plays_until_the_new_one_is_there() -> None:
    world = playing()
    old = world.remote.handle_of("there", CAMERA)
    world.taken(BindSlot)
    moved = replace(world.state.publications[CAMERA], node="third", epoch=6)
    world.state = replace(world.state, publications={CAMERA: moved})
    world.update()
    world.flush()
    assert world.taken(BindSlot) == []
    assert world.taken(RemoveTrack) == []
    world.offer("third", epoch=5)  # not under the lease that the document names
    assert world.remote.handle_of("third", CAMERA) is None
    world.offer("third", epoch=6)
    world.flush()
    new = world.remote.handle_of("third", CAMERA)
    assert [bound.track for bound in world.taken(BindSlot)] == [new]
    assert world.links.wanted[CAMERA][:2] == ("third", 6)
    world.remote.sweep(world.now + KEEP_TRACK_S - 0.1)
    assert world.taken(RemoveTrack) == []
    world.remote.sweep(world.now + KEEP_TRACK_S)
    assert [removed.track for removed in world.taken(RemoveTrack)] == [old]
    assert world.owned == {new}


def test_another_codec_comes_as_another_track() -> None:
    world = playing()
    before = world.remote.handle_of("there", CAMERA)
    entry = world.links.catalogs["there"][CAMERA]
    other = entry.model_copy(update={"codecs": (messages.Codec(number=102, codec="h264", clock_hz=90_000),)})
    world.remote.offered("there", {CAMERA: other}, world.now)
    world.flush()
    after = world.remote.handle_of("there", CAMERA)
    assert after != before
    assert world.taken(BindSlot)[-1].track == after
    assert world.links.wanted[CAMERA][0] == "there"


def test_layers_that_stop_at_the_origin_are_left() -> None:
    world = playing()
    (shown,) = world.links.wanted[CAMERA][2]
    world.offer(active=tuple(layer != shown for layer in range(3)))
    world.flush(0.5)
    world.live.tick(world.now)
    world.flush()
    assert set(world.links.wanted[CAMERA][2]) - {shown}


def test_a_publication_that_ends_takes_its_track_along() -> None:
    world = playing()
    handle = world.remote.handle_of("there", CAMERA)
    world.state, _ = publications.end_all(world.state, GUEST.identity, "left", world.now)
    world.update()
    world.flush()
    assert world.links.wanted == {}
    assert [removed.track for removed in world.taken(RemoveTrack)] == [handle]
    assert world.taken(BindSlot)[-1].track is None


def test_own_and_unleased_publications_are_nobodys_business() -> None:
    world = World()
    for change in ({"node": "here"}, {"epoch": 0}):
        mine = replace(world.state.publications[CAMERA], **change)
        world.state = replace(world.state, publications={CAMERA: mine})
        world.update()
        assert world.links.followed == frozenset()


def test_closing_lets_go_of_everything() -> None:
    world = playing()
    world.remote.close()
    assert (world.links.followed, world.links.wanted, world.owned) == (frozenset(), {}, set())
