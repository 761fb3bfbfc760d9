"""How a fabric is told what to do: JSON lines over a UNIX socket, one answer per request.

The forwarder serves it to its owner (an inherited socket; only the owner may add and remove hosts) and to any other
process that can open the socket's file. `{"do": "impair", "src": "a", "dst": "b/1", "impairment": {"loss": 0.12}}` is
answered by `{"ok": true}` or `{"ok": false, "error": "…"}`; an `id` in the request comes back in its answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drills.fabric.impairment import BLACK_HOLE, Impairment
from drills.fabric.impairment_text import from_json, to_json
from drills.fabric.rules import ANY, FabricError, Rules

_MAX_REQUEST = 65_536
_MAX_ANSWER = 16 * 1024 * 1024
_MAX_CLIENTS = 16
_SEND_S = 0.2  # a client that does not read must not hold up the packets
_ANSWER_S = 10.0
_FDS = 8

Request = Mapping[str, Any]
Handler = Callable[[Request, list[int]], dict[str, Any] | None]
Watch = Callable[[int, Callable[[], None] | None], None]
"""Calls the function whenever the descriptor can be read; None ends that."""


class ControlServer:
    """Serves `handlers` (by the request's `do`); those in `owner_only` to the owner alone.

    It does not wait by itself: `watch` is the forwarder's loop. `on_owner_gone` is called when the owner has closed.
    """

    def __init__(
        self,
        owner: socket.socket,
        path: Path,
        handlers: Mapping[str, Handler],
        owner_only: frozenset[str],
        watch: Watch,
        on_owner_gone: Callable[[], None],
    ) -> None:
        self._handlers, self._owner_only, self._watch = handlers, owner_only, watch
        self._on_owner_gone = on_owner_gone
        self._clients: dict[int, _Client] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.setblocking(False)
        watch(self._listener.fileno(), self._accept)
        self._add(owner, is_owner=True)

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client, tell=False)
        self._watch(self._listener.fileno(), None)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            if len(self._clients) >= _MAX_CLIENTS:
                connection.close()
            else:
                self._add(connection, is_owner=False)

    def _add(self, connection: socket.socket, *, is_owner: bool) -> None:
        connection.setblocking(False)
        client = _Client(connection, is_owner)
        self._clients[connection.fileno()] = client
        self._watch(connection.fileno(), lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(client.connection, _MAX_REQUEST, _FDS)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        client.fds += fds
        client.buffer += data
        if not data or len(client.buffer) > _MAX_REQUEST:
            self._drop(client)
            return
        *lines, client.buffer = client.buffer.split(b"\n")
        for line in lines:
            self._answer(client, line)

    def _answer(self, client: _Client, line: bytes) -> None:
        fds, client.fds = client.fds, []
        number = None
        try:
            request = _parse(line)
            number = request.get("id")
            answer = {"ok": True, **(self._do(client, request, fds) or {})}
        except (FabricError, ValueError, KeyError, TypeError) as error:
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            answer = {"ok": False, "error": reason}
        if number is not None:
            answer["id"] = number
        try:
            client.connection.settimeout(_SEND_S)
            client.connection.sendall(json.dumps(answer).encode() + b"\n")
            client.connection.setblocking(False)
        except OSError:
            self._drop(client)

    def _do(self, client: _Client, request: Request, fds: list[int]) -> dict[str, Any] | None:
        handler = self._handlers.get(str(request.get("do")))
        if handler is None:
            raise FabricError(f"cannot do {request.get('do')!r}; can do {', '.join(sorted(self._handlers))}")
        if request["do"] in self._owner_only and not client.is_owner:
            raise FabricError(f"only the fabric's owner may {request['do']}")
        return handler(request, fds)

    def _drop(self, client: _Client, *, tell: bool = True) -> None:
        number = client.connection.fileno()
        if self._clients.pop(number, None) is None:
            return
        self._watch(number, None)
        client.connection.close()
        for fd in client.fds:
            os.close(fd)
        if client.is_owner and tell:
            self._on_owner_gone()


def _parse(line: bytes) -> Request:
    request = json.loads(line)
    if not isinstance(request, dict):
        raise FabricError("a request is an object")
    return request


class _Client:
    __slots__ = ("buffer", "connection", "fds", "is_owner")

    def __init__(self, connection: socket.socket, is_owner: bool) -> None:
        self.connection, self.is_owner = connection, is_owner
        self.buffer, self.fds = b"", list[int]()


def rule_handlers(rules: Rules, changed: Callable[[], None]) -> dict[str, Handler]:
    """What every forwarder can be asked about its rules; `changed` is called after each change of them."""

    def impair(request: Request, _: list[int]) -> None:
        impairment = from_json(request["impairment"])
        rules.impair(str(request["src"]), str(request["dst"]), impairment, both=request.get("both") is True)
        changed()

    def heal(request: Request, _: list[int]) -> dict[str, Any]:
        healed = rules.heal(str(request.get("src", ANY)), str(request.get("dst", ANY)))
        changed()
        return {"healed": healed}

    return {"impair": impair, "heal": heal, "rules": lambda _request, _fds: rules.as_json()}


class ControlClient:
    """The other end: blocking calls, each answered within milliseconds, usable from any thread.

    Raises FabricError for what is refused, and when the forwarder is gone.
    """

    def __init__(self, connection: socket.socket | Path) -> None:
        if isinstance(connection, Path):
            path, connection = connection, socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError as error:
                connection.close()
                raise FabricError(f"no fabric answers at {path}: {error.strerror}") from None
        connection.settimeout(_ANSWER_S)
        self._connection = connection
        self._lock = threading.Lock()
        self._asked = 0
        self._received = bytearray()

    def ask(self, do: str, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        """Send a request, with descriptors if there are any; returns the answer's fields."""
        try:
            with self._lock:
                self._asked += 1
                line = json.dumps({"do": do, "id": self._asked, **fields}).encode() + b"\n"
                if fds:
                    socket.send_fds(self._connection, [line], list(fds))
                else:
                    self._connection.sendall(line)
                answer = self._answer(self._asked)
        except (OSError, ValueError) as error:
            raise FabricError(f"the fabric's forwarder does not answer: {error}") from None
        if not answer.pop("ok"):
            raise FabricError(answer["error"])
        return answer

    def impair(self, src: str, dst: str, impairment: Impairment, *, both: bool = False) -> None:
        """From now on, from one endpoint to another (see `drills.fabric.rules`); `both` ways with dice of their own."""
        self.ask("impair", src=src, dst=dst, impairment=to_json(impairment), both=both)

    def partition(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Nothing gets from `a` to `b`, nor back unless `one_way`."""
        self.impair(a, b, BLACK_HOLE, both=not one_way)

    def cut(self, host: str) -> None:
        """Nothing gets to or from a host."""
        self.impair(host, ANY, BLACK_HOLE, both=True)

    def heal(self, a: str = ANY, b: str = ANY) -> int:
        """Take back what `impair`, `partition` or `cut` did between these endpoints, or all; returns how many rules."""
        return int(self.ask("heal", src=a, dst=b)["healed"])

    def counters(self) -> dict[str, Any]:
        """`lanes`: a dictionary per ordered pair of addresses (`impairment.Counts`); the rest is the forwarder's."""
        return self.ask("counters")

    def rules(self) -> dict[str, Any]:
        """`hosts` with their addresses, and `rules` in their order."""
        return self.ask("rules")

    def close(self) -> None:
        self._connection.close()

    def _answer(self, number: int) -> dict[str, Any]:
        """The answer to a request. Those before it whose caller was interrupted (Ctrl-C) or gave up are passed over."""
        while True:
            answer: dict[str, Any] = json.loads(self._line())
            if answer.pop("id") == number:
                return answer

    def _line(self) -> bytes:
        while (end := self._received.find(b"\n")) < 0:
            data = self._connection.recv(262_144)
            self._received += data
            if not data or len(self._received) > _MAX_ANSWER:
                raise ConnectionError("it has closed the connection")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line
