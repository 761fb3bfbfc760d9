"""Whether a room's history of leases shows that no publication ever had two owners. Knows nothing of the scripts."""

from __future__ import annotations

from collections.abc import Iterable

from relay.cluster.leases import LeaseEntry


class TwoOwners(AssertionError):
    """The history shows two owners at once, or an epoch that did not grow."""


def check(history: Iterable[LeaseEntry], *, clock_jumped: bool = False) -> int:
    """Raise TwoOwners, or return how often an owner changed. A server whose clock jumped ends leases early or late."""
    owner: dict[str, tuple[str, int, int] | None] = {}
    greatest: dict[str, int] = {}
    changes = 0
    for entry in history:
        held = owner.get(entry.publication)
        if entry.kind.startswith("acquired"):
            if entry.epoch <= greatest.get(entry.publication, 0):
                raise TwoOwners(f"epoch {entry.epoch} after {greatest[entry.publication]}: {entry}")
            if held is not None and held[0] != entry.node:
                live = held[2] > entry.at
                if live and entry.kind != "acquired:handed-over" and not clock_jumped:
                    raise TwoOwners(f"taken from {held} while it held: {entry}")
                changes += 1
            greatest[entry.publication] = entry.epoch
            owner[entry.publication] = (entry.node, entry.epoch, entry.until)
        elif held is None or held[:2] != (entry.node, entry.epoch):
            raise TwoOwners(f"{entry.kind} by somebody else than {held}: {entry}")
        else:
            owner[entry.publication] = (*held[:2], entry.until) if entry.kind == "renewed" else None
    return changes
