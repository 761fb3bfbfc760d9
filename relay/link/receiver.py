"""The subscriber's end of one link, without I/O: each packet is handed on once, as soon as it is here.

Datagrams of both paths come in (`receive`), new packets go out (`arrived`) in the order in which they came; duplicates
are dropped, what is missing is asked for (`transmit`). Nothing is held back for the sake of order: that is the plane's.
Times are monotonic microseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from struct import Struct

from relay.errors import UsageError
from relay.link import flows, roq, varint
from relay.link.inflow import Inflow, InflowCounts, Stream
from relay.link.marking import read_sync_id
from relay.link.parity import read_parity
from relay.link.path import PathName
from relay.link.paths import PATHS
from relay.plane.reference import rtcp, rtp
from relay.settings import LinkFlowSettings

MAX_EVENTS = 1024
MAX_STREAMS = 3  # SSRCs of one flow that are remembered, against late packets of the one before
MAX_EARLY = 256  # datagrams of flows that are not open yet: paths may be faster than the metadata channel
EARLY_US = 500_000  # but not by so much: what is older was left by a flow that had this number before
NACK_BATCH = 200  # sequence numbers in one RTCP packet: it fits any path
_OUR_SSRC = 0
_HEADER = Struct("!BBHII")


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """A flow's first packet is here, or its first from another SSRC."""

    flow: int
    ssrc: int
    payload_type: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class PacketsLost:
    """Packets of a flow were given up; nobody will bring them."""

    flow: int
    packets: int


@dataclass(frozen=True, slots=True)
class PathFirstHeard:
    """Media came in on a path on which none had come, or that is new."""

    path: PathName


ReceiverEvent = StreamStarted | PacketsLost | PathFirstHeard


class Arrival:
    """A new packet. `sync_id` is set on the one that carries its frame's. Treat as frozen."""

    __slots__ = ("flow", "packet", "path", "sync_id")

    def __init__(self, flow: int, packet: bytes, path: PathName, sync_id: int | None) -> None:
        self.flow = flow
        self.packet = packet
        self.path = path
        self.sync_id = sync_id


