"""What a viewer may see of what is on this node, and which slots would show it.

A thousand viewers mostly see the same and have the same slots, so answers are remembered until `forget`; whoever
changes what they rest on (document, tracks, voices) calls that first.
"""

from __future__ import annotations

from relay.stage.document import PROGRAM, RoomState
from relay.stage.live_model import EVERYBODY, ChoosePayloadType, LocalTrack, Slot, Viewer
from relay.stage.people import as_of_room
from relay.stage.permissions import Action, Actor, Role, allowed, is_host
from relay.stage.slots import Candidate, SlotState, Voices, assign
from relay.stage.speaker import SpeakerDetector

MAX_FORMATS = 1024

_Seen = tuple[str | None, bool, bool, str | None]
_Key = tuple[_Seen, tuple[tuple[SlotState, int], ...]]


class Sight:
    """The view of one room. `state` is the newest document, `tracks` the local publications (kept by the owner),
    `sounds` the names under which there are mixes among them, by whom they leave out."""

    def __init__(self, choose: ChoosePayloadType, tracks: dict[str, LocalTrack], voices: SpeakerDetector) -> None:
        self.state: RoomState | None = None
        self.sounds: dict[str, str] = {}
        self._choose = choose
        self._tracks = tracks
        self._voices = voices
        self._formats: dict[object, int] = {}
        self._numbered = 0
        self._candidates: dict[_Seen, list[Candidate]] = {}
        self._assignments: dict[_Key, dict[int, str | None]] = {}
        self._carried: dict[tuple[int, str], int | None] = {}

    def forget(self) -> None:
        """Something changed: answer anew."""
        self._candidates.clear()
        self._assignments.clear()
        self._carried.clear()

    def formats(self, slot: Slot) -> int:
        """Return a number for the slot's payload types, the same for equal ones: quick to compare and to hash.

        Beyond `MAX_FORMATS` different ones every slot gets a number of its own: slower, but nobody can fill the memory.
        """
        known = self._formats.get(slot.spec.payload_types)
        if known is None:
            self._numbered += 1
            known = self._numbered
            if len(self._formats) < MAX_FORMATS:
                self._formats[slot.spec.payload_types] = known
        return known

    def candidates(self, viewer: Viewer) -> list[Candidate]:
        """Return what this viewer may see, in join order. Backstage is for owner and moderators, and only by a pin; so
        is the program for who watches the stage, the stage for who watches the program, and every voice for who hears
        a mix (which is none of these)."""
        seen = self._seen(viewer)
        if seen not in self._candidates:
            self._candidates[seen] = self._look(*seen)
        return self._candidates[seen]

    def assignment(self, viewer: Viewer, voices: Voices) -> dict[int, str | None]:
        """Return what the viewer's slots (by index) shall show. `voices` must not change between two `forget`s."""
        states = tuple(
            (
                SlotState(slot.spec.index, slot.spec.kind.value, slot.pin, slot.paused, slot.shows),
                slot.formats,
            )
            for slot in viewer.slots
        )
        key = (self._seen(viewer), states)
        found = self._assignments.get(key)
        if found is None:
            slots = {slot.spec.index: slot for slot in viewer.slots}
            choice, mix = self.candidates(viewer), self._mix(viewer)
            if mix is not None:
                choice = [*choice, Candidate(mix, "audio", PROGRAM, len(choice))]
            found = assign(
                [state for state, _ in states],
                choice,
                voices,
                lambda index, publication: self.carries(slots[index], publication) is not None,
            )
            self._assignments[key] = found
        return found

    def carries(self, slot: Slot, publication: str) -> int | None:
        """Return the slot's payload type for a local publication, None when none was negotiated."""
        key = (slot.formats, publication)
        if key not in self._carried:
            track = self._tracks[publication]
            same = track.kind is slot.spec.kind
            self._carried[key] = self._choose(slot.spec.payload_types, track.payload) if same else None
        return self._carried[key]

    def publishes(self, identity: str, publication: str) -> bool:
        """Whether the publication is this identity's own."""
        each = self.state.publications.get(publication) if self.state else None
        return each is not None and each.identity == identity

    def identity(self, publication: str | None) -> str | None:
        """Return who is seen or heard in a publication; a mix is the program's."""
        if publication is None or self.state is None:
            return None
        if publication in self.sounds.values():
            return PROGRAM
        each = self.state.publications.get(publication)
        return None if each is None else each.identity

    def leaves_out(self, identity: str, role: Role) -> str:
        """Return whom one sound for somebody leaves out: himself, if he may have a seat, else nobody."""
        if self.state is None:
            return EVERYBODY
        host = identity in self.state.seats or is_host(as_of_room(self.state, Actor(identity, role)).role)
        return identity if host else EVERYBODY

    def rids(self, publication: str | None) -> tuple[str, ...]:
        """Return a local publication's layers, lowest first."""
        return self._tracks[publication].rids if publication in self._tracks else ()

    def audible(self) -> dict[str, str]:
        """Return the identities of audio publications that may make an active speaker, by publication."""
        state = self.state
        if state is None:
            return {}
        on_air = set(state.on_air())
        return {
            each.id: each.identity
            for each in state.publications.values()
            if each.kind == "audio" and each.state == "live" and each.identity in on_air and not state.is_muted(each)
        }

    def _seen(self, viewer: Viewer) -> _Seen:
        """Return what makes this viewer see something else than others do: own publications, and the role."""
        state = self.state
        if state is None:
            return None, False, viewer.program, None
        own = viewer.identity if viewer.identity in state.seats else None
        backstage = allowed(as_of_room(state, Actor(viewer.identity, viewer.role)), Action.WATCH_BACKSTAGE)
        return own, backstage, viewer.program, self._mix(viewer)

    def _mix(self, viewer: Viewer) -> str | None:
        """The mix that the viewer hears; None when he hears voices."""
        return self.sounds.get(self.leaves_out(viewer.identity, viewer.role)) if viewer.one_sound else None

    def _look(self, own: str | None, backstage: bool, program: bool, mix: str | None) -> list[Candidate]:
        state = self.state
        found: list[Candidate] = []
        if state is None:
            return found
        for order, each in enumerate(state.publications.values()):
            mixed = each.source == PROGRAM
            seat = state.seats.get(each.identity)
            if each.identity == own or each.id not in self._tracks or not (mixed or seat is not None):
                continue
            hidden = seat is not None and seat.state != "on_air"
            if not hidden or backstage:
                live = each.state == "live" and not state.is_muted(each)
                spoke = self._voices.last_spoke(each.identity)
                by_pin = hidden or mixed != program or (mix is not None and each.kind == "audio")
                found.append(Candidate(each.id, each.kind, each.identity, order, live, spoke, by_pin))
        return found
