"""Which layer of a simulcast track egress takes. Sans-IO; time in seconds.

The best one that arrives. But each change is a break in playlists and another file of a recording, so to climb, the
better layer has to have arrived for a while without a break; after each fall that while is longer, so that one which
comes and goes is left alone in the end. A fall waits for a moment, too: where a network fails, all layers fall silent
one after the other, and the best of them is often back before long.
"""

from __future__ import annotations

from collections.abc import Collection

STEADY_S = 3.0
"""How long a better layer has to have arrived: browsers begin with the lowest and add the others within two seconds."""
MOST_STEADY_S = 60.0
KEPT_S = 120.0
"""A layer taken for so long was a good choice: earlier falls are forgotten."""
FALL_S = 0.25
"""How long others have to have arrived without the one that is taken."""


class LayerChoice:
    """One track's. Layers are numbered from the lowest; `layer` is the one to take."""

    def __init__(self, active: Collection[int], now: float) -> None:
        self.layer = max(active, default=0)
        self._since = dict.fromkeys(active, now)
        self._without: float | None = None
        self._taken_at = now
        self._steady_s = STEADY_S

    def choose(self, active: Collection[int], now: float) -> int:
        """Return the layer to take, given those that packets arrive for. Call it when one stops, and now and then."""
        self._since = {layer: self._since.get(layer, now) for layer in active}
        if now - self._taken_at >= KEPT_S:
            self._steady_s = STEADY_S
        steady = [layer for layer, since in self._since.items() if now - since >= self._steady_s]
        if active and self.layer not in active:
            self._without = now if self._without is None else self._without
            if now - self._without >= FALL_S:
                self._steady_s = min(2 * self._steady_s, MOST_STEADY_S)
                self._take(max(steady or active), now)
            return self.layer
        self._without = None
        if steady and max(steady) > self.layer:
            self._take(max(steady), now)
        return self.layer

    def _take(self, layer: int, now: float) -> None:
        self.layer, self._taken_at, self._without = layer, now, None
