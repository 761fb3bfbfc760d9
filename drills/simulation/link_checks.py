"""What must hold of a link's sender and receiver at every step. Each raises `Violation` with the name of its rule.

    once         no packet is handed on twice
    same         … and each is handed on as it was published, in its flow, with its frame's sync id
    at-once      a packet is handed on when its first copy arrives, before what arrives later. That is the order that a
                 link promises: it holds nothing back
    conserved    every packet is handed on, or counted with a reason by who dropped it, or still on its way. The
                 receiver counts what it misses exactly; the sender drops nothing that QUIC acknowledged
    bounded      a packet is asked for `nack_tries` times at most, and what is repeated keeps within the budget
    stuck        when both paths have been whole for SETTLED_US, nothing older waits, is in flight or is missing, and
                 what was published since then was all handed on

`LinkChecks` looks into both machines: what they count is held to what was seen of each packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from drills.simulation.model_path import SECOND
from drills.simulation.publisher import serial_of
from drills.simulation.trace import Violation
from relay.link import flows, roq, varint
from relay.link.history import Entry
from relay.link.marking import Marked
from relay.link.path import PathName
from relay.link.receiver import Arrival, LinkReceiver
from relay.link.sender import LinkSender
from relay.plane.reference import rtcp
from relay.settings import LinkFlowSettings

SETTLED_US = 6 * SECOND
"""Longer than the breaker needs to believe a path again and than history and requests last (4 s)."""
FRESH_US = 1 * SECOND
"""How long a packet may be on its way while both paths are whole."""


Gaps = dict[tuple[int, int], tuple[int, frozenset[int]]]
"""By flow and SSRC: the newest packet's place, and those that the receiver waits for."""


@dataclass(slots=True)
class Published:
    """A packet that is not settled yet. `place` is its number in its stream, unwrapped."""

    flow: int
    place: int
    marked: Marked
    at: int
    entry: Entry | None = None


@dataclass(slots=True)
class _Seen:
    """A stream at the receiver: places of its first and its newest packet, and how many came in between."""

    first: int
    newest: int
    came: int = 1


@dataclass(slots=True)
class LinkTally:
    """What a link's run came to."""

    published: int = 0
    handed_on: int = 0
    dropped: int = 0
    """Counted with a reason."""


@dataclass(slots=True)
class _Asked:
    at: int
    times: int = 0


