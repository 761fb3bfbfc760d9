"""Leases in the store: which node is the origin of a publication, with fencing tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relay.cluster import lease_scripts as scripts
from relay.cluster.connect import open_client
from relay.cluster.gate import StoreGate
from relay.errors import LeaseHeld, UsageError
from relay.ports import Lease

SHORTEST_TTL_S, LONGEST_TTL_S = 0.01, 600.0


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """One line of a room's history. `at` and `until` are the server's milliseconds.

    `kind` is `acquired:free|expired|own|handed-over`, `renewed` or `released`.
    """

    kind: str
    publication: str
    node: str
    epoch: int
    at: int
    until: int


class RedisLeases:
    """A `LeaseStore`: one script a call, so that no interleaving gives a publication two owners."""

    def __init__(self, url: str, *, socket_timeout_s: float = 0.5, connect_timeout_s: float = 0.5) -> None:
        """`url` as for `open_client`; `socket_timeout_s` bounds every call. Connects when first used."""
        self._gate = StoreGate(socket_timeout_s)
        self._client = open_client(url, socket_timeout_s=socket_timeout_s, connect_timeout_s=connect_timeout_s)
        register = self._client.redis.register_script
        self._acquire, self._renew = register(scripts.ACQUIRE), register(scripts.RENEW)
        self._release, self._owners = register(scripts.RELEASE), register(scripts.OWNERS)

    async def acquire(self, room: str, publication: str, node: str, ttl_s: float, over: int | None = None) -> Lease:
        """See `LeaseStore.acquire`. Made twice it gives two epochs, of which the first is worth nothing."""
        arguments = (publication, node, _milliseconds(ttl_s), "" if over is None else str(over))
        reply = await self._run(room, self._acquire, arguments)
        if reply[0] == "held":
            raise LeaseHeld(
                f"{publication} of room {room} is published by {reply[1]}", owner=str(reply[1]), epoch=int(reply[2])
            )
        return Lease(room, publication, node, int(reply[1]), ttl_s)

    async def renew(self, room: str, node: str, epochs: Mapping[str, int], ttl_s: float) -> dict[str, Lease | None]:
        """See `LeaseStore.renew`."""
        if not epochs:
            return {}
        reply = await self._run(room, self._renew, (node, _milliseconds(ttl_s), *_flat(epochs)))
        lost: dict[str, Lease | None] = {}
        for at, (publication, epoch) in enumerate(epochs.items()):
            owner_epoch, owner, left = reply[3 * at : 3 * at + 3]
            if not owner_epoch:
                lost[publication] = None
            elif (int(owner_epoch), owner) != (epoch, node):
                lost[publication] = Lease(room, publication, owner, int(owner_epoch), int(left) / 1000)
        return lost

    async def release(self, room: str, node: str, epochs: Mapping[str, int]) -> None:
        """See `LeaseStore.release`."""
        if epochs:
            await self._run(room, self._release, (node, *_flat(epochs)))

    async def owners(self, room: str) -> dict[str, Lease]:
        """See `LeaseStore.owners`."""
        reply = await self._run(room, self._owners, ())
        rows = zip(*(reply[column::4] for column in range(4)), strict=True)
        return {
            publication: Lease(room, publication, node, int(epoch), int(left) / 1000)
            for publication, epoch, node, left in rows
        }

    async def history(self, room: str) -> list[LeaseEntry]:
        """Read what is kept of a room's history, oldest first."""

        async def read() -> Any:
            return await self._client.redis.xrange(_keys(room)[2])

        entries = await self._gate.run(read, repeatable=True)
        return [
            LeaseEntry(
                found["type"],
                found["publication"],
                found["node"],
                int(found["epoch"]),
                int(found["at"]),
                int(found["until"]),
            )
            for _, found in entries
        ]

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    async def _run(self, room: str, script: Callable[..., Any], arguments: tuple[str | int, ...]) -> Any:
        # All of them may be made twice: a second acquisition supersedes the first, which nobody was told of.
        return await self._gate.run(lambda: script(keys=_keys(room), args=arguments), repeatable=True)


def _keys(room: str) -> list[str]:
    return [f"costream:{what}:{{{room}}}" for what in ("leases", "epoch", "lease-history")]


def _flat(epochs: Mapping[str, int]) -> list[str]:
    return [part for publication, epoch in epochs.items() for part in (publication, str(epoch))]


def _milliseconds(ttl_s: float) -> int:
    if not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        raise UsageError(f"a lease of {ttl_s} s: between {SHORTEST_TTL_S} and {LONGEST_TTL_S} are possible")
    return round(ttl_s * 1000)
