"""A relay in another process, called over its control API. Every call has a deadline; a dead node costs no waiting."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import structlog
from pydantic import ValidationError

from relay.errors import NodeUnreachable
from relay.guards import CallBreaker, Guard, NotAnswered, deadline_header, remaining
from relay.ports import Answer, IceFragment, NodeRecord, Offer, RoomEvent, SlotChange
from signaling.control.egress import RemoteEgress
from signaling.control.trust import Trust
from signaling.control.wire import PING_S, PREFIX, TOKEN_TTL_S, EventBody, read_error
from signaling.tokens import CONTROL_AUDIENCE, mint

ATTEMPTS = 3
_CONNECTIONS = 64
_NOBODY_THERE = (httpx2.ConnectError, httpx2.ConnectTimeout)
_KEEP_ALIVE_S = 20.0  # shorter than the server's 30 s, so that no call meets a connection that is just being closed

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. `change` and `read` bound the whole of a call, a read's retries included."""

    connect: float = 0.5
    change: float = 2.0
    read: float = 0.6


class Tokens:
    """Makes the tokens for one node's control API; each is used for half of its life."""

    def __init__(self, keys: Mapping[str, str], caller: str, node: str, wall: Callable[[], float] = time.time) -> None:
        self._keys, self._caller, self._node, self._wall = keys, caller, node, wall
        self._token, self._renew_at = "", float("-inf")

    def current(self) -> str:
        """Return a token that is good for at least half a minute."""
        now = self._wall()
        if not self._renew_at - TOKEN_TTL_S / 2 <= now < self._renew_at:
            self._token = mint(
                self._keys,
                room="*",
                identity=self._caller,
                role="service",
                ttl_s=TOKEN_TTL_S,
                now=now,
                audience=CONTROL_AUDIENCE + self._node,
            )
            self._renew_at = now + TOKEN_TTL_S / 2
        return self._token


