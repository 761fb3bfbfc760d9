"""Which publication plays in which slot of a viewer's session: a pure function of what is shown and what there is.

The policy, the stronger rule first:
1. A pinned slot plays its pin, while that can be played.
2. Nothing is played twice in one session, and what is shown stays where it is.
3. An empty slot gets the next publication: those that can be seen now first, then the active speaker's, then whoever
   spoke last, then join order. Paused slots are filled last.
4. A slot whose publication shows nothing (muted, publisher away) gives way to one that does.
5. When the active speaker has nothing shown, the speaker's publication replaces that of whoever has been silent
   longest. For audio the same holds for everybody who is heard, because a voice must not wait for an election.
A slot that is paused or pinned is never taken by rules 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlotState:
    """One slot of a session: `pin` is what the viewer asked for, `shows` what is bound now (publication ids)."""

    index: int
    kind: str
    pin: str | None = None
    paused: bool = False
    shows: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A publication that the viewer may see. `order` is its place in join order; `live` says it shows something now.

    `last_spoke` is in seconds, -inf for never. `by_pin` marks one that only a pin may bring up (it is backstage).
    """

    id: str
    kind: str
    identity: str
    order: int
    live: bool = True
    last_spoke: float = float("-inf")
    by_pin: bool = False


@dataclass(frozen=True, slots=True)
class Voices:
    """The active speaker and everybody who is being heard (identities)."""

    speaker: str | None = None
    speaking: frozenset[str] = frozenset()


Fits = Callable[[int, str], bool]
"""Whether a slot (by index) can carry a publication (by id): its codec was negotiated there."""


def _anything(_index: int, _publication: str) -> bool:
    return True


def assign(
    slots: Sequence[SlotState], candidates: Sequence[Candidate], voices: Voices, fits: Fits = _anything
) -> dict[int, str | None]:
    """Return what each slot (by index) shall show."""
    result: dict[int, str | None] = {}
    for kind in sorted({slot.kind for slot in slots}):
        of_kind = [slot for slot in slots if slot.kind == kind]
        result |= _Assignment(of_kind, [each for each in candidates if each.kind == kind], voices, fits).run(kind)
    return result


class _Assignment:
    """The assignment of one kind of slots."""

    def __init__(self, slots: Sequence[SlotState], candidates: Sequence[Candidate], voices: Voices, fits: Fits) -> None:
        self._slots = sorted(slots, key=lambda slot: slot.index)
        self._candidates = {each.id: each for each in candidates}
        self._voices = voices
        self._fits = fits
        self._shown: dict[int, str | None] = {slot.index: None for slot in slots}
        self._pinned: set[int] = set()

    def run(self, kind: str) -> dict[int, str | None]:
        self._place_pins()
        self._keep()
        self._fill()
        self._replace_idle()
        wanted = set(self._voices.speaking) if kind == "audio" else set()
        if self._voices.speaker is not None:
            wanted.add(self._voices.speaker)
        for identity in sorted(wanted, key=lambda name: (name != self._voices.speaker, name)):
            self._bring_up(identity)
        return self._shown

    def _place_pins(self) -> None:
        for slot in self._slots:
            if slot.pin is not None and self._can(slot, slot.pin) and slot.pin not in self._shown.values():
                self._shown[slot.index] = slot.pin
                self._pinned.add(slot.index)

    def _keep(self) -> None:
        for slot in self._slots:
            shows = slot.shows
            if slot.index in self._pinned or shows is None or shows in self._shown.values():
                continue
            if self._can(slot, shows) and not self._candidates[shows].by_pin:
                self._shown[slot.index] = shows

    def _fill(self) -> None:
        for slot in sorted(self._slots, key=lambda slot: (slot.paused, slot.index)):
            if self._shown[slot.index] is None:
                self._shown[slot.index] = next((each.id for each in self._waiting(slot)), None)

    def _replace_idle(self) -> None:
        for slot in self._open_slots():
            shown = self._shown[slot.index]
            if shown is not None and not self._candidates[shown].live:
                better = next((each.id for each in self._waiting(slot) if each.live), None)
                self._shown[slot.index] = better or shown

    def _bring_up(self, identity: str) -> None:
        """Show something live of one who speaks, unless that is so or only others who speak would have to go."""
        shown = [self._candidates[each] for each in self._shown.values() if each is not None]
        if any(each.identity == identity and each.live for each in shown):
            return
        choices = []
        for slot in self._open_slots():
            current = self._shown[slot.index]
            mine = next((each for each in self._waiting(slot) if each.identity == identity and each.live), None)
            if mine is None or current is None:
                continue
            present = self._candidates[current]
            if identity != self._voices.speaker and present.identity in self._voices.speaking:
                continue
            if present.identity == self._voices.speaker and identity != self._voices.speaker:
                continue
            choices.append(((present.last_spoke, -present.order, slot.index), slot.index, mine.id))
        if choices:
            _, index, publication = min(choices)
            self._shown[index] = publication

    def _open_slots(self) -> list[SlotState]:
        return [slot for slot in self._slots if slot.index not in self._pinned and not slot.paused]

    def _can(self, slot: SlotState, publication: str) -> bool:
        return publication in self._candidates and self._fits(slot.index, publication)

    def _waiting(self, slot: SlotState) -> list[Candidate]:
        """Return what could play in the slot and plays nowhere, the best first."""
        playing = set(self._shown.values())
        found = [
            each
            for each in self._candidates.values()
            if each.id not in playing and not each.by_pin and self._fits(slot.index, each.id)
        ]
        return sorted(found, key=self._rank)

    def _rank(self, each: Candidate) -> tuple[bool, bool, float, int, str]:
        return (not each.live, each.identity != self._voices.speaker, -each.last_spoke, each.order, each.id)
