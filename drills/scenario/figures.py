"""The figures that hypotheses may be about: names, units, meanings. One table for schema, report and docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a drill. `better` is `less` or `more`; `unit` is `ms`, `%`, `/min` or empty for a count."""

    name: str
    unit: str
    means: str
    better: str = "less"


def _spread(prefix: str, means: str) -> list[Figure]:
    return [Figure(f"{prefix}.{part}", "ms", f"{means}: {part}") for part in ("p50", "p95", "p99", "max")]


_ALL = [
    *_spread("freeze", "longest time without a new picture, of each viewer and picture"),
    *_spread("audio.gap", "longest time without sound, of each viewer"),
    *_spread("join", "from the offer to a connected session"),
    *_spread("api", "answer of the REST API, asked by the drill"),
    *_spread("event", "from sending an application's event to its arrival at a follower"),
    *_spread("sync", "how far an event and the picture of its moment came apart at a follower"),
    Figure("frames.lost", "", "pictures that another viewer saw and this one did not, all viewers together"),
    Figure("frames.repeated", "", "pictures shown twice in a row"),
    Figure("frames.reordered", "", "pictures older than one shown before"),
    Figure("viewers.playing", "%", "viewers that show new pictures of every host at the end of the phase", "more"),
    Figure("publishers.live", "%", "hosts whose pictures reach a viewer at the end of the phase", "more"),
    Figure("rejoins", "", "times that a viewer or host had to join again"),
    Figure("api.errors", "%", "asked of the API and answered by 5xx or not at all"),
    Figure(
        "detect.max", "ms", "from the fault to the first sign that the cluster noticed, of the slowest link or node"
    ),
    Figure("trip.max", "ms", "from the fault until media was on the backup path, of the slowest link"),
    Figure("return.max", "ms", "from the end of the fault until media was on the primary path again"),
    Figure("heal.max", "ms", "from the fault to the end of the last freeze that it caused"),
    Figure("switches.per_minute", "/min", "moves of media between paths, of the link with the most"),
    Figure("breaker.false_trips", "", "trips of a breaker while no fault was applied"),
    Figure("breaker.disagreements", "", "moves of breakers that the oracle would have made otherwise"),
    Figure("owners.violations", "", "times that the lease history shows two origins of one publication"),
    Figure(
        "packets.unaccounted", "", "packets that entered and are neither delivered, dropped with a reason nor queued"
    ),
    Figure("refused.p99", "ms", "how long a newcomer waited for a refusal, or to be sent to another relay: p99"),
    Figure("refusals", "", "newcomers that were refused, or sent to another relay", "more"),
    Figure("buffers.free.min", "%", "packet buffers that were free on the relay with the least"),
    Figure("audio.concealed.max", "ms", "sound that a viewer's libwebrtc made up, of the viewer with the most"),
    Figure("mixers.replaced", "", "times that a room was told that its program's sound goes on with another process"),
    Figure(
        "compositors.replaced", "", "times that a room was told that its program's picture goes on with another one"
    ),
    Figure(
        "programs.degraded", "", "times that a room was told that its program is made with fewer or smaller pictures"
    ),
    Figure(
        "pk.apart.max", "ms", "longest time in which one viewer of the two rooms was shown both stages, another not"
    ),
    Figure("pk.shown", "%", "looks at viewers' sessions in which both stages were shown", "more"),
    Figure("pk.seen", "%", "viewers with new pictures of each host of the other room at the end of the phase", "more"),
    Figure("pk.unequal", "", "events of PKs that only one of the two rooms was told, or with other words"),
    Figure("pk.ended", "", "PKs that ended", "more"),
]
FIGURES: dict[str, Figure] = {figure.name: figure for figure in _ALL}
