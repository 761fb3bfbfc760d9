"""The app on the real store: one Valkey server for all tests of a process, emptied between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis import Redis

from relay.cluster import EmbeddedServer, open_store
from relay.cluster.outbox import RedisOutbox
from relay.metrics import Metrics
from relay.ports import RoomStore
from relay.settings import dev_settings
from signaling.webhooks.service import Webhooks
from tests.signaling.api_client import RATES, Api

PATIENCE_S = 60.0  # a busy machine must not decide a test: most of these run beside others (tests/beside.py)


@pytest.fixture
def overrides() -> dict[str, object]:
    """Settings that differ from `costream dev`; tests override this fixture."""
    return {}


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    """A store of its own, started outside any test's event loop."""
    with asyncio.Runner() as runner:
        server = EmbeddedServer()
        runner.run(server.start())
        yield server.url
        runner.run(server.stop())


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[RoomStore]:
    store = await open_store(store_url, socket_timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S)
    yield store
    await store.close()
    with Redis.from_url(store_url) as client:
        client.flushall()


@pytest.fixture
async def api(store: RoomStore, store_url: str, overrides: dict[str, object]) -> AsyncIterator[Api]:
    """An app with the room `demo`."""
    settings = dev_settings(environ={}, overrides=RATES | overrides)
    outbox = RedisOutbox(store_url, socket_timeout_s=PATIENCE_S, connect_timeout_s=PATIENCE_S)
    webhooks = Webhooks(settings.webhooks, outbox, Metrics(), "api")
    api = Api(settings, store, webhooks=webhooks)
    created = await api.call("POST", "/v1/rooms", "owner", json={"id": "demo", "max_seats": 2})
    assert created.status_code == 201, created.text
    yield api
    await webhooks.close()
    await api.client.aclose()
