"""Checks what a viewer asks of a slot, all of it before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from relay.errors import BadRequest, Conflict, NotFound
from relay.stage.live_model import Slot, Viewer
from relay.stage.slots import Candidate

_FIELDS = frozenset({"publication", "paused", "layer", "max_layer"})


class Sight(Protocol):
    """What the check has to know of the live room."""

    def candidates(self, viewer: Viewer) -> list[Candidate]: ...

    def carries(self, slot: Slot, publication: str) -> int | None: ...

    def publishes(self, identity: str, publication: str) -> bool: ...

    def rids(self, publication: str | None) -> tuple[str, ...]: ...


def check_wishes(viewer: Viewer | None, index: int, changes: Mapping[str, Any], sight: Sight) -> Slot:
    """Return the slot that the wishes are for. Raises NotFound, BadRequest or Conflict when they cannot be met."""
    if viewer is None:
        raise NotFound("no such viewing session", code="session-not-found")
    slot = next((each for each in viewer.slots if each.spec.index == index), None)
    if slot is None:
        raise NotFound(f"the session has {len(viewer.slots)} slots, none is {index}", code="slot-not-found")
    unknown = sorted(set(changes) - _FIELDS)
    if unknown:
        raise BadRequest(f"a slot has no {', '.join(unknown)}")
    if "paused" in changes and not isinstance(changes["paused"], bool):
        raise BadRequest("paused must be true or false")
    shows = slot.shows
    if "publication" in changes:
        wanted = changes["publication"]
        if wanted is not None:
            _check_pin(viewer, slot, wanted, sight)
            shows = wanted
    for name in ("layer", "max_layer"):
        rid = changes.get(name)
        if rid is not None and (not isinstance(rid, str) or rid not in sight.rids(shows)):
            known = ", ".join(each for each in sight.rids(shows) if each) or "none"
            raise BadRequest(f"{name}: the slot's publication has no layer {rid!r} (it has {known})")
    return slot


def _check_pin(viewer: Viewer, slot: Slot, wanted: Any, sight: Sight) -> None:
    if not isinstance(wanted, str):
        raise BadRequest("publication must be an id or null")
    if sight.publishes(viewer.identity, wanted):
        raise Conflict("a participant is not shown what he publishes himself", code="own-publication")
    # Backstage publications are not found by those who may not see them, so that they do not learn of them either.
    seen = next((each for each in sight.candidates(viewer) if each.id == wanted), None)
    if seen is None:
        raise NotFound(f"no publication {wanted} to be seen here", code="publication-not-found")
    if seen.kind != slot.spec.kind.value:
        raise BadRequest(f"publication {wanted} is {seen.kind}, slot {slot.spec.index} is {slot.spec.kind.value}")
    if sight.carries(slot, wanted) is None:
        raise Conflict(f"slot {slot.spec.index} was not negotiated for that codec", code="codec-mismatch")
    if any(each is not slot and each.pin == wanted for each in viewer.slots):
        raise Conflict(f"publication {wanted} is pinned in another slot", code="already-pinned")
