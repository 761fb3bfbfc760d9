"""Ask a Redis or Valkey server for its TIME, and say in words why it does not answer.

Speaks the protocol itself (RESP 2, a few lines) to a single server: only `relay.cluster` uses the client library, whose
errors are made for programs. Behind Sentinel and on a cluster that library finds the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from io import BufferedRWPair
from urllib.parse import unquote, urlsplit

from relay.cluster.connect import server_time
from relay.errors import SettingsError, StoreUnavailable

_DEFAULT_PORT = 6379
_MAX_LINE = 512  # every reply to these commands is shorter


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """`skew_s` is the store's wall clock minus ours."""

    round_trip_s: float
    skew_s: float


def probe_store(url: str, connect_timeout_s: float, timeout_s: float) -> StoreAnswer | str:
    """Return the answer of the server at a store's URL, or a sentence that says what to do."""
    if "+" in url.partition("://")[0]:
        return _probe_many(url, connect_timeout_s, timeout_s)
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or _DEFAULT_PORT
    where = f"{host}:{port}"
    try:
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection((host, port), timeout=connect_timeout_s))
            connection = plain
            if parts.scheme == "rediss":
                connection = stack.enter_context(ssl.create_default_context().wrap_socket(plain, server_hostname=host))
            connection.settimeout(timeout_s)
            file = stack.enter_context(connection.makefile("rwb"))
            return _ask(file, where, parts.username, parts.password)
    except TimeoutError:
        return f"{where} does not answer in time: is it running, and does a firewall let it through?"
    except ssl.SSLError as error:
        return f"{where}: TLS failed ({error.reason or error}); use redis:// if the server has no TLS"
    except socket.gaierror:
        return f"{host} is not a known host name"
    except OSError as error:
        return f"{where}: {error.strerror or error}; start the server or correct store.url"


def _probe_many(url: str, connect_timeout_s: float, timeout_s: float) -> StoreAnswer | str:
    """Ask the server that sentinels name, or a node of a cluster. The round trip includes finding it."""
    started = time.monotonic()
    try:
        seconds = asyncio.run(server_time(url, socket_timeout_s=timeout_s, connect_timeout_s=connect_timeout_s))
    except SettingsError as error:
        return str(error)
    except StoreUnavailable as error:
        return f"no server can be reached by it: {error}"
    return StoreAnswer(time.monotonic() - started, seconds - time.time())


def _ask(file: BufferedRWPair, where: str, user: str | None, password: str | None) -> StoreAnswer | str:
    if password:
        _send(file, *(unquote(part) for part in ("AUTH", *([user] if user else []), password)))
        reply = _line(file)
        if reply != "+OK":
            return f"{where} refuses the password of store.url"
    started = time.monotonic()
    _send(file, "TIME")
    reply = _line(file)
    round_trip = time.monotonic() - started
    if reply.startswith("-NOAUTH"):
        return f"{where} wants a password: write store.url as redis://:password@host"
    if reply != "*2":
        return f"{where} does not speak the Redis protocol, or refuses TIME: {reply[:60]!r}"
    values = [_line(file) for _ in range(4)]  # $length, seconds, $length, microseconds
    if not (values[1].isdecimal() and values[3].isdecimal()):
        return f"{where} does not speak the Redis protocol"
    return StoreAnswer(round_trip, int(values[1]) + int(values[3]) / 1e6 - time.time())


def _send(file: BufferedRWPair, *words: str) -> None:
    encoded = [word.encode() for word in words]
    file.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
    file.flush()


def _line(file: BufferedRWPair) -> str:
    return file.readline(_MAX_LINE).decode("latin-1").rstrip("\r\n")
