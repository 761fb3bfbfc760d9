"""Rings in shared memory: order, loss, wake-ups, the end of either side, and memory that the other side spoils.

Both makes of each end are told the same stories: Python's with and without native words, and those of the shard.
"""

from __future__ import annotations

import mmap
import os
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import PeerError, UsageError
from relay.plane import ring_words, shared_ring
from relay.plane.ring_words import HEADER
from relay.plane.shared_ring import SLOT_HEADER, SharedRing
from tests.plane.sockets import opened

native: object
try:
    from relay.plane import _native as native
except ImportError:
    native = None

Packet = tuple[int, int, bytes]
MAKES = ["plain", "words", "shard"] if native is not None else ["plain"]


class End:
    """A producer or consumer of any make."""

    def __init__(self, ring: SharedRing, make: str, *, writes: bool) -> None:
        self.ring, self.shard = ring, make == "shard"
        if self.shard:
            maker = native.RingWriter if writes else native.RingReader  # type: ignore[attr-defined]
            self.end = maker(ring.memory_fd, ring.wake.fileno())
        else:
            self.end = ring.writer() if writes else ring.reader()

    def put(self, stream: int, arrival: int, packet: bytes) -> bool:
        done: bool = self.end.put(stream, arrival, packet)
        if self.shard:
            self.end.flush()
        return done

    def get(self, limit: int) -> list[Packet]:
        """At most `limit` packets. PeerError for what cannot be."""
        if not self.shard:
            return [(one.stream, one.arrival, bytes(one.data)) for one in self.end.read(limit)]
        found: list[Packet] = []
        try:
            while len(found) < limit and (one := self.end.take()) is not None:
                found.append(one)
            if not found:
                self.end.woken()
                self.end.sleep()
        except ValueError as error:
            raise PeerError(str(error)) from error
        return found

    def close(self) -> None:
        if isinstance(self.end, shared_ring.RingReader):
            self.end.close()
        else:
            del self.end
        self.ring.close()


def pair(slots: int, slot_size: int, writes: str = MAKES[0], reads: str = MAKES[0]) -> tuple[End, End, SharedRing]:
    """A producer on the relay's end and a consumer on the worker's."""
    ours = SharedRing.create(slots, slot_size, native=writes != "plain")
    theirs = SharedRing.attach([os.dup(fd) for fd in ours.fds], native=reads != "plain")
    ours.passed()
    return End(ours, writes, writes=True), End(theirs, reads, writes=False), ours


@pytest.fixture(params=MAKES)
def writes(request: pytest.FixtureRequest) -> str:
    make: str = request.param
    return make


@pytest.fixture(params=MAKES)
def reads(request: pytest.FixtureRequest) -> str:
    make: str = request.param
    return make


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Every test leaves as much open and mapped as it found."""
    before = opened()
    yield
    assert opened() == before


def is_told(ring: SharedRing) -> bool:
    """Whether the ring's consumer would wake."""
    with selectors.DefaultSelector() as selector:
        selector.register(ring.wake, selectors.EVENT_READ)
        return bool(selector.select(0))


def test_packets_come_in_order_with_what_was_said_of_them(writes: str, reads: str) -> None:
    producer, consumer, _ = pair(4, 256, writes, reads)
    with closing(producer), closing(consumer):
        sent = [(number, -(10**15) * number, bytes([number]) * number) for number in range(40)]
        for begin in range(0, 40, 4):
            for packet in sent[begin : begin + 4]:
                assert producer.put(*packet)
            assert consumer.get(3) == sent[begin : begin + 3]
            assert consumer.get(3) == sent[begin + 3 : begin + 4]
            assert consumer.get(3) == []


def test_a_full_ring_and_a_long_packet_are_dropped_and_counted(writes: str, reads: str) -> None:
    producer, consumer, _ = pair(2, 64, writes, reads)
    with closing(producer), closing(consumer):
        longest = bytes(64 - SLOT_HEADER)
        assert not producer.put(1, 1, longest + b"x")
        assert [producer.put(1, 1, longest) for _ in range(3)] == [True, True, False]
        assert producer.end.dropped == 2
        assert consumer.get(9) == [(1, 1, longest)] * 2
        if reads != "shard":
            assert consumer.end.dropped == 2
            consumer.get(9)
        assert producer.put(1, 1, b"")
        assert consumer.get(9) == [(1, 1, b"")]


