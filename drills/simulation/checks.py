"""What must hold at every step, whatever the faults do. Each raises `Violation` with the name of its rule.

    one-owner    a publication is never given to a node while another still holds it, unless that is a handover; and no
                 two nodes are certain of it at once, but for the one lease's life after a handover
    fencing      the tokens of a room grow, no two nodes are certain under the same one, and nobody goes back to an
                 older one than he has already taken media under
    heals        after the last fault that touches it, within a bound: every host is live in the document where he is,
                 under the lease that his node holds, and every viewer's node takes him from there
    converges    … and all nodes that host the room have the store's document

A server that loses everything, or whose clock jumps ahead, ends leases early: for one lease's life two nodes may be
certain then, under different tokens, of which the greater wins (decision 13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from drills.simulation.store import Granted, StoreModel
from drills.simulation.trace import Violation
from relay.cluster.lease_keeper import LeaseKeeper

Claim = tuple[str, LeaseKeeper, float]
"""A node's name, its keeper, and what its monotonic clock shows."""


class Ownership:
    """One owner, and tokens that grow."""

    def __init__(self, clock: Callable[[], float], store: StoreModel, ttl_s: float) -> None:
        self._clock, self._store, self._ttl_s = clock, store, ttl_s
        self._tokens: dict[str, int] = {}
        self._handed: dict[tuple[str, str], float] = {}
        self._excused_until = float("-inf")
        self._taken: dict[tuple[str, str], int] = {}
        self.grants = 0
        self.checks = 0

    def store_jumped(self) -> None:
        """The store's clock jumped ahead, or it lost everything."""
        self._excused_until = self._clock() + self._ttl_s
        behind = [room for room, token in self._tokens.items() if token >= self._store.milliseconds()]
        for room in behind if not self._store.epochs else ():
            # Everything lost, and a clock that shows less than the last token: nothing is left to grow from.
            del self._tokens[room]
            self._taken = {key: epoch for key, epoch in self._taken.items() if not key[1].startswith(f"{room}/")}

    def granted(self, grant: Granted) -> None:
        """The store has given a lease."""
        self.grants += 1
        now, key = self._store.milliseconds(), (grant.room, grant.publication)
        held = grant.before is not None and grant.before.until > now and grant.before.node != grant.node
        if held and grant.kind != "handed-over":
            self._fail("one-owner", f"{grant.publication} went to {grant.node} while {grant.before} held")
        if grant.epoch <= self._tokens.get(grant.room, 0):
            self._fail("fencing", f"token {grant.epoch} of {key} follows {self._tokens[grant.room]}")
        self._tokens[grant.room] = grant.epoch
        if held:
            self._handed[key] = self._clock()

    def claimed(self, room: str, publication: str, claims: Iterable[Claim]) -> None:
        """Somebody's beliefs have changed: look at all who claim this publication."""
        self.checks += 1
        found = [(name, epoch) for name, keeper, mono in claims
                 if (epoch := keeper.epoch(room, publication, mono)) is not None]  # fmt: skip
        if len(found) < 2:
            return
        if len({epoch for _, epoch in found}) < len(found):
            self._fail("fencing", f"{found} are certain of {publication} of {room} under one token")
        excused = max(self._excused_until, self._handed.get((room, publication), float("-inf")) + self._ttl_s)
        if self._clock() > excused:
            self._fail("one-owner", f"{found} are certain of {publication} of {room} at once")

    def taken(self, life: str, room: str, publication: str, epoch: int) -> None:
        """A node (`life` names its process) takes media of a publication under this token."""
        key = (life, f"{room}/{publication}")
        if epoch < self._taken.get(key, 0):
            self._fail(
                "fencing", f"{life} goes back from token {self._taken[key]} to {epoch} of {publication} of {room}"
            )
        self._taken[key] = epoch

    def forget(self, life: str) -> None:
        """That process is gone."""
        for key in [key for key in self._taken if key[0] == life]:
            del self._taken[key]

    def _fail(self, rule: str, text: str) -> None:
        raise Violation(rule, self._clock(), text)
