"""What a relay's `/metrics` say that a drill looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_PLAIN = {
    "costream_datagrams_in_total": "datagrams_in",
    "costream_datagrams_out_total": "datagrams_out",
    "costream_received_bytes_total": "bytes_in",
    "costream_sent_bytes_total": "bytes_out",
    "costream_slab_packets": "slab",
    "costream_slab_free_packets": "slab_free",
    "costream_plane_sessions": "sessions",
}


@dataclass(slots=True)
class LinkFigures:
    """One end of a link: `counts` by what, the breaker's state, the paths that carry."""

    role: str
    link: str
    breaker: str = ""
    carrying: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class NodeFigures:
    """A relay's figures. `links` by peer and role."""

    plain: dict[str, float] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)
    links: dict[tuple[str, str], LinkFigures] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """For a line of the record."""
        return {
            **{name: int(value) for name, value in self.plain.items()},
            "dropped": sum(self.drops.values()),
            "links": {f"{peer}/{role}": each.breaker for (peer, role), each in self.links.items() if each.breaker},
        }


def read_metrics(text: str) -> NodeFigures:
    """Read the Prometheus text format. Unknown metrics are left out."""
    found = NodeFigures()
    for name, labels, value in _samples(text):
        if name in _PLAIN:
            found.plain[_PLAIN[name]] = value
        elif name == "costream_datagrams_dropped_total":
            found.drops[labels["reason"]] = int(value)
        elif name.startswith("costream_link_") and "link" in labels:
            key = labels["peer"], labels["role"]
            link = found.links.setdefault(key, LinkFigures(labels["role"], labels["link"]))
            if "state" in labels:
                link.breaker = labels["state"]
            elif "path" in labels:
                link.carrying.append(labels["path"])
            elif "what" in labels:
                link.counts[labels["what"]] = int(value)
    return found


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(text):
        if family.name.startswith("costream_"):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value
