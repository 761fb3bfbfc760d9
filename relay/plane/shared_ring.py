"""A ring of packets in shared memory: one process puts, another takes, neither waits for the other.

Three descriptors make a ring: `memory`, a memfd of the layout below; `wake`, a socket of a pair by which the producer
wakes the consumer; `life`, a socket of a pair that carries nothing and whose end tells each side that the other is
gone, closed or killed. The relay creates the ring and keeps one end; `fds` are the worker's.

Layout, in native byte order, both ends being on one machine. The header is 4096 bytes of 64-bit words. Of them count:

| word | name | written by | |
| --- | --- | --- | --- |
| 0 | magic | creator | "costring" |
| 1 | version | creator | 1 |
| 2 | slot size | creator | bytes of a slot, a multiple of 8 |
| 3 | slots | creator | |
| 8 | head | producer | packets put so far; the next goes to slot `head % slots` |
| 9 | dropped | producer | packets that found the ring full or were too long |
| 10 | producer closed | producer | 1 when it closed in good order |
| 16 | tail | consumer | packets taken so far |
| 17 | sleeping | consumer sets, producer clears | 1 when the consumer wants to be woken |
| 18 | consumer closed | consumer | 1 when it closed in good order |

Then come the slots: sequence (u64, `head` + 1 of its packet), arrival (i64, monotonic µs), stream (u32), length (u32),
8 bytes unused, and from byte 32 on the packet. A slot belongs to the producer until `head` has passed it and to the
consumer until `tail` has: nothing is read while it is written. A full ring drops what comes.

Neither side believes the other. The shape is read once and checked against the file, which is sealed against
shrinking; each keeps its own position to itself; every position, sequence and length of the other side is checked when
it is read. A producer that reads a tail which cannot be takes the ring for full; a consumer that reads what cannot be
raises PeerError. The worst that a hostile worker can do is to have its own packets lost. Wake-ups go by a socket and
not by an eventfd because one end of a pair cannot be made to block by the other (docs/decisions/0009).

What orders all this stands in `relay.plane.ring_words`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import socket
import time
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from relay.errors import PeerError, UsageError
from relay.plane.ring_words import (
    CONSUMER_CLOSED,
    DROPPED,
    HEAD,
    HEADER,
    MAGIC_WORD,
    PRODUCER_CLOSED,
    SLEEPING,
    SLOT_SIZE_WORD,
    SLOTS_WORD,
    TAIL,
    VERSION_WORD,
    PlainWords,
    Words,
    best_words,
)

MAGIC = int.from_bytes(b"costring", "little")
VERSION = 1
SLOT_HEADER = 32
SLOT_SIZE = 1536  # bytes: a datagram of 1500 and the slot's header
SLOTS = 2048  # 2 s of one 1,000 packets/s layer, 3 MiB
MAX_SLOTS = 1 << 20
MAX_SLOT_SIZE = 1 << 16
LOOK_S = 0.1  # a blocking wait looks again after this long

_SLOT = Struct("=QqII")
_MASK = (1 << 64) - 1


class RingPacket(NamedTuple):
    """A packet in a ring. `data` is a view of the shared memory and good until `release`."""

    stream: int
    arrival: int
    data: memoryview


class SharedRing:
    """One end of a ring. `create` makes the relay's, `attach` the worker's; `writer` or `reader` uses it."""

    def __init__(self, memory: int, wake: socket.socket, life: socket.socket, *, native: bool | None = None) -> None:
        """Take over the descriptors. PeerError when the memory is not a ring; then nothing is left open."""
        self._memory_fd, self.wake, self.life = memory, wake, life
        self._given: tuple[int, ...] = ()
        self._closed_word: int | None = None
        self._closed = False
        self._plain: PlainWords | None = None
        self.memory: mmap.mmap | None = None
        try:
            self.memory = _map(memory)
            self._plain = plain = PlainWords(self.memory)
            self.slot_size, self.slots = plain.load(SLOT_SIZE_WORD), plain.load(SLOTS_WORD)
            _check_shape(plain, self.slot_size, self.slots, len(self.memory))
        except BaseException:
            self.close()
            raise
        self.words: Words = best_words(memory, plain, native)

    @classmethod
    def create(cls, slots: int = SLOTS, slot_size: int = SLOT_SIZE, *, native: bool | None = None) -> SharedRing:
        """Make a ring and keep the relay's end. UsageError for a shape that cannot be, OSError without memory."""
        if not _is_shape(slots, slot_size):
            raise UsageError(f"a ring of {slots} slots of {slot_size} bytes")
        memory = os.memfd_create("costream-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            size = HEADER + slots * slot_size
            os.posix_fallocate(memory, 0, size)  # missing memory shows here, not at some packet
            os.pwrite(memory, Struct("=4Q").pack(MAGIC, VERSION, slot_size, slots), 0)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            given = os.dup(memory)
        except BaseException:
            os.close(memory)
            raise
        (wake, their_wake), (life, their_life) = socket.socketpair(), socket.socketpair()
        ring = cls(memory, wake, life, native=native)
        ring._given = (given, their_wake.detach(), their_life.detach())
        return ring

    @classmethod
    def attach(cls, fds: Sequence[int], *, native: bool | None = None) -> SharedRing:
        """Take over the worker's end, by its descriptors. PeerError when they are not those of a ring."""
        memory, wake, life = fds
        return cls(memory, socket.socket(fileno=wake), socket.socket(fileno=life), native=native)

    @property
    def fds(self) -> tuple[int, ...]:
        """The worker's end, to be given to it (`pass_fds`, `socket.send_fds`); empty once `passed`.

        Not by fork: a child that inherits an end keeps it open, and the death of whoever had it does not show.
        """
        return self._given

    @property
    def memory_fd(self) -> int:
        return self._memory_fd

    @property
    def capacity(self) -> int:
        """Bytes of the longest packet."""
        return self.slot_size - SLOT_HEADER

    def passed(self) -> None:
        """The worker has its descriptors: close ours of them, so that its death shows. Repeatable."""
        given, self._given = self._given, ()
        for descriptor in given:
            os.close(descriptor)

    @property
    def gone(self) -> bool:
        """The other side closed its end or died. `life` is readable then."""
        if self._closed:
            return True
        poll = select.poll()
        poll.register(self.life, select.POLLIN)
        return bool(poll.poll(0))

    def writer(self) -> RingWriter:
        """Be the producer."""
        self._closed_word = PRODUCER_CLOSED
        return RingWriter(self)

    def reader(self) -> RingReader:
        """Be the consumer."""
        self._closed_word = CONSUMER_CLOSED
        return RingReader(self)

    def close(self) -> None:
        """Say so, unmap and close. Views of packets that somebody still holds keep the memory. Repeatable."""
        if self._closed:
            return
        self._closed = True
        self.passed()
        if self.memory is not None:
            if self._closed_word is not None:
                self.words.store(self._closed_word, 1)
            if self._plain is not None:
                self.words = self._plain  # the native ones hold a mapping of their own
                self._plain.release()
            with contextlib.suppress(BufferError):
                self.memory.close()
            self.memory = None
        for end in (self.wake, self.life):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # others may hold a duplicate
            end.close()
        os.close(self._memory_fd)


class RingWriter:
    """The producer's end."""

    def __init__(self, ring: SharedRing) -> None:
        assert ring.memory is not None
        self.ring = ring
        self.dropped = 0
        self._words = ring.words
        self._memory: mmap.mmap | None = ring.memory
        self._head, self._tail = self._words.load(HEAD), self._words.load(TAIL)
        self._told = self._head

    @property
    def packets(self) -> int:
        """Put so far."""
        return self._head

    def put(self, stream: int, arrival: int, packet: bytes | memoryview, *, more: bool = False) -> bool:
        """Put a packet; false, and counted, when the ring is full or the packet too long. Never waits.

        With `more` to come nobody is woken until a `put` without it, or `flush`.
        """
        length, ring, head, memory = len(packet), self.ring, self._head, self._memory
        if memory is None:
            raise UsageError("the ring is closed")
        done = False
        if (head - self._tail) & _MASK >= ring.slots:
            self._tail = self._words.load(TAIL)
        if length > ring.capacity or (head - self._tail) & _MASK >= ring.slots:
            self.dropped += 1
            self._words.store(DROPPED, self.dropped)
        else:
            start = HEADER + head % ring.slots * ring.slot_size
            _SLOT.pack_into(memory, start, head + 1, arrival, stream, length)
            start += SLOT_HEADER
            memory[start : start + length] = packet
            self._head = head + 1
            self._words.store(HEAD, head + 1)
            done = True
        if not more:
            self.flush()
        return done

    def flush(self) -> None:
        """Wake the consumer if it sleeps and something was put since the last time."""
        if self._told == self._head:
            return
        self._told = self._head
        if self._words.load(SLEEPING):
            self._words.store(SLEEPING, 0)
            with contextlib.suppress(OSError):  # full wakes anyway; closed has nobody to wake
                self.ring.wake.send(b"\x01", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Close the ring."""
        self.ring.close()
        self._words, self._memory = self.ring.words, None


class RingReader:
    """The consumer's end.

    For asyncio: `add_reader(reader.fileno(), …)`, and in the callback `read` until it gives nothing; remove it when
    `reader.ring.gone` or PeerError. A thread or a plain loop calls `wait` between such runs. Begin with a `read`.
    """

    def __init__(self, ring: SharedRing) -> None:
        assert ring.memory is not None
        self.ring = ring
        self._words = ring.words
        self._view = memoryview(ring.memory)
        self._tail = self._words.load(TAIL)
        self._batch: list[RingPacket] = []

    def fileno(self) -> int:
        """Readable after a wake-up, and for ever once the producer is gone."""
        return self.ring.wake.fileno()

    @property
    def dropped(self) -> int:
        """What the producer says that it dropped."""
        return self._words.load(DROPPED)

    def read(self, limit: int = 64, *, wake: bool = True) -> list[RingPacket]:
        """The next packets, after `release` of the last ones. When there are none, the next `put` wakes.

        Not so without `wake`: who looks by a clock of its own saves the producer the waking.
        Raises PeerError when the other side wrote what cannot be: close the ring then.
        """
        self.release()
        if not (waiting := self._waiting()):
            if not wake:
                return self._batch
            self._forget_wakes()
            self._words.store(SLEEPING, 1)
            if not (waiting := self._waiting()):
                return self._batch
        ring, view, tail = self.ring, self._view, self._tail
        for position in range(tail, tail + min(waiting, limit)):
            start = HEADER + position % ring.slots * ring.slot_size
            sequence, arrival, stream, length = _SLOT.unpack_from(view, start)
            if sequence != position + 1 or length > ring.capacity:
                raise PeerError("a slot of the ring holds what cannot be")
            start += SLOT_HEADER
            self._batch.append(RingPacket(stream, arrival, view[start : start + length].toreadonly()))
        return self._batch

    def release(self) -> None:
        """Give the slots of the last batch back. Its views are void."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        for packet in batch:
            packet.data.release()
        self._tail += len(batch)
        self._words.store(TAIL, self._tail)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is something to read: true. False after `timeout` seconds, or when the producer is gone.

        Releases the last batch: who sleeps on it would keep the ring full.
        """
        self.release()
        until = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.ring.wake, select.POLLIN)
        while not self._waiting():
            self._words.store(SLEEPING, 1)
            if self._waiting():
                break
            left = LOOK_S if until is None else min(LOOK_S, until - time.monotonic())
            if left <= 0 or self.ring.gone:
                return bool(self._waiting())
            poll.poll(left * 1000)
            if not self._forget_wakes():
                return bool(self._waiting())
        return True

    def close(self) -> None:
        """Release what was read, and close the ring."""
        for packet in self._batch:
            packet.data.release()
        self._batch = []
        self._view.release()
        self.ring.close()
        self._words = self.ring.words

    def _forget_wakes(self) -> bool:
        """False when the producer is gone."""
        try:
            return bool(self.ring.wake.recv(256, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _waiting(self) -> int:
        waiting = (self._words.load(HEAD) - self._tail - len(self._batch)) & _MASK
        if waiting > self.ring.slots:
            raise PeerError("the producer's position in the ring cannot be")
        return waiting


def _is_shape(slots: int, slot_size: int) -> bool:
    return 1 <= slots <= MAX_SLOTS and SLOT_HEADER < slot_size <= MAX_SLOT_SIZE and slot_size % 8 == 0


def _map(memory: int) -> mmap.mmap:
    try:
        sealed = fcntl.fcntl(memory, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        size = os.fstat(memory).st_size
    except OSError as error:
        raise PeerError(f"not the memory of a ring: {error.strerror}") from error
    if not sealed or size < HEADER:
        raise PeerError("not the memory of a ring")
    return mmap.mmap(memory, size)


def _check_shape(words: Words, slot_size: int, slots: int, size: int) -> None:
    if (words.load(MAGIC_WORD), words.load(VERSION_WORD)) != (MAGIC, VERSION):
        raise PeerError("not a ring of this version")
    if not _is_shape(slots, slot_size) or HEADER + slots * slot_size > size:
        raise PeerError(f"a ring of {slots} slots of {slot_size} bytes")
