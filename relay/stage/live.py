"""The live room: what one node decides about a room from its newest document, its viewers and what the plane reports.

Pure: facts go in by methods, plane commands and events are drained with `commands()` and `events()`. It never needs the
store, so that media plays on by the last document while the store is gone. `now` is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from relay.errors import UsageError
from relay.plane.contract import (
    BindSlot,
    Command,
    Kind,
    MuteTrack,
    PauseSlot,
    PayloadType,
    ProbeBandwidth,
    SetLayer,
)
from relay.stage.document import RoomState
from relay.stage.layers import LayerAllocator, LayerSettings, Want, smooth_rate
from relay.stage.live_model import (
    ChoosePayloadType,
    LiveEvent,
    LocalTrack,
    Slot,
    SlotBound,
    SlotSpec,
    SlotTimeline,
    SpeakerChanged,
    Viewer,
)
from relay.stage.permissions import Role
from relay.stage.sight import Sight
from relay.stage.slot_clocks import NoSyncIds, SyncIds, timelines
from relay.stage.slot_wishes import check_wishes
from relay.stage.slots import Voices
from relay.stage.speaker import SpeakerDetector, SpeakerSettings
from relay.stage.views import slot_view


class LiveRoom:
    """One room on one node."""

    def __init__(
        self,
        choose_payload_type: ChoosePayloadType,
        *,
        speaker: SpeakerSettings | None = None,
        layers: LayerSettings | None = None,
        sync_ids: SyncIds | None = None,
    ) -> None:
        self.mixed: Mapping[int, set[int]] | None = None
        """The layers, by track, that the program is mixed from on this node; None while it is not."""
        self._sync_ids = sync_ids or NoSyncIds()
        self._layer_settings = layers or LayerSettings()
        self._voices = SpeakerDetector(speaker)
        self._speaking: frozenset[str] = frozenset()
        self._tracks: dict[str, LocalTrack] = {}
        self._sight = Sight(choose_payload_type, self._tracks, self._voices)
        self._publication_of: dict[int, str] = {}
        self._viewers: dict[int, Viewer] = {}
        self._slot_owner: dict[int, tuple[Viewer, Slot]] = {}
        self._commands: list[Command] = []
        self._events: list[LiveEvent] = []

    # --- what is drained --------------------------------------------------------------------------------------------

    def commands(self) -> list[Command]:
        """Return and forget the commands for the plane, in order."""
        drained, self._commands = self._commands, []
        return drained

    def events(self) -> list[LiveEvent]:
        """Return and forget what happened."""
        drained, self._events = self._events, []
        return drained

    @property
    def speaker(self) -> str | None:
        """The active speaker's identity."""
        return self._voices.speaker

    @property
    def tracks(self) -> Mapping[str, LocalTrack]:
        """What is on this node, published here or brought by links, by publication. Not to be changed."""
        return self._tracks

    @property
    def is_mixed(self) -> bool:
        """Whether a program is mixed from the room's tracks on this node."""
        return self.mixed is not None

    @property
    def viewers(self) -> int:
        """How many viewing sessions of the room this node has."""
        return len(self._viewers)

    # --- the document -----------------------------------------------------------------------------------------------

    def update(self, document: RoomState | dict[str, Any], now: float) -> None:
        """Take the newest document. Raises CorruptDocument, and then goes on by the last one."""
        state = document if isinstance(document, RoomState) else RoomState.from_json(document)
        self._sight.state = state
        before = self._voices.speaker
        self._voices.keep(self._sight.audible().values())
        self._tell_speaker(before)
        for track in self._tracks.values():
            self._apply_mute(track)
        self._reassign(self._viewers.values(), now)

    # --- publications on this node ----------------------------------------------------------------------------------

    def publication_local(
        self, publication: str, track: int, kind: Kind, rids: tuple[str, ...], payload: PayloadType, now: float
    ) -> None:
        """A publication's packets are on this node as `track`. Called again when its publisher came back: with the
        same handle (after MoveTrack) slots play on, with another they are bound anew."""
        old = self._tracks.get(publication)
        if self._publication_of.get(track, publication) != publication:
            raise UsageError(f"track {track} belongs to publication {self._publication_of[track]}")
        fresh = LocalTrack(publication, track, kind, rids or ("",), payload, rates=[0] * max(len(rids), 1))
        if old is not None:
            self._publication_of.pop(old.track, None)
            if old.track == track:
                fresh.muted = old.muted
                if len(old.rates) == len(fresh.rates):
                    fresh.live, fresh.rates = old.live, old.rates
        self._tracks[publication] = fresh
        self._publication_of[track] = publication
        self._apply_mute(fresh)
        self._reassign(self._viewers.values(), now, anew=True)

    def track_gone(self, track: int, now: float) -> None:
        """The track was removed from the plane. Unknown handles are ignored: it may have been replaced before."""
        publication = self._publication_of.pop(track, None)
        if publication is not None:
            del self._tracks[publication]
            self._reassign(self._viewers.values(), now, anew=True)

    def on_layer_started(self, track: int, layer: int, now: float) -> None:
        """The plane: packets of a layer arrive."""
        self._set_live(track, layer, now, live=True)

    def on_layer_stopped(self, track: int, layer: int, now: float) -> None:
        """The plane: a layer fell silent. Slots on it move to the nearest one that lives."""
        self._set_live(track, layer, now, live=False)

    def on_layer_rates(self, rates: Mapping[int, Sequence[int]]) -> None:
        """Measured bitrates by track, lowest layer first; used from the next allocation on."""
        for handle, measured in rates.items():
            publication = self._publication_of.get(handle)
            if publication is not None:
                track = self._tracks[publication]
                pairs = zip(track.rates, measured, strict=False)
                track.rates[: len(measured)] = [smooth_rate(known, new) if new else known for known, new in pairs]

    def on_loudness(self, levels: Iterable[tuple[int, int]], now: float) -> None:
        """The plane's `LoudnessMeasured.levels`."""
        audible = self._sight.audible()
        heard: dict[str, float] = {}
        for track, level in levels:
            publication = self._publication_of.get(track)
            identity = audible.get(publication) if publication is not None else None
            if identity is not None:
                heard[identity] = max(heard.get(identity, 0.0), float(level))
        before = self._voices.speaker
        self._voices.heard(heard, now)
        self._voices_moved(before, now)

    # --- viewers ----------------------------------------------------------------------------------------------------

    def add_viewer_session(
        self,
        session: int,
        session_id: str,
        identity: str,
        role: Role,
        slots: Iterable[SlotSpec],
        now: float,
        *,
        program: bool = False,
        one_sound: bool = False,
    ) -> None:
        """A viewing session opened and its slots were added to the plane; they are filled at once: with the stage's
        publications, or with the `program`'s. `one_sound`: with a mix instead of voices, once there is one."""
        if session in self._viewers:
            raise UsageError(f"session {session} was added already")
        ordered = [Slot(spec) for spec in sorted(slots, key=lambda spec: spec.index)]
        allocator = LayerAllocator(self._layer_settings)
        viewer = Viewer(session, session_id, identity, role, ordered, allocator, program, one_sound)
        self._viewers[session] = viewer
        for slot in ordered:
            self._slot_owner[slot.spec.slot] = (viewer, slot)
            slot.formats = self._sight.formats(slot)
        self._reassign([viewer], now, anew=True)

    def remove_session(self, session: int) -> None:
        """A session is gone, with its slots; unknown ones are ignored."""
        viewer = self._viewers.pop(session, None)
        for slot in viewer.slots if viewer else ():
            del self._slot_owner[slot.spec.slot]

    def on_estimate(self, session: int, bitrate: int, now: float) -> None:
        """The plane's `EstimateChanged`; ignored for sessions that do not watch here."""
        viewer = self._viewers.get(session)
        if viewer is not None:
            viewer.estimate = bitrate
            self._allocate(viewer, now)

    def on_slot_switched(self, slot: int, track: int, layer: int, timestamp: int, source_timestamp: int = 0) -> None:
        """The plane's `SlotSwitched`. Both timestamps are 0 in one that was made up for after it was lost."""
        owner = self._slot_owner.get(slot)
        publication = self._publication_of.get(track)
        if owner is None or publication is None:
            return
        viewer, known = owner
        known.plays, known.told = (track, layer), None
        known.spliced = (timestamp, source_timestamp) if timestamp or source_timestamp else None
        clock_hz = self._tracks[publication].payload.clock_hz
        sync_id = self._sync_ids.sync_id(track, layer, clock_hz, source_timestamp) if known.spliced else None
        rid = self._tracks[publication].rid(layer)
        identity = self._sight.identity(publication)
        self._events.append(
            SlotBound(viewer.session_id, known.spec.index, publication, identity, rid, timestamp, sync_id, clock_hz)
        )

    def timelines(self, sessions: Mapping[str, bool], now: float) -> list[SlotTimeline]:
        """Return what these sessions are to be told of their slots' frames, by id; True: all of it anew."""
        followed = [
            (viewer, sessions[viewer.session_id]) for viewer in self._viewers.values() if viewer.session_id in sessions
        ]
        if not followed:
            return []
        payloads = {track.track: track.payload for track in self._tracks.values()}
        return timelines(followed, payloads, self._sync_ids, now)

    def change_slot(self, session: int, index: int, changes: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Take a viewer's wish (`ports.SlotChange.changes`) and return the slot. Nothing is changed by a wrong one.

        Raises NotFound (session, slot, publication), BadRequest (field, kind, layer), Conflict (codec, own, pinned).
        """
        viewer = self._viewers.get(session)
        slot = check_wishes(viewer, index, changes, self._sight)
        assert viewer is not None
        if "publication" in changes:
            slot.pin = changes["publication"]
        slot.pinned_layer = changes.get("layer", slot.pinned_layer)
        slot.max_layer = changes.get("max_layer", slot.max_layer)
        if "paused" in changes and changes["paused"] != slot.paused:
            slot.paused = changes["paused"]
            self._commands.append(PauseSlot(slot.spec.slot, slot.paused))
        self._reassign([viewer], now, anew=True)
        return slot_view(slot, self._tracks, {})

    def view(self, session: int, bitrates: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
        """Return the `Slot` schemas of a session; `bitrates` by slot handle. Empty for one that does not watch here."""
        viewer = self._viewers.get(session)
        return [slot_view(slot, self._tracks, bitrates or {}) for slot in viewer.slots] if viewer else []

    def demand(self, *, listen: bool) -> dict[int, set[int]]:
        """Return the layers that must arrive, by track: what a slot shows or is to show, what the program is mixed
        from, and, with `listen` or where somebody watches, every voice that could be the active speaker's. What is
        muted or paused is not needed."""
        wanted = {track: set(layers) for track, layers in (self.mixed or {}).items()}
        for viewer in self._viewers.values():
            for slot in viewer.slots:
                if slot.shows is None or slot.paused or self._tracks[slot.shows].muted:
                    continue
                if slot.track is not None:
                    wanted.setdefault(slot.track, set()).add(slot.layer or 0)
                if slot.plays is not None and slot.plays[0] == slot.track:
                    wanted[slot.plays[0]].add(slot.plays[1])
        if listen or self._viewers:
            for publication in self._sight.audible():
                if publication in self._tracks:
                    wanted.setdefault(self._tracks[publication].track, set()).add(0)
        return wanted

    def tick(self, now: float) -> None:
        """Let time pass; call it every half second or so."""
        before = self._voices.speaker
        self._voices.tick(now)
        self._voices_moved(before, now)
        for viewer in self._viewers.values():
            self._allocate(viewer, now)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _apply_mute(self, track: LocalTrack) -> None:
        each = self._sight.state.publications.get(track.publication) if self._sight.state else None
        muted = self._sight.state.is_muted(each) if self._sight.state and each else track.muted
        if muted != track.muted:
            track.muted = muted
            self._commands.append(MuteTrack(track.track, muted))

    def _set_live(self, handle: int, layer: int, now: float, *, live: bool) -> None:
        publication = self._publication_of.get(handle)
        if publication is None:
            return
        track = self._tracks[publication]
        (track.live.add if live else track.live.discard)(layer)
        for viewer in self._viewers.values():
            if track.kind is Kind.VIDEO and any(slot.shows == publication for slot in viewer.slots):
                self._allocate(viewer, now)

    def _tell_speaker(self, before: str | None) -> None:
        if self._voices.speaker != before:
            self._events.append(SpeakerChanged(self._voices.speaker))

    def _voices_moved(self, before: str | None, now: float) -> None:
        speaking = self._voices.speaking
        speaker_changed, speaking_changed = self._voices.speaker != before, speaking != self._speaking
        self._speaking = speaking
        self._tell_speaker(before)
        if speaker_changed or speaking_changed:
            self._reassign(self._viewers.values(), now)

    def _reassign(self, viewers: Iterable[Viewer], now: float, *, anew: bool = False) -> None:
        """Assign the slots of some viewers; with `anew` tell the plane even where the assignment is the same."""
        self._sight.forget()
        for viewer in viewers:
            self._assign(viewer, now, anew=anew)

    def _assign(self, viewer: Viewer, now: float, *, anew: bool) -> None:
        state = self._sight.state
        for slot in viewer.slots:
            if slot.pin is not None and state is not None and slot.pin not in state.publications:
                slot.pin = None
        wanted = self._sight.assignment(viewer, Voices(self._voices.speaker, self._speaking))
        for slot in viewer.slots:
            publication = wanted[slot.spec.index]
            if slot.shows != publication:
                slot.shows, anew = publication, True
                slot.identity = self._sight.identity(publication)
        if anew:
            self._allocate(viewer, now)

    def _allocate(self, viewer: Viewer, now: float) -> None:
        """Choose the layers and tell the plane what is new."""
        wants = [self._want(slot) for slot in viewer.slots if self._elastic(slot)]
        audio = sum(
            slot.spec.kind is Kind.AUDIO and slot.shows is not None and not slot.paused for slot in viewer.slots
        )
        allocation = viewer.allocator.allocate(wants, audio, viewer.estimate, now)
        for slot in viewer.slots:
            self._command_slot(viewer, slot, allocation.layers.get(slot.spec.slot))
        if allocation.probe is not None:
            self._commands.append(ProbeBandwidth(viewer.session, allocation.probe))

    def _elastic(self, slot: Slot) -> bool:
        return slot.spec.kind is Kind.VIDEO and slot.shows is not None and not slot.paused

    def _want(self, slot: Slot) -> Want:
        assert slot.shows is not None
        track = self._tracks[slot.shows]
        first = 0 if slot.pin == slot.shows else 1 if slot.identity == self._voices.speaker else 2
        return Want(
            slot.spec.slot,
            priority=first * 1000 + slot.spec.index,
            rates=tuple(track.rates),
            live=frozenset(track.live),
            current=slot.layer if slot.track == track.track else None,
            pinned=_layer(track, slot.pinned_layer),
            cap=_layer(track, slot.max_layer),
        )

    def _command_slot(self, viewer: Viewer, slot: Slot, layer: int | None) -> None:
        handle = slot.spec.slot
        if slot.shows is None:
            if slot.track is not None:
                slot.track = slot.layer = slot.payload_type = slot.plays = slot.spliced = None
                self._commands.append(BindSlot(handle, None))
                self._events.append(SlotBound(viewer.session_id, slot.spec.index, None, None, None, None))
            return
        track = self._tracks[slot.shows].track
        payload_type = self._sight.carries(slot, slot.shows)
        if (slot.track, slot.payload_type) != (track, payload_type):
            slot.track, slot.payload_type, slot.layer = track, payload_type, layer or 0
            self._commands.append(BindSlot(handle, track, slot.layer, payload_type))
        elif layer is not None and layer != slot.layer:
            slot.layer = layer
            self._commands.append(SetLayer(handle, layer))


def _layer(track: LocalTrack, rid: str | None) -> int | None:
    return track.rids.index(rid) if rid is not None and rid in track.rids else None
