"""A real server for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from relay.cluster import EmbeddedServer, RedisStore


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url)
    yield opened
    await opened.close()
