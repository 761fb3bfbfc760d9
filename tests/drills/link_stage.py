"""A cluster with people on it, for drills of its links: hosts on one relay, viewers on two others, and their lines.

Faults hit the primary path from `relay-a` to the two others, which is path 1 of each host; path 2 is the backup.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psutil  # type: ignore[import-untyped]

from drills.cluster import Cluster
from drills.impairment import Impairment
from drills.measure import Seen, Spread, frames, silences, spread, watched, worst
from drills.processes import Process
from tests.drills.fabrics import eventually

ORIGIN, SUBSCRIBERS = "relay-a", ("relay-b", "relay-c")
PRIMARY, BACKUP = 1, 2
ROOM = "show"
HOSTS = {1: "alice", 2: "bob"}  # by the number in their pictures
VOICES = 6  # hosts without a picture: with them a link carries some 450 packets/s
VIEWERS = 3  # per subscriber
FPS = 25
_SETTLE_S = 1.5


@dataclass(frozen=True, slots=True)
class Move:
    """A line of the origin's log: a link's breaker moved. `at` is CLOCK_MONOTONIC in seconds."""

    at: float
    peer: str
    state: str
    reason: str
    carrying: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """What one fault did. Durations in seconds; `counts` are those of the links within it, by peer."""

    name: str
    began: float
    healed: float = 0.0
    ended: float = 0.0
    moves: list[Move] = field(default_factory=list)
    gaps: dict[str, float] = field(default_factory=dict)
    silence: dict[str, float] = field(default_factory=dict)
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    sent: dict[str, dict[str, int]] = field(default_factory=dict)
    got: dict[str, dict[str, int]] = field(default_factory=dict)

    def took(self, state: str, since: float | None = None) -> float | None:
        """How long the slowest link took into a state; None when one never got there."""
        since = self.began if since is None else since
        firsts: dict[str, float] = {}
        for move in self.moves:
            if move.state == state and move.at >= since:
                firsts.setdefault(move.peer, move.at - since)
        return max(firsts.values()) if len(firsts) == len(SUBSCRIBERS) else None

    @property
    def gap(self) -> Spread:
        return spread(self.gaps.values())

    def total(self, what: str, end: str = "got") -> int:
        return sum(counts.get(what, 0) for counts in getattr(self, end).values())


class LinkStage:
    """The cluster, once everybody sees everybody."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.hosts: list[Process] = []
        self.runs: list[Run] = []
        self._read: dict[str, int] = {}
        self._lines: dict[str, list[dict[str, Any]]] = {}
        # the log's times are the wall clock's
        self._wall = time.time() - time.monotonic()

    def open(self) -> None:
        cluster = self.cluster
        cluster.make_room(ROOM, max_seats=len(HOSTS) + VOICES)
        for number, name in HOSTS.items():
            picture = {"publisher": number, "tone": 330.0 * number, "width": 320, "height": 180, "fps": FPS,
                       "silence_s": 0.0}  # fmt: skip
            self.hosts.append(cluster.publish(ROOM, name, host=cluster.add_client(name), via=(ORIGIN,), **picture))
        eventually(lambda: self.published("video") == len(HOSTS), 30)
        choir = cluster.add_client("choir")
        for number in range(1, VOICES + 1):
            voice = {"video": False, "tone": 100.0 * number, "silence_s": 0.0}
            self.hosts.append(cluster.publish(ROOM, f"voice-{number}", host=choir, via=(ORIGIN,), **voice))
        eventually(lambda: self.published("audio") == len(HOSTS) + VOICES, 30)
        for relay in (ORIGIN, *SUBSCRIBERS):
            count = 2 if relay == ORIGIN else VIEWERS
            cluster.watch(
                ROOM, f"at-{relay}", host=cluster.add_client(f"people-{relay}"), via=(relay,), count=count,
                videos=len(HOSTS), audios=1, stall_s=0.0, silence_s=0.0,
            )  # fmt: skip
        for relay in SUBSCRIBERS:
            cluster.watch(
                ROOM, f"ear-{relay}", host=cluster.add_client(f"ear-{relay}"), via=(relay,), videos=0,
                audios=len(HOSTS) + VOICES, stall_s=0.0, silence_s=0.0, listen=False,
            )  # fmt: skip
        since = time.monotonic()
        eventually(lambda: self.all_play(since), 40)

    @property
    def viewers(self) -> set[str]:
        """Those whose pictures cross a link."""
        return {f"at-{relay}-{number}" for relay in SUBSCRIBERS for number in range(1, VIEWERS + 1)}

    def all_play(self, since: float) -> bool:
        """Whether everybody has seen new frames of all hosts."""
        return len(self._fresh(since)) == len(HOSTS) * (len(self.viewers) + 2)

    def published(self, kind: str) -> int:
        with self.cluster.api(ORIGIN) as api:
            found = api.get(f"/v1/rooms/{ROOM}/publications").json()["publications"]
        return sum(each["kind"] == kind and each["state"] == "live" for each in found)

    def _fresh(self, since: float) -> Seen:
        seen = frames(self.lines(ORIGIN, *SUBSCRIBERS))
        return {stream: of for stream, of in seen.items() if of[-1][0] > since and len(of) > FPS}

    def lines(self, *relays: str) -> list[dict[str, Any]]:
        """What the viewers of these relays have written; each file is read once."""
        found: list[dict[str, Any]] = []
        for relay in relays:
            path = self.cluster.directory / f"at-{relay}.jsonl"
            kept = self._lines.setdefault(relay, [])
            if path.exists():
                with path.open("rb") as file:
                    file.seek(self._read.get(relay, 0))
                    data = file.read()
                data = data[: data.rfind(b"\n") + 1]
                self._read[relay] = self._read.get(relay, 0) + len(data)
                kept += [json.loads(line) for line in data.splitlines()]
            found += kept
        return found

    # --- the links ----------------------------------------------------------------------------------------------------

    def links(self, relay: str = ORIGIN) -> dict[str, dict[str, Any]]:
        """The links of a relay by peer, as its metrics tell them: `breaker` and `counts`."""
        with self.cluster.api(relay) as api:
            text = api.get("/metrics").text
        return read_links(text)

    def change(self, link: str, action: str) -> dict[str, Any]:
        """Force a link's media to the backup (`open`) or back (`reset`)."""
        with self.cluster.api(ORIGIN) as api:
            response = api.post(f"/v1/links/{link}/breaker", json={"action": action})
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def ends(self) -> list[dict[str, Any]]:
        """The origin's ends of the links, as the API lists them."""
        with self.cluster.api(ORIGIN) as api:
            response = api.get("/v1/links")
        assert response.status_code == 200, response.text
        return [end for end in response.json()["links"] if end["role"] == "origin"]

    def resident(self) -> int:
        """Bytes of memory that the origin has."""
        process = self.cluster[ORIGIN].process
        assert process is not None
        return int(psutil.Process(process.pid).memory_info().rss)

    def settle(self) -> None:
        """Healthy paths, nothing held against them, and everybody plays."""
        self.cluster.fabric.heal()
        time.sleep(0.5)
        for link in self.links().values():
            self.change(link["link"], "reset")
        since = time.monotonic()
        eventually(lambda: self.all_play(since), 30)

    def missing(self) -> int:
        """Packets that were tapped, are not on the other side, and that nobody has counted as skipped or given up."""
        total = 0
        for relay, link in self.links().items():
            sent, got = link["counts"], self.links(relay)[ORIGIN]["counts"]
            total += max(0, sent["packets"] - got["packets"] - got["lost"] - sent["skipped"])
        return total

    def moves(self, since: float) -> list[Move]:
        found = []
        for line in (self.cluster.directory / f"{ORIGIN}.log").read_text().splitlines():
            if '"link moved"' not in line and '"link is back' not in line:
                continue
            told = json.loads(line)
            at = datetime.fromisoformat(told["timestamp"]).timestamp() - self._wall
            if at >= since:
                found.append(Move(at, told["peer"], told["state"], told["reason"], tuple(told["carrying"])))
        return found

    def impair(self, impairment: Impairment, *, path: int = PRIMARY, forth: bool = True, back: bool = True) -> None:
        """Make a path from the origin to both subscribers bad: `forth` where media goes, `back` for what answers."""
        fabric = self.cluster.fabric
        for relay in SUBSCRIBERS:
            if forth:
                fabric.impair(f"{ORIGIN}/{path}", f"{relay}/{path}", impairment)
            if back:
                fabric.impair(f"{relay}/{path}", f"{ORIGIN}/{path}", impairment)

    def heal(self, run: Run) -> None:
        self.cluster.fabric.heal()
        run.healed = time.monotonic()

    def until_moved(self, run: Run, state: str, seconds: float, since: float | None = None) -> float | None:
        """Wait until both links were in a state. How long it took; None when it did not come about."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run.moves = self.moves(run.began)
            if (took := run.took(state, since)) is not None:
                return took
            time.sleep(0.05)
        return None

    @contextmanager
    def run(self, name: str) -> Iterator[Run]:
        """One fault: what is done within is measured, from its beginning to `_SETTLE_S` after its end."""
        sent, got = self.links(), {relay: self.links(relay)[ORIGIN] for relay in SUBSCRIBERS}
        run = Run(name, time.monotonic())
        yield run
        time.sleep(_SETTLE_S)
        run.ended = time.monotonic()
        run.moves = self.moves(run.began)
        for relay, before in got.items():
            run.got[relay] = difference(before["counts"], self.links(relay)[ORIGIN]["counts"])
            run.sent[relay] = difference(sent[relay]["counts"], self.links()[relay]["counts"])
        reference = frames(self.lines(ORIGIN))
        lines = self.lines(*SUBSCRIBERS)
        judged = watched(frames(lines), run.began, run.ended, reference)
        run.gaps = worst(judged)
        run.silence = silences(lines, run.began, run.ended)
        run.lost = sum(len(each.lost) for each in judged.values())
        run.repeated = sum(each.repeated for each in judged.values())
        run.reordered = sum(each.reordered for each in judged.values())
        self.runs.append(run)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {key: value - before.get(key, 0) for key, value in after.items()}


def read_links(metrics: str) -> dict[str, dict[str, Any]]:
    """The links in a relay's metrics, by peer."""
    found: dict[str, dict[str, Any]] = {}
    for line in metrics.splitlines():
        name, _, rest = line.partition("{")
        if not name.startswith("costream_link_") or not rest or "_created" in name:
            continue
        inside, _, value = rest.rpartition("} ")
        labels = dict(pair.split("=", 1) for pair in inside.replace('"', "").split(","))
        if "peer" not in labels or "link" not in labels:
            continue
        link = found.setdefault(labels["peer"], {"link": labels["link"], "counts": {}, "carrying": []})
        if "state" in labels:
            link["breaker"] = labels["state"]
        elif "path" in labels:
            link["carrying"].append(labels["path"])
        elif "what" in labels:
            link["counts"][labels["what"]] = int(float(value))
    return found


def report(runs: Sequence[Run]) -> str:
    """A table of what the faults did; times in ms. From the doubt on both paths carry. `lost` packets were given up by
    a link, or the origin never had them."""
    head = ("fault", "doubt", "trip", "heal", "gap p50", "p99", "max", "silence", "frames lost/rep/reord", "packets",
            "lost", "dup", "resent", "repaired")  # fmt: skip
    rows = [head]
    for run in runs:
        gap = run.gap
        doubt, trip = run.took("suspect"), run.took("open")
        heal = run.took("closed", run.healed) if run.healed else None
        rows.append(
            (run.name, ms(doubt), ms(trip), ms(heal), ms(gap.p50), ms(gap.p99), ms(gap.most),
             ms(max(run.silence.values(), default=0.0)),
             f"{run.lost}/{run.repeated}/{run.reordered}", str(run.total("packets", "sent")),
             str(run.total("lost") + run.total("absent")), str(run.total("duplicates")),
             str(run.total("resent", "sent") + run.total("repeated", "sent")), str(run.total("repaired")))
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
