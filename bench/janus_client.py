"""Janus's REST API as a client of its videoroom plugin speaks it: one session with one handle.

A request to the plugin is acknowledged at once; its answer is an event, which a long poll of the session brings.
https://janus.conf.meetecho.com/docs/rest.html and https://janus.conf.meetecho.com/docs/videoroom.html
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Self

import httpx2

ROOM_NUMBER = 1
FEED = 7
"""The publisher's number, so that viewers need not look for it."""
_ANSWER_S = 10.0


class Session:
    """What one participant holds at Janus. Requests raise RuntimeError with what Janus says when it refuses."""

    def __init__(self, client: httpx2.AsyncClient, base: str, number: int) -> None:
        self.number = number
        self._client, self._url = client, f"{base}/{number}"
        self._handle = ""

    @classmethod
    async def open(cls, client: httpx2.AsyncClient, base: str) -> Self:
        """Create a session and attach it to the plugin: two requests."""
        created = await _post(client, base, {"janus": "create"})
        session = cls(client, base, created["data"]["id"])
        attach = {"janus": "attach", "plugin": "janus.plugin.videoroom"}
        handle = (await _post(client, session._url, attach))["data"]["id"]
        session._handle = f"{session._url}/{handle}"
        return session

    async def publish(self, offer: str) -> str:
        """Join as the publisher with an offer that has its candidates, and return the answer."""
        wanted = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM_NUMBER, "id": FEED}
        return await self._asked(wanted, {"type": "offer", "sdp": offer, "trickle": False})

    async def watch(self) -> str:
        """Join as a viewer of the publisher and return Janus's offer."""
        streams = [{"feed": FEED}]
        return await self._asked({"request": "join", "ptype": "subscriber", "room": ROOM_NUMBER, "streams": streams})

    async def start(self, answer: str, *, trickle: bool = False) -> None:
        """Answer its offer; with `trickle` candidates come after it."""
        await self._asked({"request": "start"}, {"type": "answer", "sdp": answer, "trickle": trickle})

    async def trickle(self, candidate: dict[str, Any] | None) -> None:
        """Send a candidate as browsers give it; None: that was the last."""
        await _post(self._client, self._handle, {"janus": "trickle", "candidate": candidate or {"completed": True}})

    async def close(self) -> None:
        """Destroy the session with all that it has."""
        await _post(self._client, self._url, {"janus": "destroy"})

    async def _asked(self, body: dict[str, Any], jsep: dict[str, Any] | None = None) -> str:
        """The SDP of the event that answers, "" without one."""
        message: dict[str, Any] = {"janus": "message", "body": body}
        if jsep is not None:
            message["jsep"] = jsep
        transaction = (await _post(self._client, self._handle, message))["transaction"]
        async with asyncio.timeout(_ANSWER_S):
            while True:
                event = (await self._client.get(self._url, params={"maxev": 1})).json()
                for each in event if isinstance(event, list) else [event]:
                    if each.get("transaction") == transaction:
                        data = each.get("plugindata", {}).get("data", {})
                        if "error" in data or "error" in each:
                            raise RuntimeError(f"Janus refused {body['request']}: {data or each['error']}")
                        return str(each.get("jsep", {}).get("sdp", ""))


async def _post(client: httpx2.AsyncClient, url: str, message: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = (await client.post(url, json=message | {"transaction": secrets.token_hex(6)})).json()
    if answer.get("janus") not in ("success", "ack"):
        raise RuntimeError(f"Janus refused {message['janus']}: {answer}")
    return answer
