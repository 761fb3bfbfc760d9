"""The API as the tests meet it: the real app in this process, with a node that has no media."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
from fastapi import FastAPI

from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import NodeSettings
from signaling.app import create_app
from signaling.egress.control import Others
from signaling.nodes import LocalNodes, Nodes
from signaling.pages import find_pages
from signaling.problems import TYPE_BASE
from signaling.tokens import mint
from signaling.webhooks.service import Webhooks
from tests.signaling.memory_node import MemoryNode

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
RATES = {"rate.api_per_minute": 60_000, "rate.joins_per_minute": 60_000, "room.auto_create": False}


@dataclass
class Api:
    """One app with its client. `now` is the wall clock that the app sees."""

    settings: NodeSettings
    store: RoomStore
    node: MemoryNode = field(default_factory=MemoryNode)
    now: float = field(default_factory=time.time)
    webhooks: Webhooks | None = None
    nodes: Nodes | None = None
    others: Others | None = None

    def __post_init__(self) -> None:
        self.app: FastAPI = create_app(
            self.settings,
            self.store,
            self.nodes or LocalNodes(self.node),
            Metrics(),
            others=self.others,
            webhooks=self.webhooks,
            pages_directory=find_pages(),
            wall=lambda: self.now,
            monotonic=lambda: self.now,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://test")

    def token(self, who: str) -> dict[str, str]:
        """The Authorization header of e.g. `owner`, `guest:bob`, `viewer:carol@other` (role, identity, room)."""
        name, _, room = who.partition("@")
        role, _, identity = name.partition(":")
        token = mint(
            self.settings.auth.keys,
            room=room or ("*" if role == "service" else "demo"),
            identity=identity or role,
            role=role,
            ttl_s=3600,
            now=self.now,
        )
        return {"Authorization": f"Bearer {token}"}

    async def call(
        self,
        method: str,
        path: str,
        who: str | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request as `who` (see `token`; None: without a token)."""
        given = (self.token(who) if who else {}) | dict(headers or {})
        return await self.client.request(method, path, json=json, content=content, headers=given)

    async def offer(self, path: str, who: str | None, sdp: str = "v=0\r\n", **headers: str) -> httpx.Response:
        """Send an offer."""
        return await self.call("POST", path, who, content=sdp, headers=SDP | headers)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Check that a response is a problem as RFC 9457 has it; return its status and the name in its type."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/")
    if response.status_code in {429, 503}:
        assert int(response.headers["Retry-After"]) >= 1
    if response.status_code == 401:
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
    return response.status_code, body["type"].removeprefix(TYPE_BASE)
