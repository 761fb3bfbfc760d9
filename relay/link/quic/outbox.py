"""The datagrams of a connection that wait in QUIC's queue: bounded in bytes, in age and in size."""

from __future__ import annotations

from relay.link.quic.adapter import Quic
from relay.link.quic.host import Limits
from relay.link.transport import DatagramCounts


class Outbox:
    """aioquic's queue has no bounds, and one datagram that is longer than the path takes blocks it for ever.

    What drops datagrams returns the tokens of those that had one: their owner has to be told. Times are seconds.
    """

    def __init__(self, quic: Quic, limits: Limits, counts: DatagramCounts) -> None:
        self._quic = quic
        self._limits = limits
        self._counts = counts
        self._bytes = 0
        self._taken = 0  # of `quic.bytes_taken`, accounted for

    def put(self, data: bytes, token: object, longest: int, now: float) -> bool:
        """Queue a datagram; False, and counted, when it is longer than `longest` or the queue is full."""
        size = len(data)
        if size > longest:
            self._counts.oversize += 1
            return False
        if self._bytes + size > self._limits.queue_bytes:
            self._counts.overflow += 1
            return False
        self._bytes += size
        self._counts.queued += 1
        self._quic.queue_datagram(data, token, now)
        return True

    def flush(self) -> tuple[int, list[object]]:
        """Drop all of them. Returns how many there were as well."""
        dropped = [token for _, token, _ in self._quic.queue]
        self._quic.queue.clear()
        self._bytes = 0
        self._counts.flushed += len(dropped)
        return len(dropped), _told(dropped)

    def shorten(self, longest: int) -> list[object]:
        """Drop those that the path does not take any more."""
        queue = self._quic.queue
        long = [token for data, token, _ in queue if len(data) > longest]
        if long:
            keep = [item for item in queue if len(item[0]) <= longest]
            queue.clear()
            queue.extend(keep)
            self._bytes = sum(len(item[0]) for item in keep)
            self._counts.flushed += len(long)
        return _told(long)

    def expire(self, now: float) -> list[object]:
        """Drop those that have waited too long."""
        queue = self._quic.queue
        oldest = now - self._limits.queue_age_s
        stale = []
        while queue and queue[0][2] < oldest:
            data, token, _ = queue.popleft()
            self._bytes -= len(data)
            stale.append(token)
        self._counts.stale += len(stale)
        return _told(stale)

    def account(self) -> None:
        """Take note of what left the queue in packets."""
        quic = self._quic
        self._counts.sent = quic.frames_sent
        self._bytes -= quic.bytes_taken - self._taken
        self._taken = quic.bytes_taken


def _told(tokens: list[object]) -> list[object]:
    return [token for token in tokens if token is not None]
