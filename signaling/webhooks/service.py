"""Webhooks of this process: forwards what rooms told into the endpoints' queues, and delivers from them.

Any number of processes may do so. One at a time forwards; all deliver. What a process took and did not finish is taken
over by another one, or by its successor, so every message arrives at least once, always under the same id.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from relay.ending import end
from relay.errors import Conflict, NotFound, StoreUnavailable
from relay.metrics import Metrics
from relay.outbox import Delivery, Endpoint, Outbox, Secret
from relay.settings import WebhookSettings
from signaling.webhooks.messages import check_secret, headers_of, make_secret, message_of, wants
from signaling.webhooks.sender import Sender, wait_before

LEAD_S = 3.0
LOOK_S = 1.0
"""Between two looks at the list of endpoints."""
FORWARD_S = 0.2
EVENTS_AT_ONCE = 100
WAIT_S = 0.25
UNTOLD = 1000
GRACE_S = 2.0
LAST_S = 2.0
DISABLED = "the endpoint answered 410 Gone"
_KEY_BYTES = 32

log = structlog.get_logger(__name__)


class Webhooks:
    """`start` it, `close` it; it closes the outbox and the sender. `name` is this process's among all."""

    def __init__(
        self,
        settings: WebhookSettings,
        outbox: Outbox,
        metrics: Metrics,
        name: str,
        sender: Sender | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._outbox, self._metrics, self._name = settings, outbox, metrics, name
        self._sender = sender or Sender(settings)
        self._wall = wall
        self._endpoints: dict[str, Endpoint] = {}
        self._looked = float("-inf")
        self._flying: Counter[str] = Counter()
        self._untold: deque[tuple[str, dict[str, Any]]] = deque(maxlen=UNTOLD)
        self._landed = asyncio.Event()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._registered = False

    def start(self) -> None:
        """Begin, where the settings let this process deliver."""
        works = [self._telling]
        if self._settings.deliver:
            works += [self._forwarding, self._delivering, self._adopting]
        self._tasks = [asyncio.create_task(self._outliving(work)) for work in works]

    async def close(self) -> None:
        """Send what happened last, unless others will; let tries that are under way end, within a few seconds."""
        await end(self._tasks)
        if self._tasks and self._settings.deliver and self._endpoints:
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await self._last_round()
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=min(LAST_S, self._settings.timeout_s))
        await end(self._deliveries)
        await self._sender.close()
        await self._outbox.close()

    async def _last_round(self) -> None:
        """The process that told it may be the last one, and the store be its own."""
        if await self._outbox.lead(self._name, LEAD_S):
            await self._forward_some()
            if free := self._free():
                for delivery in await self._outbox.take(self._name, free, 0.001):
                    self._fly(delivery)

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """Something happened to a node or a link; kept here for a while when the store is away."""
        self._untold.append((kind, data))

    # --- endpoints --------------------------------------------------------------------------------------------------

    async def add(self, url: str, events: tuple[str, ...], room: str, description: str, secret: str | None) -> Endpoint:
        """Make an endpoint. Raises BadRequest (url, secret), Conflict (too many)."""
        await self._sender.check(url)
        key = make_secret(secrets.token_bytes(_KEY_BYTES)) if secret is None else check_secret(secret)
        name = f"wh-{secrets.token_hex(8)}"
        await self._put(Endpoint(name, url, (Secret(key),), events, room, description=description))
        return await self.find(name)

    async def all(self) -> list[Endpoint]:
        """All endpoints, by id."""
        return await self._outbox.endpoints()

    async def find(self, endpoint: str) -> Endpoint:
        """One of them. Raises NotFound."""
        for each in await self._outbox.endpoints():
            if each.id == endpoint:
                return each
        raise NotFound(f"no webhook {endpoint!r}", code="webhook-not-found")

    async def remove(self, endpoint: str) -> None:
        """Forget one with all that waits for it. Raises NotFound; Conflict for one of the settings."""
        if (await self.find(endpoint)).origin == "settings":
            raise Conflict("this one stands in the settings", code="webhook-in-settings")
        await self._outbox.drop_endpoint(endpoint)
        self._looked = float("-inf")

    async def rotate(self, endpoint: str) -> Endpoint:
        """Give one a new secret. Those before sign as well for a while. Raises NotFound, Conflict."""
        found = await self.find(endpoint)
        if found.origin == "settings":
            raise Conflict("its secrets stand in the settings", code="webhook-in-settings")
        now = self._wall()
        until = now + self._settings.rotation_s
        kept = [replace(each, until=min(each.until or until, until)) for each in found.secrets]
        kept = [each for each in kept if each.until is not None and each.until > now][:3]
        new = Secret(make_secret(secrets.token_bytes(_KEY_BYTES)))
        await self._put(replace(found, secrets=(new, *kept)))
        return await self.find(endpoint)

    async def revive(self, endpoint: str) -> int:
        """Try an endpoint's dead letters again, and the endpoint itself if it was given up. Raises NotFound."""
        found = await self.find(endpoint)
        if not found.active:
            await self._put(replace(found, active=True, reason=""))
        return await self._outbox.revive(endpoint)

    async def view(self, endpoint: Endpoint) -> dict[str, Any]:
        """The `Webhook` schema of the API."""
        backlog = await self._outbox.backlog(endpoint.id)
        return {
            "id": endpoint.id,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "room": endpoint.room or None,
            "description": endpoint.description,
            "origin": endpoint.origin,
            "active": endpoint.active,
            "reason": endpoint.reason,
            "waiting": backlog.waiting,
            "retrying": backlog.retrying,
            "dead": backlog.dead,
            "delivered": backlog.delivered,
            "given_up": backlog.given_up,
            "lost": backlog.lost,
        }

    async def dead(self, endpoint: str, limit: int) -> list[dict[str, Any]]:
        """The newest dead letters, newest first. Raises NotFound."""
        await self.find(endpoint)
        found = await self._outbox.dead(endpoint, limit)
        return [
            {
                "id": each.message.id,
                "type": each.message.type,
                "reason": each.reason,
                "tries": each.tries,
                "body": each.message.body,
            }
            for each in found
        ]

    async def _put(self, endpoint: Endpoint) -> None:
        await self._outbox.put_endpoint(endpoint, self._settings.max_endpoints)
        self._looked = float("-inf")

    async def _look(self) -> None:
        """Bring the list up to date, when it is time."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        if not self._registered:
            await self._register()
        found = {each.id: each for each in await self._outbox.endpoints()}
        for gone in self._endpoints.keys() - found.keys():
            await self._sender.forget(gone)
        self._endpoints, self._looked = found, now
        self._registered = all(name in found for name in self._settings.endpoints)

    async def _register(self) -> None:
        """Write the settings' endpoints into the store; again when it forgot them."""
        for name, wanted in self._settings.endpoints.items():
            keys = tuple(Secret(each) for each in wanted.secrets)
            try:
                await self._put(Endpoint(name, wanted.url, keys, wanted.events, wanted.room, origin="settings"))
            except Conflict as error:
                log.error("an endpoint of the settings has no place", endpoint=name, reason=str(error))

    # --- from rooms to queues ---------------------------------------------------------------------------------------

    async def _telling(self) -> None:
        while True:
            await asyncio.sleep(FORWARD_S)
            while self._untold:
                first = self._untold[0]
                await self._outbox.tell([first])
                with suppress(IndexError):  # it may have been pushed out meanwhile
                    if self._untold[0] is first:
                        self._untold.popleft()

    async def _forwarding(self) -> None:
        while True:
            await self._look()
            if not self._endpoints or not await self._outbox.lead(self._name, LEAD_S):
                await asyncio.sleep(LOOK_S)
                continue
            more = await self._forward_some()
            await asyncio.sleep(0 if more else FORWARD_S)

    async def _forward_some(self) -> bool:
        """One round; returns whether there may be more at once."""
        more = False
        for room, events in (await self._outbox.news(EVENTS_AT_ONCE)).items():
            to = {
                name: [message_of(room, event) for event in events if wants(endpoint, room, event)]
                for name, endpoint in self._endpoints.items()
            }
            to = {name: messages for name, messages in to.items() if messages}
            await self._outbox.forward(room, events, to, self._settings.queue_events)
            more |= len(events) >= EVENTS_AT_ONCE
        return more

    # --- from queues to endpoints -----------------------------------------------------------------------------------

    def _free(self) -> dict[str, int]:
        most = self._settings.parallel
        return {
            name: most - self._flying[name]
            for name, endpoint in self._endpoints.items()
            if endpoint.active and self._flying[name] < most
        }

    async def _delivering(self) -> None:
        while True:
            await self._look()
            free = self._free()
            if not free:
                self._landed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if not self._endpoints else WAIT_S):
                        await self._landed.wait()
                continue
            for delivery in await self._outbox.take(self._name, free, WAIT_S):
                self._fly(delivery)

    async def _adopting(self) -> None:
        """Longer than a try can take means that whoever took it is gone."""
        idle_s = 2 * self._settings.timeout_s + GRACE_S
        while True:
            await asyncio.sleep(min(5.0, idle_s / 2))
            for name, free in self._free().items():
                for delivery in await self._outbox.adopt(self._name, name, idle_s, free):
                    self._fly(delivery)

    def _fly(self, delivery: Delivery) -> None:
        self._flying[delivery.endpoint] += 1
        task = asyncio.create_task(self._deliver(delivery))
        self._deliveries.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._deliveries.discard(done)
            self._flying[delivery.endpoint] -= 1
            self._landed.set()
            error = None if done.cancelled() else done.exception()
            if error is not None and not isinstance(error, StoreUnavailable):  # else it is taken over later
                log.error("a webhook's delivery failed", endpoint=delivery.endpoint, exc_info=error)

        task.add_done_callback(landed)

    async def _deliver(self, delivery: Delivery) -> None:
        """One try, and what follows from it."""
        endpoint = self._endpoints.get(delivery.endpoint)
        if endpoint is None or not endpoint.active:
            return  # the next list says whether there is one to wait for
        headers = headers_of(endpoint, delivery.message, self._wall())
        outcome = await self._sender.send(endpoint.id, endpoint.url, headers, delivery.message.body)
        self._metrics.webhooks.labels("delivered" if outcome.ok else outcome.reason).inc()
        if outcome.ok:
            await self._outbox.delivered(delivery)
            return
        wait = wait_before(delivery.tries + 1, self._settings, random.random())
        log.info("a webhook was not taken", endpoint=endpoint.id, message=delivery.message.id, reason=outcome.reason)
        if outcome.gone:
            self._endpoints[endpoint.id] = gone = replace(endpoint, active=False, reason=DISABLED)
            await self._put(gone)
            await self._outbox.bury(delivery, outcome.reason)
        elif wait is None:
            await self._outbox.bury(delivery, outcome.reason)
        else:
            await self._outbox.again(delivery, max(wait, outcome.retry_after))

    async def _outliving(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The store may go and come back; a bug must not end the work for ever, either."""
        while True:
            try:
                await work()
            except StoreUnavailable:
                pass
            except Exception:
                log.exception("webhooks stumbled")
            await asyncio.sleep(LOOK_S)
