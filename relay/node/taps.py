"""Where egress gets packets from on a node: taps of the tracks of a room's program, of a publication or of a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from relay.egress.plane_feed import PlaneFeed, Tapped
from relay.egress.source import Stream
from relay.errors import BadRequest, NotFound
from relay.node.local import LocalTrack
from relay.node.rooms import HostedRooms
from relay.plane import Plane
from relay.plane.contract import Kind

_PREFERRED = ("program", "camera", "microphone", "screen")


class RoomFeeds:
    """See `relay.egress.feed.Feeds`. A source is the id of a publication, or an identity whose picture and sound are
    wanted; `program` is the identity of a room's program."""

    def __init__(self, rooms: HostedRooms, plane: Plane, next_handle: Callable[[], int]) -> None:
        self._rooms, self._plane, self._next_handle = rooms, plane, next_handle
        self._open: list[RoomFeed] = []

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> RoomFeed:
        """See `Feeds.open`."""
        hosted = self._rooms.get(room)
        tracks = [] if hosted is None else find(source, hosted.local_tracks())
        if not tracks:
            raise NotFound(f"{source!r} is not sent to this node", code="publication-not-found")
        layers = [self._tapped(track) for track in tracks]
        return RoomFeed(self._plane, layers, tracks, on_end, self._open)

    def track_gone(self, track: int) -> None:
        """A track was forgotten, and its taps with it."""
        for feed in [feed for feed in self._open if feed.takes(track)]:
            feed.end()

    def layer_stopped(self, track: int, layer: int) -> None:
        """Who taps a layer that fell silent begins anew with another one, if one is active; else waits for it."""
        for feed in [feed for feed in self._open if feed.takes(track, layer)]:
            if feed.has_other_layer(track, layer):
                feed.end()

    def _tapped(self, track: LocalTrack) -> Tapped:
        kind, codec = stream_of(track)
        types = [each.number for each in track.plan.payload_types if each.codec == codec]
        number = types[0] if len(types) == 1 else -1
        layer = max(track.active, default=0)
        return Tapped(Stream(self._next_handle(), kind, codec, number), track.handle, layer)


class RoomFeed(PlaneFeed):
    """A feed that is listed in `among` until it is closed."""

    def __init__(
        self,
        plane: Plane,
        layers: Sequence[Tapped],
        tracks: Iterable[LocalTrack],
        on_end: Callable[[], None],
        among: list[RoomFeed],
    ) -> None:
        super().__init__(plane, layers, on_end)
        self._tracks = {track.handle: track for track in tracks}
        self._among = among
        among.append(self)

    def takes(self, track: int, layer: int | None = None) -> bool:
        """Whether it taps a track, or a layer of it."""
        return any(each.track == track and layer in (None, each.layer) for each in self._layers)

    def has_other_layer(self, track: int, layer: int) -> bool:
        """Whether packets of another layer of a track arrive."""
        return bool(self._tracks[track].active - {layer})

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


def stream_of(track: LocalTrack) -> tuple[Literal["video", "audio"], Literal["h264", "opus"]]:
    """What a track is to egress. Raises BadRequest for a codec that it does not take."""
    match track.plan.kind, track.codec:
        case Kind.VIDEO, "h264":
            return "video", "h264"
        case Kind.AUDIO, "opus":
            return "audio", "opus"
    raise BadRequest(
        f"{track.codec} of {track.key[0]} cannot leave the room: egress takes H264 and Opus, which a room with these "
        "codecs, or a program, has",
        code="codec-not-taken",
    )
