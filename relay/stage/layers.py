"""Which simulcast layer each slot of one viewer's session gets, from the estimate of what the viewer's network carries.

The rules:
- Audio is paid first, then the lowest live layer of every playing slot, then steps up in order of priority.
- Down at once. Up only when the whole would fit with a margin, for a while, and some time after the last step down: a
  quality that swings is worse than a lower one.
- A pinned layer is what the viewer asked for and is not taken away; a cap (`max_layer`) is not exceeded while a live
  layer under it exists. A layer that is not live is replaced by the nearest live one below, else above.
- Rates that nobody has measured yet are assumed high.
- When a slot could go up but the estimate is short, a probe is asked for, with back-off: an estimate that was only ever
  tested with what is sent does not grow beyond it.

Layers are indexes, lowest first. Rates are bits per second, times seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """Margins, times in seconds, rates in bits per second."""

    start_estimate: int = 1_000_000
    audio_rate: int = 48_000
    up_margin: float = 1.15
    up_hold: float = 2.0
    after_down: float = 5.0
    probe_first: float = 2.0
    probe_longest: float = 30.0
    probe_least: float = 1.5
    """It asks for at least this multiple: a train that is hardly faster than the estimate proves nothing."""
    probe_reach: float = 2.0
    """A probe asks for at most this multiple of the estimate, so that finding out does not choke the viewer."""
    nominal: tuple[int, ...] = (200_000, 700_000, 2_500_000)
    """Assumed rates of layers not measured yet, lowest first; about what Chromium sends at 180p, 360p and 720p."""


@dataclass(frozen=True, slots=True)
class Want:
    """A video slot that plays. `rates` holds one rate per layer, 0 when unknown; `live` the layers that arrive.

    `priority` is lower for the more important. `pinned` and `cap` are layer indexes; `current` is the layer that was
    last allocated to the same publication in this slot, None when it is new there.
    """

    slot: int
    priority: int
    rates: tuple[int, ...]
    live: frozenset[int]
    current: int | None = None
    pinned: int | None = None
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The layer of each slot, and the bitrate to probe for (None: not now)."""

    layers: dict[int, int]
    probe: int | None = None


@dataclass(slots=True)
class _History:
    up_since: float | None = None
    last_down: float = float("-inf")


@dataclass(slots=True)
class _Probing:
    wait: float
    next_at: float = 0.0
    target: int = 0


def nearest_live(wanted: int, live: frozenset[int]) -> int:
    """Return the live layer that replaces `wanted`: itself, else the nearest below, else above; itself when none is."""
    if wanted in live or not live:
        return wanted
    below = [layer for layer in live if layer < wanted]
    return max(below) if below else min(live)


def smooth_rate(known: int, measured: int) -> int:
    """Return the rate to reckon with: peaks count at once, ebbs slowly, because video comes in bursts."""
    return measured if measured >= known else known + (measured - known) // 8


def assumed_rates(rates: Sequence[int], nominal: Sequence[int]) -> tuple[int, ...]:
    """Return `rates` with the unknown (0) filled in: nominal, and never below a lower layer's."""
    filled: list[int] = []
    for index, rate in enumerate(rates):
        floor = filled[-1] if filled else 0
        filled.append(rate or max(nominal[min(index, len(nominal) - 1)], floor * 2))
    return tuple(filled)


