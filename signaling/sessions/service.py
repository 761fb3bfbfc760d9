"""Which sessions a caller may see and touch: see `relay.stage.permissions`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relay.errors import NotFound
from relay.stage.permissions import Action, Role, allowed
from signaling.auth import Caller
from signaling.context import Context
from signaling.nodes import Node, ask_all
from signaling.problems import SessionNotFound, problem_of


async def visible(context: Context, caller: Caller, room: str) -> list[dict[str, Any]]:
    """Return the sessions of a room that the caller may see, on all nodes."""
    found = await ask_all(context.nodes, lambda node: node.sessions(room))
    sessions = [each for of_node in found for each in of_node]
    return [each for each in sessions if allowed(caller.actor, Action.READ_SESSION, each["identity"])]


async def open_session(context: Context, caller: Caller, session: str, action: Action) -> tuple[Node, dict[str, Any]]:
    """Return the node that holds a session, and what it says of it. Raises WrongRoom, Forbidden, SessionNotFound."""
    node, facts = await _find(context, session)
    _check(caller, facts, action)
    return node, facts


async def open_resource(context: Context, caller: Caller, room: str, session: str, kind: str, action: Action) -> Node:
    """Return the node of a WHIP ("publisher") or WHEP ("viewer") resource. Raises as `open_session` does."""
    caller.enter(room)
    node, facts = await _find(context, session)
    if facts["room"] != room or facts["kind"] != kind:
        raise SessionNotFound(f"no session {session!r} here")
    _check(caller, facts, action)
    return node


async def _find(context: Context, session: str) -> tuple[Node, dict[str, Any]]:
    with session_errors():
        node = await context.nodes.holding(session)
        return node, await node.session(session)


def _check(caller: Caller, facts: dict[str, Any], action: Action) -> None:
    """Raise WrongRoom or Forbidden. All of the crew may read; to end a session one must outrank its participant."""
    caller.enter(facts["room"])
    caller.require(action, facts["identity"], None if action is Action.READ_SESSION else Role(facts["role"]))


@contextmanager
def session_errors() -> Iterator[None]:
    """Say `session-not-found` where a node's NotFound does not say what is missing."""
    try:
        yield
    except NotFound as error:
        named = problem_of(error)
        if error.code and named is not None:
            raise named from None
        raise SessionNotFound(str(error)) from None