@dataclass
class LinkChecks:
    """Tell it what happens; it calls the receiver."""

    settings: LinkFlowSettings
    sender: LinkSender
    receiver: LinkReceiver
    media_at: int = 0
    """When a packet was last handed on."""
    tally: LinkTally = field(default_factory=LinkTally)
    _open: dict[int, Published] = field(default_factory=dict)
    _handed: set[int] = field(default_factory=set)
    _stale: set[int] = field(default_factory=set)
    _places: Counter[tuple[int, int]] = field(default_factory=Counter)
    _seen: dict[tuple[int, int], _Seen] = field(default_factory=dict)
    _came_after: Counter[int] = field(default_factory=Counter)
    """By flow: packets that came although they had been given up."""
    _asked: dict[tuple[int, int, int], _Asked] = field(default_factory=dict)
    _missed: int = 0
    _budget: tuple[int, int] = (0, 0)

    # --- what happens -------------------------------------------------------------------------------------------------

    def publish(self, flow: int, serial: int, marked: Marked, now: int) -> None:
        """A packet is about to be pushed."""
        key = (flow, marked.ssrc)
        self._open[serial] = Published(flow, self._places[key], marked, now)
        self._places[key] += 1
        self.tally.published += 1

    def pushed(self, flow: int, serial: int) -> None:
        """It was pushed."""
        published = self._open[serial]
        published.entry = self.sender._flows[flow].by_seq.get(published.marked.seq)

    def receive(self, path: PathName, datagram: bytes, now: int) -> None:
        """A datagram arrives at the receiver."""
        number, _ = varint.decode(datagram)
        media, what = flows.split(number)
        gaps = self._gaps(media)
        stale = self.receiver.counts(media).stale
        self.receiver.receive(path, datagram, now)
        arrived = self.receiver.arrived()
        if what == flows.MEDIA:
            serial = serial_of(datagram)
            if serial not in self._handed:
                if self.receiver.counts(media).stale > stale:
                    self._stale.add(serial)
                elif not arrived or serial_of(arrived[0].packet) != serial:
                    self._fail("at-once", now, f"packet {serial} of flow {media} arrived and was not handed on")
        for each in arrived:
            self._handed_on(each, gaps, now)

    def _gaps(self, flow: int) -> Gaps:
        found = {}
        for ssrc, stream in self.receiver._flows[flow].streams.items():
            newest = self._seen[flow, ssrc].newest
            beyond = stream.highest - newest
            found[flow, ssrc] = newest, frozenset(number - beyond for number in stream.gaps._missing)
        return found

    def _handed_on(self, arrival: Arrival, gaps: Gaps, now: int) -> None:
        serial = serial_of(arrival.packet)
        if serial in self._handed:
            self._fail("once", now, f"packet {serial} of flow {arrival.flow} was handed on again")
        self._handed.add(serial)
        self.tally.handed_on += 1
        self.media_at = now
        published = self._open.get(serial)
        if published is None or published.flow != arrival.flow or published.marked.data != arrival.packet:
            self._fail("same", now, f"packet {serial} of flow {arrival.flow} is not as it was published")
        marked = published.marked
        if arrival.sync_id not in (None, marked.sync_id):
            self._fail("same", now, f"packet {serial} of flow {arrival.flow} has another frame's sync id")
        key = (arrival.flow, marked.ssrc)
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(published.place, published.place)
        elif published.place > seen.newest:
            seen.newest, seen.came = published.place, seen.came + 1
        elif published.place > seen.first:
            seen.came += 1
            newest, missing = gaps[key]
            self._came_after[arrival.flow] += published.place < newest and published.place not in missing

    def asked(self, requests: Iterable[tuple[PathName, bytes]], now: int) -> None:
        """The receiver asks; one request may go on both paths. Call it after each of its time-outs."""
        for datagram in dict.fromkeys(datagram for _, datagram in requests):
            number, packet = roq.parse(datagram)
            for nack in rtcp.parse(packet).packets:
                assert isinstance(nack, rtcp.Nack)
                for seq in nack.lost:
                    asked = self._asked.setdefault((number, nack.media_ssrc, seq), _Asked(now))
                    asked.times += 1
                    if asked.times > self.settings.nack_tries:
                        self._fail("bounded", now, f"packet {seq} of flow {number} was asked for {asked.times} times")
        self._count_missing(now)
        self._keep_to_budget(now)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _count_missing(self, now: int) -> None:
        for number in self.receiver.flow_numbers:
            counts, streams = self.receiver.counts(number), self.receiver._flows[number].streams
            wanting = sum(
                seen.newest - seen.first + 1 - seen.came for (flow, _), seen in self._seen.items() if flow == number
            )
            waits = sum(len(stream.gaps) + stream.gaps.given_up for stream in streams.values())
            told = counts.lost + counts.absent + waits - self._came_after[number]
            if wanting != told:
                self._fail("conserved", now, f"{wanting} packets of flow {number} are missing at the receiver, "
                           f"which tells {told}: {counts}, {waits} awaited")  # fmt: skip

    def _keep_to_budget(self, now: int) -> None:
        """All repeats since the last look, as if each had been as short as any packet is."""
        before, repeated = self._budget
        if now - before < SECOND:
            return
        total = self.sender.totals().repeated
        least = 12 + 3 + 20
        spent = (total - repeated) * least * 8
        if spent > self.settings.repair_bps * (now - before + SECOND // 4) // SECOND:
            self._fail("bounded", now, f"{total - repeated} packets were repeated in a second")
        self._budget = now, total

    def settled(self, whole_us: int, now: int) -> None:
        """Both paths have been whole for `whole_us`: everything older is accounted for."""
        if whole_us < SETTLED_US:
            return
        for name, outlet in self.sender.outlets.items():
            if outlet.waiting:
                self._fail("stuck", now, f"{outlet.waiting} packets wait on {name}")
        deadline = self.settings.nack_deadline_ms * 1000 + FRESH_US
        for serial, published in list(self._open.items()):
            age = now - published.at
            if age <= FRESH_US:
                continue
            if serial not in self._handed:
                self._account(serial, published, age, age < whole_us - SETTLED_US + FRESH_US, now)
            if age > deadline + 2 * SECOND:
                self._missed += serial not in self._handed
                del self._open[serial]
                self._handed.discard(serial)
        dropped = self._dropped()
        if self._missed > dropped:
            self._fail("conserved", now, f"{self._missed} packets never came, {dropped} were counted")
        self.tally.dropped = dropped
        self._asked = {key: asked for key, asked in self._asked.items() if now - asked.at < deadline}

    def _account(self, serial: int, published: Published, age: int, fresh: bool, now: int) -> None:
        entry = published.entry
        what = f"packet {serial} of flow {published.flow}, published {age / SECOND:.3f} s ago,"
        if fresh:
            self._fail("stuck", now, f"{what} has not come though both paths are whole")
        if entry is not None and entry.acked and serial not in self._stale:
            self._fail("conserved", now, f"{what} was acknowledged and never handed on")
        if entry is not None and (entry.queued or entry.flight):
            self._fail("stuck", now, f"{what} is still on its way: queued {entry.queued}, in flight {entry.flight}")

    def _dropped(self) -> int:
        sender, receiver = self.sender.totals(), self.receiver.totals()
        return sender.skipped + sender.too_old + sender.over_budget + sender.absent + receiver.lost + receiver.stale

    def _fail(self, rule: str, now: int, text: str) -> NoReturn:
        raise Violation(rule, now / SECOND, text)
