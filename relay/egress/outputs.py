"""What an egress process asks of an output, whatever it writes to."""

from __future__ import annotations

from typing import Protocol

from relay.egress.media import Unit


class Output(Protocol):
    """Takes units of a source in order. `take` and `tick` never wait; OSError ends the output, and only it."""

    @property
    def id(self) -> str: ...

    @property
    def bytes(self) -> int:
        """Written so far."""
        ...

    @property
    def pictures(self) -> int: ...

    @property
    def dropped(self) -> int:
        """Units left out because the other end was too slow."""
        ...

    def take(self, unit: Unit) -> None: ...

    def tick(self, now: int) -> None:
        """Called every few tens of ms with the moment up to which units have come, if they come at all."""
        ...

    def close(self) -> None:
        """End in good order, within a second or so. Repeatable."""
        ...
