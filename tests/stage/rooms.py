"""People and a room for the stage's tests."""

from __future__ import annotations

from typing import Any

from relay.stage import publications, room
from relay.stage.document import MediaKind, RoomState, Source
from relay.stage.permissions import Actor, Role

OWNER = Actor("olga", Role.OWNER)
MODERATOR = Actor("mona", Role.MODERATOR)
GUEST = Actor("gus", Role.GUEST)
OTHER = Actor("greta", Role.GUEST)
VIEWER = Actor("vera", Role.VIEWER)
SERVICE = Actor("backend", Role.SERVICE)

Events = list[tuple[str, dict[str, Any]]]


def new_room(**options: Any) -> RoomState:
    return room.create(OWNER, "demo", 0.0, **options)[0]


def publish(
    state: RoomState,
    actor: Actor,
    now: float = 0.0,
    *,
    kind: MediaKind = "video",
    source: Source = "camera",
    session: str | None = None,
    publication: str | None = None,
    codec: Any = None,
    layers: tuple[str, ...] = ("q", "h", "f"),
    node: str = "n1",
    epoch: int = 0,
) -> tuple[RoomState, Events]:
    return publications.start_publication(
        state,
        actor,
        now,
        publication=publication or f"{actor.identity}-{kind}",
        kind=kind,
        source=source,
        codec=codec or ("vp8" if kind == "video" else "opus"),
        node=node,
        session=session or f"s-{actor.identity}",
        layers=layers if kind == "video" else ("",),
        epoch=epoch,
    )


def types(events: Events) -> list[str]:
    return [kind for kind, _ in events]
