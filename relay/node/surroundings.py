"""What all rooms of a node share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay.edge.session import Submit
from relay.ids import HybridClock
from relay.node.clocks import TrackClocks
from relay.node.clustered import ClusterSide
from relay.node.presence import INTERVAL_S as PRESENCE_S
from relay.node.programs import Pools
from relay.ports import RoomEvent, RoomStore


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clocks in seconds; `next_handle` gives fresh numbers for the plane."""

    store: RoomStore
    node_id: str
    submit: Submit
    next_handle: Callable[[], int]
    wall: Callable[[], float]
    monotonic: Callable[[], float]
    seat_hold_s: float
    empty_ttl_s: float
    tell_session: Callable[[str, RoomEvent], None]
    """Gives an event to those who follow a session."""
    clock: HybridClock
    clocks: TrackClocks
    cluster: Callable[[], ClusterSide | None] = lambda: None
    pools: Pools | None = None
    """Makes programs; None: this node makes none."""
    new_id: Callable[[], str] = lambda: secrets.token_hex(8)
    """Makes the ids of publications; a simulation has to get the same ones again."""
    presence_s: float = PRESENCE_S

    def unstored(self, kind: str, data: dict[str, Any]) -> RoomEvent:
        """Return an event of now that is in no store."""
        return RoomEvent(self.clock.next(int(self.wall() * 1000)), kind, data, stored=False)
