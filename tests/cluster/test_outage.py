"""The store stops, hangs and dies: calls fail in bounded time, everything comes back by itself, no server is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.cluster import EmbeddedServer, RedisStore, open_store
from relay.errors import StoreUnavailable

BOUND_S = 2.0
"""The time-out is 0.5 s; the rest is for a busy machine. Without time-outs the client would hang for much longer."""


async def refused_in_time(call: Callable[[], Awaitable[Any]]) -> float:
    """Return how long the store took to say that it is not there."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        await call()
    assert caught.value.retry_after >= 1
    return time.monotonic() - began


async def back(store: RedisStore) -> None:
    async with asyncio.timeout(20):
        while not await store.ping():
            await asyncio.sleep(0.05)


def pid_of(server: EmbeddedServer) -> int:
    assert server.pid is not None
    return server.pid


async def test_a_store_that_hangs_is_unavailable_in_time_and_comes_back(server: EmbeddedServer) -> None:
    store = RedisStore(server.url)
    await store.create("demo", {"n": 0})
    following = asyncio.create_task(anext(store.events("demo")))  # type: ignore[arg-type]
    while not store._readers._readers:
        await asyncio.sleep(0.01)
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.read("demo"),
            store.rooms,
            lambda: store.change("demo", lambda document: (document, [("app.x", {})])),
            lambda: store.put_viewer("demo", "ann", {}),
            lambda: anext(store.events("demo")),  # type: ignore[arg-type]
        ]
        for call in calls:
            await asyncio.sleep(0.25)  # after the gate's rest, so that each is really tried
            assert await refused_in_time(call) < BOUND_S
        # One of a crowd waits, the others are told at once: nobody waits in a queue of time-outs.
        began = time.monotonic()
        crowd = await asyncio.gather(
            *(store.append("demo", [("app.x", {})]) for _ in range(200)), return_exceptions=True
        )
        assert all(isinstance(each, StoreUnavailable) for each in crowd)
        assert time.monotonic() - began < 2 * BOUND_S
        assert await store.ping() is False
    finally:
        os.kill(pid, signal.SIGCONT)
    await back(store)
    assert pid_of(server) == pid
    # What timed out may have been carried out by the server once it woke, so only the newest is asked for.
    made = await store.append("demo", [("app.back", {})])
    async with asyncio.timeout(20):
        event = await following
    assert event.sync_id <= made[0].sync_id
    await store.close()


async def test_a_store_that_is_killed_comes_back_with_its_rooms(server: EmbeddedServer) -> None:
    store = RedisStore(server.url)
    await store.create("demo", {"n": 0})
    start = int((await store.read("demo"))["sync_id"])
    stream = store.events("demo", after=start)
    first = await store.append("demo", [("app.before", {})])
    assert await anext(stream) == first[0]
    os.kill(pid_of(server), signal.SIGKILL)
    assert await refused_in_time(lambda: store.read("demo")) < BOUND_S
    await back(store)
    assert (await store.read("demo"))["n"] == 0
    after = await store.append("demo", [("app.after", {})])
    async with asyncio.timeout(20):
        assert await anext(stream) == after[0]
    assert after[0].sync_id > first[0].sync_id
    await store.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    store = await open_store("redis://127.0.0.1:1")
    assert await store.ping() is False
    assert await refused_in_time(lambda: store.read("demo")) < BOUND_S
    await store.close()


async def test_a_server_that_never_answers_is_unavailable() -> None:
    async def silence(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    store = await open_store(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    assert await refused_in_time(lambda: store.read("demo")) < BOUND_S
    await store.close()
    silent.close()


async def test_the_embedded_store_leaves_nothing_behind() -> None:
    with tempfile.TemporaryDirectory() as name:  # a short path, as a socket is among the files
        store = await open_store(directory=Path(name) / "store")
        await store.create("demo", {"n": 0})
        assert list((Path(name) / "store").iterdir())
        await store.close()
        assert list((Path(name) / "store").iterdir()) == []


async def test_a_stopped_server_is_ended_in_bounded_time_too() -> None:
    server = EmbeddedServer()
    await server.start()
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        await server.stop()
    assert not _alive(pid)


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)  # a socket's path has at most 107 bytes
    server = EmbeddedServer(deep)
    with pytest.raises(StoreUnavailable, match="died while starting"):
        await server.start()
    assert server.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from relay.cluster import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, server.url, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(20):
        pid = int((await parent.stdout.readline()).split()[0])
        assert _alive(pid)
        parent.kill()
        await parent.wait()
        while _alive(pid):
            await asyncio.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
