"""The program in the room's document: switched on and off, arranged, mixed by one node, and published like any track.

The law of a program. Whoever may manage it switches it on; then some node takes its lease (`LEASE`), says so here under
the lease's epoch, and publishes picture and sound as identity `PROGRAM`. A node that can mix no longer pauses them, and
the next one resumes the same publications, so that viewers' slots stay bound. Switched off, they end.

Pure functions as in `relay.stage.room`. Changes of layout and overlays are logs that a mix is rebuilt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from relay.errors import BadRequest, Conflict, NotFound
from relay.ids import make_sync_id
from relay.stage import people, publications
from relay.stage.document import PROGRAM, Codec, MediaKind, Program, ProgramCodec, Publication, RoomChange, RoomState
from relay.stage.layout import (
    Layout,
    LayoutChange,
    OverlayChange,
    Overlays,
    SyncLog,
    check_layout,
    check_overlays,
    check_size,
)
from relay.stage.permissions import Action, Actor
from relay.stage.views import timestamp

LEASE = "program"
"""The program's name among a room's leases. No publication is called so: their ids are random."""
FAR_MS = 3_600_000
"""A change may be asked for this long ahead."""
MAX_FPS = 120
LEAST_BITRATE_BPS, MOST_BITRATE_BPS = 50_000, 50_000_000

KINDS: tuple[MediaKind, ...] = ("video", "audio")
"""What a program publishes."""

C = TypeVar("C", bound=LayoutChange | OverlayChange)


@dataclass(frozen=True, slots=True)
class Form:
    """What a program's picture is to be; 0 and None stand for what the mixing node's settings say."""

    width: int = 0
    height: int = 0
    fps: int = 0
    codec: ProgramCodec | None = None
    bitrate_bps: int = 0


def switch_on(
    state: RoomState,
    actor: Actor,
    now: float,
    *,
    form: Form | None = None,
    layout: Layout | None = None,
    names: bool | None = None,
) -> RoomChange:
    """Begin a program, or change a running one. What is None stays, or is as usual in a new one.

    Raises Forbidden, BadRequest, Conflict (a codec that the room does not carry).
    """
    people.require(state, actor, Action.MANAGE_PROGRAM)
    _check_form(state, form or Form())
    before = state.program
    after = before or Program(since=now, layouts=(LayoutChange(0, layout or Layout()),))
    if layout is not None:
        check_layout(layout)
    if form is not None:
        after = replace(
            after,
            width=form.width,
            height=form.height,
            fps=form.fps,
            codec=form.codec,
            bitrate_bps=form.bitrate_bps,
        )
    if layout is not None and (len(after.layouts) > 1 or layout != after.layouts[0].layout):
        after = _arranged(after, LayoutChange(0, layout), now)
    if names is not None and names != after.overlays[-1].overlays.names:
        after = _overlaid(after, OverlayChange(0, replace(after.overlays[-1].overlays, names=names)), now)
    if after == before:
        return state, []
    state = replace(state, program=after)
    name = "program.started" if before is None else "program.changed"
    return state, [(name, {"program": program_view(state), "by": actor.identity})]


def switch_off(state: RoomState, actor: Actor, now: float) -> RoomChange:
    """End the program and its publications. Raises Forbidden, NotFound."""
    people.require(state, actor, Action.MANAGE_PROGRAM)
    running(state)
    events: list[tuple[str, dict[str, Any]]] = []
    for each in publications_of(state).values():
        state, more = publications.end(state, each, "ended", now)
        events += more
    return replace(state, program=None), [*events, ("program.stopped", {"by": actor.identity})]


def change_layout(
    state: RoomState, actor: Actor, now: float, layout: Layout, *, at: int = 0, animate: int = 0
) -> RoomChange:
    """Arrange the picture from sync id `at` on; 0: from the next frame on. Raises Forbidden, NotFound, BadRequest."""
    people.require(state, actor, Action.MANAGE_PROGRAM)
    program = running(state)
    check_layout(layout, animate)
    _check_at(at, now)
    state = replace(state, program=_arranged(program, LayoutChange(at, layout, animate), now))
    told = {"layout": layout_view(layout), "at": _at_view(at), "animate": animate, "by": actor.identity}
    return state, [("program.layout_changed", told)]


def change_overlays(state: RoomState, overlays: Overlays, now: float, *, at: int = 0) -> RoomChange:
    """Draw these from sync id `at` on. A room without a program stays as it is. Raises BadRequest."""
    program = state.program
    if program is None or program.overlays[-1].overlays == overlays:
        return state, []
    check_overlays(overlays)
    _check_at(at, now)
    return replace(state, program=_overlaid(program, OverlayChange(at, overlays), now)), []


def take(state: RoomState, node: str, epoch: int) -> RoomChange:
    """A node mixes from now on, under its lease's epoch (0: it needs none, being alone).

    Raises Conflict (`fenced`) when a later epoch is known.
    """
    program = state.program
    if program is None or (program.node, program.epoch) == (node, epoch):
        return state, []
    if program.node and program.node != node and epoch < program.epoch:
        raise Conflict(f"{program.node} mixes under a later epoch ({program.epoch})", code="fenced")
    return replace(state, program=replace(program, node=node, epoch=epoch)), [("program.mixed_by", {"node": node})]


def let_go(state: RoomState, node: str, now: float) -> RoomChange:
    """A node mixes no longer: its part of the program pauses until another one takes over."""
    events: list[tuple[str, dict[str, Any]]] = []
    for each in publications_of(state).values():
        if each.node == node:
            state, more = publications.pause_publication(state, each.id, now)
            events += more
    program = state.program
    if program is not None and program.node == node:
        state = replace(state, program=replace(program, node=""))
        events.append(("program.mixed_by", {"node": None}))
    return state, events


def publish(
    state: RoomState,
    now: float,
    *,
    publication: str,
    kind: MediaKind,
    codec: Codec,
    node: str,
    session: str,
    layers: tuple[str, ...],
    epoch: int,
) -> RoomChange:
    """The program's picture or sound is there: begin its publication, or resume the one of an earlier node.

    A program that was switched off meanwhile changes nothing. Raises Conflict (`fenced`).
    """
    program = state.program
    if program is None:
        return state, []
    before = publications_of(state).get(kind)
    if before is None:
        after = Publication(
            publication, PROGRAM, kind, PROGRAM, codec, "live", node, session, layers, since=now, epoch=epoch
        )
        return publications.put(state, after), [publications.event("started", state, after)]
    publications.check_fence(before, node, epoch)
    after = replace(
        before,
        state="live",
        codec=codec,
        node=node,
        session=session,
        layers=layers,
        epoch=max(epoch, before.epoch),
    )
    if after == before:
        return state, []
    state = publications.put(state, after)
    return state, [publications.event("resumed", state, after, replaced_session=None)]


# --- reading --------------------------------------------------------------------------------------------------------


def running(state: RoomState) -> Program:
    """Return the room's program. Raises NotFound while it is off."""
    if state.program is None:
        raise NotFound(f"room {state.id} has no program", code="program-not-found")
    return state.program


