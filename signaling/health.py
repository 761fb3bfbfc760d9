"""Probes: alive, ready, and the figures for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from signaling.context import Ctx

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    status: str
    store: bool
    plane: bool
    draining: bool


@router.get("/healthz", response_model=Health, summary="Whether the process is alive")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Whether new sessions are welcome",
    responses={503: {"model": Readiness, "description": "The store is gone, the plane stopped, or the node drains"}},
)
async def readyz(context: Ctx, response: Response) -> dict[str, Any]:
    store = await context.store.ping()
    nodes = [node.status() for node in context.nodes.all()]
    draining = context.drain.began.is_set() or any(node.get("draining", False) for node in nodes)
    plane = bool(nodes) and all(node.get("plane") for node in nodes)
    ready = store and plane and not draining
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(context.limits.retry_after_s)
    return {"status": "ready" if ready else "not ready", "store": store, "plane": plane, "draining": draining}


@router.get(
    "/metrics",
    response_class=Response,
    summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "OpenMetrics or text"}},
)
async def read_metrics(request: Request, context: Ctx) -> Response:
    body, content_type = context.metrics.render(request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})