class LinkReceiver:
    """One per link. Counters of what no flow answers for are plain attributes."""

    def __init__(self, settings: LinkFlowSettings) -> None:
        self._settings = settings
        self._flows: dict[int, Inflow] = {}
        self._closed = InflowCounts()  # of flows that are gone
        self._arrived: list[Arrival] = []
        self._control: list[tuple[PathName, bytes]] = []
        self._events: deque[ReceiverEvent] = deque(maxlen=MAX_EVENTS)
        self._heard: set[PathName] = set()
        self._rtt_us = dict.fromkeys(PATHS, 0)
        self._latest: PathName = "primary"
        self._early: deque[tuple[PathName, bytes, int]] = deque(maxlen=MAX_EARLY)
        self._ticked_at = 0
        self.both_carry = False
        """Whether the origin sends media on both paths: in doubt of one, or because none is good."""
        self.malformed = 0
        self.unknown_flow = 0

    def open_flow(self, number: int, clock_hz: int) -> None:
        """Take packets of a flow from now on. UsageError for a number that is taken or no media flow's."""
        if not flows.is_media(number) or number in self._flows or clock_hz <= 0:
            raise UsageError(f"flow {number} cannot be opened")
        self._flows[number] = Inflow(number, clock_hz)
        early, self._early = self._early, deque(maxlen=MAX_EARLY)
        for path, datagram, at in early:
            if self._ticked_at - at <= EARLY_US:
                self.receive(path, datagram, at)

    def close_flow(self, number: int) -> None:
        """Forget a flow; its packets count as unknown from now on. No error when there is none."""
        flow = self._flows.pop(number, None)
        if flow is not None:
            self._closed.add(flow.counts)

    @property
    def flow_numbers(self) -> tuple[int, ...]:
        """The open flows."""
        return tuple(self._flows)

    def counts(self, number: int) -> InflowCounts:
        """Return the counters of an open flow."""
        return self._flows[number].counts

    def totals(self) -> InflowCounts:
        """Return the sum of all flows' counters, of those that are closed as well."""
        total = replace(self._closed)
        for flow in self._flows.values():
            total.add(flow.counts)
        return total

    def sync_id_of(self, number: int, timestamp: int) -> int | None:
        """Return the sync id of a frame by its RTP timestamp; reckoned when the packet that carried it is lost."""
        flow = self._flows.get(number)
        return None if flow is None else flow.sync_id_of(timestamp)

    def note_rtt(self, path: PathName, rtt_us: int) -> None:
        """Tell a path's round trip: requests are repeated no sooner."""
        self._rtt_us[path] = rtt_us

    def path_opened(self, path: PathName) -> None:
        """A path has a new connection: its first media will be told."""
        self._heard.discard(path)

    def receive(self, path: PathName, datagram: bytes, now: int) -> None:
        """Take a datagram of a path. What cannot be read costs itself alone, and is counted."""
        try:
            number, start = varint.decode(datagram)
        except varint.Malformed:
            self.malformed += 1
            return
        media, what = flows.split(number)
        flow = self._flows.get(media)
        if flow is None:
            self.unknown_flow += 1
            self._early.append((path, datagram, now))
        elif what == flows.MEDIA:
            self._media(path, flow, datagram[start:], now)
        elif what == flows.PARITY:
            self._parity(path, flow, datagram[start:], now)
        elif what == flows.FEEDBACK:
            self._absent(flow, datagram[start:])
        else:
            self.malformed += 1

    def _media(self, path: PathName, flow: Inflow, packet: bytes, now: int) -> None:
        if len(packet) < rtp.HEADER_LENGTH or packet[0] >> 6 != 2:
            self.malformed += 1
            return
        _, second, seq, timestamp, ssrc = _HEADER.unpack_from(packet)
        if path not in self._heard:
            self._heard.add(path)
            self._events.append(PathFirstHeard(path))
        stream = flow.streams.get(ssrc)
        if stream is None:
            stream = self._start(flow, ssrc, seq, timestamp, second & 0x7F, now)
        counts = flow.counts
        newest = stream.highest
        verdict = stream.accept(seq, now)
        if verdict <= 0:
            if verdict == 0:
                counts.duplicates += 1
            else:
                counts.stale += 1
            return
        self._latest = path
        counts.packets += 1
        counts.bytes += len(packet)
        if stream.highest == newest:
            self._filled(flow, stream, seq)
        if flow.last_new_at:
            counts.longest_gap_us = max(counts.longest_gap_us, now - flow.last_new_at)
        flow.last_new_at = now
        sync_id = read_sync_id(packet) if packet[0] & 0x10 else None
        if sync_id is not None and next(reversed(flow.streams)) == ssrc:
            flow.note_frame(timestamp, sync_id)
        self._arrived.append(Arrival(flow.number, packet, path, sync_id))
        for built in stream.keep(seq, packet):
            self._rebuilt(path, flow, built, now)

    def _start(self, flow: Inflow, ssrc: int, seq: int, timestamp: int, payload_type: int, now: int) -> Stream:
        stream = flow.streams[ssrc] = Stream(ssrc, seq, self._settings, now)
        stream.highest -= 1  # so that this packet is the first to be accepted
        flow.forget_frames()
        if len(flow.streams) > MAX_STREAMS:
            flow.streams.popitem(last=False)
        self._events.append(StreamStarted(flow.number, ssrc, payload_type, timestamp))
        return stream

    def _filled(self, flow: Inflow, stream: Stream, seq: int) -> None:
        flow.counts.late += 1
        if stream.gaps.fill(stream.number(seq)) > 0:
            flow.counts.repaired += 1

    def _parity(self, path: PathName, flow: Inflow, data: bytes, now: int) -> None:
        parity = read_parity(data)
        if parity is None:
            self.malformed += 1
            return
        stream = flow.streams.get(parity.ssrc)
        if stream is not None:
            for built in stream.add_parity(parity):
                self._rebuilt(path, flow, built, now)

    def _rebuilt(self, path: PathName, flow: Inflow, packet: bytes, now: int) -> None:
        flow.counts.rebuilt += 1
        self._media(path, flow, packet, now)

    def _absent(self, flow: Inflow, packet: bytes) -> None:
        """The origin tells what it does not have: nobody has to wait for it."""
        nacks = [part for part in rtcp.parse(packet).packets if isinstance(part, rtcp.Nack)]
        if not nacks:
            self.malformed += 1
        for nack in nacks:
            stream = flow.streams.get(nack.media_ssrc)
            if stream is not None:
                flow.counts.absent += stream.gaps.drop(map(stream.number, nack.lost))

    def arrived(self) -> list[Arrival]:
        """Take the new packets."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def transmit(self) -> list[tuple[PathName, bytes]]:
        """Take the datagrams to send, each with its path."""
        control, self._control = self._control, []
        return control

    def next_timeout(self) -> int | None:
        """Return when `handle_timeout` has something to do."""
        times = [s.gaps.next_timeout() for flow in self._flows.values() for s in flow.streams.values() if s.gaps]
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: int) -> None:
        """Ask for what is due, and give up what is late. Call it often."""
        self._ticked_at = now
        for flow in self._flows.values():
            for stream in flow.streams.values():
                if stream.gaps:
                    self._ask(flow, stream, now)
                if stream.gaps.given_up:
                    flow.counts.lost += stream.gaps.given_up
                    self._events.append(PacketsLost(flow.number, stream.gaps.given_up))
                    stream.gaps.given_up = 0

    def _ask(self, flow: Inflow, stream: Stream, now: int) -> None:
        wanted, again = stream.gaps.due(now, max(self._rtt_us.values()))
        for at in range(0, len(wanted), NACK_BATCH):
            seqs = [number & rtp.SEQ_MASK for number in wanted[at : at + NACK_BATCH]]
            packet = rtcp.build_nack(_OUR_SSRC, stream.ssrc, seqs)
            datagram = roq.frame(flows.feedback_of(flow.number), packet)
            # on the path that brings media now; in doubt, or when that did not help, on the other one, too
            for path in PATHS if again or self.both_carry else (self._latest,):
                self._control.append((path, datagram))
            flow.counts.nacks += len(seqs)

    def events(self) -> list[ReceiverEvent]:
        """Return and forget what happened, at most the newest 1024."""
        drained = list(self._events)
        self._events.clear()
        return drained
