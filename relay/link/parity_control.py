"""How much parity a link sends: none without loss, more the more is lost."""

from __future__ import annotations

from relay.settings import LinkFlowSettings

WINDOW_US = 500_000
MIN_PACKETS = 100  # less says nothing about the loss
_KEEP = 0.5  # of the former estimate, per window


class ParityControl:
    """`group` is the number of packets that one parity packet covers, 0 for none.

    A group repairs one loss, so it is made to hold about half a loss on average. It is switched off when the loss falls
    below half of what switches it on.
    """

    def __init__(self, settings: LinkFlowSettings) -> None:
        self._on = settings.parity == "auto"
        self._from = settings.parity_from_loss
        self._least, self._most = settings.parity_min_group, settings.parity_max_group
        self.group = 0
        self.loss = 0.0
        self._acked = self._lost = 0
        self._until = 0

    def note(self, acked: int, lost: int) -> None:
        """Count packets whose fate is known."""
        self._acked += acked
        self._lost += lost

    def adapt(self, now: int) -> bool:
        """Look at the loss of the last window, when it is over; say whether `group` changed."""
        settled = self._acked + self._lost
        if not self._on or now < self._until or settled < MIN_PACKETS:
            return False
        self._until = now + WINDOW_US
        self.loss = _KEEP * self.loss + (1 - _KEEP) * self._lost / settled
        self._acked = self._lost = 0
        wanted = self.group
        if self.loss >= self._from:
            wanted = max(self._least, min(self._most, round(0.5 / self.loss)))
        elif self.loss < self._from / 2:
            wanted = 0
        if wanted == self.group or (wanted and self.group and abs(wanted - self.group) * 5 < self.group):
            return False
        self.group = wanted
        return True
