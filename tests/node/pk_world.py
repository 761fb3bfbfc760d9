"""Two nodes with a link between them, each with its own wire to the store, which can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from relay.cluster import EmbeddedServer, RedisStore
from relay.cluster.leases import RedisLeases
from relay.cluster.pk_desk import PkDesk
from relay.metrics import Metrics
from relay.node import Node
from relay.ports import NodeRecord
from relay.settings import NodeSettings
from relay.stage import pk as pks
from relay.stage.document import RoomState
from relay.stage.permissions import Actor, Role
from relay.stage.pk import Pk
from relay.stage.pk_room import current
from relay.stage.room import create
from tests.interop.relays import free_ports
from tests.link.quic_world import identity
from tests.node.peers import Peer

COUNTDOWN_S = 2.0


class Wire:
    """A TCP port that leads to the store's socket while it is whole."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._path = urlsplit(server.url).path
        self._whole = True
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    def cut(self) -> None:
        """Nothing passes, and what was open ends."""
        self._whole = False
        for each in self._open:
            each.transport.abort()

    def mend(self) -> None:
        self._whole = True

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        store_reader, store_writer = await asyncio.open_unix_connection(self._path)
        self._open |= {writer, store_writer}
        await asyncio.gather(_pump(reader, store_writer), _pump(store_reader, writer))
        self._open -= {writer, store_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@dataclass
class Known:
    """Every node knows all that live."""

    held: dict[str, NodeRecord] = field(default_factory=dict)
    current: bool = True

    def records(self) -> tuple[NodeRecord, ...]:
        return tuple(self.held[name] for name in sorted(self.held))

    def get(self, node: str) -> NodeRecord | None:
        return self.held.get(node)


class Two:
    """Nodes `a` and `b`, rooms `red` and `blue`, and a desk of somebody else's."""

    def __init__(self, server: EmbeddedServer, settings: NodeSettings) -> None:
        self._server, self._settings = server, settings
        self.known = Known()
        self.wires: dict[str, Wire] = {}
        self.nodes: dict[str, Node] = {}
        self.stores: list[RedisStore] = []
        self.peers: list[Peer] = []
        self._exits = contextlib.AsyncExitStack()

    async def start(self) -> None:
        self.store = RedisStore(self._server.url, socket_timeout_s=2.0)
        self._exits.push_async_callback(self.store.close)
        self.desk = PkDesk(self.store, time.time)
        for room in ("red", "blue"):
            state, _ = create(Actor("test", Role.SERVICE), room, time.time())
            await self.store.create(room, state.to_json())
        for name in ("a", "b"):
            await self._node(name)

    async def _node(self, name: str) -> None:
        wire = self.wires[name] = Wire(self._server)
        await wire.start()
        self._exits.push_async_callback(wire.close)
        store = RedisStore(wire.url, socket_timeout_s=1.0)
        self._exits.push_async_callback(store.close)
        leases = RedisLeases(wire.url, socket_timeout_s=1.0)
        self._exits.push_async_callback(leases.close)
        port, _ = free_ports()
        link = self._settings.link.model_copy(update={"host": "127.0.0.1", "port": port})
        settings = self._settings.model_copy(update={"link": link})
        node = Node(settings, store, Metrics(), node_id=name, version="test", advertised=["127.0.0.1"])
        self._exits.push_async_callback(node.shut_down)
        self.known.held[name] = NodeRecord(name, "", "", "test", link=(f"127.0.0.1:{port}",))
        await node.join(identity(name), self.known, leases)
        await node.start()
        self.nodes[name] = node

    async def close(self) -> None:
        for peer in self.peers:
            await peer.close()
        await self._exits.aclose()

    # --- people -------------------------------------------------------------------------------------------------------

    async def host(self, node: str, room: str, identity: str) -> Peer:
        peer = Peer(self.nodes[node], identity, "owner", room)
        self.peers.append(peer)
        return await peer.publish()

    async def viewer(self, node: str, room: str, slots: int = 3) -> Peer:
        peer = Peer(self.nodes[node], f"viewer-{len(self.peers)}", "viewer", room)
        self.peers.append(peer)
        return await peer.watch(slots)

    def shown(self, peer: Peer) -> set[str]:
        """Whom a viewer's slots play."""
        slots: list[dict[str, Any]] = peer.node.session(peer.session)["slots"]
        return {slot["identity"] for slot in slots if slot["publication"]}

    # --- the PK -------------------------------------------------------------------------------------------------------

    async def invite(self, duration_s: float = 60.0) -> Pk:
        pk = pks.invite("pk1", "red", "blue", "rita", time.time(), duration_s=duration_s, countdown_s=COUNTDOWN_S)
        return await self.desk.invite(pk)

    async def state(self, room: str) -> RoomState:
        return RoomState.from_json(await self.store.read(room))

    async def on_air(self, room: str) -> list[str]:
        return (await self.state(room)).on_air()

    async def runs(self) -> tuple[bool, bool]:
        return current(await self.state("red")) is not None, current(await self.state("blue")) is not None


@contextlib.asynccontextmanager
async def two_nodes(server: EmbeddedServer, settings: NodeSettings) -> AsyncIterator[Two]:
    two = Two(server, settings)
    try:
        await two.start()
        yield two
    finally:
        await two.close()
