"""Where egress gets packets from on a node: taps of the tracks of a room's program, of a publication or of a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import structlog

from relay.egress.codecs import INSTEAD
from relay.egress.feed import Tell
from relay.egress.layers import LayerChoice
from relay.egress.messages import KnowSender
from relay.egress.plane_feed import PlaneFeed, Tapped
from relay.egress.source import Stream
from relay.errors import BadRequest, CostreamError, NotFound
from relay.node.local import LocalTrack
from relay.node.rooms import HostedRooms
from relay.node.senders import MOVED_US, SenderClocks
from relay.plane import Plane
from relay.plane.contract import Kind
from relay.stage.document import PROGRAM
from relay.stage.sender_clock import Anchor

log = structlog.get_logger()

REVIEW_S = 0.25
_PREFERRED = ("program", "camera", "microphone", "screen")


class RoomFeeds:
    """See `relay.egress.feed.Feeds`. A source is the id of a publication, or an identity whose picture and sound are
    wanted; `program` is the identity of a room's program. Of simulcast the best layer is taken (`LayerChoice`)."""

    def __init__(
        self,
        rooms: HostedRooms,
        plane: Plane,
        next_handle: Callable[[], int],
        senders: SenderClocks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rooms, self._plane, self._next_handle, self._clock = rooms, plane, next_handle, clock
        self._senders = senders
        self._open: list[RoomFeed] = []

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> RoomFeed:
        """See `Feeds.open`."""
        hosted = self._rooms.get(room)
        tracks = [] if hosted is None else find(source, hosted.local_tracks())
        if not tracks:
            raise NotFound(f"{source!r} is not sent to this node", code="publication-not-found")
        choices = [(track, LayerChoice(track.active, self._clock())) for track in tracks]
        layers = [self._tapped(track, choice.layer) for track, choice in choices]
        return RoomFeed(self._plane, layers, choices, self._senders, on_end, self._open)

    def track_gone(self, track: int) -> None:
        """A track was forgotten, and its taps with it."""
        for feed in [feed for feed in self._open if feed.takes(track)]:
            feed.end()

    def layer_stopped(self, track: int) -> None:
        """A layer fell silent: who takes it goes on with another one, if one is active; else waits for it."""
        self._review([feed for feed in self._open if feed.takes(track)])

    async def watch(self) -> None:
        """Look for better layers until cancelled."""
        while True:
            await asyncio.sleep(REVIEW_S)
            self._review(list(self._open))

    def _review(self, feeds: Iterable[RoomFeed]) -> None:
        for feed in feeds:
            try:
                feed.review(self._clock(), self._next_handle)
            except CostreamError as error:
                log.warning("egress begins anew, for want of another layer", reason=str(error))
                feed.end()

    def _tapped(self, track: LocalTrack, layer: int) -> Tapped:
        kind, codec = stream_of(track)
        types = [each.number for each in track.plan.payload_types if each.codec == codec]
        number = types[0] if len(types) == 1 else -1
        return Tapped(Stream(self._next_handle(), kind, codec, number), track.handle, layer)


class RoomFeed(PlaneFeed):
    """A feed that is listed in `among` until it is closed."""

    def __init__(
        self,
        plane: Plane,
        layers: Sequence[Tapped],
        choices: Iterable[tuple[LocalTrack, LayerChoice]],
        senders: SenderClocks,
        on_end: Callable[[], None],
        among: list[RoomFeed],
    ) -> None:
        super().__init__(plane, layers, on_end)
        self._choices = {track.handle: (track, choice) for track, choice in choices}
        self._senders, self._among = senders, among
        self._known: KnowSender | None = None
        """What was told of the sender."""
        among.append(self)

    def watch(self, tell: Tell) -> None:
        """See `Feed.watch`. What is known of the sender is told first, before the process reads a packet."""
        super().watch(tell)
        self._tell_sender()

    def takes(self, track: int) -> bool:
        """Whether it taps a track."""
        return track in self._choices

    def review(self, now: float, next_handle: Callable[[], int]) -> None:
        """Go on with other layers where that is better. Raises as `go_on_with` does."""
        for track, choice in self._choices.values():
            layer = choice.choose(track.active, now)
            if layer != self.wanted_layer(track.handle):
                self.go_on_with(track.handle, layer, next_handle)
        self._tell_sender()

    def _tell_sender(self) -> None:
        if self._tell is None:
            return
        tracks = [track for track, _ in self._choices.values()]
        sessions = {track.session for track in tracks if track.key[0] != PROGRAM}  # its sound and picture match as is
        session = sessions.pop() if len(tracks) > 1 and len(sessions) == 1 else ""
        anchors = [(each, self._senders.anchor(each.track, each.layer)) for each in self._layers.values() if session]
        known = tuple((each.stream.number, anchor) for each, anchor in anchors if anchor is not None)
        if self._known is None or self._known.session != session or not self._is_near(known):
            self._known = KnowSender(session, known)
            self._tell(self._known)

    def _is_near(self, known: Sequence[tuple[int, Anchor]]) -> bool:
        """Whether what was told of the streams holds."""
        told = dict(self._known.captured) if self._known is not None else {}
        return told.keys() == dict(known).keys() and all(
            anchor.is_near(told[number], self._clock_hz(number), MOVED_US) for number, anchor in known
        )

    def _clock_hz(self, stream: int) -> int:
        track, _ = self._choices[self._layers[stream].track]
        return track.plan.payload_types[0].clock_hz

    def close(self) -> None:
        super().close()
        if self in self._among:
            self._among.remove(self)


def find(source: str, tracks: Iterable[LocalTrack]) -> list[LocalTrack]:
    """The track of a publication; else a person's picture, the camera's rather than the screen's, and sound."""
    known = [track for track in tracks if track.codec]
    exact = [track for track in known if track.publication == source]
    if exact:
        return exact
    theirs = [track for track in known if track.key[0] == source]
    theirs.sort(key=lambda track: _PREFERRED.index(track.key[2]) if track.key[2] in _PREFERRED else len(_PREFERRED))
    by_kind = {kind: next((track for track in theirs if track.plan.kind is kind), None) for kind in Kind}
    return [track for track in by_kind.values() if track is not None]


def stream_of(track: LocalTrack) -> tuple[Literal["video", "audio"], Literal["h264", "vp8", "opus"]]:
    """What a track is to egress. Raises BadRequest for a codec that it never takes."""
    match track.plan.kind, track.codec:
        case Kind.VIDEO, "h264":
            return "video", "h264"
        case Kind.VIDEO, "vp8":
            return "video", "vp8"
        case Kind.AUDIO, "opus":
            return "audio", "opus"
    raise BadRequest(
        f"{track.codec} of {track.key[0]} cannot leave the room: egress takes H264 (a recording VP8, too) and Opus; "
        f"{INSTEAD}",
        code="codec-not-taken",
    )
