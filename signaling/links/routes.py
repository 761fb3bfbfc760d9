"""The links between nodes: what carries media now, and moving it by hand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from relay.errors import NotFound
from relay.stage.permissions import Action
from signaling import problems as p
from signaling.auth import CallerDep
from signaling.bodies import json_of, takes
from signaling.context import Ctx
from signaling.links.schemas import ChangeBreaker, Link, LinkList
from signaling.nodes import Node, ask_all
from signaling.openapi import may_fail

router = APIRouter(tags=["nodes"])

_REFUSALS = (p.MissingToken, p.InvalidToken, p.Forbidden)
LinkId = Annotated[str, Path(pattern=r"^[0-9A-Za-z_-]{1,64}$", description="`link` of a Link")]


@router.get(
    "/v1/links",
    response_model=LinkList,
    summary="List the links between nodes, each as both ends see it",
    responses=may_fail(*_REFUSALS),
)
async def list_links(context: Ctx, caller: CallerDep) -> dict[str, Any]:
    caller.require(Action.READ_NODES)
    ends = await ask_all(context.nodes, _ends)
    return {"links": [end for of_node in ends for end in of_node]}


@router.post(
    "/v1/links/{link}/breaker",
    response_model=Link,
    summary="Move a link's media to its backup path, or back",
    openapi_extra=takes(ChangeBreaker, {"action": "open"}),
    responses=may_fail(
        *_REFUSALS,
        p.InvalidParameter,
        p.MalformedBody,
        p.BodyTooLarge,
        p.UnsupportedMediaType,
        p.InvalidRequest,
        p.LinkNotFound,
        p.NodeUnreachable,
    ),
)
async def change_breaker(
    link: LinkId, context: Ctx, caller: CallerDep, body: Annotated[ChangeBreaker, Depends(json_of(ChangeBreaker))]
) -> dict[str, Any]:
    caller.require(Action.CHANGE_LINK)
    for node in context.nodes.all():
        try:
            return {"node": node.node_id, **await node.change_link(link, body.action)}
        except NotFound:
            continue
    raise p.LinkNotFound(f"no node is the origin of link {link}")


async def _ends(node: Node) -> list[dict[str, Any]]:
    return [{"node": node.node_id, **end} for end in await node.links()]
