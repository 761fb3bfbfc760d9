"""Shared state of the nodes: rooms on a server that speaks the Redis protocol, an own one by default."""

from __future__ import annotations

from pathlib import Path

from relay.cluster.embedded import EmbeddedServer
from relay.cluster.redis_store import RedisStore

EMBEDDED = "embedded"

__all__ = ["EMBEDDED", "EmbeddedServer", "RedisStore", "open_store"]


async def open_store(
    url: str = EMBEDDED, *, socket_timeout_s: float = 0.5, connect_timeout_s: float = 0.5, directory: Path | None = None
) -> RedisStore:
    """Open the room store at `url`: `embedded`, or one of those of `relay.cluster.connect`. `socket_timeout_s` bounds
    every call.

    The embedded one is started here and ends with the store's `close`; it keeps its socket and log in a new directory
    under `directory` (the system's temporary one by default), removed afterwards. Raises StoreUnavailable when it does
    not start. A server elsewhere need not answer yet.
    """
    if url != EMBEDDED:
        return RedisStore(url, socket_timeout_s=socket_timeout_s, connect_timeout_s=connect_timeout_s)
    server = EmbeddedServer(directory)
    await server.start()
    return RedisStore(
        server.url, socket_timeout_s=socket_timeout_s, connect_timeout_s=connect_timeout_s, on_close=server.stop
    )
