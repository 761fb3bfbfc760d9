"""The jitter buffer in virtual time: one sender, one network, one player who ticks every 20 ms."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mix.jitter import MAX_HELD, JitterBuffer
from relay.mix.jitter_steps import Conceal, JitterSettings, Play, Quiet, Recover, Skip, Step
from relay.mix.opus_packet import packet_samples

TICK = 20_000  # µs
FRAME = 960
CELT_20 = 0xF8  # first byte of a 20 ms full-band packet: configuration 31, one frame
START = 5_000_000


def payload(number: int, toc: int = CELT_20) -> bytes:
    """A packet that says which it is."""
    return bytes([toc]) + number.to_bytes(4, "big")


def number_of(step: Play | Skip | Recover) -> int:
    return int.from_bytes(step.payload[1:5], "big")


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet on its way: `at` is its arrival."""

    at: int
    number: int
    seq: int
    timestamp: int
    ssrc: int = 1
    body: bytes = b""


def stream(count: int, delay: Callable[[int], int] = lambda _: 10_000, *, start: int = 0) -> list[Sent]:
    """`count` packets of 20 ms, packet n sent at n · 20 ms and arriving `delay(n)` µs later."""
    return [
        Sent(START + n * TICK + delay(n), n, (65_500 + n) & 0xFFFF, (2**32 - 48_000 + n * FRAME) & 0xFFFFFFFF)
        for n in range(start, start + count)
    ]


@dataclass
class Heard:
    """What a player got, in order, with the tick's time."""

    steps: list[tuple[int, Step]] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)

    @property
    def played(self) -> list[int]:
        """Numbers decoded for what they say of themselves; a skipped frame is half heard and counts too."""
        return [number_of(step) for _, step in self.steps if isinstance(step, Play | Skip)]

    def count(self, kind: type[Step], since: int = 0) -> int:
        return sum(isinstance(step, kind) for at, step in self.steps if at >= since)

    def at(self, number: int) -> int:
        """When packet `number` was played."""
        return next(at for at, step in self.steps if isinstance(step, Play) and number_of(step) == number)


def play(
    buffer: JitterBuffer,
    packets: Iterable[Sent],
    ticks: int,
    *,
    tick: float = TICK,
    phase: int = 3_000,
    quiet: Callable[[int], bool] = lambda _: False,
) -> Heard:
    """Tick from START on; each tick takes what has arrived and asks until 20 ms are decoded."""
    waiting = sorted(packets, key=lambda packet: packet.at)
    heard, decoded, index = Heard(), 0, 0
    for count in range(ticks):
        now = START + phase + int(count * tick)
        while index < len(waiting) and waiting[index].at <= now:
            one = waiting[index]
            buffer.put(one.ssrc, one.seq, one.timestamp, one.body or payload(one.number), one.at)
            index += 1
        while decoded < FRAME:
            step = buffer.step(now, decoded, quiet=quiet(count))
            heard.steps.append((now, step))
            decoded += 0 if isinstance(step, Skip) else step.samples
        decoded -= FRAME
        heard.delays.append(buffer.delay_us)
    return heard


def test_a_calm_stream_is_played_whole_and_in_order_with_little_delay() -> None:
    buffer = JitterBuffer()
    heard = play(buffer, stream(500), 510)
    assert heard.played == list(range(500))
    assert heard.count(Conceal, START + 10 * TICK) <= 5  # after the last packet
    assert buffer.counts.lost == 0
    assert 0 < heard.delays[480] <= 45_000


def test_reordered_and_doubled_packets_are_played_once_in_order() -> None:
    swapped = stream(300, lambda n: 10_000 + (21_000 if n % 7 == 3 else 0))
    buffer = JitterBuffer()
    heard = play(buffer, [*swapped, *swapped[::3]], 310)
    assert heard.played == list(range(300))
    assert buffer.counts.duplicate == 100


def test_delay_follows_jitter_up_fast_and_down_slowly() -> None:
    def network(n: int) -> int:
        dice = random.Random(n)
        return 10_000 + (dice.randrange(80_000) if 300 <= n < 900 else dice.randrange(3_000))

    buffer = JitterBuffer()
    heard = play(buffer, stream(3000, network), 3010)
    assert heard.delays[290] <= 45_000
    assert 70_000 <= heard.delays[800] <= 130_000
    assert heard.delays[2900] <= 45_000
    storm = [step for at, step in heard.steps if START + 400 * TICK < at < START + 850 * TICK]
    assert sum(isinstance(step, Conceal | Recover) for step in storm) <= 0.04 * len(storm)
    skips = [at for at, step in heard.steps if isinstance(step, Skip)]
    assert skips
    assert all(later - earlier >= 500_000 for earlier, later in pairwise(skips))
    assert heard.played == sorted(set(heard.played))


