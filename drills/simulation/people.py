"""Hosts and viewers: they come back when their node is gone, and sometimes turn up elsewhere by themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from drills.simulation.node import SimNode
from drills.simulation.sessions import PlainSession
from relay.errors import CostreamError

NOTICE_S = (0.5, 2.0)
"""After how long a client has noticed that its node is gone, and tries another one."""
_SILENT_S, _SEAT_S = 3.0, 25.0


@dataclass(slots=True)
class Client:
    """One person. `made` is the session that counts; None while there is none."""

    kind: Literal["host", "viewer"]
    identity: str
    room: str
    homes: list[int]
    """Where he goes first."""
    made: PlainSession | None = None
    node: str = ""
    sessions: int = 0
    task: asyncio.Task[None] | None = None


class People:
    """All clients. `choose` gives a live node by a client's wish."""

    def __init__(self, dice: random.Random, choose: Callable[[Client], SimNode | None],
                 tell: Callable[[str], None]) -> None:  # fmt: skip
        self._dice, self._choose, self._tell = dice, choose, tell
        self.clients: list[Client] = []
        self._of: dict[str, list[Client]] = {}
        self._by_session: dict[str, Client] = {}

    def add(self, client: Client) -> None:
        """A new person, who is not there yet."""
        self.clients.append(client)
        self._of.setdefault(client.room, []).append(client)

    def hosts(self, room: str) -> list[Client]:
        """Who publishes in a room."""
        return [client for client in self._of[room] if client.kind == "host"]

    def viewers(self, room: str) -> list[Client]:
        """Who watches a room."""
        return [client for client in self._of[room] if client.kind == "viewer"]

    def come(self, client: Client, after_s: float = 0.0, avoid: str = "", to: str = "") -> None:
        """Connect, wherever that succeeds (or to that node only). What he has goes silent, as one that lost its
        network."""
        if client.task is not None:
            client.task.cancel()
        old, client.made = client.made, None
        if old is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(_SILENT_S, old.pause)
            loop.call_later(_SEAT_S, old.close, "seat-timeout")
        client.task = asyncio.get_running_loop().create_task(self._connect(client, after_s, avoid, to))

    def node_gone(self, name: str) -> None:
        """Its sessions are gone with it."""
        for client in self.clients:
            if client.node == name and (client.made is not None or client.task is not None):
                client.made = None
                self.come(client, self._dice.uniform(*NOTICE_S))

    def session_closed(self, session: PlainSession, reason: str) -> None:
        """A node has closed a session: whoever still counts on it comes back."""
        client = self._by_session.pop(session.info.id, None)
        if client is not None and client.made is session:
            self._tell(f"{client.identity} of {client.room} was sent away: {reason}")
            client.made = None
            self.come(client, self._dice.uniform(*NOTICE_S))

    async def _connect(self, client: Client, after_s: float, avoid: str, to: str) -> None:
        await asyncio.sleep(after_s)
        while True:
            node = self._choose(client)
            if node is not None and node.name != avoid and to in ("", node.name) and not node.is_frozen:
                client.node, client.sessions = node.name, client.sessions + 1
                session = f"{client.room}-{client.identity}-{client.sessions}"
                join = node.publish if client.kind == "host" else node.watch
                try:
                    made = await join(client.room, client.identity, session)
                except CostreamError as error:
                    self._tell(f"{client.identity} of {client.room} was refused by {node.name}: {type(error).__name__}")
                else:
                    if node.alive:
                        client.made, client.task = made, None
                        self._by_session[session] = client
                        self._tell(f"{client.identity} of {client.room} is on {node.name}")
                        return
            await asyncio.sleep(self._dice.uniform(0.3, 1.0))
