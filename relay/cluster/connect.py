"""Clients of the store by URL: one server, one watched by Sentinel, or a cluster.

    redis://[user:password@]host:port/db            rediss:// over TLS, unix://path
    redis+sentinel://[user:password@]host:port,host:port/service/db   the hosts are sentinels; rediss+sentinel://
    redis+cluster://[user:password@]host:port,host:port               any nodes of the cluster; rediss+cluster://

User and password are the servers'; those of the sentinels stand in the query:
`?sentinel_username=…&sentinel_password=…`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from relay.errors import SettingsError, StoreUnavailable

MOST_CONNECTIONS = 10_000
"""No limit in earnest: `StoreGate` bounds the calls, and a follower has a connection of its own."""
_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Topology:
    """A parsed `…+sentinel://` or `…+cluster://` URL. `service` and `db` are Sentinel's."""

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None
    service: str = ""
    db: int = 0
    sentinel_username: str | None = None
    sentinel_password: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """An open client and how to end it with all its connections. `redis` may be a RedisCluster, which has the same
    commands."""

    redis: Any
    close: Callable[[], Awaitable[None]]


def parse_topology(url: str) -> Topology | None:
    """Read a Sentinel's or a Cluster's URL; None for any other. Raises SettingsError for a malformed one."""
    scheme, _, _ = url.partition("://")
    base, _, kind = scheme.partition("+")
    if base not in {"redis", "rediss"} or kind not in _DEFAULT_PORT:
        return None
    try:
        return _parse(url, base == "rediss", kind)
    except ValueError as error:
        wanted = f"{scheme}://host:port,host:port" + ("/service/db" if kind == "sentinel" else "")
        raise SettingsError(f"the store's URL has to be {wanted}: {error}") from None


class _Idle(ConnectionPool):
    """Closes connections that nobody uses, the longest unused first, beyond `most_idle`. redis-py keeps as many as were
    ever in use at the same moment."""

    most_idle = MOST_CONNECTIONS

    async def release(self, connection: AbstractConnection) -> None:
        await super().release(connection)
        while len(self._available_connections) > self.most_idle:
            # Taken out before anything is waited for: nobody can be given it.
            await self._available_connections.pop(0).disconnect(nowait=True)


class _IdleSentinel(_Idle, SentinelConnectionPool):
    """The same of the one that Sentinel names."""


def open_client(
    url: str, *, socket_timeout_s: float, connect_timeout_s: float, most_idle: int = MOST_CONNECTIONS
) -> Client:
    """Return a client that connects when first used. `socket_timeout_s` bounds each answer. `most_idle` connections
    that nobody uses stay open; a cluster's all do.

    Nothing is tried again here: whoever calls has a deadline and decides. Raises SettingsError for a malformed URL.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": socket_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    topology = parse_topology(url)
    if topology is None:
        return _single(url, most_idle, options)
    named = {"username": topology.username, "password": topology.password}
    options |= {name: value for name, value in named.items() if value is not None}
    return _cluster(topology, options) if topology.kind == "cluster" else _sentinel(topology, most_idle, options)


async def server_time(url: str, *, socket_timeout_s: float, connect_timeout_s: float) -> float:
    """Return the wall clock of the server that a URL leads to, in seconds. Raises StoreUnavailable, SettingsError."""
    client = open_client(url, socket_timeout_s=socket_timeout_s, connect_timeout_s=connect_timeout_s)
    try:
        # A script runs on whoever would serve this key; on a cluster TIME alone goes to any node and to none in
        # particular.
        text = await client.redis.eval("local t = redis.call('TIME') return t[1] .. '.' .. t[2]", 1, "costream:probe")
        seconds, _, microseconds = str(text).partition(".")
        return int(seconds) + int(microseconds) / 1e6
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise StoreUnavailable(str(error)) from None
    finally:
        await client.close()


def _single(url: str, most_idle: int, options: dict[str, Any]) -> Client:
    try:
        pool = _Idle.from_url(url, max_connections=MOST_CONNECTIONS, **options)
    except ValueError as error:
        raise SettingsError(f"the store's URL cannot be used: {error}") from None
    pool.most_idle = most_idle
    client: Any = Redis.from_pool(pool)

    async def close() -> None:
        await client.aclose()
        await pool.disconnect()

    return Client(client, close)


def _sentinel(topology: Topology, most_idle: int, options: dict[str, Any]) -> Client:
    own = {name: value for name, value in options.items() if name.startswith("socket_") or name == "retry"}
    named = {"username": topology.sentinel_username, "password": topology.sentinel_password}
    own |= {name: value for name, value in named.items() if value is not None}
    # One sentinel of several may hang; asking the next has to fit into the time of one call.
    own |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), options["socket_timeout"] / 4)
    sentinel = Sentinel(topology.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    pool = _IdleSentinel(  # type: ignore[no-untyped-call]
        topology.service, sentinel, max_connections=MOST_CONNECTIONS, db=topology.db, ssl=topology.tls, **options
    )
    pool.most_idle = most_idle
    client: Any = Redis.from_pool(pool)

    async def close() -> None:
        await client.aclose()
        await pool.disconnect()
        await sentinel.aclose()

    return Client(client, close)


def _cluster(topology: Topology, options: dict[str, Any]) -> Client:
    client: Any = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in topology.hosts],
        max_connections=MOST_CONNECTIONS,
        ssl=topology.tls,
        **options,
    )
    return Client(client, client.aclose)


def _parse(url: str, tls: bool, kind: str) -> Topology:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    query = parse_qs(parts.query, strict_parsing=bool(parts.query))
    if unknown := set(query) - {"sentinel_username", "sentinel_password"}:
        raise ValueError(f"{sorted(unknown)[0]!r} is no option")
    service, _, db = parts.path.strip("/").partition("/")
    if kind == "sentinel" and not service:
        raise ValueError("the name of the service that the sentinels watch is missing")
    if kind == "cluster" and parts.path.strip("/") not in {"", "0"}:
        raise ValueError("a cluster has no numbered databases")
    return Topology(
        kind=kind,
        tls=tls,
        hosts=tuple(_address(each, _DEFAULT_PORT[kind]) for each in hosts.split(",")),
        username=unquote(username) or None,
        password=unquote(password) or None,
        service=unquote(service) if kind == "sentinel" else "",
        db=_database(db) if kind == "sentinel" else 0,
        sentinel_username=query.get("sentinel_username", [None])[0],
        sentinel_password=query.get("sentinel_password", [None])[0],
    )


def _address(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or default


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise ValueError(f"the database {text[:20]!r} is no number")
    return int(text or 0)
