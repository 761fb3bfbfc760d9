"""Publications: the tracks that hosts offer.

The law of a publication. It is born `live`; a publisher who goes away leaves it `paused` while his seat is kept; one
who comes back with the same identity, kind and source resumes the same publication, so that viewers' slots stay bound.
A publication that ended is gone from the document and its id never returns.

    start, resume:  none | paused -> live   (live -> live when a newer session replaces the older)
    pause:          live -> paused
    end:            live | paused -> ended
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from relay.errors import Conflict, NotFound, UsageError
from relay.stage import people, seats
from relay.stage.document import PROGRAM, Codec, MediaKind, Publication, RoomChange, RoomState, Source
from relay.stage.permissions import Action, Actor
from relay.stage.views import publication_view

MAX_PUBLICATIONS_PER_HOST = 8
"""Bounds the document."""

_Events = list[tuple[str, dict[str, Any]]]
_Move = Literal["start", "pause", "end"]

_LAW: dict[tuple[str, _Move], str] = {
    ("none", "start"): "live",
    ("paused", "start"): "live",
    ("live", "start"): "live",
    ("live", "pause"): "paused",
    ("live", "end"): "ended",
    ("paused", "end"): "ended",
}


def move(state: str, by: _Move) -> str:
    """Return the state that a move leads to. Raises UsageError when the law forbids it."""
    try:
        return _LAW[state, by]
    except KeyError:
        raise UsageError(f"a publication that is {state} cannot {by}") from None


def find(state: RoomState, publication: str) -> Publication:
    """Return a publication. Raises NotFound."""
    found = state.publications.get(publication)
    if found is None:
        raise NotFound(f"no publication {publication} in room {state.id}", code="publication-not-found")
    return found


def publication_of(state: RoomState, identity: str, kind: MediaKind, source: Source) -> Publication | None:
    """Return what an identity publishes of this kind and source; `start_publication` made or resumed this one."""
    for each in state.publications.values():
        if (each.identity, each.kind, each.source) == (identity, kind, source):
            return each
    return None


def put(state: RoomState, publication: Publication) -> RoomState:
    """Note a publication as it is now."""
    return replace(state, publications=state.publications | {publication.id: publication})


def event(name: str, state: RoomState, publication: Publication, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return the event `publication.NAME` of a publication."""
    return f"publication.{name}", publication_view(state, publication) | more


def start_publication(
    state: RoomState,
    actor: Actor,
    now: float,
    *,
    publication: str,
    kind: MediaKind,
    source: Source,
    codec: Codec,
    node: str,
    session: str,
    layers: tuple[str, ...],
    epoch: int = 0,
) -> RoomChange:
    """Begin or resume a track of `session`; `publication` is the id of a new one (a resumed one keeps its own).

    Joins the room and takes a seat by the policy when needed. `epoch` is that of the node's lease, 0 while it has none.
    Raises Forbidden (role, ban), Conflict (codec not of this room, too many publications, a later epoch elsewhere).
    """
    if codec not in state.codecs:
        raise Conflict(f"room {state.id} does not carry {codec}", code="codec-not-allowed")
    state, events = people.join(state, actor, now, session)
    role = people.effective_role(state, actor)
    before = publication_of(state, actor.identity, kind, source)
    if before is not None:
        check_fence(before, node, epoch)
        epoch = max(epoch, before.epoch)
        after = replace(before, state="live", codec=codec, node=node, session=session, layers=layers, epoch=epoch)
        assert move(before.state, "start") == after.state
        replaced = before.session if before.session != session else None
        state = put(state, after)
        change = [event("resumed", state, after, replaced_session=replaced)]
    else:
        mine = sum(each.identity == actor.identity for each in state.publications.values())
        if mine >= MAX_PUBLICATIONS_PER_HOST:
            raise Conflict(f"{actor.identity} has {mine} publications already", code="too-many-publications")
        after = Publication(
            publication, actor.identity, kind, source, codec, "live", node, session, layers, since=now, epoch=epoch
        )
        state = put(state, after)
        change = [event("started", state, after)]
    state, seated = seats.seat_publisher(state, actor.identity, role, now)
    return state, events + change + seated


def check_fence(publication: Publication, node: str, epoch: int) -> None:
    """Raise Conflict when another node is the origin under a later epoch."""
    if publication.node != node and 0 < epoch < publication.epoch:
        raise Conflict(
            f"{publication.id} has its origin at {publication.node} under a later epoch ({publication.epoch})",
            code="fenced",
        )


