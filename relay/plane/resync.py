"""What the plane's events said last, so that events that were lost can be made up for from a snapshot.

The event ring of the native plane is bounded. What tells a state (an address, a layer, what a slot shows, an estimate)
is in the statistics too; what tells a moment (loudness, a DTLS record, a wanted keyframe) comes again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from relay.plane.contract import (
    Address,
    AddressSelected,
    EstimateChanged,
    Event,
    LayerStarted,
    LayerStopped,
    PlaneStats,
    SlotSwitched,
)


class Told:
    """The latest state that was told of each session, layer and slot."""

    def __init__(self, estimate_start: int) -> None:
        self._estimate_start = estimate_start
        self._addresses: dict[int, Address] = {}
        self._estimates: dict[int, int] = {}
        self._layers: dict[tuple[int, int], int] = {}  # the payload types of those that were started
        self._slots: dict[int, tuple[int, int]] = {}

    def note(self, events: Iterable[Event]) -> None:
        """Remember what is being told."""
        for event in events:
            match event:
                case AddressSelected(session, address):
                    self._addresses[session] = address
                case EstimateChanged(session, bitrate):
                    self._estimates[session] = bitrate
                case LayerStarted(track, layer, _, payload_type):
                    self._layers[track, layer] = payload_type
                case LayerStopped(track, layer):
                    self._layers.pop((track, layer), None)
                case SlotSwitched(slot, track, layer, _, _):
                    self._slots[slot] = (track, layer)

    def forget(self, stats: PlaneStats) -> None:
        """Forget what is gone. Call it now and then, with a snapshot at hand."""
        for sessions in (self._addresses, self._estimates):
            for session in sessions.keys() - stats.sessions.keys():
                del sessions[session]
        for track, layer in [key for key in self._layers if key[0] not in stats.tracks]:
            del self._layers[track, layer]
        for slot in self._slots.keys() - stats.slots.keys():
            del self._slots[slot]

    def catch_up(self, stats: PlaneStats) -> list[Event]:
        """Events that lead from what was told to what is, and note them as told.

        An SSRC, a sequence number and a timestamp are not in the statistics: they are 0 in what is made up.
        """
        self.forget(stats)
        events: list[Event] = []
        for session, counted in stats.sessions.items():
            if counted.address is not None and counted.address != self._addresses.get(session):
                events.append(AddressSelected(session, counted.address))
            told = self._estimates.get(session, self._estimate_start)
            if counted.estimate and abs(counted.estimate - told) * 10 > told:
                events.append(EstimateChanged(session, counted.estimate))
        for track, layers in stats.tracks.items():
            for index, layer in enumerate(layers):
                told_type = self._layers.get((track, index))
                if layer.active and told_type != layer.payload_type:
                    events.append(LayerStarted(track, index, 0, layer.payload_type))
                elif told_type is not None and not layer.active:
                    events.append(LayerStopped(track, index))
        for slot, playing in stats.slots.items():
            if playing.track >= 0 and (playing.track, playing.layer) != self._slots.get(slot):
                events.append(SlotSwitched(slot, playing.track, playing.layer, 0, 0))
        self.note(events)
        return events

    def __len__(self) -> int:
        """How much is remembered."""
        return len(self._addresses) + len(self._estimates) + len(self._layers) + len(self._slots)
