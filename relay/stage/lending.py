"""A live room that lends its tracks to others on the same node: those with which it has a PK show them in their slots.

A lent track stays its owner's: its mute, its layers' demand and its end are the owner's to tell the plane. The borrower
learns the same facts, so that its viewers' slots, layers and speakers are decided as for tracks of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay.plane.contract import Command, Kind, PayloadType
from relay.stage.live import LiveRoom
from relay.stage.live_model import LocalTrack
from relay.stage.one_sound import SoundLive


class StageLive(SoundLive):
    """See `SoundLive`, whose mixes are not lent. `lend` and `take_back` may be called again. Two rooms may lend to each
    other."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._borrowers: list[StageLive] = []
        self._borrowed: dict[int, StageLive] = {}
        self._levels: dict[StageLive, list[tuple[int, int]]] = {}

    def lend(self, to: StageLive, now: float) -> None:
        """Let another room show this one's tracks, as far as its document names their publications."""
        if to in self._borrowers:
            return
        self._borrowers.append(to)
        for track in list(self._tracks.values()):
            if track.track not in self._borrowed and track.publication not in self._sight.sounds.values():
                to._borrow(self, track, now)

    def take_back(self, to: StageLive, now: float) -> None:
        """No longer: the other room's slots are bound to something else with its next commands."""
        if to not in self._borrowers:
            return
        self._borrowers.remove(to)
        to._levels.pop(self, None)
        for handle in [handle for handle, lender in to._borrowed.items() if lender is self]:
            to._return(handle, now)

    @property
    def viewers(self) -> int:
        """How many viewing sessions on this node may show the room's tracks."""
        return len(self._viewers) + sum(len(each._viewers) for each in self._borrowers)

    @property
    def is_mixed(self) -> bool:
        """Whether a program of any of them is mixed on this node."""
        return self.mixed is not None or any(each.mixed is not None for each in self._borrowers)

    # --- what borrowers learn -----------------------------------------------------------------------------------------

    def publication_local(
        self, publication: str, track: int, kind: Kind, rids: tuple[str, ...], payload: PayloadType, now: float
    ) -> None:
        super().publication_local(publication, track, kind, rids, payload, now)
        for each in self._borrowers:
            each._borrow(self, self._tracks[publication], now)

    def track_gone(self, track: int, now: float) -> None:
        super().track_gone(track, now)
        for each in self._borrowers_of(track):
            each._return(track, now)

    def on_layer_started(self, track: int, layer: int, now: float) -> None:
        super().on_layer_started(track, layer, now)
        for each in self._borrowers_of(track):
            LiveRoom.on_layer_started(each, track, layer, now)

    def on_layer_stopped(self, track: int, layer: int, now: float) -> None:
        super().on_layer_stopped(track, layer, now)
        for each in self._borrowers_of(track):
            LiveRoom.on_layer_stopped(each, track, layer, now)

    def on_layer_rates(self, rates: Mapping[int, Sequence[int]]) -> None:
        super().on_layer_rates(rates)
        for each in self._borrowers:
            lent = {track: measured for track, measured in rates.items() if each._borrowed.get(track) is self}
            LiveRoom.on_layer_rates(each, lent)

    def on_loudness(self, levels: Iterable[tuple[int, int]], now: float) -> None:
        own = list(levels)
        for each in self._borrowers:
            each._levels[self] = own  # heard with what the borrower hears next: who is not told of is silent
        super().on_loudness([*own, *(level for lent in self._levels.values() for level in lent)], now)

    def on_slot_switched(self, slot: int, track: int, layer: int, timestamp: int, source_timestamp: int = 0) -> None:
        super().on_slot_switched(slot, track, layer, timestamp, source_timestamp)
        for each in self._borrowers_of(track):
            LiveRoom.on_slot_switched(each, slot, track, layer, timestamp, source_timestamp)

    # --- what they ask ------------------------------------------------------------------------------------------------

    def commands(self) -> list[Command]:
        """Those of borrowers come along: their slots are bound elsewhere before a track of this room goes."""
        drained = super().commands()
        for each in self._borrowers:
            drained += LiveRoom.commands(each)
        return drained

    def demand(self, *, listen: bool) -> dict[int, set[int]]:
        wanted = super().demand(listen=listen)
        for each in self._borrowers:
            for track, layers in LiveRoom.demand(each, listen=False).items():
                if each._borrowed.get(track) is self:
                    wanted.setdefault(track, set()).update(layers)
        return wanted

    # --- inside -------------------------------------------------------------------------------------------------------

    def _borrowers_of(self, track: int) -> list[StageLive]:
        return [each for each in self._borrowers if each._borrowed.get(track) is self]

    def _borrow(self, lender: StageLive, track: LocalTrack, now: float) -> None:
        before = self._tracks.get(track.publication)
        if before is not None and before.track != track.track:
            self._borrowed.pop(before.track, None)
        self._borrowed[track.track] = lender
        LiveRoom.publication_local(self, track.publication, track.track, track.kind, track.rids, track.payload, now)
        for layer in sorted(track.live):
            LiveRoom.on_layer_started(self, track.track, layer, now)
        LiveRoom.on_layer_rates(self, {track.track: list(track.rates)})

    def _return(self, track: int, now: float) -> None:
        del self._borrowed[track]
        LiveRoom.track_gone(self, track, now)

    def _apply_mute(self, track: LocalTrack) -> None:
        if track.track not in self._borrowed:
            super()._apply_mute(track)
            return
        state = self._sight.state
        each = state.publications.get(track.publication) if state else None
        track.muted = state.is_muted(each) if state and each else track.muted
