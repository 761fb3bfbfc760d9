"""The load of a drill: hosts and viewers in their rooms, each group in a process of its own on a host of its own."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from drills.cluster import Cluster
from drills.fabric import FabricError
from drills.processes import Process
from drills.record import Tail
from drills.scenario.model import ChromiumPart, LoadPart, ViewersPart

NEAR = "near"
NEWCOMERS = "newcomers"
_STALL_S = 1.0
_SILENCE_S = 0.5


@dataclass(slots=True)
class Watching:
    """When each picture was last seen: (viewer, publisher) → time; and which ones are expected."""

    expected: set[tuple[str, int]] = field(default_factory=set)
    newest: dict[tuple[str, int], float] = field(default_factory=dict)

    def missing(self, since: float) -> set[tuple[str, int]]:
        """Who does not see what, as of `since`."""
        return {pair for pair in self.expected if self.newest.get(pair, 0.0) < since}


class Load:
    """Publishers and viewers of all rooms."""

    def __init__(self, cluster: Cluster, wanted: LoadPart, seed: int, chromium: str | None = None) -> None:
        """`chromium` is the browser's command; without it nobody watches in one."""
        self._cluster, self._wanted, self._chromium = cluster, wanted, chromium
        self._dice = random.Random(f"{seed}/load")
        self._tails: dict[str, Tail] = {}
        self._lines: list[dict[str, Any]] = []
        self._processes: list[tuple[str, Process]] = []
        self.rooms = [f"drill-{number}" for number in range(1, wanted.rooms + 1)]
        self.watching = Watching()
        self.near: set[str] = set()
        """Viewers at the hosts' relay."""
        self.publishers: dict[int, str] = {}
        """By the number in their picture."""
        self.room_of: dict[str, str] = {}
        """By viewer."""
        self.sessions: dict[str, str] = {}
        """The session that counts now, by viewer."""

    def start_hosts(self) -> None:
        """Make the rooms and start whoever publishes."""
        hosts = self._wanted.hosts
        for index, room in enumerate(self.rooms):
            self._cluster.make_room(room, max_seats=hosts.count + hosts.voices, traffic=self._wanted.traffic)
            for number in range(hosts.count):
                name = f"host-{index + 1}-{number + 1}"
                picture = index * hosts.count + number + 1
                self.publishers[picture] = name
                width, height = hosts.size
                self._publish(
                    room, name, index * hosts.count + number, publisher=picture, tone=220.0 + 70 * number,
                    width=width, height=height, fps=hosts.fps, codec=hosts.codec, simulcast=hosts.layers == 3,
                )  # fmt: skip
            for number in range(hosts.voices):
                self._publish(room, f"voice-{index + 1}-{number + 1}", number, video=False, tone=100.0 + 10 * number)
            if self._wanted.program:
                self._cluster.ask("PUT", f"/v1/rooms/{room}/program", self._program(f"host-{index + 1}-1"))

    def start_viewers(self) -> None:
        """Start whoever watches: one process for each room and member."""
        hosts, viewers = self._wanted.hosts, self._wanted.viewers
        for index, room in enumerate(self.rooms):
            pictures = range(index * hosts.count + 1, (index + 1) * hosts.count + 1)
            for member, count in _groups(viewers, index).items():
                name = f"viewer-{index + 1}-{member}"
                self._watch(room, name, member, count, pictures, rejoin=viewers.rejoin, play=viewers.play)
            if self._chromium:
                for member, count in _groups(self._wanted.chromium, index).items():
                    self._browse(room, f"chromium-{index + 1}-{member}", member, count, pictures)
            if self._wanted.near:
                member = hosts.at[index * hosts.count % len(hosts.at)]
                self._watch(room, f"{NEAR}-{index + 1}", member, self._wanted.near, pictures, rejoin=True)

    def start_newcomers(self) -> None:
        """People at the door of the first room, if the scenario wants any: at the viewers' member."""
        if not self._wanted.newcomers:
            return
        host, via = self._cluster.add_client(NEWCOMERS), self._wanted.newcomers_at
        rate = self._wanted.newcomers
        self._started(NEWCOMERS, self._cluster.knock(self.rooms[0], NEWCOMERS, host=host, via=via, rate=rate))

    def read(self) -> list[dict[str, Any]]:
        """New lines of everybody."""
        found = [line for tail in self._tails.values() for line in tail.read()]
        for line in found:
            if line["event"] == "frame" and line["publisher"] is not None:
                self.watching.newest[line["viewer"], line["publisher"]] = line["at"]
            elif line["event"] in ("joined", "moved") and line["viewer"] in self.room_of:
                self.sessions[line["viewer"]] = line["session"]
        self._lines += found
        return found

    def lines(self) -> list[dict[str, Any]]:
        """Everything that was read so far, in the order of time."""
        return sorted(self._lines, key=lambda line: line["at"])

    def wait_until_all_play(self, seconds: float, since: float | None = None) -> None:
        """Raises FabricError, naming who does not see whom, when that takes longer."""
        since = time.monotonic() if since is None else since
        deadline = time.monotonic() + seconds
        while True:
            self.read()
            missing = self.watching.missing(since)
            if not missing:
                return
            self._require_processes()
            if time.monotonic() > deadline:
                named = ", ".join(
                    f"{viewer} sees no {self.publishers[number]}" for viewer, number in sorted(missing)[:6]
                )
                raise FabricError(f"not everybody plays within {seconds:g} s: {named}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End everybody, viewers first; they leave as clients do."""
        for _, process in reversed(self._processes):
            process.stop(4.0)
        self.read()

    def _publish(self, room: str, name: str, number: int, **show: Any) -> None:
        member = self._wanted.hosts.at[number % len(self._wanted.hosts.at)]
        host = self._cluster.add_client(name)
        process = self._cluster.publish(room, name, host=host, via=self._via(member), silence_s=_SILENCE_S, **show)
        self._started(name, process)

    def _program(self, first: str) -> dict[str, Any]:
        """A program of the first host's picture. Unless another size is wanted, it is all of it pixel by pixel, so that
        his mark can be read in it."""
        wanted, hosts = self._wanted, self._wanted.hosts
        width, height = wanted.program_size or hosts.size
        place = {"identity": first, "x": 0, "y": 0, "width": 1, "height": 1}
        return {
            "width": width, "height": height, "fps": wanted.program_fps or hosts.fps,
            "codec": "vp8" if hosts.codec == "VP8" else "h264",
            "layout": {"kind": "custom", "rectangles": [place]}, "names": False,
        }  # fmt: skip

    def _watch(
        self,
        room: str,
        name: str,
        member: str,
        count: int,
        pictures: range,
        *,
        rejoin: bool,
        play: Literal["stage", "program"] = "stage",
    ) -> None:
        host = self._cluster.add_client(name)
        pictures, slots = self._shown(pictures, play)
        wait = 1 / self._wanted.viewers.join_rate + self._dice.uniform(0.0, self._wanted.viewers.jitter)
        process = self._cluster.watch(
            room, name, host=host, via=self._via(member), count=count, videos=slots, audios=1, every_s=wait, play=play,
            stall_s=_STALL_S if rejoin else 0.0, silence_s=_SILENCE_S if rejoin else 0.0,
        )  # fmt: skip
        names = self._expect(room, name, count, pictures)
        if name.startswith(NEAR):
            self.near |= set(names)
        self._started(name, process)

    def _browse(self, room: str, name: str, member: str, count: int, pictures: range) -> None:
        """The same in one browser with `count` pages."""
        host, play = self._cluster.add_client(name), self._wanted.viewers.play
        pictures, slots = self._shown(pictures, play)
        process = self._cluster.browse(
            room, name, host=host, via=self._via(member), count=count, slots=slots, play=play, executable=self._chromium
        )
        self._expect(room, name, count, pictures)
        self._started(name, process)

    def _shown(self, pictures: range, play: str) -> tuple[range, int]:
        """Which hosts a viewer is to see, and in how many slots."""
        pictures = pictures[:1] if play == "program" else pictures
        return pictures, len(pictures) * (2 if self._wanted.pk else 1)

    def _expect(self, room: str, name: str, count: int, pictures: range) -> list[str]:
        """Remember who is to see what; returns the viewers' names."""
        names = [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]
        self.watching.expected |= {(viewer, picture) for viewer in names for picture in pictures}
        self.room_of |= dict.fromkeys(names, room)
        return names

    def _started(self, name: str, process: Process) -> None:
        self._processes.append((name, process))
        self._tails[name] = Tail(self._cluster.directory / f"{name}.jsonl")

    def _via(self, member: str) -> list[str]:
        """The member named, then every signaling service, then the other relays: as clients know them."""
        others = [each.name for each in (*self._cluster.signaling, *self._cluster.relays)]
        return list(dict.fromkeys([member, *others]))

    def _require_processes(self) -> None:
        for name, process in self._processes:
            if not process.is_running:
                raise FabricError(f"{name} has ended ({process.code}):\n{process.tail()}")


def _groups(wanted: ViewersPart | ChromiumPart, room: int) -> Mapping[str, int]:
    """How many of them come to which member in the room with this number; members are taken in turn."""
    members = (wanted.at[(room * wanted.count + number) % len(wanted.at)] for number in range(wanted.count))
    return Counter(members)
