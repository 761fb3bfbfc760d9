"""Who is asking: bearer tokens (RFC 6750), the room they open, and what their role may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPBearer

from relay.stage.permissions import Action, Actor, Role, require
from signaling import tokens
from signaling.context import Context, Ctx
from signaling.ids import IDENTITY_PATTERN, ROOM_PATTERN
from signaling.problems import InvalidToken, MissingToken, RateLimited, WrongRoom

ANY_ROOM = "*"
_IDENTITY = re.compile(IDENTITY_PATTERN)
_ROOM = re.compile(ROOM_PATTERN)

_SCHEME = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="JWT")


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a verified token. `expires` is in seconds since the Unix epoch."""

    actor: Actor
    room: str
    key_id: str
    expires: int

    @property
    def identity(self) -> str:
        return self.actor.identity

    @property
    def role(self) -> Role:
        return self.actor.role

    @property
    def is_service(self) -> bool:
        return self.role is Role.SERVICE

    @property
    def key(self) -> str:
        """What the caller's requests are counted under."""
        return f"bearer {self.key_id} {self.room} {self.identity}"

    def opens(self, room: str) -> bool:
        """Whether the token is for this room."""
        return self.room == room or (self.is_service and self.room == ANY_ROOM)

    def enter(self, room: str) -> None:
        """Raise WrongRoom unless the token opens this room."""
        if not self.opens(room):
            raise WrongRoom(f"the token is for room {self.room!r}")

    def require(self, action: Action, target: str | None = None, target_role: Role | None = None) -> None:
        """Raise Forbidden unless the role may do this (`relay.stage.permissions`)."""
        require(self.actor, action, target, target_role)


def authenticate(request: Request, context: Context, token: str | None) -> Caller:
    """Verify a token. Raises MissingToken, InvalidToken, RateLimited.

    Requests are counted per token's bearer; those without a good token per address.
    """
    try:
        caller = _verified(context, token)
    except (MissingToken, InvalidToken):
        count(context, f"address {address_of(request)}")
        raise
    count(context, caller.key)
    return caller


def count(context: Context, key: str) -> None:
    """Count a request. Raises RateLimited."""
    wait = context.requests.take(key, context.monotonic())
    if wait:
        raise RateLimited(f"wait {wait} s", headers={"Retry-After": str(wait)})


def count_join(context: Context, caller: Caller) -> None:
    """Count a WHIP or WHEP offer. Raises RateLimited."""
    wait = context.joins.take(caller.key, context.monotonic())
    if wait:
        raise RateLimited(f"wait {wait} s before the next offer", headers={"Retry-After": str(wait)})


def address_of(request: Request) -> str:
    """Return the client's address; an IPv6 client counts by its /64, of which it has all addresses."""
    host = request.client.host if request.client else ""
    return ":".join(host.split(":")[:4]) if ":" in host and "." not in host else host


def bearer_token(request: Request) -> str | None:
    """Return the token in the Authorization header (RFC 6750 section 2.1); None when there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _verified(context: Context, token: str | None) -> Caller:
    if token is None:
        raise MissingToken(
            "send Authorization: Bearer <token>", headers={"WWW-Authenticate": 'Bearer realm="costream"'}
        )
    try:
        claims = tokens.verify(token, context.settings.auth.keys, context.wall())
    except tokens.InvalidToken as error:
        raise _refused(str(error)) from None
    if not _IDENTITY.fullmatch(claims.identity):
        raise _refused("the claim 'sub' has to be 1 to 64 of A-Z a-z 0-9 _ . @ : -")
    if not _ROOM.fullmatch(claims.room) and not (claims.room == ANY_ROOM and claims.role == "service"):
        raise _refused("the claim 'room' has to be 1 to 64 of A-Z a-z 0-9 _ -")
    return Caller(Actor(claims.identity, Role(claims.role)), claims.room, claims.key_id, claims.expires)


def _refused(reason: str) -> InvalidToken:
    quoted = reason.replace("\\", "").replace('"', "'").encode("ascii", "replace").decode()
    return InvalidToken(
        reason,
        headers={"WWW-Authenticate": f'Bearer realm="costream", error="invalid_token", error_description="{quoted}"'},
    )


async def _caller(request: Request, context: Ctx, _: Annotated[object, Depends(_SCHEME)]) -> Caller:
    return authenticate(request, context, bearer_token(request))


async def _listener(
    request: Request,
    context: Ctx,
    _: Annotated[object, Depends(_SCHEME)],
    access_token: Annotated[
        str | None, Query(description="The token, for clients that cannot set a header (RFC 6750 section 2.3)")
    ] = None,
) -> Caller:
    return authenticate(request, context, bearer_token(request) or access_token)


CallerDep = Annotated[Caller, Depends(_caller)]
"""The caller, by the Authorization header."""
ListenerDep = Annotated[Caller, Depends(_listener)]
"""The caller of an event stream, by the Authorization header or `?access_token=`."""
