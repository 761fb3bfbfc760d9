"""A link in virtual time with seeded faults of its paths, and what must hold of it whatever they do.

    never-neither    while a path is whole, media gets through: no gap longer than GAP_S, whatever the other one does
    switches         media leaves or comes back to the primary at most twice in any minute

and what `link_checks` says of each packet.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from drills.simulation.link_checks import SETTLED_US, LinkTally
from drills.simulation.media_link import MakeReceiver, MakeSender, MediaLink
from drills.simulation.model_path import SECOND
from drills.simulation.one_link import RESTING
from drills.simulation.trace import Trace, Violation
from relay.link.breaker import Breaker, BreakerMoved
from relay.link.paths import PATHS
from relay.link.receiver import LinkReceiver
from relay.link.sender import LinkSender
from relay.settings import BreakerSettings

GAP_S = 1.0
"""Longer than it takes to notice a black hole (decision 10: 0.44 s at the worst), and a good path's round trip."""
MINUTE = 60 * SECOND
_FIRST_FAULT = 5 * SECOND
_RESTART = 0.2
"""Share of faults with which a publisher comes back on another session, too."""


@dataclass(frozen=True, slots=True)
class LinkOutcome:
    """What came of a link's simulation."""

    violation: Violation | None
    hash: str
    moves: list[BreakerMoved] = field(default_factory=list)
    took_s: float = 0.0
    """CPU seconds."""
    virtual_s: float = 0.0
    tally: LinkTally = field(default_factory=LinkTally)


class LinkWorld:
    """One link with media at a steady rate. Faults come and go on both paths, often on one and then the other. The
    makers are replaced by tests that plant bugs."""

    def __init__(self, seed: int, make: Callable[[BreakerSettings], Breaker] = Breaker, *,
                 make_sender: MakeSender = LinkSender, make_receiver: MakeReceiver = LinkReceiver,
                 out: TextIO | None = None) -> None:  # fmt: skip
        self._dice = random.Random(f"{seed}/link")
        self.trace = Trace(lambda: self.link.now / SECOND, out)
        self.link = MediaLink(self._dice, self.trace.tell, make, make_sender, make_receiver)
        self._switches: deque[int] = deque()
        self._looked = 0

    def run(self, seconds: float) -> LinkOutcome:
        """Let time pass."""
        began, violation = time.process_time(), None
        try:
            self._run(round(seconds * SECOND))
        except Violation as found:
            violation = found
            self.trace.tell(f"VIOLATION {found}")
        link = self.link
        took = time.process_time() - began
        return LinkOutcome(violation, self.trace.hash, link.moves, took, link.now / SECOND, link.checks.tally)

    def _run(self, until: int) -> None:
        link, fault = self.link, _FIRST_FAULT
        look = SECOND // 10
        for now in range(look, until + 1, look):
            while fault <= now:
                link.run(fault)
                self._check_settled()
                fault = link.faults.strike(fault)
                if self._dice.random() < _RESTART:
                    link.restart_publisher()
            link.run(now)
            self._check()
        link.run(max(until, *map(link.faults.whole_since, PATHS)) + 2 * SETTLED_US)
        self._check_settled()
        self.trace.tell(f"{link.checks.tally}")

    def _check_settled(self) -> None:
        link = self.link
        link.checks.settled(link.now - max(map(link.faults.whole_since, PATHS)), link.now)

    def _check(self) -> None:
        link, now = self.link, self.link.now
        fresh, self._looked = link.moves[self._looked :], len(link.moves)
        self._switches.extend(move.now for move in fresh if (move.previous in RESTING) != (move.state in RESTING)
                              and "backup_failed" not in move.reason)  # fmt: skip
        while self._switches and self._switches[0] <= now - MINUTE:
            self._switches.popleft()
        if len(self._switches) > BreakerSettings().switches_per_minute:
            raise Violation("switches", now / SECOND, f"{len(self._switches)} within a minute")
        whole = [name for name in PATHS if link.faults.whole_since(name) <= now - GAP_S * SECOND]
        gap = (now - link.checks.media_at) / SECOND
        if whole and gap > GAP_S:
            text = f"no media for {gap:.2f} s in {link.breaker.state.value} while {whole} is whole"
            raise Violation("never-neither", now / SECOND, text)
