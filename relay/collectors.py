"""What is pulled at scrape time: of the plane, links and egress. Names start with `costream_` and end in their unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import getitem
from typing import Any, ClassVar, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "costream"


class LayerCounts(Protocol):
    """What is counted per layer of a track; `relay.plane.contract.LayerStats` is one."""

    @property
    def active(self) -> bool: ...
    @property
    def lost(self) -> int: ...
    @property
    def recovered(self) -> int: ...
    @property
    def nacks_sent(self) -> int: ...
    @property
    def keyframes(self) -> int: ...
    @property
    def keyframe_requests(self) -> int: ...


class SlotCounts(Protocol):
    """What is counted per slot; `relay.plane.contract.SlotStats` is one."""

    @property
    def track(self) -> int: ...
    @property
    def nacks(self) -> int: ...
    @property
    def resent(self) -> int: ...
    @property
    def not_resent(self) -> int: ...
    @property
    def keyframe_requests(self) -> int: ...
    @property
    def switches(self) -> int: ...


class PlaneCounts(Protocol):
    """A snapshot of the plane; `relay.plane.contract.PlaneStats` is one. Totals never go down, handles never return."""

    @property
    def sessions(self) -> Mapping[int, object]: ...
    @property
    def tracks(self) -> Mapping[int, Sequence[LayerCounts]]: ...
    @property
    def slots(self) -> Mapping[int, SlotCounts]: ...
    @property
    def drops(self) -> Mapping[str, int]: ...
    @property
    def datagrams_in(self) -> int: ...
    @property
    def datagrams_out(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...
    @property
    def slab_free(self) -> int: ...
    @property
    def slab_total(self) -> int: ...
    @property
    def unkept(self) -> int: ...


class PlaneFacts(Protocol):
    """What a plane says of itself; `relay.plane.Plane` is one."""

    @property
    def name(self) -> str: ...
    @property
    def ways(self) -> Sequence[str]: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def addresses(self) -> Sequence[tuple[str, int]]: ...
    @property
    def cpus(self) -> Sequence[int]: ...
    def counters(self) -> Mapping[str, object]: ...


class LinkCollector(Collector):
    """Turns the states of a node's links into metrics. By role, an `origin` sends media and a `subscriber` takes it."""

    def __init__(self, states: Callable[[], list[dict[str, Any]]]) -> None:
        self._states = states

    def describe(self) -> Iterable[Metric]:
        """Return no names: the collector is not asked for a snapshot when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of one snapshot."""
        labels = ["peer", "role", "link"]
        flows = GaugeMetricFamily(f"{PREFIX}_link_flows", "Layers that a link carries.", labels=labels)
        breaker = GaugeMetricFamily(f"{PREFIX}_link_breaker", "1 for the breaker's state.", labels=[*labels, "state"])
        carries = GaugeMetricFamily(f"{PREFIX}_link_carrying", "1 for a path with media.", labels=[*labels, "path"])
        text = "What became of a link's packets: `packets` are the new ones that an end sent or got."
        counts = CounterMetricFamily(f"{PREFIX}_link_packets", text, labels=[*labels, "what"])
        for state in self._states():
            names = [state["peer"], state["role"], state["link"]]
            flows.add_metric(names, state["flows"])
            breaker.add_metric([*names, state["breaker"]], 1)
            for path in state["carrying"]:
                carries.add_metric([*names, path], 1)
            for what, count in state.get("counts", {}).items():
                counts.add_metric([*names, what], count)
        yield from (flows, breaker, carries, counts)


