"""What a link's sender remembers of what it sent: per packet, per flow, and the budget for sending it again."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field

from relay.link.marking import Marked
from relay.plane.contract import Kind
from relay.plane.reference import rtp
from relay.plane.reference.descriptors import Codec, inspect


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """What a sender needs to know of a flow: `codecs` maps payload types to what they carry, as far as known."""

    kind: Kind
    codecs: dict[int, Codec] = field(default_factory=dict)


@dataclass(slots=True)
class FlowCounts:
    """Counters of one flow since it was opened; packets unless said."""

    packets: int = 0
    bytes: int = 0
    copies: int = 0
    """Sent on a second path, too: in doubt, as a probe, or to keep it warm."""
    resent: int = 0
    """Sent again because the media moved."""
    repeated: int = 0
    """Sent again because it was lost: QUIC said so, or the subscriber asked."""
    nacked: int = 0
    absent: int = 0
    """Asked for, but never here or not kept any more."""
    over_budget: int = 0
    too_old: int = 0
    skipped: int = 0
    parity: int = 0
    while_paused: int = 0

    def add(self, other: FlowCounts) -> None:
        """Add another flow's."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Entry:
    """One packet of a flow in the link's history. `flight`, `queued` and `skipped` are sets of paths as bits."""

    __slots__ = (
        "acked",
        "at",
        "datagram",
        "flight",
        "flow",
        "frame",
        "marked",
        "queued",
        "repeated_at",
        "skipped",
    )

    def __init__(self, flow: Flow, marked: Marked, datagram: bytes, frame: int, now: int) -> None:
        self.flow = flow
        self.marked = marked
        self.datagram = datagram
        self.frame = frame
        self.at = now
        self.repeated_at = 0
        self.acked = False
        self.flight = self.queued = self.skipped = 0

    def is_keyframe_start(self) -> bool:
        """Say whether a decoder could begin here. Any audio packet will do."""
        flow = self.flow
        if flow.spec.kind is Kind.AUDIO:
            return True
        parsed = rtp.parse(self.marked.data, 0)
        codec = None if parsed is None else flow.spec.codecs.get(parsed.payload_type)
        if parsed is None or codec is None:
            return False
        return inspect(codec, parsed.data, parsed.payload_offset, parsed.payload_end).is_keyframe_start


class Flow:
    """One publication layer on one link. `frame` counts its frames as they come."""

    __slots__ = (
        "_order",
        "by_seq",
        "counts",
        "frame",
        "newest",
        "number",
        "open",
        "paused",
        "spec",
        "ssrc",
        "timestamp",
    )

    def __init__(self, number: int, spec: FlowSpec) -> None:
        self.number = number
        self.spec = spec
        self.open = True
        self.paused = False
        self.frame = 0
        self.newest = self.ssrc = self.timestamp = -1
        self.by_seq: dict[int, Entry] = {}
        self._order: deque[Entry] = deque()
        self.counts = FlowCounts()

    def remember(self, marked: Marked, datagram: bytes, limit: int, now: int) -> Entry:
        """Keep a packet; the oldest of more than `limit` is forgotten. A new SSRC begins a new history."""
        if marked.ssrc != self.ssrc:
            self.ssrc, self.newest = marked.ssrc, -1
            self.by_seq.clear()
            self._order.clear()
        if marked.timestamp != self.timestamp:
            self.timestamp = marked.timestamp
            self.frame += 1
        entry = Entry(self, marked, datagram, self.frame, now)
        if self.newest < 0 or rtp.is_newer(marked.seq, self.newest):
            self.newest = marked.seq
        self.by_seq[marked.seq] = entry
        self._order.append(entry)
        if len(self._order) > limit:
            self.forget(self._order.popleft())
        return entry

    def forget(self, entry: Entry) -> None:
        """Drop a packet from what NACKs can reach."""
        if self.by_seq.get(entry.marked.seq) is entry:
            del self.by_seq[entry.marked.seq]

    def forget_before(self, at: int) -> None:
        """Drop the packets that came before `at`."""
        order = self._order
        while order and order[0].at < at:
            self.forget(order.popleft())


class Budget:
    """A token bucket in bytes. `burst_us` is how much of the rate may be spent at once."""

    def __init__(self, bits_per_second: int, burst_us: int = 250_000) -> None:
        self._rate = bits_per_second
        self._burst = bits_per_second * burst_us  # in millionths of a bit
        self._left = self._burst
        self._at = 0

    def take(self, size: int, now: int) -> bool:
        """Spend `size` bytes; False when there is not enough left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        cost = size * 8_000_000
        if cost > self._left:
            return False
        self._left -= cost
        return True
