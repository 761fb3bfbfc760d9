"""The last words of closed connections, for peers that missed them (RFC 9000 section 10.2.1, closing). No I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from relay.link.quic.adapter import Wire

LINGER_S = 3.0  # three probe timeouts of a bad path
MAX_LINGERING = 1024  # connection ids
MAX_REPEATS = 16  # per connection

Datagrams = list[tuple[bytes, Wire]]


@dataclass(slots=True)
class _Goodbye:
    datagrams: Datagrams
    until: float
    repeats: int = 0


class Goodbyes:
    """By connection id, the oldest go first. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, _Goodbye] = OrderedDict()

    def __contains__(self, connection_id: bytes) -> bool:
        return connection_id in self._kept

    def keep(self, connection_ids: Iterable[bytes], datagrams: Datagrams, now: float) -> None:
        """A connection with these ids was closed by these datagrams."""
        goodbye = _Goodbye(datagrams, now + LINGER_S)
        for connection_id in connection_ids:
            self._kept[connection_id] = goodbye
        while len(self._kept) > MAX_LINGERING:
            self._kept.popitem(last=False)

    def again(self, connection_id: bytes, now: float) -> Datagrams:
        """The peer still talks, so it has not heard: what to send once more; nothing when that was often enough."""
        goodbye = self._kept[connection_id]
        if now > goodbye.until or goodbye.repeats >= MAX_REPEATS:
            del self._kept[connection_id]
            return []
        goodbye.repeats += 1
        return goodbye.datagrams