@dataclass(slots=True)
class LayerAllocator:
    """Allocates for one viewer's session and remembers what it needs for hysteresis and probing."""

    settings: LayerSettings = field(default_factory=LayerSettings)
    _history: dict[int, _History] = field(default_factory=dict)
    _probing: _Probing | None = None

    def allocate(self, wants: Sequence[Want], audio_slots: int, estimate: int | None, now: float) -> Allocation:
        """Return the layers for now. `estimate` None: nothing was measured yet."""
        known = estimate if estimate is not None else self.settings.start_estimate
        audio = audio_slots * self.settings.audio_rate
        budget = known - audio
        self._history = {want.slot: self._history.get(want.slot, _History()) for want in wants}
        ordered = sorted(wants, key=lambda want: (want.priority, want.slot))
        rates = {want.slot: assumed_rates(want.rates, self.settings.nominal) for want in ordered}
        ladders = {want.slot: _ladder(want) for want in ordered}
        goal = self._afford(ordered, ladders, rates, budget)
        layers = {want.slot: self._settle(want, ladders[want.slot], goal[want.slot], now) for want in ordered}
        short = self._next_step(ordered, ladders, rates, goal)
        return Allocation(layers, self._probe(None if short is None else short + audio, known, now))

    def _afford(
        self,
        wants: Sequence[Want],
        ladders: Mapping[int, tuple[int, ...]],
        rates: Mapping[int, tuple[int, ...]],
        budget: int,
    ) -> dict[int, int]:
        """Return what the budget carries: steps above the present layer have to fit with the margin."""
        goal = {want.slot: ladders[want.slot][0] for want in wants}
        used = sum(rates[slot][layer] for slot, layer in goal.items())
        for want in wants:
            base = goal[want.slot]
            for layer in reversed(ladders[want.slot]):
                total = used + rates[want.slot][layer] - rates[want.slot][base]
                kept = want.current is not None and layer <= want.current
                if total * (1.0 if kept else self.settings.up_margin) <= budget:
                    goal[want.slot], used = layer, total
                    break
        return goal

    def _settle(self, want: Want, ladder: tuple[int, ...], goal: int, now: float) -> int:
        """Return the layer to play: the goal at once when it is lower or the slot is new, later when it is higher."""
        history = self._history[want.slot]
        current = want.current
        if current is None or goal == current or len(ladder) == 1 or current not in ladder:
            history.up_since = None
            if current is not None and goal < current:
                history.last_down = now
            return goal
        if goal < current:
            history.last_down, history.up_since = now, None
            return goal
        if history.up_since is None:
            history.up_since = now
        held = now - history.up_since >= self.settings.up_hold
        if held and now - history.last_down >= self.settings.after_down:
            history.up_since = None
            return goal
        return current

    def _next_step(
        self,
        wants: Sequence[Want],
        ladders: Mapping[int, tuple[int, ...]],
        rates: Mapping[int, tuple[int, ...]],
        goal: Mapping[int, int],
    ) -> int | None:
        """Return what video would need in all for the most important step that is not affordable; None when all are."""
        used = sum(rates[slot][layer] for slot, layer in goal.items())
        for want in wants:
            above = [layer for layer in ladders[want.slot] if layer > goal[want.slot]]
            if above:
                step = rates[want.slot][above[0]] - rates[want.slot][goal[want.slot]]
                return int((used + step) * self.settings.up_margin) + 1
        return None

    def _probe(self, needed: int | None, estimate: int, now: float) -> int | None:
        if needed is None or needed <= estimate:
            self._probing = None
            return None
        probing = self._probing
        if probing is None:
            # The first probe waits too: the estimate may still be on its way up by itself.
            self._probing = _Probing(wait=self.settings.probe_first, next_at=now + self.settings.probe_first)
            return None
        if now < probing.next_at or self._fell_lately(now):
            return None
        if probing.target and estimate >= probing.target:
            probing.wait = self.settings.probe_first
        least, most = int(estimate * self.settings.probe_least), int(estimate * self.settings.probe_reach)
        probing.target = min(max(needed, least), most)
        probing.next_at = now + probing.wait
        probing.wait = min(probing.wait * 2, self.settings.probe_longest)
        return probing.target

    def _fell_lately(self, now: float) -> bool:
        return any(now - history.last_down < self.settings.after_down for history in self._history.values())


def _ladder(want: Want) -> tuple[int, ...]:
    """Return the layers that this slot may play now, lowest first; never empty."""
    every = range(max(len(want.rates), 1))
    if want.pinned is not None:
        return (nearest_live(want.pinned, want.live),)
    live = sorted(want.live & set(every))
    if not live:
        # Nothing arrives (the publisher is away): stay, so that the return finds the slot where it was.
        return (want.current if want.current is not None else 0,)
    allowed = [layer for layer in live if want.cap is None or layer <= want.cap]
    return tuple(allowed) or (live[0],)
