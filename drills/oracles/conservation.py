"""Where the packets went: each that entered was delivered, dropped with a reason that was counted, or still waits.

Two places count both ends: every direction of the fabric, and every link. A place whose sum does not come out has lost
packets without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drills.run.metrics import NodeFigures

_QUEUED = 64  # packets that a link may still have under way: sent again, or in a batch that waits


@dataclass(frozen=True, slots=True)
class Unaccounted:
    """`packets` that went in at a place and are nowhere."""

    place: str
    packets: int

    def __str__(self) -> str:
        return f"{self.place}: {self.packets} packets unaccounted for"


def of_lanes(lanes: Sequence[Mapping[str, Any]]) -> list[Unaccounted]:
    """The fabric's counters, per direction: entered + duplicated == delivered + undeliverable + dropped + in flight."""
    found = []
    for lane in lanes:
        went_in = lane["entered"] + lane["duplicated"]
        dropped = lane["black_holed"] + lane["lost"] + lane["overflowed"]
        came_out = lane["delivered"] + lane["undeliverable"] + dropped + lane["in_flight"]
        if went_in != came_out:
            found.append(Unaccounted(f"fabric {lane['src']} → {lane['dst']}", went_in - came_out))
    return found


def of_links(nodes: Mapping[str, NodeFigures], later: Mapping[str, NodeFigures]) -> list[Unaccounted]:
    """Every link that both ends still know: what the origin had sent is `later` at the subscriber, or given up.

    A packet that both ends count for a moment (late after having been given up) makes the sum negative;
    that is no loss.
    """
    found = []
    for name, node in nodes.items():
        for (peer, role), sent in node.links.items():
            got = later[peer].links.get((name, "subscriber")) if role == "origin" and peer in later else None
            if got is None or got.link != sent.link:
                continue
            arrived = got.counts.get("packets", 0)
            given_up = got.counts.get("lost", 0) + sent.counts.get("skipped", 0)
            missing = sent.counts.get("packets", 0) - arrived - given_up
            if missing > _QUEUED:
                found.append(Unaccounted(f"link {name} → {peer}", missing))
    return found
