"""One flow at the subscriber: which packets are new, which are missing, and the frames' sync ids."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import asdict, dataclass

from relay.ids import make_sync_id, sync_id_milliseconds
from relay.link.marking import REMEMBERED_FRAMES
from relay.link.parity import Parity, rebuild
from relay.link.repair import Gaps
from relay.plane.reference import rtp
from relay.settings import LinkFlowSettings

KEPT_FOR_PARITY = 128  # packets: four times what a group can span
MAX_PARITIES = 16
RESTART_US = 3_000_000  # a source that sends only packets from long ago for so long has begun anew


@dataclass(slots=True)
class InflowCounts:
    """Counters of one flow since it was opened; packets unless said."""

    packets: int = 0
    bytes: int = 0
    duplicates: int = 0
    late: int = 0
    """Came after a newer one."""
    repaired: int = 0
    """Came after they were asked for."""
    rebuilt: int = 0
    """Were made from parity."""
    absent: int = 0
    """Missing, and not at the origin either."""
    lost: int = 0
    """Given up."""
    stale: int = 0
    """Too old to say whether they are duplicates: dropped."""
    nacks: int = 0
    longest_gap_us: int = 0
    """Longest time between two new packets."""

    def add(self, other: InflowCounts) -> None:
        """Add another flow's; of the gaps the longer one stays."""
        longest = max(self.longest_gap_us, other.longest_gap_us)
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        self.longest_gap_us = longest


class Stream:
    """One SSRC: duplicates by bitmap, bit i for the packet i before the newest."""

    __slots__ = ("_full", "_mask", "_parities", "_recent", "_window", "accepted_at", "gaps", "highest", "ssrc")

    def __init__(self, ssrc: int, seq: int, settings: LinkFlowSettings, now: int) -> None:
        self.ssrc = ssrc
        self._window = settings.window_packets
        self._full = (1 << self._window) - 1
        self.gaps = Gaps(settings)
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._parities: deque[Parity] = deque(maxlen=MAX_PARITIES)
        self.highest = seq + (1 << 16)  # unwrapped; room below, for packets that the first one overtook
        self._mask = 0
        self.accepted_at = now

    def number(self, seq: int) -> int:
        """Unwrap a sequence number: the one nearest to the newest."""
        return self.highest + rtp.seq_delta(seq, self.highest & rtp.SEQ_MASK)

    def accept(self, seq: int, now: int) -> int:
        """Return 1 for a new packet, 0 for a duplicate, -1 for one that is too old to tell."""
        number = self.highest + rtp.seq_delta(seq, self.highest & rtp.SEQ_MASK)
        behind = self.highest - number
        if behind < 0:
            self._mask = (self._mask << -behind | 1) & self._full
            self.highest = number
            if behind < -1:
                self.gaps.open(number + behind + 1, number, now)
        elif behind >= self._window:
            if now - self.accepted_at < RESTART_US:
                return -1
            self.highest, self._mask = number, 1
            self.gaps.open(number, number, now)
        elif self._mask >> behind & 1:
            return 0
        else:
            self._mask |= 1 << behind
        self.accepted_at = now
        return 1

    def has(self, number: int) -> bool:
        """Say whether a packet came (or is too old to tell)."""
        behind = self.highest - number
        return behind >= 0 and (behind >= self._window or bool(self._mask >> behind & 1))

    def keep(self, seq: int, packet: bytes) -> list[bytes]:
        """Keep a new packet for parity; return those that can be built now that it is here."""
        self._recent[seq] = packet
        if len(self._recent) > KEPT_FOR_PARITY:
            self._recent.popitem(last=False)
        return self._try_parities() if self._parities else []

    def add_parity(self, parity: Parity) -> list[bytes]:
        """Take a parity packet; return what can be built."""
        self._parities.append(parity)
        return self._try_parities()

    def _try_parities(self) -> list[bytes]:
        built: list[bytes] = []
        for parity in list(self._parities):
            missing = [seq for seq in parity.covered if seq not in self._recent]
            if len(missing) > 1:
                continue
            self._parities.remove(parity)
            if len(missing) == 1 and not self.has(self.number(missing[0])):
                others = [self._recent[seq] for seq in parity.covered if seq != missing[0]]
                packet = rebuild(parity, missing[0], others)
                if packet is not None:
                    built.append(packet)
        return built


class Inflow:
    """One flow. `streams` are its newest SSRCs, the one that plays last; a publisher that comes back brings another."""

    __slots__ = ("_frames", "clock_hz", "counts", "last_new_at", "number", "streams")

    def __init__(self, number: int, clock_hz: int) -> None:
        self.number = number
        self.clock_hz = clock_hz
        self.streams: OrderedDict[int, Stream] = OrderedDict()
        self.counts = InflowCounts()
        self.last_new_at = 0
        self._frames: OrderedDict[int, int] = OrderedDict()

    def note_frame(self, timestamp: int, sync_id: int) -> None:
        """Remember the sync id of a frame."""
        self._frames[timestamp] = sync_id
        if len(self._frames) > REMEMBERED_FRAMES:
            self._frames.popitem(last=False)

    def sync_id_of(self, timestamp: int) -> int | None:
        """Return a frame's sync id: as told, else reckoned from the newest one told; None before any."""
        known = self._frames.get(timestamp)
        if known is not None or not self._frames:
            return known
        anchor = next(reversed(self._frames))
        ms = sync_id_milliseconds(self._frames[anchor])
        return make_sync_id(max(0, ms + rtp.timestamp_delta(timestamp, anchor) * 1000 // self.clock_hz), 0)

    def forget_frames(self) -> None:
        """Another SSRC has other timestamps."""
        self._frames.clear()