class EgressCollector(Collector):
    """Turns the facts of a node's egress into metrics."""

    _COUNTS: ClassVar[dict[str, tuple[str, str]]] = {
        "bytes": ("egress_bytes", "Bytes that egress wrote, by kind."),
        "pictures": ("egress_pictures", "Pictures that egress wrote, by kind."),
        "dropped": ("egress_dropped", "Pictures and sounds that a slow target did not get, by kind."),
        "restarts": ("egress_restarts", "How often egress began anew, by kind."),
    }

    def __init__(self, facts: Callable[[], list[dict[str, Any]]]) -> None:
        self._facts = facts
        self._sums = {kind: _Sums(*self._COUNTS, read=getitem) for kind in ("hls", "recording", "rtmp")}

    def describe(self) -> Iterable[Metric]:
        """Return no names: the collector is not asked for a snapshot when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of one snapshot."""
        facts = self._facts()
        states = GaugeMetricFamily(f"{PREFIX}_egress", "Egress by kind and state.", labels=["kind", "state"])
        for kind in self._sums:
            for state in ("starting", "running", "retrying"):
                states.add_metric([kind, state], sum((each["kind"], each["state"]) == (kind, state) for each in facts))
        yield states
        sums = {
            kind: told.add({each["id"]: each for each in facts if each["kind"] == kind})
            for kind, told in self._sums.items()
        }
        for name, (metric, text) in self._COUNTS.items():
            family = CounterMetricFamily(f"{PREFIX}_{metric}", text, labels=["kind"])
            for kind, found in sums.items():
                family.add_metric([kind], found[name])
            yield family


class PlaneCollector(Collector):
    """Turns the plane's snapshot into metrics.

    The plane forgets what it counted for a track or slot together with it; a sum over the living would go down, which
    Prometheus takes for a restart. So the last seen counts of the dead stay in the sums. What a track or slot counted
    after its last scrape is lost.
    """

    def __init__(self, stats: Callable[[], PlaneCounts], plane: PlaneFacts | None = None) -> None:
        self._stats = stats
        self._plane = plane
        self._layers = _Sums("lost", "recovered", "nacks_sent", "keyframes", "keyframe_requests")
        self._slots = _Sums("nacks", "resent", "not_resent", "keyframe_requests", "switches")

    def describe(self) -> Iterable[Metric]:
        """Return no names: the collector is not asked for a snapshot when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of one snapshot."""
        stats = self._stats()
        yield from self._counts(stats)
        yield from self._traffic(stats)
        if self._plane is not None:
            yield from _facts(self._plane)
        layers = self._layers.add(
            {(track, index): layer for track, all_of in stats.tracks.items() for index, layer in enumerate(all_of)}
        )
        yield _counter("packets_lost_in", "Packets of publishers that never came.", layers["lost"])
        yield _counter("packets_recovered_in", "Packets of publishers that came after a NACK.", layers["recovered"])
        yield _counter("nacks_out", "Packets asked for again from publishers.", layers["nacks_sent"])
        yield _counter("keyframes_in", "Keyframes received.", layers["keyframes"])
        yield _counter("keyframe_requests_out", "PLI and FIR sent to publishers.", layers["keyframe_requests"])
        slots = self._slots.add(dict(stats.slots))
        yield _counter("nacks_in", "Packets that viewers asked for again.", slots["nacks"])
        yield _counter("packets_resent", "Packets sent again to viewers.", slots["resent"])
        yield _counter("packets_not_resent", "Packets asked for that history no longer had.", slots["not_resent"])
        yield _counter("keyframe_requests_in", "PLI and FIR received from viewers.", slots["keyframe_requests"])
        yield _counter("slot_switches", "Splices from one layer or track to another.", slots["switches"])

    def _counts(self, stats: PlaneCounts) -> Iterator[Metric]:
        layers = [layer for all_of in stats.tracks.values() for layer in all_of]
        yield _gauge("plane_sessions", "Sessions that the plane serves.", len(stats.sessions))
        yield _gauge("publications", "Tracks that the plane receives.", len(stats.tracks))
        yield _gauge("active_layers", "Layers that packets arrive for.", sum(layer.active for layer in layers))
        playing = sum(slot.track >= 0 for slot in stats.slots.values())
        slots = GaugeMetricFamily(f"{PREFIX}_slots", "Slots by what they do: playing or silent.", labels=["state"])
        slots.add_metric(["playing"], playing)
        slots.add_metric(["silent"], len(stats.slots) - playing)
        yield slots

    def _traffic(self, stats: PlaneCounts) -> Iterator[Metric]:
        yield _counter("datagrams_in", "Datagrams received.", stats.datagrams_in)
        yield _counter("datagrams_out", "Datagrams sent.", stats.datagrams_out)
        yield _counter("received_bytes", "Bytes received in datagrams.", stats.bytes_in)
        yield _counter("sent_bytes", "Bytes sent in datagrams.", stats.bytes_out)
        yield _gauge("slab_packets", "Packets that the plane's slab has room for.", stats.slab_total)
        yield _gauge("slab_free_packets", "Of those, the free ones.", stats.slab_free)
        yield _counter("packets_unkept", "Packets forwarded but not kept for repeats: no room.", stats.unkept)
        drops = CounterMetricFamily(f"{PREFIX}_datagrams_dropped", "Datagrams dropped by reason.", labels=["reason"])
        for reason, count in sorted(stats.drops.items()):
            drops.add_metric([reason], count)
        yield drops


