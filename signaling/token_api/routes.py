"""Minting tokens for others."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from relay.stage.permissions import Action
from relay.stage.views import timestamp
from signaling import problems as p
from signaling import tokens
from signaling.auth import ANY_ROOM, Caller, CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Context, Ctx
from signaling.openapi import may_fail
from signaling.token_api.schemas import MintedToken, MintToken

router = APIRouter(tags=["tokens"])


@router.post(
    "/v1/tokens",
    status_code=201,
    response_model=MintedToken,
    summary="Mint a token",
    description="A service mints any token. An owner mints tokens for its own room, of any role but service.",
    openapi_extra=takes(MintToken, {"room": "demo", "identity": "bob", "role": "guest", "ttl_s": 3600}),
    responses=may_fail(
        p.MissingToken,
        p.InvalidToken,
        p.Forbidden,
        p.WrongRoom,
        p.MalformedBody,
        p.BadRequest,
        p.BodyTooLarge,
        p.UnsupportedMediaType,
        p.InvalidRequest,
    ),
)
async def mint_token(
    context: Ctx, caller: CallerDep, body: Annotated[MintToken, Depends(json_of(MintToken))]
) -> MintedToken:
    _check_scope(caller, body)
    return mint(context, caller, body.room, body.identity, body.role, body.ttl_s)


def mint(
    context: Context, caller: Caller, room: str, identity: str, role: str, ttl_s: int | None = None
) -> MintedToken:
    """Sign a token with the key that signed the caller's own, so that revoking the key revokes both."""
    now, ttl_s = context.wall(), ttl_s or context.settings.auth.token_ttl_s
    token = tokens.mint(
        context.settings.auth.keys,
        room=room,
        identity=identity,
        role=role,
        ttl_s=ttl_s,
        now=now,
        key_id=caller.key_id,
    )
    return MintedToken(token=token, expires_at=timestamp(int(now) + ttl_s))


def _check_scope(caller: Caller, body: MintToken) -> None:
    """Raise Forbidden or WrongRoom for a token that opens more than the caller's own."""
    caller.require(Action.MINT_TOKEN)
    caller.enter(body.room)
    if body.role == "service" and not caller.is_service:
        raise p.Forbidden("only a service mints tokens of services")
    if body.room == ANY_ROOM and body.role != "service":
        raise p.Forbidden(f"only a service's token is for all rooms ({ANY_ROOM})")
