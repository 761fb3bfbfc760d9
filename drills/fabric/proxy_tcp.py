"""TCP through the proxy: bytes cannot be lost, so a lost piece comes later, and a black hole holds them back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from relay.clock import now_us

if TYPE_CHECKING:
    from drills.fabric.proxy import Proxy, Way

_PIECE = 16_384  # bytes that are delayed as one
_MOST_PIECES = 256  # on their way in one direction of a connection: 4 MiB
_MOST_CONNECTIONS = 1024
_CONNECT_S = 10.0
_RETRANSMISSION_US = 200_000  # Linux' least retransmission time-out


class TcpRelay:
    """One exposed TCP port. Raises OSError when it is taken."""

    def __init__(self, proxy: Proxy, front: str, port: int) -> None:
        self.refused = 0
        self._proxy, self._front, self._port = proxy, front, port
        self._connections: set[asyncio.Task[None]] = set()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((front, port))
            listener.listen(256)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        self._accepting.cancel()
        for task in self._connections:
            task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                client, peer = await loop.sock_accept(listener)
                if len(self._connections) >= _MOST_CONNECTIONS:
                    self.refused += 1
                    client.close()
                    continue
                task = loop.create_task(self._serve(client, peer[0]))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)

    async def _serve(self, client: socket.socket, peer: str) -> None:
        src = self._proxy.source(peer)
        with client, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as host, contextlib.suppress(OSError):
            for each in (client, host):
                each.setblocking(False)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            host.bind((src, 0))
            async with asyncio.timeout(_CONNECT_S):
                address = (self._proxy.bound(self._front), self._port)
                await asyncio.get_running_loop().sock_connect(host, address)
            forth, back = self._proxy.way(src, self._front), self._proxy.way(self._front, src)
            pumps = [
                asyncio.create_task(_Pump(self._proxy, way, a, b).run())
                for way, a, b in ((forth, client, host), (back, host, client))
            ]
            try:
                await asyncio.gather(*pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)


class _Pump:
    """One direction of a connection: a reader that says when each piece is due, and a writer that waits for it."""

    def __init__(self, proxy: Proxy, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self._proxy, self._way, self._source, self._sink = proxy, way, source, sink
        self._pieces: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue(_MOST_PIECES)
        self._last = 0

    async def run(self) -> None:
        writing = asyncio.create_task(self._write())
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._source, _PIECE):
                await self._passable()
                await self._pieces.put((*self._due(len(data)), data))
            await self._pieces.put((self._last, 0, b""))
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            while not self._pieces.empty():
                _, copies, _ = self._pieces.get_nowait()
                self._way.in_flight -= copies
                self._way.undeliverable += copies

    def _due(self, size: int) -> tuple[int, int]:
        """When a piece comes out, after those before it, and as how many packets it counts (none when lost)."""
        now = now_us()
        out = self._way.lane.enter(now, size)
        settings = self._way.lane.settings
        lost = not out or out[0].flip is not None
        at = now + settings.delay_us + _RETRANSMISSION_US if lost else out[0].at
        self._last = max(self._last, at)
        self._way.in_flight += len(out)
        return self._last, len(out)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, copies, data = await self._pieces.get()
            while (left := due - now_us()) > 0:  # the loop's timers may be early
                await asyncio.sleep(left / 1e6)
            await self._passable()
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            self._way.in_flight -= copies
            try:
                await loop.sock_sendall(self._sink, data)
            except BaseException:
                self._way.undeliverable += copies
                raise
            self._way.delivered += copies

    async def _passable(self) -> None:
        while self._way.lane.settings.black_hole:
            await self._proxy.changed.wait()
