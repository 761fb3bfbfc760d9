"""How much a bench may do, and on which cores."""

from __future__ import annotations

from dataclasses import dataclass

from bench.processes import cores, pin


@dataclass(frozen=True, slots=True)
class Plan:
    """`test` is the core of the process under test, `load` that of everything else."""

    quick: bool
    test: int
    load: int

    @classmethod
    def make(cls, *, quick: bool) -> Plan:
        """Choose the cores and pin this process to the load's."""
        test, load = cores()
        pin(load)
        return cls(quick, test, load)

    @property
    def runs(self) -> int:
        """Runs per figure; the report takes the median."""
        return 1 if self.quick else 3

    @property
    def settle_s(self) -> float:
        """What a publisher is given to ramp up before anything is measured."""
        return 1.5 if self.quick else 3.0
