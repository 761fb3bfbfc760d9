"""Who may do what: one table of roles and actions, asked by the room's functions and by signaling alike."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from relay.errors import Forbidden


class Role(StrEnum):
    """What a token, or the room's owner, made of a participant. `service` is a backend, never a participant."""

    OWNER = "owner"
    GUEST = "guest"
    MODERATOR = "moderator"
    VIEWER = "viewer"
    SERVICE = "service"


class Action(Enum):
    """Everything that a role can permit. The value is how an error calls it."""

    CREATE_ROOM = "create this room"
    READ_ROOM = "read this room"
    END_ROOM = "end this room"
    MINT_TOKEN = "mint tokens"
    READ_PARTICIPANTS = "list participants"
    CHANGE_ROLE = "change roles"
    MUTE = "mute or unmute"
    KICK = "remove a participant"
    INVITE = "invite to the stage"
    ANSWER_INVITATION = "answer an invitation"
    PUT_SEAT = "put a participant on air or backstage"
    LEAVE_SEAT = "take a participant off the stage"
    PUBLISH = "publish"
    CHANGE_PUBLICATION = "change a publication"
    WATCH = "watch"
    READ_SESSION = "read a session"
    CLOSE_SESSION = "close a session"
    CHANGE_SLOT = "change a slot"
    WATCH_BACKSTAGE = "watch backstage publications"
    READ_EVENTS = "follow the room's events"
    SEND_EVENT = "send events"
    READ_NODES = "list nodes"
    MANAGE_PROGRAM = "switch, shape or arrange the program"
    MANAGE_EGRESS = "start, stop or list egress"
    CHANGE_LINK = "move a link's media"
    MANAGE_PK = "invite to a PK or answer for the room"
    END_PK = "end a PK"
    SCORE_PK = "give points in a PK"


_EVERYONE = frozenset(Role)
_HOSTS = frozenset({Role.OWNER, Role.GUEST})
_CREW = frozenset({Role.OWNER, Role.MODERATOR})
_BACKEND = frozenset({Role.SERVICE})

# The law: an action is allowed to the roles of the first set on whomever they outrank (and on what nobody owns), and to
# the roles of the second set on themselves. `service` may do everything.
_TABLE: dict[Action, tuple[frozenset[Role], frozenset[Role]]] = {
    Action.CREATE_ROOM: (frozenset({Role.OWNER}), frozenset()),
    Action.READ_ROOM: (_EVERYONE, _EVERYONE),
    Action.END_ROOM: (frozenset({Role.OWNER}), frozenset()),
    Action.MINT_TOKEN: (frozenset({Role.OWNER}), frozenset()),
    Action.READ_PARTICIPANTS: (_EVERYONE, _EVERYONE),
    Action.CHANGE_ROLE: (frozenset({Role.OWNER}), frozenset()),
    Action.MUTE: (_CREW, _EVERYONE),
    Action.KICK: (_CREW, frozenset()),
    Action.INVITE: (_CREW, frozenset()),
    Action.ANSWER_INVITATION: (frozenset(), _EVERYONE),
    Action.PUT_SEAT: (_CREW, _HOSTS),
    Action.LEAVE_SEAT: (_CREW, _HOSTS),
    Action.PUBLISH: (frozenset(), _HOSTS),
    Action.CHANGE_PUBLICATION: (_CREW, _HOSTS),
    Action.WATCH: (_EVERYONE, _EVERYONE),
    Action.READ_SESSION: (_CREW, _EVERYONE),
    Action.CLOSE_SESSION: (_CREW, _EVERYONE),
    Action.CHANGE_SLOT: (_BACKEND, _EVERYONE),
    Action.WATCH_BACKSTAGE: (_CREW, frozenset()),
    Action.READ_EVENTS: (_EVERYONE, _EVERYONE),
    Action.SEND_EVENT: (_CREW | _HOSTS, frozenset()),
    Action.READ_NODES: (_CREW, frozenset()),
    Action.MANAGE_PROGRAM: (_CREW, frozenset()),
    Action.MANAGE_EGRESS: (_CREW, frozenset()),
    Action.CHANGE_LINK: (frozenset(), frozenset()),
    Action.MANAGE_PK: (_CREW, frozenset()),
    Action.END_PK: (_CREW | _HOSTS, frozenset()),
    Action.SCORE_PK: (_CREW | _HOSTS, frozenset()),
}

_RANK = {Role.VIEWER: 0, Role.GUEST: 1, Role.MODERATOR: 2, Role.OWNER: 3, Role.SERVICE: 4}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: the `sub` and `role` of a checked token."""

    identity: str
    role: Role


def allowed(actor: Actor, action: Action, target: str | None = None, target_role: Role | None = None) -> bool:
    """Whether `actor` may do `action` to `target`; None when the action has no participant for object.

    `target_role` None says that the target is no host yet: everyone of the crew outranks it.
    """
    if actor.role is Role.SERVICE:
        return True
    on_others, on_self = _TABLE[action]
    if target is None:
        return actor.role in on_others or actor.role in on_self
    if target == actor.identity:
        return actor.role in on_self
    # Moderators do not act on each other or on the owner, so that a feud cannot empty the stage.
    return actor.role in on_others and _RANK[actor.role] > _RANK[target_role or Role.VIEWER]


def require(actor: Actor, action: Action, target: str | None = None, target_role: Role | None = None) -> None:
    """Raise Forbidden unless `allowed`."""
    if not allowed(actor, action, target, target_role):
        whom = f" ({target})" if target is not None and target != actor.identity else ""
        raise Forbidden(f"role {actor.role} may not {action.value}{whom}")


def is_host(role: Role) -> bool:
    """Whether the role may have a seat on the stage."""
    return role in _HOSTS
