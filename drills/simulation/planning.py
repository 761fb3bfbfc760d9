"""What the control of a cluster costs: messages and store calls per second, against nodes and rooms.

In calm every term follows from the settings: who asks what, how often. `tests/drills/simulation/test_planning.py` holds
the terms of the store to what a simulated cluster of the same size really calls. Media is not in it, nor what clients
ask of the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import log
from pathlib import Path

from relay.cluster.follow import BLOCK_MS
from relay.cluster.lease_keeper import RENEWALS
from relay.node.presence import INTERVAL_S
from relay.settings import ClusterSettings, LinkSettings

SIZES = (100, 200, 500, 1000, 2000, 5000)
ROOMS_PER_NODE = (1, 10)
SERVER_LIMIT = 100_000
"""Calls per second that one Redis thread takes, by its makers' benchmark on a usual machine; scripts cost more."""
RECORD_BYTES = 1_000
"""Of a node's record; most of one is its certificate."""
_SCRIPTS_OF_A_CHANGE = 2  # read, then write under compare-and-set
_READS_OF_A_CHANGE = 2  # of each node that follows: the stream wakes it, it reads the document
_METADATA_OF_A_LINK = 2  # connections that keep themselves alive: metadata, and the path that carries nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster in calm, or with people coming. `spread` is the number of nodes that host each room."""

    nodes: int
    rooms: int
    hosts: int = 2
    viewers: int = 20
    """Per room; their presence is renewed."""
    spread: int = 4
    changes_per_s: float = 0.02
    """Per room: someone comes to the stage or goes, mutes, is invited."""
    turnover_per_s: float = 0.0
    """Per node: sessions that come or go, each of which changes the node's record at its next heartbeat."""


def store_calls(of: Cluster) -> dict[str, float]:
    """Calls of the store per second, by what they are for."""
    settings = ClusterSettings()
    hosting = of.rooms * min(of.spread, of.nodes)
    origins = of.rooms * min(of.hosts, of.nodes)
    look_s = settings.heartbeat_s / 2
    return {
        "heartbeats": of.nodes / settings.heartbeat_s,
        "looks at the directory": 2 * of.nodes / look_s,  # each waits on the list's stream, and then reads
        "renewals of leases": origins * RENEWALS / settings.lease_ttl_s,
        "changes of rooms": of.rooms * of.changes_per_s * _SCRIPTS_OF_A_CHANGE,
        "news of rooms": hosting * (of.changes_per_s * _READS_OF_A_CHANGE + 2 / (BLOCK_MS / 1000)),
        "presence of viewers": of.rooms * of.viewers / INTERVAL_S,
    }


def records_read(of: Cluster) -> float:
    """Records of nodes that all nodes read per second: each that changes is read by each."""
    return of.nodes * of.nodes * min(of.turnover_per_s, 1 / ClusterSettings().heartbeat_s)


def link_messages(of: Cluster) -> dict[str, float]:
    """Messages between nodes per second: what keeps links alive, and what tells of changes."""
    others = max(0, min(of.spread, of.nodes) - 1)
    pairs = min(of.nodes * (of.nodes - 1), of.rooms * min(of.hosts, of.nodes) * others)
    alive = pairs * _METADATA_OF_A_LINK * 2 * 1000 / LinkSettings().keepalive_ms
    return {
        "links alive": alive,
        "events and catalogs": of.rooms * of.changes_per_s * others * 2,
    }


def messages(of: Cluster) -> float:
    """All control messages per second; a call of the store is two."""
    return 2 * sum(store_calls(of).values()) + sum(link_messages(of).values())


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    cluster: Cluster
    store: float
    links: float
    messages: float


def rows(sizes: Sequence[int] = SIZES, per_node: Sequence[int] = ROOMS_PER_NODE) -> list[Row]:
    """The table: calm, for each size and number of rooms."""
    found = []
    for each in per_node:
        for nodes in sizes:
            cluster = Cluster(nodes=nodes, rooms=nodes * each)
            found.append(Row(cluster, sum(store_calls(cluster).values()), sum(link_messages(cluster).values()),
                             messages(cluster)))  # fmt: skip
    return found


