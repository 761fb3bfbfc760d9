"""Webhooks on a real store, before a real receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.outbox import RedisOutbox
from tests.webhooks.receiver import Receiver


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    embedded = EmbeddedServer()
    await embedded.start()
    yield embedded
    await embedded.stop()


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


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    receiver.start()
    yield receiver
    receiver.stop()
