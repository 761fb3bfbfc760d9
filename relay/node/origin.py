"""What this node offers to others: the publications that it is the origin of, tapped while a link carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from relay.link.hooks import LayerSource, LinkEvent, LinkMoved
from relay.links.ends import ServingEnd
from relay.links.sources import source_of
from relay.node.clocks import TrackClocks
from relay.node.local import LocalTrack
from relay.node.rooms import HostedRooms
from relay.plane.contract import AddTap, RemoveTap, RequestKeyframe
from relay.ports import RoomEvent
from relay.stage.timeline import Reading, Timeline

log = structlog.get_logger()


class Origin:
    """See `relay.link.hooks.OriginHooks`. `server` is set once it is there; until then nobody asks.

    `ring_for` is told of each flow and its tap before the first packet, and says which of the plane's rings the packets
    go to; None: they come to `tapped`.
    """

    server: ServingEnd

    def __init__(
        self,
        rooms: HostedRooms,
        submit: Callable[..., None],
        next_handle: Callable[[], int],
        clocks: TrackClocks,
        on_link: Callable[[LinkEvent], None],
    ) -> None:
        self._rooms = rooms
        self._submit = submit
        self._next_handle = next_handle
        self._clocks = clocks
        self._on_link = on_link
        self.ring_for: Callable[[int, int], int | None] = lambda flow, tap: None
        self._tracks: dict[str, LocalTrack] = {}
        self._flow_of: dict[int, int] = {}
        self._tap_of: dict[int, tuple[int, int]] = {}
        self._timelines: dict[int, Timeline] = {}

    # --- the node tells -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Rooms' publications changed: tell the subscribers."""
        offers = [(room.id, track) for room in self._rooms for track in room.offers()]
        self._tracks = {track.publication: track for _, track in offers}
        self.server.set_catalog(track.offer(room) for room, track in offers)

    def tapped(self, packets: Iterable[tuple[int, bytes, int]]) -> list[tuple[int, bytes]]:
        """Return what the plane's taps gave as (flow, packet), for `LinkServer.feed`."""
        flow_of = self._flow_of
        return [(flow_of[tap], packet) for tap, packet, _ in packets if tap in flow_of]

    def room_events(self, room: str, events: Sequence[RoomEvent]) -> None:
        """Events of a room, for the nodes that watch it."""
        self.server.room_events(room, events)

    # --- the links ask ------------------------------------------------------------------------------------------------

    def tap(self, flow: int, publication: str, layer: int) -> LayerSource | None:
        track = self._tracks.get(publication)
        if track is None or layer >= len(track.plan.layers):
            return None
        tap = self._next_handle()
        types = track.plan.payload_types
        timeline = self._timelines[flow] = self._clocks.timeline(track.handle, layer, types[0].clock_hz)
        self._submit(AddTap(tap, track.handle, layer, canonical=True, ring=self.ring_for(flow, tap)))
        self._flow_of[tap], self._tap_of[flow] = flow, (tap, track.handle)
        return source_of(track.plan.kind, types, timeline)

    def readings(self, flows: Iterable[int] | None = None) -> list[tuple[int, int, Reading]]:
        """Return the newest frames of what is tapped, as (flow, RTP clock in Hz, frame)."""
        self._clocks.refresh()
        lines = [(flow, self._timelines[flow]) for flow in (self._timelines if flows is None else flows)]
        return [(flow, line.clock_hz, reading) for flow, line in lines if (reading := line.reading) is not None]

    def forget_taps(self) -> None:
        """The ring that all taps went to is closed, and they are gone with it."""
        self._flow_of.clear()
        self._tap_of.clear()
        self._timelines.clear()

    def untap(self, flow: int) -> None:
        tap, track = self._tap_of.pop(flow)
        del self._flow_of[tap]
        del self._timelines[flow]
        if self._rooms.of_track(track) is not None:  # a track that is gone has taken its taps along
            self._submit(RemoveTap(tap))

    def request_keyframe(self, publication: str, layer: int) -> None:
        track = self._tracks.get(publication)
        if track is not None and layer < len(track.plan.layers):
            self._submit(RequestKeyframe(track.handle, layer))

    def watch_room(self, room: str, watched: bool) -> None:
        """Nothing to do: rooms give their events in any case, and the server drops what nobody watches."""

    def link_changed(self, event: LinkEvent) -> None:
        if isinstance(event, LinkMoved):
            log.warning(
                "link moved" if event.code == "LINK_UNSTABLE" else "link is back on its primary path",
                peer=event.peer,
                state=event.state,
                reason=event.reason,
                carrying=event.carrying,
                sync_id=event.sync_id,
            )
        else:
            log.info("link path", peer=event.peer, path=event.path, up=event.up, reason=event.reason)
        self._on_link(event)