def write(directory: Path) -> list[Path]:
    """Write planning.md and planning.svg; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    page, curve = directory / "planning.md", directory / "planning.svg"
    page.write_text(markdown(), encoding="utf-8")
    curve.write_text(svg(rows()), encoding="utf-8")
    return [page, curve]


def markdown() -> str:
    """The page, with what the terms are."""
    usual, settings = Cluster(nodes=1000, rooms=1000), ClusterSettings()
    lines = [_HEAD.format(of=usual, every=1 / usual.changes_per_s, settings=settings)]
    lines += [
        f"| {row.cluster.nodes:,} | {row.cluster.rooms:,} | {row.store:,.0f} | {row.links:,.0f} | {row.messages:,.0f} |"
        for row in rows()
    ]
    lines.append(_SHARES)
    samples = [store_calls(Cluster(nodes=nodes, rooms=rooms)) for nodes, rooms in SAMPLES]
    lines += [f"| {name} | {' | '.join(f'{sample[name]:,.0f}' for sample in samples)} |" for name in samples[0]]
    lines.append(_LIMITS.format(limit=SERVER_LIMIT, size=RECORD_BYTES))
    for nodes in SIZES:
        read = records_read(Cluster(nodes=nodes, rooms=0, turnover_per_s=1.0))
        lines.append(f"| {nodes:,} | {read:,.0f} | {read * RECORD_BYTES * 8 / 1e6:,.0f} |")
    lines.append(_LINKS)
    return "\n".join(lines)


SAMPLES = ((100, 100), (1000, 1000), (5000, 50_000))
_HEAD = """# What control costs

Written by `costream planning`; the terms are in `drills/simulation/planning.py`, and a test holds those of the
store to what a simulated cluster calls. Per second, in calm, with {of.hosts} hosts and {of.viewers} viewers a room
on {of.spread} nodes, a change of each room's document every {every:g} s, a heartbeat every {settings.heartbeat_s:g} s
and leases of {settings.lease_ttl_s:g} s. Media is not in it, nor are the clients' own requests.

![curve](planning.svg)

| nodes | rooms | store calls | messages between nodes | control messages in all |
| --: | --: | --: | --: | --: |"""
_SHARES = """
Where the store's calls come from:

| what | 100 nodes, 100 rooms | 1,000 and 1,000 | 5,000 and 50,000 |
| --- | --: | --: | --: |"""
_LIMITS = """
One server takes some {limit:,} calls per second at the most. A room's keys share a slot, so rooms, leases and presence
spread over a Redis Cluster; the directory is one slot. Two things grow faster than the cluster:

- **A record that changes is read by every node.** It has the number of sessions, so where people come and go it
  changes with each heartbeat. With one session a second that comes or goes on each node, of some {size:,} bytes each:

| nodes | records read per second | Mbit/s out of the store |
| --: | --: | --: |"""
_LINKS = """
  From some 300 nodes on, the directory has to be split by region, or figures have to change it in steps only.
- **Links.** Each pair of nodes that share a room with a host on one of them keeps a link alive. Placement that keeps
  a room on few nodes keeps their number down.
"""


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 400, 80, 50, 20, 190
_COLOURS = ("#0b6e99", "#d9730d", "#0f7b6c", "#ad1a72")


def svg(table: Sequence[Row]) -> str:
    """Store calls and control messages against nodes; both axes logarithmic."""
    lines = []
    for each in dict.fromkeys(row.cluster.rooms // row.cluster.nodes for row in table):
        part = [row for row in table if row.cluster.rooms // row.cluster.nodes == each]
        rooms = f"{each} room{'s' if each > 1 else ''} a node"
        lines.append((f"store calls, {rooms}", [(row.cluster.nodes, row.store) for row in part]))
        lines.append((f"all messages, {rooms}", [(row.cluster.nodes, row.messages) for row in part]))
    points = [point for _, line in lines for point in line]
    across = _Scale(min(x for x, _ in points), max(x for x, _ in points), _LEFT, _WIDTH - _RIGHT)
    up = _Scale(min(y for _, y in points), max(y for _, y in points), _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    parts += [
        f'<text x="{across(at):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{at:,.0f}</text>'
        for at in across.ticks(dict.fromkeys(x for x, _ in points))
    ]
    for at in up.ticks(10.0**power for power in range(12)):
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(at):.1f}" y2="{up(at):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{up(at) + 4:.1f}" text-anchor="end">{at:,.0f}</text>')
    for number, (name, line) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{up(line[-1][1]) + 4:.1f}" fill="{colour}">{escape(name)}</text>'
        )
    middle, side = (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">nodes</text>')
    parts.append(f'<text x="14" y="{side}" transform="rotate(-90 14 {side})" text-anchor="middle">per second</text>')
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """A logarithmic axis."""

    def __init__(self, least: float, most: float, begin: float, end: float) -> None:
        self._least, self._most, self._begin, self._end = least, most, begin, end

    def __call__(self, value: float) -> float:
        share = log(value / self._least) / max(1e-9, log(self._most / self._least))
        return self._begin + share * (self._end - self._begin)

    def ticks(self, values: Iterable[float]) -> list[float]:
        """Those of the values that lie on the axis."""
        return [value for value in values if self._least <= value <= self._most]
