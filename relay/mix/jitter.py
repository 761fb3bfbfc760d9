"""When to play which packet of one Opus stream: an adaptive jitter buffer without codec, clock or I/O.

Packets come in by `put`; who has to play asks `step` for what comes next and gets an instruction to decode, conceal,
recover or be quiet, until it has enough samples. Times are monotonic microseconds as the rings carry them, positions
are samples at 48 kHz, which is the RTP clock of Opus at any rate (RFC 7587 4.1).

A packet's *transit* is its arrival minus its timestamp; only differences mean anything. A sample is played at its
timestamp plus `offset`, so a packet is late when its transit is above the offset. The offset that is needed is the
transit which 2 % of the last packets exceed, and a margin. From this follows the adaptation:

- Too little (more than 2 % late, nothing left to play, or ahead of the pictures that the sound belongs to): a concealed
  frame is put in, at once and again.
- Too much: a frame is faded into the one after it, at most every half second, or at once where it is quiet.
- In a pause (DTX, or nothing came for 100 ms) the offset is set afresh when sound returns.

The same rules follow a sender's clock that is too fast or too slow. What is not here when it is to be played counts as
lost: recovered from the next packet's redundancy if that one is there, else concealed, and after 100 ms quiet.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

from relay.mix.jitter_steps import Conceal, JitterCounts, JitterSettings, Play, Quiet, Recover, Skip, Step
from relay.mix.opus_packet import RATE, UNIT, packet_samples
from relay.plane.reference.rtp import seq_delta, timestamp_delta

FRAME = 960  # samples of 20 ms
JUMP_SAMPLES = 2 * RATE  # a timestamp further off begins a new timeline
JUMP_PACKETS = 500  # a sequence number further off does (10 s of packets)
MAX_HELD = 128
DTX_BYTES = 2  # a packet this short says that nothing comes for a while (RFC 7587 3.1.3)
MAX_CONCEALED = 5  # frames in a row
WINDOW = 150  # packets that the offset is learned from: 3 s
LATE_SHARE = 0.02
NEAR_US = 10_000  # half of what a frame more or less can mend


class _Held(NamedTuple):
    position: int
    samples: int
    payload: bytes
    transit: int


class _Suspect(NamedTuple):
    ssrc: int
    seq: int
    timestamp: int
    payload: bytes
    arrival: int


class JitterBuffer:
    """The packets of one publication. Not for several threads."""

    def __init__(self, settings: JitterSettings | None = None) -> None:
        self._settings = settings or JitterSettings()
        self.counts = JitterCounts()
        self._suspect: _Suspect | None = None
        self._ssrc: int | None = None
        self._first_us = self._settings.first_us
        self._last_skip = 0
        self._begin(0, 0)

    @property
    def delay_us(self) -> int:
        """How long the fastest packets of the last seconds wait to be played; 0 in a pause."""
        if self._offset is None or not self._transits:
            return 0
        return max(self._offset - self._ordered[0], 0)

    @property
    def held(self) -> int:
        """Packets that wait."""
        return len(self._held)

    @property
    def playing(self) -> bool:
        """Not in a pause, nor before the first packet's time."""
        return self._offset is not None

    @property
    def waiting_samples(self) -> int:
        """From the next sample to be played to the last one that is here."""
        return max((held.position + held.samples - self._position for held in self._held.values()), default=0)

    @property
    def jitter_us(self) -> int:
        """Transit which 2 % of the last packets exceed, beyond that of the fastest."""
        return self._late_transit() - self._ordered[0] if self._ordered else 0

    def wait_at_least(self, least_us: int, more_us: int = 0) -> None:
        """Have the fastest packets wait so long at least from now on; see `JitterSettings.waiting`."""
        self._settings = self._settings.waiting(least_us, more_us)

    def lag(self, ssrc: int, timestamp: int, captured: int) -> int | None:
        """How long after capture the fastest packets of the last seconds came, when `timestamp` was captured at
        `captured` µs of any clock. None before packets, and for another stream."""
        if ssrc != self._ssrc or not self._ordered:
            return None
        position = self._last_position + timestamp_delta(timestamp, self._last_position & 0xFFFFFFFF)
        return self._ordered[0] + _us(position) - captured

    # --- packets come -----------------------------------------------------------------------------------------------

    def put(self, ssrc: int, seq: int, timestamp: int, payload: bytes, arrival: int) -> None:
        """Take a packet. Whatever is wrong with it costs only it, and is counted."""
        self.counts.received += 1
        samples = packet_samples(payload)
        if not samples:
            self.counts.malformed += 1
            return
        if self._ssrc is None:
            self._restart(ssrc, seq, timestamp)
        elif ssrc != self._ssrc or self._is_jump(seq, timestamp):
            if not self._confirms(ssrc, seq, timestamp):
                self._suspect = _Suspect(ssrc, seq, timestamp, payload, arrival)
                self.counts.malformed += 1
                return
            first = self._suspect
            assert first is not None
            self.counts.malformed -= 1
            self._restart(ssrc, first.seq, first.timestamp)
            self._take(first.seq, first.timestamp, first.payload, packet_samples(first.payload), first.arrival)
        self._suspect = None
        self._take(seq, timestamp, payload, samples, arrival)

    def _is_jump(self, seq: int, timestamp: int) -> bool:
        samples = timestamp_delta(timestamp, self._last_position & 0xFFFFFFFF)
        packets = seq_delta(seq, self._last_seq & 0xFFFF)
        return abs(samples) > JUMP_SAMPLES or abs(packets) > JUMP_PACKETS or (samples > 0) != (packets > 0)

    def _confirms(self, ssrc: int, seq: int, timestamp: int) -> bool:
        """One strange packet may be damaged; a second that follows it is a new timeline (as in RFC 3550 A.1)."""
        first = self._suspect
        if first is None or first.ssrc != ssrc:
            return False
        return 0 < seq_delta(seq, first.seq) <= 3 and 0 < timestamp_delta(timestamp, first.timestamp) <= JUMP_SAMPLES

    def _restart(self, ssrc: int, seq: int, timestamp: int) -> None:
        self.counts.restarts += self._ssrc is not None
        if len(self._ordered) >= WINDOW // 3:  # the same network, most likely
            self._first_us = min(self.jitter_us + 2 * self._settings.margin_us, self._settings.longest_us)
        fresh = ssrc != self._ssrc
        self._ssrc = ssrc
        self._begin(seq, timestamp)
        self._fresh = fresh

    def _begin(self, seq: int, timestamp: int) -> None:
        self._held: dict[int, _Held] = {}
        self._transits: deque[int] = deque()
        self._ordered: list[int] = []
        self._last_seq = self._next_seq = seq + (1 << 16)  # so that neither is ever negative
        self._last_position = timestamp + (1 << 32)
        self._position = self._last_position  # of the next sample to decode
        self._offset: int | None = None  # play time minus media time, in microseconds; None in a pause
        self._known = 0  # bit i: packet `_next_seq - 1 - i` was played
        self._concealed = 0  # frames in a row
        self._waited = 0  # samples concealed while nothing was there
        self._after_dtx = False
        self._cut = True
        self._fresh = True
        self._grown = False
        self._started = False

    def _take(self, seq: int, timestamp: int, payload: bytes, samples: int, arrival: int) -> None:
        number = self._last_seq + seq_delta(seq, self._last_seq & 0xFFFF)
        position = self._last_position + timestamp_delta(timestamp, self._last_position & 0xFFFFFFFF)
        if number in self._held or (number < self._next_seq and self._was_played(number)):
            self.counts.duplicate += 1
            return
        transit = arrival - _us(position)
        self._learn(transit)
        if not self._started:
            self._next_seq, self._position = min(number, self._next_seq), min(position, self._position)
        if number < self._next_seq or position < self._position:
            self.counts.late += 1
            return
        if len(self._held) >= MAX_HELD:
            self.counts.overflowed += 1
            return
        self._held[number] = _Held(position, samples, payload, transit)
        if number > self._last_seq:
            self._last_seq, self._last_position = number, position

    def _was_played(self, number: int) -> bool:
        return bool(self._known >> (self._next_seq - 1 - number) & 1)

    def _learn(self, transit: int) -> None:
        if self._ordered and abs(transit - self._ordered[len(self._ordered) // 2]) > _us(JUMP_SAMPLES):
            self._transits.clear()  # the sender's clock stood still in a pause
            self._ordered.clear()
        self._transits.append(transit)
        insort(self._ordered, transit)
        if len(self._transits) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._transits.popleft())]

    def _late_transit(self) -> int:
        return self._ordered[len(self._ordered) - 1 - int(len(self._ordered) * LATE_SHARE)]

    def _needed(self) -> int:
        """The offset that the last packets ask for, within what is allowed."""
        learned = self._late_transit()
        if len(self._ordered) < WINDOW // 3:
            learned = max(learned, self._ordered[0] + self._first_us - self._settings.margin_us)
        learned = max(learned + self._settings.margin_us, self._ordered[0] + self._settings.fastest_waits_us)
        return min(learned, self._ordered[0] + self._settings.longest_us)

    # --- sound is asked for -----------------------------------------------------------------------------------------

    def step(self, now: int, ahead: int = 0, *, quiet: bool = False) -> Step:
        """Say what comes next. `ahead` samples are decoded already and play before it, from `now` on.

        `quiet` says that nobody would hear a frame too many or too few just now.
        """
        due = now + _us(ahead)
        if self._offset is None:
            if not self._held or not self._resume(due):
                return self._be_quiet(FRAME)
        else:
            self._offset = due - _us(self._position)
        self._jump_if_far(due)
        return self._next(due, quiet)

    def _resume(self, due: int) -> bool:
        """The pause ends when the first packet's time has come."""
        first = min(self._held)
        held = self._held[first]
        offset = max(self._needed(), held.transit)
        if due < _us(held.position) + offset:
            return False
        self._started = True
        self.counts.lost += self._lose_until(first)
        self._position = held.position
        self._offset = due - _us(held.position)
        self._cut, self._concealed, self._waited, self._after_dtx = True, 0, 0, False
        return True

    def _jump_if_far(self, due: int) -> None:
        """More waits than may: go on close to the newest, in one cut."""
        most = self._settings.longest_us * RATE // 1_000_000
        if self.waiting_samples <= most + FRAME:
            return
        end = self._position + self.waiting_samples
        wanted = min(self._needed() - self._ordered[0], self._settings.longest_us) * RATE // 1_000_000
        keep = [number for number in sorted(self._held) if self._held[number].position >= end - max(wanted, FRAME)]
        keep = keep or [max(self._held)]
        self.counts.overflowed += len([number for number in self._held if number < keep[0]])
        self._lose_until(keep[0])
        self._position = self._held[keep[0]].position
        self._offset = due - _us(self._position)
        self._cut, self._concealed, self._waited = True, 0, 0

    def _next(self, due: int, quiet: bool) -> Step:
        if not self._held:
            return self._run_dry()
        number = min(self._held)
        held = self._held[number]
        gap = held.position - self._position
        if gap > 0 and self._waited:  # what was waited for is lost, and was concealed meanwhile
            already = min(gap, self._waited)
            self._waited = 0
            self._position += already
            gap -= already
        if gap >= UNIT:
            return self._bridge(number, held, gap)
        if gap < 0:  # timestamps that overlap: damaged, or not Opus at 48 kHz
            del self._held[number]
            self._lose_until(number + 1)
            self.counts.malformed += 1
            return self._conceal(FRAME, advance=False)
        return self._play_or_adapt(number, held, due, quiet)

    def _run_dry(self) -> Step:
        """Nothing to play: a pause if one was announced, else everything is late and waits for it up to a limit."""
        if self._after_dtx or self._concealed >= MAX_CONCEALED or self.delay_us >= self._settings.longest_us:
            self._offset = None
            return self._be_quiet(FRAME)
        self._concealed += 1
        self._waited += FRAME
        self.counts.grown += 1
        return self._conceal(FRAME, advance=False)

    def _bridge(self, number: int, held: _Held, gap: int) -> Step:
        """Something is missing before the next packet."""
        if number == self._next_seq or self._after_dtx or self._concealed >= MAX_CONCEALED:
            # Nothing was sent there, or nobody would believe more of it. Quiet may be as short as the offset allows.
            spare = (self._offset or 0) - self._needed()
            cut = max(0, min(gap - UNIT, spare * RATE // 1_000_000))
            self._position += cut
            self._cut = True
            return self._be_quiet(min(FRAME, gap - cut))
        self._concealed += 1
        gap -= gap % UNIT
        if gap <= max(held.samples, FRAME):
            self.counts.lost += self._lose_until(number)
            self._position = held.position
            self.counts.recovered += 1
            return Recover(held.payload, gap)
        return self._conceal(min(FRAME, gap - held.samples), advance=True)

    def _play_or_adapt(self, number: int, held: _Held, due: int, quiet: bool) -> Step:
        assert self._offset is not None
        needed = self._needed()
        spare = self._offset - needed
        late = self._offset < self._late_transit()
        pictures = self._ordered[0] + self._settings.fastest_waits_us
        ahead = self._offset + NEAR_US < pictures  # of those that it belongs to
        room = self._offset < self._ordered[0] + self._settings.longest_us
        if (late or ahead or (quiet and spare < 0)) and room and not self._grown:
            self._grown = True
            self.counts.grown += 1
            return self._conceal(FRAME, advance=False)
        self._grown = False
        self.counts.lost += self._lose_until(number)
        del self._held[number]
        self._next_seq = number + 1
        self._known = (self._known << 1 | 1) & 0xFFFFFFFFFFFFFFFF
        self._position = held.position + held.samples
        self._concealed = self._waited = 0
        self._after_dtx = len(held.payload) <= DTX_BYTES
        waited = due - self._last_skip >= self._settings.shrink_every_us
        followed = number + 1 in self._held and self._held[number + 1].position == self._position
        if spare > _us(held.samples) + self._settings.margin_us and followed and not self._cut and (quiet or waited):
            self._last_skip = due
            self.counts.skipped += 1
            return Skip(held.payload, held.samples)
        step = Play(held.payload, held.samples, self._cut, self._fresh)
        self._cut = self._fresh = False
        return step

    def _lose_until(self, number: int) -> int:
        """Give up what comes before packet `number`; return how many of them never came."""
        missing = 0
        for old in [old for old in self._held if old < number]:
            del self._held[old]
            missing -= 1
        if number > self._next_seq:
            steps = number - self._next_seq
            missing += steps
            self._known = (self._known << min(steps, 64)) & 0xFFFFFFFFFFFFFFFF
            self._next_seq = number
        return max(missing, 0)

    def _conceal(self, samples: int, *, advance: bool) -> Step:
        self.counts.concealed += samples
        if advance:
            self._position += samples
        return Conceal(samples)

    def _be_quiet(self, samples: int) -> Step:
        samples = max(samples, 1)
        self.counts.quiet += samples
        if self._offset is not None:
            self._position += samples
        return Quiet(samples)


def _us(samples: int) -> int:
    return samples * 1_000_000 // RATE