def test_only_a_sleeping_consumer_is_woken_and_once(writes: str, reads: str) -> None:
    producer, consumer, _ = pair(8, 64, writes, reads)
    with closing(producer), closing(consumer):
        producer.put(1, 1, b"a")
        assert not is_told(consumer.ring)
        assert len(consumer.get(9)) == 1
        assert consumer.get(9) == []  # asks to be woken
        producer.put(1, 1, b"b")
        assert is_told(consumer.ring)
        assert consumer.ring.wake.recv(9, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b"\x01"
        producer.put(1, 1, b"c")
        assert consumer.ring.wake.recv(9, socket.MSG_DONTWAIT) == b"\x01"
        assert len(consumer.get(9)) == 2
        assert not is_told(consumer.ring)


@given(
    slots=st.integers(1, 6),
    steps=st.lists(st.one_of(st.binary(max_size=40), st.integers(1, 5)), max_size=60),
    makes=st.tuples(st.sampled_from(MAKES), st.sampled_from(MAKES)),
)
@settings(max_examples=150, deadline=None)
def test_it_is_a_bounded_queue(slots: int, steps: list[bytes | int], makes: tuple[str, str]) -> None:
    producer, consumer, _ = pair(slots, SLOT_HEADER + 32, *makes)
    model: deque[Packet] = deque()
    held = dropped = 0  # a batch of Python's reader keeps its slots until the next
    with closing(producer), closing(consumer):
        for number, step in enumerate(steps):
            if isinstance(step, bytes):
                fits = len(step) <= 32 and len(model) + held < slots
                assert producer.put(number, -number, step) is fits
                if fits:
                    model.append((number, -number, step))
                else:
                    dropped += 1
            else:
                expected = [model.popleft() for _ in range(min(step, len(model)))]
                assert consumer.get(step) == expected
                held = 0 if makes[1] == "shard" else len(expected)
        assert producer.end.dropped == dropped


@given(
    makes=st.tuples(st.sampled_from(MAKES), st.sampled_from(MAKES)),
    spoils=st.lists(
        st.tuples(
            st.one_of(st.sampled_from([word * 8 for word in (0, 1, 2, 3, 8, 9, 16, 17)]), st.integers(0, HEADER + 255)),
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8), b"\x05" + bytes(7)])),
        ),
        min_size=1,
        max_size=6,
    ),
)
@settings(max_examples=300, deadline=None)
def test_spoilt_memory_costs_packets_and_nothing_else(makes: tuple[str, str], spoils: list[tuple[int, bytes]]) -> None:
    producer, consumer, ring = pair(4, 64, *makes)
    with closing(producer), closing(consumer), mmap.mmap(ring.memory_fd, 0) as memory:
        producer.put(1, 1, b"first")
        for place, data in spoils:
            data = data[: len(memory) - place]
            memory[place : place + len(data)] = data
            producer.put(2, 2, b"second")
            try:
                found = consumer.get(9)
            except PeerError:
                return
            assert len(found) <= 4
            assert all(len(packet) <= 32 for _, _, packet in found)


@pytest.mark.parametrize("place", [8, 16])
def test_a_position_that_cannot_be(writes: str, reads: str, place: int) -> None:
    producer, consumer, ring = pair(4, 64, writes, reads)
    with closing(producer), closing(consumer), mmap.mmap(ring.memory_fd, 0) as memory:
        if place == 8:  # the producer's, ahead of itself
            memory[64:72] = (5).to_bytes(8, sys.byteorder)
            with pytest.raises(PeerError):
                consumer.get(9)
        else:  # the consumer's, ahead of the producer
            assert all(producer.put(1, 1, b"x") for _ in range(4))
            memory[128:136] = (99).to_bytes(8, sys.byteorder)
            assert not producer.put(1, 1, b"x")


@pytest.mark.parametrize(("field", "value"), [(0, 77), (20, 33), (20, 0xFFFFFFFF)])
def test_a_slot_that_cannot_be(reads: str, field: int, value: int) -> None:
    producer, consumer, ring = pair(4, 64, "plain", reads)
    with closing(producer), closing(consumer), mmap.mmap(ring.memory_fd, 0) as memory:
        producer.put(1, 1, b"x")
        memory[HEADER + field : HEADER + field + 4] = value.to_bytes(4, sys.byteorder)
        with pytest.raises(PeerError):
            consumer.get(9)


