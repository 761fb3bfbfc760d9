"""Whether any publication ever had two origins, by the lease histories of all rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drills.leases import TwoOwners, check
from relay.cluster.leases import LeaseEntry


def violations(histories: Mapping[str, Sequence[LeaseEntry]]) -> list[str]:
    """One line for each publication whose history shows two owners at once, or an epoch that did not grow."""
    found = []
    for room, history in histories.items():
        for publication in sorted({entry.publication for entry in history}):
            try:
                check([entry for entry in history if entry.publication == publication])
            except TwoOwners as error:
                found.append(f"{room}: {error}")
    return found