_PER_DIRECTION = (
    ("plane_system_calls", "System calls of the native plane for datagrams.", "calls"),
    (
        "plane_messages",
        "Messages of one or more datagrams that the native plane gave to or got from the kernel.",
        "messages",
    ),
)
_LOST = {
    "events_lost": "events",
    "taps_lost": "taps",
    "orders_refused": "orders",
    "injects_refused": "injects",
    "out_overflowed": "datagrams",
}


def _facts(plane: PlaneFacts) -> Iterator[Metric]:
    info = GaugeMetricFamily(f"{PREFIX}_plane_info", "The plane, and its ways to save calls.", labels=["plane", "ways"])
    info.add_metric([plane.name, ",".join(plane.ways)], 1)
    yield info
    shards = GaugeMetricFamily(f"{PREFIX}_shard_info", "The plane's threads, each with a port.", labels=["port", "cpu"])
    for index, (_, port) in enumerate(plane.addresses):
        shards.add_metric([str(port), str(plane.cpus[index]) if index < len(plane.cpus) else ""], 1)
    yield shards
    yield _gauge("plane_healthy", "1 while the plane forwards, 0 once it has failed.", int(plane.healthy))
    counters = plane.counters()
    if not counters:
        return
    late = "By how much rounds of the native plane's threads began too late, for lack of CPU."
    yield CounterMetricFamily(f"{PREFIX}_plane_late_seconds", late, value=_count(counters, "late_us") / 1e6)
    for name, text, counted in _PER_DIRECTION:
        calls = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=["direction"])
        for direction in ("in", "out"):
            calls.add_metric([direction], _count(counters, f"{counted}_{direction}"))
        yield calls
    lost = CounterMetricFamily(f"{PREFIX}_plane_lost", "What full rings of the native plane lost.", labels=["what"])
    for name, what in _LOST.items():
        lost.add_metric([what], _count(counters, name))
    yield lost


def _count(counters: Mapping[str, object], name: str) -> int:
    value = counters.get(name, 0)
    return value if isinstance(value, int) else 0


class _Sums:
    """Sums of counters over things that come and go; the sums never go down."""

    def __init__(self, *names: str, read: Callable[[Any, str], int] = getattr) -> None:
        self._names, self._read = names, read
        self._gone = dict.fromkeys(names, 0)
        self._last: dict[object, tuple[int, ...]] = {}

    def add(self, living: Mapping[Any, object]) -> dict[str, int]:
        """Take the counts of all that live now and return the sums."""
        now: dict[object, tuple[int, ...]] = {
            handle: tuple(self._read(counts, name) for name in self._names) for handle, counts in living.items()
        }
        for handle in self._last.keys() - now.keys():
            for name, count in zip(self._names, self._last[handle], strict=True):
                self._gone[name] += count
        self._last = now
        return {
            name: self._gone[name] + sum(counts[i] for counts in now.values()) for i, name in enumerate(self._names)
        }


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
