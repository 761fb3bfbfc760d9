"""A node on a free port with a real store; its clock is the machine's, its peers are aiortc's."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import pytest

from relay.cluster import EmbeddedServer, RedisStore
from relay.metrics import Metrics
from relay.node import Node
from relay.settings import NodeSettings, dev_settings
from relay.stage.permissions import Actor, Role
from relay.stage.room import create


@pytest.fixture
async def store(server: EmbeddedServer) -> AsyncIterator[RedisStore]:
    opened = RedisStore(server.url, socket_timeout_s=2.0)  # a busy machine must not decide a test
    state, _ = create(Actor("test", Role.SERVICE), "demo", time.time(), max_seats=4)
    await opened.create("demo", state.to_json())
    yield opened
    await opened.close()


@pytest.fixture
def settings() -> NodeSettings:
    return dev_settings(environ={}, overrides={"media.port": 0, "media.plane": "reference"})


@pytest.fixture
async def node(store: RedisStore, settings: NodeSettings) -> AsyncIterator[Node]:
    made = Node(settings, store, Metrics(), node_id="n1", version="test", advertised=["127.0.0.1"])
    await made.start()
    yield made
    await made.shut_down()


@pytest.fixture
def unused_udp_ports() -> list[int]:
    """Two ports that are free a moment ago."""
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]
