"""Whether a room's history of leases shows that no publication ever had two owners. Pure; knows nothing of the scripts.

The history is the store's (`relay.cluster.leases.RedisLeases.history`): one line for each lease that was given, renewed
or given back, with the store's time. A lease that is handed over ends the moment it is taken, whatever its term.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relay.cluster.leases import LeaseEntry


class TwoOwners(AssertionError):
    """The history shows two owners at once, or an epoch that did not grow."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """`node` was the owner of `publication` under `epoch` from `begin` to `end`, the store's milliseconds."""

    publication: str
    node: str
    epoch: int
    begin: int
    end: int


def tenures(history: Iterable[LeaseEntry]) -> list[Tenure]:
    """Return who owned what and when, in the order of the epochs of each publication.

    Raises TwoOwners for an epoch that did not grow, and for a renewal or a return by somebody who was not the owner.
    """
    open_: dict[str, Tenure] = {}
    found: list[Tenure] = []
    greatest: dict[str, int] = {}
    for entry in history:
        held = open_.get(entry.publication)
        if entry.kind.startswith("acquired"):
            if entry.epoch <= greatest.get(entry.publication, 0):
                raise TwoOwners(f"epoch {entry.epoch} after {greatest[entry.publication]}: {entry}")
            if held is not None:
                taken = entry.kind in ("acquired:handed-over", "acquired:own")
                found.append(_until(held, min(held.end, entry.at) if taken else held.end))
            greatest[entry.publication] = entry.epoch
            open_[entry.publication] = Tenure(entry.publication, entry.node, entry.epoch, entry.at, entry.until)
        elif held is None or (held.node, held.epoch) != (entry.node, entry.epoch):
            raise TwoOwners(f"{entry.kind} by somebody else than {held}: {entry}")
        elif entry.kind == "renewed":
            open_[entry.publication] = _until(held, entry.until)
        else:
            found.append(_until(open_.pop(entry.publication), entry.at))
    return sorted([*found, *open_.values()], key=lambda each: (each.publication, each.epoch))


def check(history: Iterable[LeaseEntry]) -> list[Tenure]:
    """Raise TwoOwners unless at no time a publication had two; return the tenures."""
    found = tenures(history)
    last: dict[str, Tenure] = {}
    for each in found:
        before = last.get(each.publication)
        if before is not None and before.end > each.begin:
            raise TwoOwners(f"{each} began while {before} held")
        last[each.publication] = each
    return found


def _until(tenure: Tenure, end: int) -> Tenure:
    return Tenure(tenure.publication, tenure.node, tenure.epoch, tenure.begin, end)
