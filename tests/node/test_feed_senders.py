"""What an egress process is told of who sends its picture and sound, and when it is told anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from relay.edge.plan import TrackPlan
from relay.egress.layers import LayerChoice
from relay.egress.messages import TO_PROCESS, Follow, KnowSender
from relay.egress.plane_feed import Tapped
from relay.egress.source import Stream
from relay.node.local import LocalTrack
from relay.node.senders import MOVED_US, SenderClocks
from relay.node.taps import RoomFeed, stream_of
from relay.plane.contract import AddTap, AddTrack, Command, Feedback, Kind, LayerSpec, PayloadType
from relay.plane.rings import TapRing
from relay.process.control import Wire, frame
from relay.stage.document import PROGRAM
from relay.stage.sender_clock import Anchor
from tests.egress.show import AUDIO, AUDIO_PT, VIDEO, VIDEO_PT
from tests.plane.sockets import Host

FORMS = {VIDEO: PayloadType(VIDEO_PT, "vp8", 90_000), AUDIO: PayloadType(AUDIO_PT, "opus", 48_000)}
SEEN, HEARD = Anchor(70, 3000, 10**15), Anchor(80, 960, 10**15)


@dataclass
class Plane:
    """A real one, which writes down what it is told."""

    host: Host
    commands: list[Command] = field(default_factory=list)

    def submit(self, *commands: Command) -> None:
        self.commands += commands
        self.host.plane.submit(*commands)

    def open_tap_ring(self, **given: Any) -> TapRing:
        return self.host.plane.open_tap_ring(**given)


def local(track: int, session: str, identity: str) -> LocalTrack:
    kind, layers = (Kind.VIDEO, ("q", "h")) if track == VIDEO else (Kind.AUDIO, ("",))
    plan = TrackPlan("", kind, (FORMS[track],), tuple(map(LayerSpec, layers)), Feedback(), "camera", "")
    made = LocalTrack((identity, kind.value, "camera"), track, str(track), session, plan, FORMS[track].codec)
    made.active = {0}
    return made


class World:
    """Somebody's camera and microphone, of whose clock everything is known, and the feed that taps them."""

    def __init__(self, host: Host, *, sessions: tuple[str, str] = ("s1", "s1"), identity: str = "ann") -> None:
        self.plane, self.senders, self.told = Plane(host), SenderClocks(), list[Follow | KnowSender]()
        self.tracks = [local(track, by, identity) for track, by in zip((VIDEO, AUDIO), sessions, strict=True)]
        for each in self.tracks:
            plan = each.plan
            self.plane.submit(AddTrack(each.handle, None, plan.kind, "", plan.payload_types, plan.layers))
        self.senders.linked(VIDEO, 0, SEEN)
        self.senders.linked(AUDIO, 0, HEARD)
        tapped = [Tapped(_stream(each), each.handle, 0) for each in self.tracks]
        choices = [(each, LayerChoice(each.active, 0.0)) for each in self.tracks]
        self.feed = RoomFeed(self.plane, tapped, choices, self.senders, lambda: None, [])
        self.numbers = iter(range(100, 200))
        self.now = 0.0

    def watch(self) -> None:
        self.feed.watch(self.told.append)

    def review(self, seconds: float = 0.25) -> list[Follow | KnowSender]:
        """What is told for the first time."""
        self.now += seconds
        before = len(self.told)
        self.feed.review(self.now, self.numbers.__next__)
        return self.told[before:]


def _stream(track: LocalTrack) -> Stream:
    return Stream(10 + track.handle, *stream_of(track))


async def test_all_is_told_when_the_process_is_there_and_again_when_it_moved() -> None:
    async with Host("reference") as host:
        world = World(host)
        assert world.review() == []
        world.watch()
        known = KnowSender("s1", ((10 + VIDEO, SEEN), (10 + AUDIO, HEARD)))
        assert world.told == [known]
        assert Wire(*TO_PROCESS).feed(frame(known)) == [known]
        world.senders.linked(VIDEO, 0, SEEN._replace(captured=SEEN.captured + MOVED_US - 1))
        assert world.review() == []
        moved = SEEN._replace(captured=SEEN.captured + MOVED_US)
        world.senders.linked(VIDEO, 0, moved)
        assert world.review() == [KnowSender("s1", ((10 + VIDEO, moved), (10 + AUDIO, HEARD)))]
        world.senders.linked(VIDEO, 0, None)
        assert world.review() == [KnowSender("s1", ((10 + AUDIO, HEARD),))]
        world.feed.close()


async def test_another_session_is_told_and_two_have_no_clock_together() -> None:
    async with Host("reference") as host:
        world = World(host)
        world.watch()
        world.tracks[0].session = "s2"
        assert world.review() == [KnowSender("", ())]
        world.tracks[1].session = "s2"
        (told,) = world.review()
        assert isinstance(told, KnowSender)
        assert (told.session, len(told.captured)) == ("s2", 2)
        world.feed.close()


async def test_a_programs_sound_and_picture_match_as_they_are() -> None:
    async with Host("reference") as host:
        world = World(host, identity=PROGRAM)
        world.watch()
        assert world.told == [KnowSender("", ())]
        world.feed.close()


async def test_another_layer_s_line_is_there_before_its_pictures_are_taken() -> None:
    async with Host("reference") as host:
        world = World(host)
        world.watch()
        world.senders.linked(VIDEO, 1, better := SEEN._replace(ssrc=71))
        world.tracks[0].active.add(1)
        world.review()
        follow, known = world.review(60.0)
        assert follow == Follow(Stream(100, "video", "vp8"))
        assert isinstance(known, KnowSender)
        assert dict(known.captured) == {10 + VIDEO: SEEN, 10 + AUDIO: HEARD, 100: better}
        world.feed.close()


async def test_taps_are_canonical_so_that_capture_times_are_found() -> None:
    async with Host("reference") as host:
        world = World(host)
        taps = [each for each in world.plane.commands if isinstance(each, AddTap)]
        assert [each.canonical for each in taps] == [True, True]
        world.feed.close()
