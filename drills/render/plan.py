"""A scenario's method as every target understands it: impairments from one place to addresses, faults of members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from drills.fabric.impairment import BLACK_HOLE, Impairment
from drills.fabric.impairment_text import parse_impairment
from drills.faults import Fault
from drills.faults.members import Drain, Kill, Pause, Roll
from drills.faults.network import Flap, Impair, Partition
from drills.faults.resources import CpuStorm
from drills.render.inventory import Inventory, Place, RenderError
from drills.scenario.model import Scenario

Verb = Literal["kill", "pause", "drain", "cpu"]


@dataclass(frozen=True, slots=True)
class Impairing:
    """Packets that leave a member for `addresses` are impaired from `at` for `seconds`; path 1 is the primary."""

    at: float
    seconds: float
    member: str
    place: Place
    path: int
    to: str
    addresses: tuple[str, ...]
    """Empty: whatever the destination."""
    impairment: Impairment

    @property
    def interface(self) -> str:
        names = self.place.interfaces
        return names[min(self.path, len(names)) - 1]


@dataclass(frozen=True, slots=True)
class Acting:
    """Something is done to a member's process from `at` for `seconds`; `load` is the share of CPU that is taken."""

    at: float
    seconds: float
    member: str
    place: Place
    verb: Verb
    load: float = 0.0


Action = Impairing | Acting
_VERBS: dict[type[Fault], Verb] = {Kill: "kill", Pause: "pause", Drain: "drain", CpuStorm: "cpu"}


def plan(scenario: Scenario, inventory: Inventory) -> list[Action]:
    """All actions in the order of time. Raises Refused, RenderError."""
    found = [action for fault in scenario.method for action in _actions(fault, scenario, inventory)]
    return sorted(found, key=lambda action: action.at)


def _actions(fault: Fault, scenario: Scenario, inventory: Inventory) -> Iterator[Action]:
    seconds = fault.lasts if fault.lasts is not None else scenario.lasts - fault.at
    match fault:
        case Impair():
            yield from _impairing(fault, inventory, fault.at, seconds, parse_impairment(fault.impairment.split()))
        case Partition():
            yield from _impairing(fault, inventory, fault.at, seconds, BLACK_HOLE)
        case Flap():
            begin = 0.0
            while begin < seconds:
                bad = min(fault.bad, seconds - begin)
                bad_as = parse_impairment(fault.impairment.split())
                yield from _impairing(fault, inventory, fault.at + begin, bad, bad_as)
                begin += fault.bad + fault.good
        case Kill() | Pause() | Drain() | CpuStorm():
            load = fault.share if isinstance(fault, CpuStorm) else 0.0
            for member in fault.members:
                yield Acting(fault.at, seconds, member, inventory.place(member), _VERBS[type(fault)], load)
        case Roll():
            each = seconds / len(fault.members)
            for number, member in enumerate(fault.members):
                yield Acting(fault.at + number * each, each / 2, member, inventory.place(member), "drain")
        case _:
            raise RenderError(
                f"{fault.fault} is done by the local test cluster only: no tool does it to another's process"
            )


def _impairing(
    fault: Impair | Partition | Flap, inventory: Inventory, at: float, seconds: float, impairment: Impairment
) -> Iterator[Impairing]:
    for a in fault.src:
        for b in fault.dst:
            for source, sink in ((a, b), (b, a))[: 1 + fault.both]:
                yield from _one_way(source, sink, inventory, at, seconds, impairment)


def timed(steps: Iterable[tuple[float, str]], lasts: float) -> Iterator[str]:
    """Lines of a shell script, each run at its time, which last as long as the method does (seconds)."""
    now = 0.0
    for at, line in sorted(steps, key=lambda step: step[0]):
        if at > now:
            yield f"sleep {round(at - now, 3):g}"
            now = at
        yield line
    if lasts > now:
        yield f"sleep {round(lasts - now, 3):g}"
    yield f"echo 'the method is over: {lasts:g} s'"


def _one_way(
    source: str, sink: str, inventory: Inventory, at: float, seconds: float, impairment: Impairment
) -> Iterator[Impairing]:
    name, _, path = source.partition("/")
    if name in ("hosts", "viewers", "outside", "*"):
        return  # what leaves clients is impaired where it arrives, by the other direction, or not at all
    yield Impairing(
        at, seconds, name, inventory.place(name), int(path or 1), sink, _addresses(sink, inventory), impairment
    )


def _addresses(endpoint: str, inventory: Inventory) -> tuple[str, ...]:
    name, _, path = endpoint.partition("/")
    if name in ("hosts", "viewers", "outside", "*"):
        return ()
    found = inventory.place(name).addresses
    if not found or (path and int(path) > len(found)):
        raise RenderError(f"the inventory has no address for {endpoint}")
    return (found[int(path) - 1],) if path else tuple(found)
