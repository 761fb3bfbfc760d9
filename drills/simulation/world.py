"""The whole: nodes, rooms, people, faults and checks of one seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

from drills.simulation.checks import Ownership
from drills.simulation.faults import Faults
from drills.simulation.healing import Healing
from drills.simulation.network import Network
from drills.simulation.node import SimNode
from drills.simulation.people import Client, People
from drills.simulation.sessions import PlainSession
from drills.simulation.store import StoreModel, sync_id_of_wall
from drills.simulation.trace import Trace, Violation
from relay.cluster.lease_keeper import LeaseKeeper
from relay.errors import CostreamError
from relay.settings import ClusterSettings
from relay.stage import room as rooms
from relay.stage.permissions import Actor, Role

START_S = 5.0
"""Nobody breaks anything before everybody has come."""
EPOCH_S = 1_750_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to simulate. `rooms` 0: as many as nodes. The makers are replaced by tests that plant bugs."""

    seed: int = 0
    nodes: int = 100
    rooms: int = 0
    hosts: int = 2
    viewers: int = 3
    hours: float = 24.0
    faults_per_hour: float = 30.0
    common_per_hour: float = 0.25
    heal_s: float = 30.0
    script: Callable[[World], None] = lambda world: None
    """Called once everything is set up: a story of its own, told by `call_at`."""
    make_store: Callable[[Callable[[], float], float], StoreModel] = StoreModel
    make_keeper: Callable[[str, float], LeaseKeeper] = LeaseKeeper


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `violation` is None when everything held; `hash` is the trace's."""

    plan: Plan
    violation: Violation | None
    hash: str
    lines: int
    newest: list[str]
    took_s: float
    """CPU seconds."""
    virtual_s: float
    ops: Counter[str]
    """Calls of the store, those of sleeping nodes included."""
    faults: Counter[str]
    grants: int
    checks: int
    heal_s: list[float] = field(default_factory=list)
    awake_share: float = 0.0


