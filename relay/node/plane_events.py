"""What the plane tells goes to the session or the room that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

from relay.node.outputs import Outputs
from relay.node.room import HostedRoom
from relay.node.rooms import HostedRooms
from relay.node.sessions import NodeSessions
from relay.plane import contract as plane


class PlaneEvents:
    """The plane's `on_events` of a node. `monotonic` in seconds."""

    def __init__(
        self, sessions: NodeSessions, rooms: HostedRooms, egress: Outputs, monotonic: Callable[[], float]
    ) -> None:
        self._sessions, self._rooms, self._egress, self._monotonic = sessions, rooms, egress, monotonic

    def __call__(self, events: Sequence[plane.Event]) -> None:
        """Take what happened, in order."""
        touched = {room.id: room for event in events for room in self._take(event)}
        for room in list(touched.values()):
            if (other := room.shows_with) is not None:  # what is lent to it has changed as well
                touched.setdefault(other.id, other)
        for room in touched.values():
            room.flush()

    def _take(self, event: plane.Event) -> Iterable[HostedRoom]:
        """Pass an event on; return the rooms that may have something to say after it."""
        match event:
            case plane.DtlsReceived(handle) | plane.AddressSelected(handle) | plane.IceRestarted(handle):
                self._sessions.heard(handle, event)
                return ()
            case plane.EstimateChanged(handle, bitrate):
                room = self._sessions.room_of(handle)
                if room is not None:
                    room.live.on_estimate(handle, bitrate, self._monotonic())
                return () if room is None else (room,)
            case plane.LoudnessMeasured(levels):
                self._heard(levels)
                return self._rooms
            case _:
                room = self._rooms.of_track(event.track)
                if room is not None:
                    self._track_told(room, event)
                return () if room is None else (room,)

    def _heard(self, levels: Sequence[tuple[int, int]]) -> None:
        heard = {room: list[tuple[int, int]]() for room in self._rooms}  # a room without a level is silent
        for track, level in levels:
            if (room := self._rooms.of_track(track)) in heard:
                heard[room].append((track, level))
        for room, of_room in heard.items():
            room.live.on_loudness(of_room, self._monotonic())

    def _track_told(
        self,
        room: HostedRoom,
        event: plane.LayerStarted | plane.LayerStopped | plane.SlotSwitched | plane.KeyframeRequested,
    ) -> None:
        match event:
            case plane.LayerStarted(track, layer, _, payload_type):
                room.layer_started(track, layer, payload_type)
            case plane.LayerStopped(track, layer):
                room.layer_stopped(track, layer)
                self._egress.layer_stopped(track)
            case plane.SlotSwitched(slot, track, layer, _, timestamp, source_timestamp):
                room.live.on_slot_switched(slot, track, layer, timestamp, source_timestamp)
            case plane.KeyframeRequested(track, layer):
                room.request_keyframe(track, layer)
            case _:
                assert_never(event)