def test_how_late_sound_comes_is_known_by_the_capture_of_any_packet() -> None:
    buffer = JitterBuffer()
    assert buffer.lag(1, 0, 0) is None
    dice = random.Random(2)
    for sent in stream(100, lambda _: 10_000 + dice.randrange(30_000)):
        buffer.put(sent.ssrc, sent.seq, sent.timestamp, payload(sent.number), sent.at)
    for number in (0, 50, 99, 200):
        captured = 10**15 + number * TICK
        lag = buffer.lag(1, (2**32 - 48_000 + number * FRAME) & 0xFFFFFFFF, captured)
        assert lag == pytest.approx(START + 10_000 - 10**15, abs=3000)
    assert buffer.lag(2, 0, 0) is None


def test_sound_that_has_to_wait_for_pictures_does_so_at_once_also_while_it_is_loud() -> None:
    buffer = JitterBuffer()
    first, second = stream(200), stream(400, start=200)
    before = play(buffer, first, 200)
    assert before.delays[-1] <= 45_000
    buffer.wait_at_least(100_000)
    heard = Heard()
    for count, sent in enumerate(second, 200):
        buffer.put(sent.ssrc, sent.seq, sent.timestamp, payload(sent.number), sent.at)
        step = buffer.step(START + 13_000 + count * TICK)
        heard.steps.append((count, step))
        heard.delays.append(buffer.delay_us)
    assert all(90_000 <= delay <= 120_000 for delay in heard.delays[20:])
    assert heard.count(Conceal) <= 5
    assert heard.played == list(range(200, 200 + len(heard.played)))
    buffer.wait_at_least(10_000_000)
    assert buffer.delay_us <= JitterSettings().most_us


def test_what_is_quiet_shrinks_at_once() -> None:
    spike = stream(600, lambda n: 10_000 + max(0, 160_000 - max(0, n - 100) * TICK) * (n >= 100))
    slow = play(JitterBuffer(), spike, 600)
    fast = play(JitterBuffer(), spike, 600, quiet=lambda _: True)
    assert max(slow.delays) >= 90_000

    def back(heard: Heard) -> int:
        return max(index for index, delay in enumerate(heard.delays) if delay > 60_000)

    assert back(fast) < back(slow)


def test_one_lost_packet_is_recovered_from_the_next_and_of_two_the_first_is_concealed() -> None:
    packets = [packet for packet in stream(100) if packet.number not in {30, 60, 61}]
    buffer = JitterBuffer()
    heard = play(buffer, packets, 95)
    recovered = [number_of(step) for _, step in heard.steps if isinstance(step, Recover)]
    assert recovered == [31, 62]
    assert heard.count(Conceal) == 1
    assert buffer.counts.lost == 3
    between = [type(step) for _, step in heard.steps if not isinstance(step, Quiet)]
    assert between[30:32] == [Recover, Play]
    assert heard.at(59) + 3 * TICK == heard.at(62)


def test_a_long_loss_grows_quiet_and_sound_returns() -> None:
    packets = [packet for packet in stream(400) if not 100 <= packet.number < 150]
    heard = play(JitterBuffer(), packets, 390)
    assert heard.count(Conceal) <= 8
    assert heard.count(Quiet) >= 40
    assert heard.played == [*range(100), *range(150, heard.played[-1] + 1)]


def test_a_pause_by_dtx_costs_no_delay_and_ends_with_a_cut() -> None:
    dtx = Sent(START + 100 * TICK + 10_000, 100, 100, 100 * FRAME, body=bytes([CELT_20]))
    before = [Sent(START + n * TICK + 10_000, n, n, n * FRAME) for n in range(100)]
    after = [Sent(START + n * TICK + 10_000, n, n - 59, n * FRAME) for n in range(160, 300)]
    buffer = JitterBuffer()
    heard = play(buffer, [*before, dtx, *after], 290)
    assert buffer.counts.concealed == 0
    assert heard.count(Quiet) >= 50
    first = next(step for _, step in heard.steps if isinstance(step, Play) and number_of(step) == 160)
    assert first.cut
    assert not first.fresh
    assert heard.delays[250] <= 45_000


@pytest.mark.parametrize("ppm", [-2000, 2000])
def test_a_senders_clock_that_drifts_is_followed(ppm: int) -> None:
    def drift(n: int) -> int:
        return 40_000 + n * TICK * ppm // 1_000_000

    buffer = JitterBuffer()
    heard = play(buffer, stream(5_000, drift), 4_900)
    assert max(heard.delays[200:]) <= 65_000
    corrections = buffer.counts.skipped + buffer.counts.grown
    assert 8 <= corrections <= 14  # 100 s at 2000 ppm are ten frames
    assert len(heard.played) >= 4_880


