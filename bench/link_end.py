"""One end of one QUIC path, as a process: 1,100-byte RTP packets as RoQ datagrams, from a sender to a receiver.

`python -m bench.link_end KIND receive DIR PORT`, then `… KIND send DIR PORT MODE SECONDS`. Kinds are `ours` (this
project's endpoint), `ours-jumbo` (the same with 8,952-byte packets), `aioquic` (its asyncio protocol as it is shipped)
and `qh3` (the same of that library). Each packet carries the monotonic time at which it was given to the library; the
receiver prints what it saw of the measured part as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.report import percentile
from relay.link import roq
from relay.link.quic import Connection, Endpoint, Limits
from relay.link.quic.identity import load_identity

SIZE = 1100  # bytes of an RTP packet
FLOW = 5
SATURATED, PACED = "saturated", "paced"
RATE = 2000  # packets/s when paced, in pairs each millisecond
PACED_EACH_S = 0.001
QUEUE = 64  # datagrams kept waiting when saturated
WARM_UP_S = 0.7
LINGER_S = 0.5
_HEADER = b"\x80\x60" + bytes(10)
_WARM, _MEASURED, _LAST = 0, 1, 2


def packet(phase: int) -> bytes:
    """An RTP packet in its flow. Its payload begins with phase and time."""
    stamp = time.monotonic_ns().to_bytes(8, "big")
    return roq.frame(FLOW, _HEADER + bytes([phase]) + stamp + bytes(SIZE - len(_HEADER) - 9))


class Receiver:
    """Counts what arrives of the measured part."""

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.done = asyncio.Event()
        self._began: tuple[int, float] | None = None
        self._ended = (0, 0.0)

    def take(self, datagram: bytes) -> None:
        _, rtp = roq.parse(datagram)
        phase = rtp[12]
        if phase == _MEASURED:
            now = time.monotonic_ns()
            self.delays.append(now - int.from_bytes(rtp[13:21], "big"))
            if self._began is None:
                self._began = (now, time.process_time())
        elif phase == _LAST and not self.done.is_set():
            self._ended = (time.monotonic_ns(), time.process_time())
            self.done.set()

    def take_all(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            self.take(datagram)

    def told(self) -> dict[str, float]:
        began = self._began or self._ended
        delays = [delay / 1e6 for delay in self.delays]
        return {
            "received": len(delays),
            "seconds": (self._ended[0] - began[0]) / 1e9,
            "cpu": self._ended[1] - began[1],
            "p50_ms": percentile(delays, 0.5),
            "p99_ms": percentile(delays, 0.99),
        }


async def send(give: Callable[[bytes], bool], mode: str, seconds: float) -> dict[str, float]:
    """Send for so long. `give` takes a datagram, or returns False while its queue is full."""
    sent = 0
    cpu = 0.0
    begin = time.monotonic()
    due = begin
    phase = _WARM
    while (now := time.monotonic()) < begin + WARM_UP_S + seconds:
        if phase == _WARM and now > begin + WARM_UP_S:
            phase, sent, cpu = _MEASURED, 0, time.process_time()
        if mode == SATURATED:
            while give(packet(phase)):
                sent += 1
            await asyncio.sleep(0)
        else:
            for _ in range(int(RATE * PACED_EACH_S)):
                sent += give(packet(phase))
            due += PACED_EACH_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    cpu = time.process_time() - cpu
    for _ in range(50):
        give(packet(_LAST))
        await asyncio.sleep(LINGER_S / 50)
    return {"sent": sent, "cpu": cpu}


# --- this project's endpoint ----------------------------------------------------------------------------------------


def _ours(directory: Path, name: str, kind: str, port: int) -> Endpoint:
    identity = load_identity(directory / f"{name}.pem", directory / f"{name}.key", directory / "ca.pem")
    limits = Limits(max_packet=8952 if kind == "ours-jumbo" else 1452, queue_bytes=1 << 20)
    return Endpoint(identity, "127.0.0.1", port, alpns=(roq.ALPN,) if name == "a" else (), limits=limits)


async def _ours_receive(directory: Path, kind: str, port: int, receiver: Receiver) -> None:
    endpoint = _ours(directory, "a", kind, port)

    def accept(connection: Connection) -> None:
        connection.on_datagrams = receiver.take_all

    endpoint.on_connection = accept  # type: ignore[assignment]
    await receiver.done.wait()
    await endpoint.close()


async def _ours_send(directory: Path, kind: str, port: int, mode: str, seconds: float) -> dict[str, float]:
    endpoint = _ours(directory, "b", kind, 0)
    connection = await endpoint.connect(("127.0.0.1", port), roq.ALPN, "a")
    queue = connection.quic.queue

    def give(datagram: bytes) -> bool:
        return len(queue) < QUEUE and connection.send_datagram(datagram)

    told = await send(give, mode, seconds)
    await endpoint.close()
    return told


# --- the same over the asyncio part of a library --------------------------------------------------------------------


def _library(kind: str) -> tuple[Any, Any, Any, Any]:
    if kind == "qh3":
        import qh3.asyncio as package
        from qh3.quic.configuration import QuicConfiguration
        from qh3.quic.connection import QuicConnectionError
        from qh3.quic.events import DatagramFrameReceived

        return package, QuicConfiguration, DatagramFrameReceived, QuicConnectionError
    import aioquic.asyncio as package  # type: ignore[no-redef]
    from aioquic.quic.configuration import QuicConfiguration  # type: ignore[assignment]
    from aioquic.quic.connection import QuicConnectionError  # type: ignore[assignment]
    from aioquic.quic.events import DatagramFrameReceived  # type: ignore[assignment]

    return package, QuicConfiguration, DatagramFrameReceived, QuicConnectionError


async def _stock_receive(directory: Path, kind: str, port: int, receiver: Receiver) -> None:
    package, configure, arrived, _ = _library(kind)

    class Protocol(package.QuicConnectionProtocol):  # type: ignore[misc,name-defined]
        def quic_event_received(self, event: Any) -> None:
            if isinstance(event, arrived):
                receiver.take(event.data)

    configuration = configure(is_client=False, alpn_protocols=[roq.ALPN], max_datagram_frame_size=65_535)
    configuration.load_cert_chain(directory / "a.pem", directory / "a.key")
    server = await package.serve("127.0.0.1", port, configuration=configuration, create_protocol=Protocol)
    await receiver.done.wait()
    server.close()


async def _stock_send(directory: Path, kind: str, port: int, mode: str, seconds: float) -> dict[str, float]:
    package, configure, _, closed = _library(kind)
    configuration = configure(is_client=True, alpn_protocols=[roq.ALPN], max_datagram_frame_size=65_535, verify_mode=0)
    async with package.connect("127.0.0.1", port, configuration=configuration) as client:
        quic = client._quic
        waiting: Any = getattr(quic, "_datagrams_pending", None)
        given = 0  # since the last transmit

        def transmit() -> None:
            nonlocal given
            given = 0
            client.transmit()

        def give(datagram: bytes) -> bool:
            nonlocal given
            if (given if waiting is None else len(waiting)) >= QUEUE:  # qh3 does not show its queue
                return False
            try:
                quic.send_datagram_frame(datagram)
            except closed:  # the receiver has all it wanted
                return False
            if not given:  # one transmit per loop tick, as aioquic's streams do
                asyncio.get_running_loop().call_soon(transmit)
            given += 1
            return True

        return await send(give, mode, seconds)


async def _receive(directory: Path, kind: str, port: int) -> dict[str, float]:
    receiver = Receiver()
    body: Callable[..., Awaitable[None]] = _ours_receive if kind.startswith("ours") else _stock_receive
    await body(directory, kind, port, receiver)
    return receiver.told()


def main() -> None:
    """Run one end."""
    parser = argparse.ArgumentParser(prog="python -m bench.link_end", description=__doc__)
    parser.add_argument("kind")
    parser.add_argument("role", choices=("receive", "send"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("mode", nargs="?", default=SATURATED)
    parser.add_argument("seconds", nargs="?", type=float, default=2.0)
    options = parser.parse_args()
    run: Any = uvloop.run if options.kind.startswith("ours") else asyncio.run
    if options.role == "receive":
        told = run(_receive(options.directory, options.kind, options.port))
    else:
        body = _ours_send if options.kind.startswith("ours") else _stock_send
        told = run(body(options.directory, options.kind, options.port, options.mode, options.seconds))
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main()