class World:
    """Made on the virtual loop; `run` once."""

    def __init__(self, plan: Plan, out: TextIO | None = None) -> None:
        self.plan = plan
        self._loop = asyncio.get_running_loop()
        self.trace = Trace(self._loop.time, out)
        self.tell = self.trace.tell
        self.cluster = ClusterSettings()
        self.epoch_s = EPOCH_S
        self.dice = self._dice("world")
        self._ids = self._dice("ids")
        self.network = Network(self._dice("network"))
        self.store = plan.make_store(self._loop.time, EPOCH_S)
        self.ownership = Ownership(self._loop.time, self.store, self.cluster.lease_ttl_s)
        self.store.on_grant = self._granted
        self.store.on_news = self._news
        self.store.rouse = self._rouse
        self.network.on_heal = self._healed
        self.nodes: dict[str, SimNode] = {}
        self._slept_s = self._awake_s = 0.0
        self._lives: Counter[str] = Counter()
        self._claims: dict[tuple[str, str], dict[str, None]] = {}
        self._kept: dict[str, list[tuple[str, str]]] = {}
        self.hosting: dict[str, dict[str, None]] = {}
        self._room_names = [f"r{number}" for number in range(plan.rooms or plan.nodes)]
        self.people = People(self._dice("people"), self._choose, self.tell)
        self.healing = Healing(self)
        self.faults = Faults(self, self._dice("faults"), plan.faults_per_hour, plan.common_per_hour)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._loop.set_exception_handler(self._broken)
        self._loop.set_task_factory(self._task)

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Let the time of the plan pass, or as much of it as everything holds."""
        began, violation = time.process_time(), None
        try:
            self._begin()
            until = self.plan.hours * 3600.0
            self.faults.start(until)
            self.plan.script(self)
            self._loop.call_at(until + START_S + self.plan.heal_s + 60.0, self._end)
            await self._over
        except Violation as found:
            violation = found
            self.tell(f"VIOLATION {found}")
        return self._outcome(violation, time.process_time() - began)

    def _begin(self) -> None:
        for number in range(self.plan.nodes):
            self._start(f"n{number}")
        dice = self._dice("rooms")
        count = len(self.nodes)
        for name in self._room_names:
            self.hosting[name] = {}
            self.make_room(name)
            homes = [dice.randrange(count) for _ in range(max(2, self.plan.viewers))]
            for number in range(self.plan.hosts):
                self.people.add(Client("host", f"h{number}", name, homes[: 1 + self.plan.hosts // 2]))
            for number in range(self.plan.viewers):
                self.people.add(Client("viewer", f"v{number}", name, [homes[number % len(homes)]]))
        for client in self.people.clients:
            self.people.come(client, dice.uniform(0.5, START_S - 1))

    def make_room(self, name: str) -> None:
        """As an application does, by the API."""
        self.tell(f"{name} is made")
        wall = EPOCH_S + self._loop.time()
        state, _ = rooms.create(Actor("sim", Role.SERVICE), name, wall, max_seats=16)
        self.store.create(name, state.to_json(), sync_id_of_wall(wall))

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def fail(self, violation: Violation) -> None:
        """An invariant does not hold: this ends the run."""
        if not self._over.done():
            self._over.set_exception(violation)

    def _broken(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation):
            self.fail(error)
        elif error is not None:
            self.fail(Violation("no-crash", self._loop.time(), f"{type(error).__name__}: {error}"))

    def _task(self, loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._is_answer(error):
            self._broken(self._loop, {"exception": error})

    @staticmethod
    def _is_answer(error: BaseException) -> bool:
        return isinstance(error, CostreamError)  # of a task that somebody awaits

    def _outcome(self, violation: Violation | None, took_s: float) -> Outcome:
        now = self._loop.time()
        for node in self.nodes.values():
            self._stop(node)
        slept, awake = self._slept_s, self._awake_s
        ops = self.store.ops + self._slept_ops(slept)
        return Outcome(
            self.plan, violation, self.trace.hash, self.trace.lines, self.trace.newest(), took_s, now, ops,
            self.faults.counts, self.ownership.grants, self.ownership.checks, self.healing.times,
            awake / max(1e-9, slept + awake),
        )  # fmt: skip

    def _slept_ops(self, slept_s: float) -> Counter[str]:
        """What sleeping nodes would have asked: heartbeats, looks, and the renewals of a node's average share."""
        kept_rooms = len({key[0] for key in self._claims}) / max(1, len(self.nodes))
        beats = slept_s / self.cluster.heartbeat_s
        renewals = slept_s * kept_rooms * 3 / self.cluster.lease_ttl_s
        return Counter({"node.announce": round(beats), "node.look": round(2 * beats), "lease.renew": round(renewals)})

    # --- what nodes ask ----------------------------------------------------------------------------------------------

    def make_keeper(self, node: str, ttl_s: float) -> LeaseKeeper:
        return self.plan.make_keeper(node, ttl_s)

    def new_id(self) -> str:
        return f"p{self._ids.getrandbits(48):012x}"

    def peer(self, name: str) -> SimNode | None:
        return self.nodes.get(name)

    def followers(self, room: str, origin: str) -> list[SimNode]:
        """Who takes something of this room from that node."""
        return [node for node in self.hosts_of(room) if origin in node.upstream.rooms.get(room, ())]

    def hosts_of(self, room: str) -> list[SimNode]:
        """The live nodes on which a room is hosted."""
        found = (self.nodes.get(name) for name in self.hosting[room])
        return [node for node in found if node is not None and node.rooms.get(room) is not None]

    def kept_changed(self, node: SimNode) -> None:
        now = node.keeper.kept()
        before = self._kept.get(node.name, [])
        if now != before:
            for key in before:
                if key not in now:
                    self._claims.get(key, {}).pop(node.name, None)
            for key in now:
                self._claims.setdefault(key, {})[node.name] = None
            self._kept[node.name] = now
        for key in now:
            if len(self._claims[key]) > 1:
                self._check(key)

    def _check(self, key: tuple[str, str]) -> None:
        claims = [self.nodes[name] for name in self._claims[key] if name in self.nodes]
        if len(claims) > 1:
            self.ownership.claimed(*key, [(node.name, node.keeper, node.mono()) for node in claims])

    def subscribed(self, node: SimNode, room: str, origin: str, publication: str, epoch: int) -> None:
        self.ownership.taken(f"{node.name}/{self._lives[node.name]}", room, publication, epoch)

    def session_closed(self, node: SimNode, session: PlainSession, reason: str) -> None:
        if node.alive:
            self.people.session_closed(session, reason)

    def hosted(self, node: SimNode, room: str) -> None:
        """A node has opened a room."""
        self.hosting[room].setdefault(node.name)

    def _granted(self, grant: object) -> None:
        self.ownership.granted(grant)  # type: ignore[arg-type]
        self.tell(f"store {grant.kind} {grant.room} {grant.publication} to {grant.node}")  # type: ignore[attr-defined]

    def _news(self, room: str) -> None:
        stored = self.store.rooms[room]
        self.tell(f"store {room} {stored.stream[-1].type} version {stored.version}")
        for name in self.hosting.get(room, ()):
            node = self.nodes.get(name)
            if node is not None:
                self._loop.call_later(self.network.delay(name), self._poke, node, room)

    def _poke(self, node: SimNode, room: str) -> None:
        if node.alive and self.network.reaches_store(node.name):
            node.wake(room)
            node.store.poke(room)

    def _healed(self, name: str | None = None) -> None:
        for node in self.nodes.values() if name is None else filter(None, [self.nodes.get(name)]):
            if self.network.reaches_store(node.name):
                node.store.poke_all()

    def _rouse(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is not None and node.sleeps:
            node.wake()

    def _choose(self, client: Client) -> SimNode | None:
        dice = self.dice
        if dice.random() < 0.7:
            return self.nodes.get(f"n{dice.choice(client.homes)}")
        return self.nodes.get(f"n{dice.randrange(self.plan.nodes)}")

    # --- what faults do ----------------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        return list(self.nodes)

    def some_room(self) -> tuple[str, list[str]]:
        """A room and the nodes that host it, one of its hosts' first."""
        room = self.dice.choice(self._room_names)
        first = [client.node for client in self.people.hosts(room) if client.node in self.nodes]
        others = [node.name for node in self.hosts_of(room)]
        self.dice.shuffle(others)
        return room, list(dict.fromkeys([*first[:1], *others])) or [next(iter(self.nodes))]

    def kill(self, name: str) -> None:
        node = self.nodes.pop(name, None)
        if node is None:
            return
        self._stop(node)
        for key in self._kept.pop(name, []):
            self._claims.get(key, {}).pop(name, None)
        self.ownership.forget(f"{name}/{self._lives[name]}")
        self.people.node_gone(name)

    def _stop(self, node: SimNode) -> None:
        node.kill()
        self._slept_s += node.clock.slept_s
        self._awake_s += node.clock.awake_s

    def restart(self, name: str) -> None:
        if name not in self.nodes:
            self._start(name)

    def _start(self, name: str) -> None:
        self._lives[name] += 1
        node = SimNode(name, self, self.dice.uniform(-0.5, 0.5), self.dice.uniform(0.99, 1.01))
        self.nodes[name] = node

    def freeze(self, name: str, seconds: float) -> None:
        node = self.nodes.get(name)
        if node is not None:
            self.network.cut_off(name, True)
            node.freeze(seconds)
            self._loop.call_later(seconds, self.network.cut_off, name, False)

    def jump(self, name: str, seconds: float) -> None:
        if name in self.nodes:
            self.nodes[name].clock.wall_error += seconds

    def move_host(self, room: str) -> None:
        client = self.dice.choice(self.people.hosts(room))
        if client.made is not None:
            self.people.come(client, avoid=client.node)

    def jump_store(self, seconds: float) -> None:
        self._wake_all()
        self.store.offset += seconds
        self.store.clock_went()
        if seconds > 0:
            self.ownership.store_jumped()

    def forget_store(self) -> None:
        self._wake_all()
        self.store.forget()
        self.ownership.store_jumped()
        self._loop.call_later(5.0, self._healed)

    def _wake_all(self) -> None:
        for node in self.nodes.values():
            node.wake()

    def touch(self, nodes: Sequence[str] | None, on: bool, near: bool = True) -> None:
        if nodes is None:
            self._wake_all()
            self.healing.touched(self._room_names, on)
            return
        for name in nodes:
            if name in self.nodes:
                self.nodes[name].wake()
        rooms = [room for room, hosting in self.hosting.items() if any(name in hosting for name in nodes)]
        for room in rooms if near else ():
            for node in self.hosts_of(room):
                node.wake(room)
        self.healing.touched(rooms, on)

    def _dice(self, what: str) -> random.Random:
        return random.Random(f"{self.plan.seed}/{what}")


def plan_of(plan: Plan, **more: object) -> Plan:
    """A plan that differs."""
    return replace(plan, **more)  # type: ignore[arg-type]
