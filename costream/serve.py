"""Run a node with its signaling, or signaling alone, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
import uvloop
from fastapi import FastAPI

from costream.addresses import detect_addresses
from costream.tls import leaf_pem, prepare_tls
from costream.web_server import http
from relay.cluster import RedisStore, open_store
from relay.cluster.directory import RedisDirectory, Registration
from relay.cluster.known import NodeCache
from relay.cluster.leases import RedisLeases
from relay.cluster.outbox import RedisOutbox
from relay.cluster.placement import load_of, rank
from relay.errors import NodeFailed, SettingsError
from relay.link.quic import identity_of
from relay.log import configure_logging
from relay.metrics import Metrics
from relay.node import Node, make_node_id
from relay.ports import KnownNodes, NodeRecord, RoomStore
from relay.settings import EMBEDDED_STORE, LimitSettings, NodeSettings, SignalingSettings
from signaling.app import create_app
from signaling.control.others import OtherNodes
from signaling.nodes import LocalNodes
from signaling.pages import find_pages
from signaling.webhooks.service import Webhooks

log = structlog.get_logger()

BUSIEST = 0.95  # no CPU figure makes a node full: that is for limits, and a busy node still serves those who return
FAILED_DRAIN_S = 5.0
"""Without a plane nothing plays here: who can go elsewhere does so at once, the others wait for the restart."""


def version() -> str:
    """The installed version, or `0` in a tree that is not installed."""
    try:
        return importlib.metadata.version("costream")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True)
class Running:
    """A node that serves."""

    settings: NodeSettings
    node: Node
    store: RoomStore
    app: FastAPI
    registration: Registration | None = None
    known: KnownNodes | None = None
    """The other nodes of the cluster, and this one."""


def run_relay(settings: NodeSettings) -> None:
    """Run a node until it is told to stop. Raises SettingsError when a port is taken or a file unreadable, and
    NodeFailed as `serve` does."""
    uvloop.run(serve(settings))


def run_signaling(settings: SignalingSettings) -> None:
    """Run the signaling service apart from the nodes until it is told to stop. Raises SettingsError as `run_relay`,
    and for an embedded store, in which it would find no node."""
    from costream.apart import serve_signaling

    uvloop.run(serve_signaling(settings))


async def serve(settings: NodeSettings, while_up: Callable[[Running], Awaitable[None]] | None = None) -> None:
    """Run a node; `while_up` is awaited once it answers. SIGTERM and SIGINT drain it, a second one ends it at once.

    When its packet plane is lost it drains as well, and raises NodeFailed at the end.
    """
    async with stopping() as stop, running(settings) as up:
        ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(up.node.failed.wait())]
        beside = [*ends, *([asyncio.ensure_future(while_up(up))] if while_up is not None else [])]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in beside:
                each.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await drain(up)
    if up.node.failed.is_set():
        raise NodeFailed(f"the packet plane failed, so this node ended, to be started again: {up.node.failure}")


@contextlib.asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, number)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        raise SystemExit(128 + number)
    log.info("stopping: refusing newcomers, a second signal ends at once", signal=number.name)
    stop.set()


@contextlib.asynccontextmanager
async def running(settings: NodeSettings) -> AsyncIterator[Running]:
    """A node that answers on its ports; closed in the reverse order, whatever happens."""
    if settings.cluster.control_url and settings.store.url == EMBEDDED_STORE:
        raise SettingsError(
            f"cluster.control_url is set, but store.url is {EMBEDDED_STORE!r}: nobody else could find this relay in "
            "it. Name a store that all share: redis://host:port/db"
        )
    node_id, metrics = prepare_process(settings)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened_store(settings))
        webhooks = await stack.enter_async_context(telling_others(settings, store, metrics, node_id))
        advertised = settings.media.advertise or detect_addresses(settings.media.host)
        node = Node(settings, store, metrics, node_id=node_id, version=version(), advertised=advertised)
        known = await stack.enter_async_context(knowing(settings)) if settings.cluster.control_url else None
        stack.push_async_callback(node.shut_down)
        node.on_link_moved = webhooks.tell
        others = OtherNodes(settings, node_id, known) if known is not None else None
        if others is not None:
            stack.push_async_callback(others.close)
        if settings.store.url != EMBEDDED_STORE:
            node.egress.share(open_leases(settings))
        linked = await link_up(settings, node, known)
        await node.start()
        nodes = LocalNodes(node, None if known is None else ranking_others(node_id, settings.node.region, known))
        control = nodes.all()[0] if settings.cluster.control_url else None
        app = create_app(
            settings,
            store,
            nodes,
            metrics,
            control=control,
            others=others,
            webhooks=webhooks,
            version=version(),
            pages_directory=find_pages(),
        )
        await stack.enter_async_context(http(settings, app))
        registration = await stack.enter_async_context(registered(settings, node, linked)) if control else None
        settle()
        lag = asyncio.create_task(metrics.measure_loop_lag())
        stack.callback(lag.cancel)
        log.info(
            "node is up",
            plane=node.plane_name,
            plane_ways=node.plane_ways,
            plane_shards=len(node.plane_ports),
            plane_cpus=node.plane_cpus,
            https=f"{settings.http.host}:{settings.http.port}",
            udp=node.plane_ports[0],
            advertised=[f"{host}:{port}" for host, port in node.candidates],
        )
        yield Running(settings, node, store, app, registration, known)


def prepare_process(settings: SignalingSettings) -> tuple[str, Metrics]:
    """Set up what every service needs: limits, logging, metrics. Returns the process's name and its metrics."""
    raise_file_limit()
    node_id = settings.node.id or make_node_id()
    configure_logging(settings.log, node=node_id)
    for library in ("uvicorn", "httpx2", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)  # their daily business is not ours
    return node_id, Metrics(version=version(), node=node_id)


