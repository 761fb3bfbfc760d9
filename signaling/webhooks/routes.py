"""Webhooks: endpoints that get the events of rooms."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from relay.outbox import Endpoint
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import ANY_ROOM, Caller, CallerDep
from signaling.bodies import json_of, takes
from signaling.openapi import may_fail
from signaling.webhooks.schemas import CreateWebhook, DeadLetters, NewWebhook, Revived, Webhook, WebhookList
from signaling.webhooks.service import Webhooks

_REFUSALS = (p.InvalidParameter, p.MissingToken, p.InvalidToken, p.Forbidden)
_ONE = (*_REFUSALS, p.WebhookNotFound)
_BODY = (p.MalformedBody, p.BodyTooLarge, p.UnsupportedMediaType, p.InvalidRequest)
WebhookId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="A webhook's id")]
_EXAMPLE = {"url": "https://example.com/costream", "events": ["room.*", "egress.*"]}


def build(webhooks: Webhooks) -> APIRouter:
    """The routes. A service's token of one room manages the webhooks of that room only."""
    router = APIRouter(tags=["webhooks"])

    async def find(caller: Caller, webhook: str) -> Endpoint:
        caller.require(Action.MANAGE_WEBHOOKS)
        found = await webhooks.find(webhook)
        if not _opens(caller, found.room):
            raise p.WebhookNotFound(f"no webhook {webhook!r}")
        return found

    @router.post(
        "/v1/webhooks",
        status_code=201,
        response_model=NewWebhook,
        summary="Send events to an address",
        description="The answer has the secret that signs; it is not told again.",
        openapi_extra=takes(CreateWebhook, _EXAMPLE),
        responses=may_fail(*_REFUSALS, *_BODY, p.WrongRoom, p.BadRequest, p.TargetNotAllowed, p.TooManyWebhooks),
    )
    async def create_webhook(
        caller: CallerDep, response: Response, body: Annotated[CreateWebhook, Depends(json_of(CreateWebhook))]
    ) -> dict[str, Any]:
        caller.require(Action.MANAGE_WEBHOOKS)
        if not _opens(caller, body.room or ""):
            raise p.WrongRoom(f"the token is for room {caller.room!r}")
        made = await webhooks.add(body.url, tuple(body.events), body.room or "", body.description, body.secret)
        response.headers["Location"] = f"/v1/webhooks/{made.id}"
        return await webhooks.view(made) | {"secret": made.secrets[0].secret}

    @router.get("/v1/webhooks", response_model=WebhookList, summary="List webhooks", responses=may_fail(*_REFUSALS))
    async def list_webhooks(caller: CallerDep) -> dict[str, Any]:
        caller.require(Action.MANAGE_WEBHOOKS)
        return {"webhooks": [await webhooks.view(each) for each in await webhooks.all() if _opens(caller, each.room)]}

    @router.get("/v1/webhooks/{webhook}", response_model=Webhook, summary="Read a webhook", responses=may_fail(*_ONE))
    async def read_webhook(webhook: WebhookId, caller: CallerDep) -> dict[str, Any]:
        return await webhooks.view(await find(caller, webhook))

    @router.delete(
        "/v1/webhooks/{webhook}",
        status_code=204,
        response_class=Response,
        summary="Forget a webhook and all that waits for it",
        responses=may_fail(*_ONE, p.WebhookInSettings),
    )
    async def delete_webhook(webhook: WebhookId, caller: CallerDep) -> Response:
        await find(caller, webhook)
        await webhooks.remove(webhook)
        return Response(status_code=204)

    @router.post(
        "/v1/webhooks/{webhook}/secrets",
        status_code=201,
        response_model=NewWebhook,
        summary="Replace a webhook's secret",
        description="Until the old one ends (`webhooks.rotation_s`), messages have a signature by each.",
        responses=may_fail(*_ONE, p.WebhookInSettings),
    )
    async def rotate_secret(webhook: WebhookId, caller: CallerDep) -> dict[str, Any]:
        await find(caller, webhook)
        made = await webhooks.rotate(webhook)
        return await webhooks.view(made) | {"secret": made.secrets[0].secret}

    @router.get(
        "/v1/webhooks/{webhook}/dead",
        response_model=DeadLetters,
        summary="Read the newest messages that were given up",
        responses=may_fail(*_ONE),
    )
    async def dead_letters(
        webhook: WebhookId, caller: CallerDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> dict[str, Any]:
        await find(caller, webhook)
        return {"dead": await webhooks.dead(webhook, limit)}

    @router.post(
        "/v1/webhooks/{webhook}/dead/retry",
        response_model=Revived,
        summary="Try the messages that were given up again",
        description="Makes a webhook active again that was given up because it answered 410.",
        responses=may_fail(*_ONE),
    )
    async def revive(webhook: WebhookId, caller: CallerDep) -> dict[str, Any]:
        await find(caller, webhook)
        return {"revived": await webhooks.revive(webhook)}

    return router


def _opens(caller: Caller, room: str) -> bool:
    return caller.room in (ANY_ROOM, room)