def test_a_new_source_goes_on_fresh_and_a_jump_in_time_goes_on_with_a_cut() -> None:
    first = stream(100)
    jumped = [Sent(p.at, p.number, (p.seq + 9000) & 0xFFFF, 5_000_000 + p.number * FRAME) for p in stream(200)[100:]]
    other = [Sent(p.at, p.number, p.seq, p.timestamp, ssrc=9) for p in stream(300)[200:]]
    buffer = JitterBuffer()
    heard = play(buffer, [*first, *jumped, *other], 290)
    cuts = {number_of(step): step.fresh for _, step in heard.steps if isinstance(step, Play) and step.cut}
    assert cuts == {0: True, 100: False, 200: True}
    assert buffer.counts.restarts == 2
    assert heard.played[-1] >= 280


def test_one_damaged_header_changes_nothing() -> None:
    packets = stream(200)
    strange = [
        Sent(START + 50 * TICK, 0, 7, 7, ssrc=77),
        Sent(START + 80 * TICK, 0, 30_000, packets[80].timestamp),
        Sent(START + 110 * TICK, 0, packets[110].seq, 1),
        Sent(START + 140 * TICK, 0, packets[140].seq, packets[140].timestamp, body=b"\xff"),
        Sent(START + 150 * TICK, 0, packets[150].seq, packets[150].timestamp, body=b"\xfa\xfc"),
    ]
    buffer = JitterBuffer()
    heard = play(buffer, [*packets, *strange], 198)
    assert heard.played == list(range(heard.played[-1] + 1))
    assert buffer.counts.malformed == len(strange)
    assert buffer.counts.restarts == 0


def test_a_burst_after_a_stall_is_cut_to_the_allowed_delay() -> None:
    packets = stream(300, lambda n: 10_000 if n < 100 else max(10_000, 1_500_000 - (n - 100) * TICK))
    heard = play(JitterBuffer(), packets, 320)
    assert max(heard.delays) <= JitterSettings().most_us + TICK
    assert heard.played == sorted(set(heard.played))


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"", 0),
        (b"\xf8", 960),
        (b"\xf8" + bytes(1276), 0),
        (b"\x18abc", 2880),
        (b"\xf9ab", 1920),
        (b"\xf9abc", 0),
        (b"\xfa\x02abcd", 1920),
        (b"\xfa\x09abcd", 0),
        (b"\xfb\x06" + bytes(20), 5760),
        (b"\xfb\x07" + bytes(20), 0),
        (b"\xfb\x00", 0),
        (b"\xfb", 0),
        (b"\xe0a", 120),
        (b"\x68a", 960),
    ],
)
def test_packets_say_how_long_they_are(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples


Events = st.lists(
    st.tuples(
        st.integers(0, 60_000),  # µs since the last one
        st.integers(-3, 400) | st.integers(0, 3),  # packet
        st.sampled_from([0, 0, 0, 0, 0, 1, 12345, 2**31]),  # added to its timestamp
        st.sampled_from([1, 1, 1, 1, 2]),
        st.sampled_from([CELT_20, CELT_20, CELT_20, 0xE0, 0x18, 0xFF, 0xF9]),
    ),
    max_size=120,
)


@given(Events, st.booleans(), st.integers(0, 20_000))
def test_whatever_comes_is_played_once_in_order_and_within_bounds(
    events: Sequence[tuple[int, int, int, int, int]], quiet: bool, phase: int
) -> None:
    buffer = JitterBuffer()
    most = (JitterSettings().most_us + TICK) * 48 // 1000
    at, packets = START, []
    for index, (later, number, twist, ssrc, toc) in enumerate(events):
        at += later
        body = b"" if toc == 0xFF else bytes([toc]) + index.to_bytes(4, "big")
        packets.append(Sent(at, index, number & 0xFFFF, (number * FRAME + twist) & 0xFFFFFFFF, ssrc, body))
    waiting, played, decoded = list(packets), [], 0
    for now in range(START + phase, at + 1_000_000, TICK):
        while waiting and waiting[0].at <= now:
            one = waiting.pop(0)
            buffer.put(one.ssrc, one.seq, one.timestamp, one.body, one.at)
        asked = 0
        while decoded < FRAME:
            step = buffer.step(now, decoded, quiet=quiet)
            asked += 1
            assert step.samples > 0
            decoded += 0 if isinstance(step, Skip) else step.samples
            if isinstance(step, Play | Skip):
                played.append(number_of(step))
            assert buffer.held <= MAX_HELD
            assert buffer.waiting_samples <= most or not buffer.playing
        assert asked <= 12 + MAX_HELD
        assert decoded < FRAME + 5760
        decoded -= FRAME
    assert len(played) == len(set(played))
    assert buffer.held <= 1 or buffer.playing