def settle() -> None:
    """What is there once a service is up stays until it ends. The garbage collector need not look at it again: that
    would stop the loop, and with it what links carry, for a quarter of a second now and then."""
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def opened_store(settings: SignalingSettings) -> AsyncIterator[RedisStore]:
    """The room store, closed at the end."""
    store = await open_store(
        settings.store.url,
        socket_timeout_s=settings.store.socket_timeout_s,
        connect_timeout_s=settings.store.connect_timeout_s,
    )
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def telling_others(
    settings: SignalingSettings, store: RedisStore, metrics: Metrics, name: str
) -> AsyncIterator[Webhooks]:
    """Webhooks, by the store of the rooms: the embedded one forgets them with the process."""
    times = settings.store
    outbox = RedisOutbox(store.url, socket_timeout_s=times.socket_timeout_s, connect_timeout_s=times.connect_timeout_s)
    webhooks = Webhooks(settings.webhooks, outbox, metrics, name)
    webhooks.start()
    try:
        yield webhooks
    finally:
        await webhooks.close()


@contextlib.asynccontextmanager
async def registered(settings: NodeSettings, node: Node, link: tuple[str, ...] = ()) -> AsyncIterator[Registration]:
    """A node's place in the directory, for as long as it serves. `link`: where other nodes may dial it."""
    url = settings.cluster.control_url
    certificate = leaf_pem(prepare_tls(settings)) if url.startswith("https://") else ""

    def record() -> NodeRecord:
        status = node.status()
        return NodeRecord(
            id=node.node_id,
            control_url=url,
            region=settings.node.region,
            version=version(),
            certificate=certificate,
            sessions=status["sessions"],
            max_sessions=status["max_sessions"],
            draining=status["draining"],
            load=load_of_node(status, settings.limits),
            healthy=status["healthy"],
            public_url=settings.cluster.public_url,
            link=link,
            hears=node.hears(),
        )

    registration = Registration(
        open_directory(settings), record, heartbeat_s=settings.cluster.heartbeat_s, expiry_s=settings.cluster.expiry_s
    )
    registration.start()
    try:
        yield registration
    finally:
        await registration.stop()


@contextlib.asynccontextmanager
async def knowing(settings: SignalingSettings) -> AsyncIterator[NodeCache]:
    """The nodes of the cluster, as far as the directory tells."""
    cluster = settings.cluster
    known = NodeCache(open_directory(settings), look_s=cluster.heartbeat_s / 2, grace_s=cluster.expiry_s)
    await known.start()
    try:
        yield known
    finally:
        await known.close()


def ranking_others(node_id: str, own_region: str, known: KnownNodes) -> Callable[[str, str], list[str]]:
    """Return what lists the public URLs of the nodes that a newcomer to a room can be sent to, best first."""

    def others(room: str, region: str) -> list[str]:
        records = [record for record in known.records() if record.public_url]
        return [record.public_url for record in rank(room, records, region=region or own_region, down={node_id})]

    return others


def load_of_node(status: Mapping[str, Any], limits: LimitSettings) -> float:
    """Return a node's load (`NodeRecord.load`) from its status."""
    busy = status["cpu_percent"] / 100 / len(os.sched_getaffinity(0))
    return load_of(
        [
            (status["sessions"], status["max_sessions"]),
            (status["bitrate_out_bps"], limits.max_bitrate_bps),
            (status["memory_bytes"], limits.max_memory_bytes),
            (min(busy, BUSIEST), 1.0),
        ]
    )


def open_directory(settings: SignalingSettings) -> RedisDirectory:
    """The directory of nodes, in the store of the rooms."""
    store = settings.store
    return RedisDirectory(store.url, socket_timeout_s=store.socket_timeout_s, connect_timeout_s=store.connect_timeout_s)


async def link_up(settings: NodeSettings, node: Node, known: KnownNodes | None) -> tuple[str, ...]:
    """Link a node to the others of its cluster, where it has a certificate for it. Returns where they reach it.

    Raises SettingsError for files that cannot be used, and for a certificate that is another node's.
    """
    identity = identity_of(settings.link)
    if identity is None:
        return ()
    if known is None:
        raise SettingsError(
            "link.certificate is set, but cluster.control_url is not: other nodes could not find this one"
        )
    if identity.name != node.node_id:
        raise SettingsError(
            f"{settings.link.certificate} is a certificate of {identity.name}, but this node is {node.node_id}: set "
            "node.id, or issue one with `costream ca issue`"
        )
    await node.join(identity, known, open_leases(settings))
    host = next(iter(node.candidates))[0]
    default = f"[{host}]:{settings.link.port}" if ":" in host else f"{host}:{settings.link.port}"
    return settings.link.advertise or (default,)


def open_leases(settings: SignalingSettings) -> RedisLeases:
    """The leases of publications, in the store of the rooms."""
    store = settings.store
    return RedisLeases(store.url, socket_timeout_s=store.socket_timeout_s, connect_timeout_s=store.connect_timeout_s)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: containers often start with 1024, one per HTTP connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def drain(up: Running) -> None:
    """Refuse newcomers, tell clients, give sessions `node.drain_timeout_s` to go elsewhere, or less without a plane."""
    up.app.state.context.drain.begin()
    up.node.refuse_newcomers()
    if up.registration is not None:
        up.registration.renew()
    timeout = up.settings.node.drain_timeout_s
    await up.node.drain(min(timeout, FAILED_DRAIN_S) if up.node.failed.is_set() else timeout)
    up.app.state.context.drain.end()
