"""Seeded faults: what happens to whom, when, and for how long. Each begins, ends, and says which nodes it touched."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from drills.simulation.network import Network

HOUR_S = 3600.0


class Target(Protocol):
    """What faults do to the world."""

    network: Network

    def names(self) -> Sequence[str]: ...
    def some_room(self) -> tuple[str, list[str]]: ...
    def kill(self, node: str) -> None: ...
    def restart(self, node: str) -> None: ...
    def freeze(self, node: str, seconds: float) -> None: ...
    def jump(self, node: str, seconds: float) -> None: ...
    def move_host(self, room: str) -> None: ...
    def jump_store(self, seconds: float) -> None: ...
    def forget_store(self) -> None: ...
    def touch(self, nodes: Sequence[str] | None, on: bool, near: bool = True) -> None: ...
    def tell(self, text: str) -> None: ...


LOCAL = {"kill": 6, "freeze": 3, "cut-off": 5, "part": 4, "slow": 2, "lossy": 3, "clock-jump": 2, "move": 5}
"""Kinds of faults that touch some nodes, by how often they come."""
ALONE = frozenset({"part", "slow", "lossy", "clock-jump"})
"""Of these the other nodes hear when anything comes of it; of the rest by what is missing from the directory."""
COMMON = {"store-away": 5, "store-clock": 2, "store-forgets": 1}
"""Kinds that touch all nodes."""


class Faults:
    """Begins them at random times until `until`. `per_hour` local ones, `common_per_hour` of those that touch all."""

    def __init__(self, world: Target, dice: random.Random, per_hour: float, common_per_hour: float) -> None:
        self._world, self._dice = world, dice
        self._per_hour, self._common_per_hour = per_hour, common_per_hour
        self._until = 0.0
        self._loop = asyncio.get_running_loop()
        self.counts: Counter[str] = Counter()

    def start(self, until: float) -> None:
        """Begin."""
        self._until = until
        for kinds, per_hour in ((LOCAL, self._per_hour), (COMMON, self._common_per_hour)):
            if per_hour > 0:
                self._next(kinds, per_hour)

    def _next(self, kinds: dict[str, int], per_hour: float) -> None:
        at = self._loop.time() + self._dice.expovariate(per_hour / HOUR_S)
        if at < self._until:
            self._loop.call_at(at, self._strike, kinds, per_hour)

    def _strike(self, kinds: dict[str, int], per_hour: float) -> None:
        self._next(kinds, per_hour)
        kind = self._dice.choices(list(kinds), list(kinds.values()))[0]
        self.counts[kind] += 1
        seconds = min(60.0, self._dice.expovariate(1 / 8))
        if kind in COMMON:
            self._common(kind, seconds)
        else:
            self._local(kind, seconds)

    def _local(self, kind: str, seconds: float) -> None:
        world, network = self._world, self._world.network
        room, nodes = world.some_room()
        node, other = nodes[0], nodes[-1]
        match kind:
            case "kill":
                world.kill(node)
                self._lasts(kind, [node], seconds + 0.5, lambda: world.restart(node))
            case "freeze":
                world.freeze(node, seconds)
                self._lasts(kind, [node], seconds, lambda: None)
            case "cut-off":
                network.cut_off(node, True)
                self._lasts(kind, [node], seconds, lambda: network.cut_off(node, False))
            case "part" if node != other:
                network.part(node, other, True)
                self._lasts(kind, [node, other], seconds, lambda: network.part(node, other, False))
            case "slow":
                network.slow_down(node, True)
                self._lasts(kind, [node], seconds, lambda: network.slow_down(node, False))
            case "lossy":
                network.lose(node, True)
                self._lasts(kind, [node], seconds, lambda: network.lose(node, False))
            case "clock-jump":
                world.jump(node, self._dice.choice([-3600.0, -5.0, 5.0, 3600.0]))
                self._lasts(kind, [node], 0.0, lambda: None)
            case _:
                world.move_host(room)
                self._lasts("move", nodes, 0.0, lambda: None)

    def _common(self, kind: str, seconds: float) -> None:
        world, network = self._world, self._world.network
        match kind:
            case "store-away":
                network.store_away(True)
                self._lasts(kind, None, seconds, lambda: network.store_away(False))
            case "store-clock":
                world.jump_store(self._dice.choice([-3600.0, -2.0, 2.0, 3600.0]))
                self._lasts(kind, None, 0.0, lambda: None)
            case _:
                network.store_away(True)

                def back() -> None:
                    world.forget_store()
                    network.store_away(False)

                self._lasts(kind, None, min(seconds, 5.0), back)

    def _lasts(self, kind: str, nodes: Sequence[str] | None, seconds: float, end: Callable[[], None]) -> None:
        world = self._world
        world.tell(f"{kind} of {','.join(nodes) if nodes else 'all'} for {seconds:.3f} s")
        world.touch(nodes, True, kind not in ALONE)

        def over() -> None:
            end()
            world.tell(f"{kind} of {','.join(nodes) if nodes else 'all'} is over")
            world.touch(nodes, False, kind not in ALONE)

        self._loop.call_later(seconds, over)