class RemoteNode:
    """A `signaling.nodes.Node`. Close it with `disconnect`."""

    def __init__(
        self,
        record: NodeRecord,
        tokens: Tokens,
        trust: Trust,
        deadlines: Deadlines | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises NodeUnreachable when the node must not be called at all (see `Trust`)."""
        self.record = record
        self._guard = Guard(self._unreachable, attempts=ATTEMPTS, monotonic=monotonic)
        self._tokens = tokens
        self._deadlines = deadlines or Deadlines()
        self._monotonic = monotonic
        self.egress = RemoteEgress(self, self._deadlines.read)
        verify: Any = trust.context(record) or True
        # Streams of events are many and long: the pool of the calls is not for them.
        self._calls, self._streams = (
            httpx2.AsyncClient(
                base_url=record.control_url + PREFIX,
                verify=verify,
                trust_env=False,
                timeout=httpx2.Timeout(None, connect=self._deadlines.connect),
                limits=httpx2.Limits(max_connections=most, keepalive_expiry=_KEEP_ALIVE_S),
            )
            for most in (_CONNECTIONS, None)
        )

    @property
    def node_id(self) -> str:
        return self.record.id

    @property
    def breaker(self) -> CallBreaker:
        """Whether the node answers."""
        return self._guard.breaker

    @property
    def public_url(self) -> str:
        return self.record.public_url

    async def disconnect(self) -> None:
        """End all connections; streams of events end with NodeUnreachable."""
        await self._calls.aclose()
        await self._streams.aclose()

    # --- calls -------------------------------------------------------------------------------------------------------

    async def publish(self, offer: Offer) -> Answer:
        return await self._offer("/publish", offer)

    async def watch(self, offer: Offer) -> Answer:
        return await self._offer("/watch", offer)

    async def _offer(self, path: str, offer: Offer) -> Answer:
        return Answer(**await self._call("POST", path, asdict(offer)))

    async def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        body = {"fragment": fragment, "etag": etag}
        found = await self._call("POST", f"/sessions/{quote(session)}/trickle", body)
        return None if found["restarted"] is None else IceFragment(**found["restarted"])

    async def close(self, session: str) -> None:
        await self._call("DELETE", f"/sessions/{quote(session)}")

    async def session(self, session: str) -> dict[str, Any]:
        return await self._read(f"/sessions/{quote(session)}")

    async def sessions(self, room: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._read("/sessions", {} if room is None else {"room": room}))[
            "sessions"
        ]
        return found

    async def change_slot(self, session: str, index: int, change: SlotChange) -> dict[str, Any]:
        return await self._call("PATCH", f"/sessions/{quote(session)}/slots/{index}", {"changes": change.changes})

    async def status(self) -> dict[str, Any]:
        return await self._read("/status")

    async def links(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._read("/links"))["links"]
        return found

    async def change_link(self, link: str, action: str) -> dict[str, Any]:
        return await self._call("POST", f"/links/{quote(link)}/{quote(action)}", {})

    async def admit(self, room: str, identity: str, publishing: bool) -> None:
        publishes = "true" if publishing else "false"
        await self._read("/admission", {"room": room, "identity": identity, "publishing": publishes})

    async def knows(self, room: str) -> dict[str, Any] | None:
        document: dict[str, Any] | None = (await self._read(f"/rooms/{quote(room)}"))["document"]
        return document

    async def active_speaker(self, room: str) -> str | None:
        identity: str | None = (await self._read(f"/rooms/{quote(room)}/speaker"))["identity"]
        return identity

    async def _read(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Ask for something that changes nothing: tried up to `ATTEMPTS` times within its deadline."""
        return await self._guard.run(lambda: self._try("GET", path, query=query), self._deadlines.read, repeatable=True)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for a change, once: whether it was made is not known when no answer comes."""
        return await self._guard.run(lambda: self._try(method, path, body), self._deadlines.change, repeatable=False)

    async def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        seconds: float,
    ) -> dict[str, Any]:
        """One call that may take `seconds`, among others that take as long."""
        return await self._guard.run(lambda: self._try(method, path, body, query, slow=True), seconds, repeatable=False)

    async def fetch(self, path: str, *, seconds: float) -> bytes:
        """One file. Raises as a call does."""
        return await self._guard.run(lambda: self._fetch(path), seconds, repeatable=True)

    async def _fetch(self, path: str) -> bytes:
        response = await self._send("GET", path, slow=True)
        if not response.is_success:
            self._result(response)
        return response.content

    async def _try(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        slow: bool = False,
    ) -> dict[str, Any]:
        """One request. Raises what the node raised, and NotAnswered."""
        return self._result(await self._send(method, path, body, query, slow=slow))

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        *,
        slow: bool = False,
    ) -> httpx2.Response:
        """One request, `slow` ones on connections of their own. Raises NotAnswered."""
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = self._headers() | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            client = self._streams if slow else self._calls
            response = await client.request(method, path, content=content, params=query, headers=headers)
        except _NOBODY_THERE as error:
            raise NotAnswered(repr(error), down=True) from None
        except httpx2.HTTPError as error:
            raise NotAnswered(repr(error)) from None
        if response.status_code == 401:  # another node's address by now, or other keys: in any case not this node
            self._log_refusal(response)
            raise NotAnswered("it refused with 401; the log says why")
        return response

    def _unreachable(self, why: str) -> NodeUnreachable:
        return NodeUnreachable(f"node {self.node_id} {why}", retry_after=1)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens.current()}", **deadline_header()}

    def _result(self, response: httpx2.Response) -> dict[str, Any]:
        if response.status_code == 204:
            return {}
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._unreachable(f"answered {response.status_code} without JSON")
        if response.is_success:
            return found
        error = read_error(found.get("error"))
        if error is not None:
            raise error
        self._log_refusal(response)
        raise self._unreachable(f"refused with {response.status_code}; the log says why")

    def _log_refusal(self, response: httpx2.Response) -> None:
        problem = response.text[:500]
        log.error("a node refuses to be controlled", node=self.node_id, status=response.status_code, problem=problem)

    # --- events ------------------------------------------------------------------------------------------------------

    async def session_events(self, session: str) -> AsyncIterator[RoomEvent]:
        """See `Node.session_events`. The iterator raises NodeUnreachable when the stream is cut."""
        events = self._follow(session)
        try:
            async with asyncio.timeout(remaining(self._deadlines.read)):
                await anext(events)
        except TimeoutError:
            self.breaker.failed(self._monotonic(), down=True)
            raise self._unreachable(f"did not answer within {self._deadlines.read:g} s") from None
        return _events(events)

    async def _follow(self, session: str) -> AsyncGenerator[RoomEvent | None, None]:
        """Yield None once the node follows the session, then its events."""
        if not self.breaker.allows(self._monotonic()):
            raise self._unreachable("did not answer of late")
        timeout = httpx2.Timeout(2 * PING_S, connect=self._deadlines.connect)
        path = f"/sessions/{quote(session)}/events"
        try:
            async with self._streams.stream("GET", path, headers=self._headers(), timeout=timeout) as response:
                self.breaker.succeeded()
                if not response.is_success:
                    await response.aread()
                    self._result(response)
                kind = "message"
                async for line in response.aiter_lines():
                    if line == ": following":
                        yield None
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind == "end":
                        return
                    elif name == "data":
                        yield RoomEvent(**EventBody.model_validate_json(value).model_dump())
        except httpx2.HTTPError as error:
            if isinstance(error, _NOBODY_THERE):
                self.breaker.failed(self._monotonic(), down=True)
            raise NodeUnreachable(f"the events of {session} were cut: {error!r}", 1) from None
        except ValidationError:
            raise NodeUnreachable(f"the events of {session} cannot be read", 1) from None
        raise NodeUnreachable(f"the events of {session} were cut", 1)


async def _events(found: AsyncGenerator[RoomEvent | None, None]) -> AsyncIterator[RoomEvent]:
    async with aclosing(found):
        async for event in found:
            if event is not None:
                yield event