def set_epoch(state: RoomState, publication: str, node: str, session: str, epoch: int) -> RoomChange:
    """Note the lease under which a node is the origin. Ignored when another session or a later epoch is known."""
    before = state.publications.get(publication)
    if before is None or (before.node, before.session) != (node, session) or epoch <= before.epoch:
        return state, []
    after = replace(before, epoch=epoch)
    state = put(state, after)
    return state, [event("leased", state, after, epoch=epoch)]


def pause_publication(state: RoomState, publication: str, now: float, *, session: str | None = None) -> RoomChange:
    """Note that the publisher is away. With `session`, only while that session is the publication's."""
    before = find(state, publication)
    if before.state == "paused" or session not in (None, before.session):
        return state, []
    assert move(before.state, "pause") == "paused"
    after = replace(before, state="paused")
    state = put(state, after)
    events = [event("paused", state, after)]
    still = any(each.identity == after.identity and each.state == "live" for each in state.publications.values())
    return (state if still else seats.set_away(state, after.identity, now)), events


def resume_session(state: RoomState, session: str, now: float) -> RoomChange:
    """Media of a session that had gone quiet flows again: its paused publications are live."""
    events: _Events = []
    for before in [each for each in state.publications.values() if each.session == session and each.state == "paused"]:
        after = replace(before, state="live")
        state = put(state, after)
        events.append(event("resumed", state, after, replaced_session=None))
        state, seated = seats.seat_publisher(state, after.identity, people.participant(state, after.identity).role, now)
        events += seated
    return _set_connected(state, session, connected=True), events


def session_away(state: RoomState, session: str, now: float) -> RoomChange:
    """A publishing session went silent or was lost: pause what is still its own; the seat waits for a return."""
    events: _Events = []
    for each in [each for each in state.publications.values() if each.session == session]:
        state, more = pause_publication(state, each.id, now, session=session)
        events += more
    return _set_connected(state, session, connected=False), events


def node_away(state: RoomState, node: str, now: float) -> RoomChange:
    """A node is gone with all its sessions: pause what was published there; the seats wait for a return."""
    events: _Events = []
    for session in dict.fromkeys(each.session for each in state.publications.values() if each.node == node):
        state, more = session_away(state, session, now)
        events += more
    return state, events


def is_replaced(state: RoomState, identity: str, session: str) -> bool:
    """Whether a publishing session of `identity` no longer counts: gone, kicked, or a newer one took its place."""
    who = state.participants.get(identity)
    return who is None or who.session != session


def end_publication(state: RoomState, actor: Actor, publication: str, now: float) -> RoomChange:
    """End a track. Raises NotFound, Forbidden, Conflict for one of the program's."""
    before = find(state, publication)
    people.require(state, actor, Action.CHANGE_PUBLICATION, before.identity)
    if before.source == PROGRAM:
        raise Conflict("the program's tracks end when it is switched off", code="program-publication")
    return end(state, before, "ended" if actor.identity == before.identity else "removed", now)


def end_all(state: RoomState, identity: str, reason: str, now: float) -> RoomChange:
    """End everything that an identity publishes."""
    events: _Events = []
    for each in [each for each in state.publications.values() if each.identity == identity]:
        state, more = end(state, each, reason, now)
        events += more
    return state, events


def mute_publication(state: RoomState, actor: Actor, publication: str, *, muted: bool) -> RoomChange:
    """Mute or unmute one track. Raises NotFound, Forbidden."""
    before = find(state, publication)
    people.require(state, actor, Action.CHANGE_PUBLICATION, before.identity)
    if before.muted == muted:
        return state, []
    after = replace(before, muted=muted)
    state = put(state, after)
    return state, [event("muted", state, after, by=actor.identity)]


def set_layers(
    state: RoomState, publication: str, layers: tuple[str, ...], *, session: str | None = None
) -> RoomChange:
    """Note which layers arrive now. With `session`, only while that session is the publication's."""
    before = find(state, publication)
    if before.layers == layers or session not in (None, before.session):
        return state, []
    after = replace(before, layers=layers)
    state = put(state, after)
    return state, [event("layers_changed", state, after)]


def end(state: RoomState, publication: Publication, reason: str, now: float) -> RoomChange:
    """End a track; a seat whose last live track ended waits for the next one as for a return."""
    assert move(publication.state, "end") == "ended"
    rest = {key: each for key, each in state.publications.items() if key != publication.id}
    told = event("ended", state, publication, reason=reason)
    state = replace(state, publications=rest)
    still = any(each.identity == publication.identity and each.state == "live" for each in rest.values())
    return (state if still else seats.set_away(state, publication.identity, now)), [told]


def _set_connected(state: RoomState, session: str, *, connected: bool) -> RoomState:
    for who in state.participants.values():
        if who.session == session and who.connected != connected:
            after = replace(who, connected=connected)
            return replace(state, participants=state.participants | {who.identity: after})
    return state
