"""Which layer of a simulcast track egress takes. Sans-IO; time in seconds.

The best one that arrives; but to climb, the better one has to have arrived for a while without a break: each change is
a break in playlists and another file of a recording. After each fall that while is longer, so that a layer which comes
and goes is left alone in the end. A fall is at once.
"""

from __future__ import annotations

from collections.abc import Collection

STEADY_S = 3.0
"""How long a better layer has to have arrived: browsers begin with the lowest and add the others within two seconds."""
MOST_STEADY_S = 60.0
KEPT_S = 120.0
"""A layer taken for so long was a good choice: earlier falls are forgotten."""


class LayerChoice:
    """One track's. Layers are numbered from the lowest."""

    def __init__(self, active: Collection[int], now: float) -> None:
        self.layer = max(active, default=0)
        self._since = dict.fromkeys(active, now)
        self._taken_at = now
        self._steady_s = STEADY_S

    def choose(self, active: Collection[int], now: float) -> int:
        """Return the layer to take, given those that packets arrive for. Call it when one starts or stops, and now and
        then."""
        self._since = {layer: self._since.get(layer, now) for layer in active}
        if now - self._taken_at >= KEPT_S:
            self._steady_s = STEADY_S
        steady = [layer for layer, since in self._since.items() if now - since >= self._steady_s]
        if active and self.layer not in active:
            self._steady_s = min(2 * self._steady_s, MOST_STEADY_S)
            self._take(max(steady or active), now)
        elif steady and max(steady) > self.layer:
            self._take(max(steady), now)
        return self.layer

    def _take(self, layer: int, now: float) -> None:
        self.layer, self._taken_at = layer, now
