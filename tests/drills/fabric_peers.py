"""What runs on the hosts of a fabric under test: `python fabric_peers.py <what> …`; each prints one JSON line."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable

_SO_RCVBUFFORCE = 33  # socket(7): beyond net.core.rmem_max, for root


def udp_echo(address: str, port: str) -> None:
    """Send every datagram back, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((address, int(port)))
        _told({"ready": True})
        while True:
            opened.sendto(*opened.recvfrom(65_535))


def udp_ask(own: str, address: str, port: str, count: str, every_us: str) -> None:
    """Ask an echo so many times; prints the round trips in µs, in the order of arrival, by number."""
    found: list[tuple[int, int]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((own, 0))
        opened.setblocking(False)
        begin = time.monotonic_ns()
        for number in range(int(count)):
            _wait_until(begin + number * int(every_us) * 1000, opened, found)
            body = number.to_bytes(4, "big") + time.monotonic_ns().to_bytes(8, "big")
            opened.sendto(body, (address, int(port)))
        _wait_until(time.monotonic_ns() + 500_000_000, opened, found)
    _told({"trips": found})


def _wait_until(due: int, opened: socket.socket, found: list[tuple[int, int]]) -> None:
    while time.monotonic_ns() < due:
        try:
            data = opened.recv(2048)
        except BlockingIOError:
            time.sleep(0.00005)
        else:
            sent = int.from_bytes(data[4:12], "big")
            found.append((int.from_bytes(data[:4], "big"), (time.monotonic_ns() - sent) // 1000))


def udp_sink(address: str, port: str, count: str) -> None:
    """Take datagrams until none has come for a second; prints numbers and times (µs), and the rate they came at."""
    numbers: list[int] = []
    times: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        with contextlib.suppress(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * 1024 * 1024)
        opened.bind((address, int(port)))
        _told({"ready": True})
        opened.settimeout(10)
        while len(numbers) < int(count):
            try:
                data = opened.recv(2048)
            except TimeoutError:
                break
            numbers.append(int.from_bytes(data[:4], "big"))
            times.append(time.monotonic_ns() // 1000)
            opened.settimeout(0.7)
    _told({"numbers": numbers, "times": times})


def udp_flood(own: str, address: str, port: str, count: str, every_us: str, size: str) -> None:
    """Send so many datagrams, in bursts of a millisecond; prints how long that took in µs."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((own, 0))
        opened.connect((address, int(port)))
        padding = bytes(int(size) - 4)
        begin = time.monotonic_ns()
        for number in range(int(count)):
            due = begin + number * int(every_us) * 1000
            while time.monotonic_ns() < due:
                time.sleep(0.0005)
            opened.send(number.to_bytes(4, "big") + padding)
    _told({"took": (time.monotonic_ns() - begin) // 1000})


def tcp_sink(address: str, port: str) -> None:
    """Take one connection's bytes to its end; prints their number and how long they took in µs."""
    with socket.create_server((address, int(port))) as listener:
        _told({"ready": True})
        connection, _ = listener.accept()
        begin, total = time.monotonic_ns(), 0
        with connection:
            while data := connection.recv(1 << 20):
                total += len(data)
            took = (time.monotonic_ns() - begin) // 1000
            connection.sendall(b"thanks")
    _told({"bytes": total, "took": took})


def tcp_send(own: str, address: str, port: str, size: str) -> None:
    """Send so many bytes; prints how long the connection took to be made, and until the other end was done."""
    begin = time.monotonic_ns()
    with socket.create_connection((address, int(port)), timeout=20, source_address=(own, 0)) as opened:
        connected = time.monotonic_ns()
        opened.sendall(bytes(int(size)))
        opened.shutdown(socket.SHUT_WR)
        thanked = opened.recv(6) == b"thanks"
    took = (time.monotonic_ns() - connected) // 1000
    _told({"connect": (connected - begin) // 1000, "took": took, "thanked": thanked})


def _told(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    run: Callable[..., None] = globals()[sys.argv[1]]
    run(*sys.argv[2:])
