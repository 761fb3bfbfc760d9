"""Webhooks on a real store, before a real receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.outbox import RedisOutbox


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url, socket_timeout_s=5.0)
    yield opened
    await opened.close()


@pytest.fixture
async def outbox(server: EmbeddedServer) -> AsyncIterator[RedisOutbox]:
    opened = RedisOutbox(server.url, socket_timeout_s=5.0)
    yield opened
    await opened.close()