def test_a_worker_cannot_shrink_the_memory_nor_make_the_relay_wait(writes: str) -> None:
    producer, consumer, ring = pair(4, 64, writes, "plain")
    with closing(producer), closing(consumer):
        with pytest.raises(OSError):
            os.ftruncate(consumer.ring.memory_fd, 0)
        with pytest.raises(OSError):
            os.ftruncate(consumer.ring.memory_fd, 1 << 20)
        os.set_blocking(consumer.ring.wake.fileno(), True)
        ring.wake.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ring.wake.send(bytes(4096))
        ring.wake.setblocking(True)
        words = consumer.ring.words
        for _ in range(3):  # each would wake, and there is no room
            words.store(ring_words.SLEEPING, 1)
            assert producer.put(1, 1, b"x")


def test_views_are_good_until_the_next_read() -> None:
    producer, consumer, _ = pair(4, 64)
    with closing(producer), closing(consumer):
        assert isinstance(consumer.end, shared_ring.RingReader)
        producer.put(7, 8, b"abc")
        (packet,) = consumer.end.read()
        assert packet.data.readonly
        assert (packet.stream, packet.arrival, bytes(packet.data)) == (7, 8, b"abc")
        consumer.end.release()
        with pytest.raises(ValueError):
            bytes(packet.data)


def test_who_looks_by_its_own_clock_is_not_woken() -> None:
    producer, consumer, _ = pair(4, 64)
    with closing(producer), closing(consumer):
        assert isinstance(consumer.end, shared_ring.RingReader)
        assert consumer.end.read(wake=False) == []
        producer.put(7, 8, b"abc")
        assert not is_told(consumer.ring)
        assert len(consumer.end.read(wake=False)) == 1
        assert consumer.end.read() == []
        producer.put(7, 8, b"abc")
        assert is_told(consumer.ring)


def test_each_side_sees_that_the_other_is_gone() -> None:
    ours = SharedRing.create(4, 64)
    theirs = SharedRing.attach([os.dup(fd) for fd in ours.fds])
    assert not ours.gone
    ours.passed()
    ours.passed()
    assert ours.fds == ()
    writer, reader = ours.writer(), theirs.reader()
    writer.put(1, 1, b"last")
    assert not theirs.gone
    ours.close()
    ours.close()
    assert theirs.gone
    assert reader.wait(5)
    assert [bytes(packet.data) for packet in reader.read()] == [b"last"]
    assert theirs.words.load(ring_words.PRODUCER_CLOSED) == 1
    assert not reader.wait(5)
    reader.close()


def test_wait_ends_by_time_or_by_a_packet() -> None:
    producer, consumer, _ = pair(4, 64)
    with closing(producer), closing(consumer):
        assert isinstance(consumer.end, shared_ring.RingReader)
        assert not consumer.end.wait(0.01)
        assert is_told(consumer.ring) is False
        producer.put(1, 1, b"x")
        assert is_told(consumer.ring)
        assert consumer.end.wait()


@pytest.mark.parametrize("shape", [(0, 64), (1, 32), (1, 63), (1 << 21, 64), (1, 1 << 17)])
def test_shapes_that_cannot_be(shape: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        SharedRing.create(*shape)


def _unsealed() -> int:
    memory = os.memfd_create("x")
    os.ftruncate(memory, 1 << 16)
    return memory


@pytest.mark.parametrize("memory", [lambda: os.open("/dev/null", os.O_RDWR), _unsealed])
def test_what_is_not_a_ring_is_refused(memory: Callable[[], int]) -> None:
    ends = [end.detach() for end in socket.socketpair()]
    with pytest.raises(PeerError):
        SharedRing.attach([memory(), *ends])


@pytest.mark.parametrize(("word", "value"), [(0, 1), (1, 2), (2, 1 << 20), (2, 60), (3, 0), (3, 1 << 30), (3, 5)])
def test_a_shape_that_lies_is_refused(word: int, value: int) -> None:
    ours = SharedRing.create(4, 64)
    fds = [os.dup(fd) for fd in ours.fds]
    ours.words.store(word, value)
    if native is not None:
        with pytest.raises(OSError):
            native.RingWords(ours.memory_fd)  # type: ignore[attr-defined]
    with pytest.raises(PeerError):
        SharedRing.attach(fds)
    ours.close()
