"""A link's two machines joined by two model paths, with a publisher on one side: all in virtual time, seeded."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass, field

from drills.simulation.carrying_path import CarryingPath
from drills.simulation.model_path import MS, Direction
from drills.simulation.publisher import VP8_DELTA, VP8_KEY
from relay.ids import HybridClock
from relay.link import roq
from relay.link.breaker import Breaker, BreakerMoved
from relay.link.history import Entry, FlowSpec
from relay.link.marking import Marker
from relay.link.path import PathName
from relay.link.paths import PATHS
from relay.link.receiver import LinkReceiver
from relay.link.sender import LinkSender
from relay.link.sender_events import SenderEvent
from relay.plane.contract import Kind
from relay.plane.reference import rtp
from relay.plane.reference.descriptors import Codec
from relay.settings import BreakerSettings, LinkFlowSettings

VIDEO, AUDIO = 4, 8
FRAME = 33 * MS
REPORT = 10 * MS
WALL_MS = 1_763_697_600_000


@dataclass
class Publisher:
    """Frames of one flow: what was published, by sequence number."""

    flow: int
    marker: Marker
    dice: random.Random
    seq: int
    packets_per_frame: int = 4
    frames: int = 0
    published: list[int] = field(default_factory=list)

    def frame(self) -> list[bytes]:
        """Make the next frame's packets."""
        out = []
        for index in range(self.packets_per_frame):
            start = VP8_KEY if self.frames % 60 == 0 else VP8_DELTA
            payload = (start if index == 0 else b"\x80\x80\x01") + self.dice.randbytes(self.dice.randrange(20, 200))
            last = index == self.packets_per_frame - 1
            out.append(rtp.build_header(96, last, self.seq & 0xFFFF, self.frames * 3000, 77) + payload)
            self.published.append(self.seq & 0xFFFF)
            self.seq += 1
        self.frames += 1
        return out


class Link:
    """Drive it with `run`. `got` counts handed-on sequence numbers by flow; `at` says when each came first."""

    def __init__(
        self,
        paths: dict[PathName, CarryingPath],
        *,
        seed: int = 0,
        settings: LinkFlowSettings | None = None,
        breaker: BreakerSettings | None = None,
        packets_per_frame: int = 4,
    ) -> None:
        self.dice = random.Random(seed)
        self.settings = settings or LinkFlowSettings()
        self.paths = paths
        self.breaker = Breaker(breaker) if breaker else None
        self.sender = LinkSender(self.settings, self.breaker.take_probe if self.breaker else lambda: False)
        self.receiver = LinkReceiver(self.settings)
        self.now = 0
        self.moves: list[BreakerMoved] = []
        self.events: list[SenderEvent] = []
        self.got: dict[int, Counter[int]] = {}
        self.order: list[tuple[int, int, int]] = []
        self.sync_ids: dict[tuple[int, int], int] = {}
        self.room: dict[PathName, int] = dict.fromkeys(PATHS, 1000)
        self.publishers: list[Publisher] = []
        self._upstream: list[tuple[int, bytes]] = []
        self._next_frame = 0
        self.publishing = True
        self._clock = HybridClock()
        for name in PATHS:
            self.sender.path_opened(name, 0)
            for at in range(3):
                paths[name].carry(at, b"", None)
        self.add_flow(VIDEO, packets_per_frame)

    def add_flow(self, number: int, packets_per_frame: int = 1, kind: Kind = Kind.VIDEO) -> None:
        self.sender.open_flow(number, FlowSpec(kind, {96: Codec.VP8}))
        self.receiver.open_flow(number, 90_000)
        self.got[number] = Counter()
        first = self.dice.choice((0, 65_500, 1234))
        marker = Marker(self._clock, 90_000)
        self.publishers.append(Publisher(number, marker, self.dice, first, packets_per_frame))

    def run(self, until: int) -> None:
        """Let time pass, a millisecond at a time."""
        while self.now < until:
            self.now += MS
            now = self.now
            if self.publishing and now >= self._next_frame:
                self._next_frame = now + FRAME
                for publisher in self.publishers:
                    for packet in publisher.frame():
                        self.publish(publisher, packet)
            self._upstream_arrives(now)
            for name in PATHS:
                self._settle(name, now)
            if self.breaker is not None and now % REPORT == 0:
                self._judge(self.breaker, now)
            for path, data in self._feedback(now):
                arrival = self.paths[path].back.arrival(now)
                if arrival is not None:
                    self._upstream.append((arrival, data))

    def publish(self, publisher: Publisher, packet: bytes) -> None:
        marked = publisher.marker.mark(packet, WALL_MS * MS + self.now)
        assert marked is not None
        self.sync_ids.setdefault((publisher.flow, marked.timestamp), marked.sync_id)
        self.sender.push(publisher.flow, marked, roq.frame(publisher.flow, marked.data), self.now)

    def _settle(self, name: PathName, now: int) -> None:
        path = self.paths[name]
        path.run(now)
        acked, path.tokens_acked = path.tokens_acked, []
        lost, path.tokens_lost = path.tokens_lost, []
        self.sender.acked(name, acked)
        self.sender.lost(name, lost, now)
        self.sender.handle_timeout(now)
        for data, token in self.sender.transmit(name, self.room[name], now):
            assert token is None or isinstance(token, Entry)
            path.carry(now, data, token)
        self.events += self.sender.events()
        arrived, path.arrived = path.arrived, []
        for data in arrived:
            self.receiver.receive(name, data, now)
        for arrival in self.receiver.arrived():
            parsed = rtp.parse(arrival.packet, now)
            assert parsed is not None
            self.got[arrival.flow][parsed.seq] += 1
            self.order.append((now, arrival.flow, parsed.seq))
            if arrival.sync_id is not None:
                assert self.sync_ids[arrival.flow, parsed.timestamp] == arrival.sync_id
                assert self.receiver.sync_id_of(arrival.flow, parsed.timestamp) == arrival.sync_id

    def _judge(self, breaker: Breaker, now: int) -> None:
        for name in PATHS:
            if now % (500 * MS) == 0:
                self.paths[name].send(now)
            report = self.paths[name].report(now)
            if report.rtt_us:
                self.sender.note_rtt(name, report.rtt_us[-1])
                self.receiver.note_rtt(name, report.rtt_us[-1])
            breaker.report(name, report)
        breaker.handle_timeout(now)
        self.moves += breaker.events()
        self.sender.steer(breaker.carrying, now)

    def _feedback(self, now: int) -> list[tuple[PathName, bytes]]:
        self.receiver.both_carry = len(self.sender.carrying) > 1
        self.receiver.handle_timeout(now)
        return self.receiver.transmit()

    def _upstream_arrives(self, now: int) -> None:
        due = [data for at, data in self._upstream if at <= now]
        self._upstream = [(at, data) for at, data in self._upstream if at > now]
        for data in due:
            number, packet = roq.parse(data)
            self.sender.feedback(number, packet, now)

    def duplicates(self) -> int:
        return sum(count - 1 for got in self.got.values() for count in got.values())

    def lost(self) -> int:
        return sum(len(set(p.published) - set(self.got[p.flow])) for p in self.publishers)

    def longest_gap(self) -> int:
        times = [at for at, _, _ in self.order]
        return max((b - a for a, b in itertools.pairwise(times)), default=0)


def good(delay_ms: float = 5, jitter_ms: float = 0, seed: int = 0, loss: float = 0.0) -> Direction:
    """One way that delays and now and then loses."""
    dice = random.Random(seed)
    return Direction(delay=lambda: int((delay_ms + dice.random() * jitter_ms) * MS), lost=lambda: dice.random() < loss)