def publications_of(state: RoomState) -> dict[MediaKind, Publication]:
    """Return the program's publications by kind."""
    return {each.kind: each for each in state.publications.values() if each.source == PROGRAM}


def program_view(state: RoomState) -> dict[str, Any]:
    """Return the `Program` schema. Raises NotFound while there is none."""
    program, published = running(state), publications_of(state)
    ids: Mapping[MediaKind, str] = {kind: each.id for kind, each in published.items()}
    flows = all(kind in published and published[kind].state == "live" for kind in KINDS)
    return {
        "since": timestamp(program.since),
        "width": program.width or None,
        "height": program.height or None,
        "fps": program.fps or None,
        "codec": program.codec,
        "bitrate_bps": program.bitrate_bps or None,
        "layout": layout_view(program.layouts[0].layout),
        "pending": [
            {"at": _at_view(each.at), "animate": each.animate, "layout": layout_view(each.layout)}
            for each in program.layouts[1:]
        ],
        "names": program.overlays[-1].overlays.names,
        "node": program.node or None,
        "video": ids.get("video"),
        "audio": ids.get("audio"),
        "state": "live" if flows else "waiting",
    }


def layout_view(layout: Layout) -> dict[str, Any]:
    """Return the `Layout` schema: only the fields that its kind uses."""
    found: dict[str, Any] = {"kind": layout.kind, "fit": layout.fit}
    if layout.order:
        found["order"] = list(layout.order)
    if layout.kind == "side_by_side":
        found |= {"left": list(layout.left), "right": list(layout.right)}
    if layout.kind == "custom":
        found["rectangles"] = [
            {"identity": one.identity, "x": one.x, "y": one.y, "width": one.width, "height": one.height}
            for one in layout.rectangles
        ]
    return found


# --- inside ---------------------------------------------------------------------------------------------------------


def _check_form(state: RoomState, form: Form) -> None:
    if bool(form.width) != bool(form.height):
        raise BadRequest("width and height go together")
    if form.width:
        check_size(form.width, form.height)
    if form.fps and not 1 <= form.fps <= MAX_FPS:
        raise BadRequest(f"fps has to be from 1 to {MAX_FPS}, not {form.fps}")
    if form.bitrate_bps and not LEAST_BITRATE_BPS <= form.bitrate_bps <= MOST_BITRATE_BPS:
        raise BadRequest(f"bitrate_bps has to be from {LEAST_BITRATE_BPS} to {MOST_BITRATE_BPS}")
    if form.codec is not None and form.codec not in state.codecs:
        raise Conflict(f"room {state.id} does not carry {form.codec}", code="codec-not-allowed")


def _check_at(at: int, now: float) -> None:
    if not 0 <= at <= make_sync_id(int(now * 1000) + FAR_MS, 0):
        raise BadRequest(f"at has to be a sync id of the next {FAR_MS // 60_000} minutes")


def _arranged(program: Program, change: LayoutChange, now: float) -> Program:
    check_layout(change.layout, change.animate)
    number = program.changes + 1
    return replace(program, layouts=_added(program.layouts, replace(change, number=number), now), changes=number)


def _overlaid(program: Program, change: OverlayChange, now: float) -> Program:
    number = program.changes + 1
    return replace(program, overlays=_added(program.overlays, replace(change, number=number), now), changes=number)


def _added(changes: tuple[C, ...], change: C, now: float) -> tuple[C, ...]:
    """The log with a change more, and without those whose time is over."""
    log, present = SyncLog(*changes), make_sync_id(int(now * 1000), 0)
    log.advance(present)
    log.add(change)
    log.advance(present)
    return log.changes


def _at_view(at: int) -> str | None:
    return str(at) if at else None
