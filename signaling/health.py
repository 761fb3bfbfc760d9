"""Probes: alive, ready, and the figures for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from signaling.context import Ctx
from signaling.nodes import ask_all

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    status: str
    store: bool
    plane: bool
    """Whether the packet plane of a node, at least, runs."""
    nodes: int
    """How many nodes answer."""
    draining: bool


@router.get("/healthz", response_model=Health, summary="Whether the process is alive")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Whether new sessions are welcome",
    responses={
        503: {"model": Readiness, "description": "The store is gone, no node answers or can forward, or all drain"}
    },
)
async def readyz(context: Ctx, response: Response) -> dict[str, Any]:
    store = await context.store.ping()
    nodes = await ask_all(context.nodes, lambda node: node.status())
    staying = [node for node in nodes if not node.get("draining", False)]
    draining = context.drain.began.is_set() or (bool(nodes) and not staying)
    plane = any(node.get("healthy", True) for node in nodes)  # a node of before this field runs the reference
    ready = store and plane and not draining
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(context.limits.retry_after_s)
    status = "ready" if ready else "not ready"
    return {"status": status, "store": store, "plane": plane, "nodes": len(nodes), "draining": draining}


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "OpenMetrics or text"}},
)
async def read_metrics(request: Request, context: Ctx) -> Response:
    body, content_type = context.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
