"""Session tickets, each used once, with the identity that they stand for. Bounded, and only in memory.

A resumed connection shows no certificates, so a ticket proves what the connection that made it had proved, no longer
than that certificate is valid. A server forgets a ticket when it is shown: a recorded first flight sent again finds
none, and its early data cannot be read.
"""

from __future__ import annotations

import datetime
from collections import OrderedDict
from dataclasses import dataclass

from aioquic.tls import SessionTicket

MAX_ISSUED = 1024
MAX_HELD = 4  # per peer and path
MAX_PATHS = 256


@dataclass(frozen=True, slots=True)
class Issued:
    """What a server knows of a ticket that it gave out. `until` is the end of the peer's certificate."""

    ticket: SessionTicket
    peer: str
    alpn: str
    until: datetime.datetime


class IssuedTickets:
    """A server's tickets by their label; the oldest is forgotten first."""

    def __init__(self, limit: int = MAX_ISSUED) -> None:
        self._limit = limit
        self._by_label: OrderedDict[bytes, Issued] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_label)

    def put(self, issued: Issued) -> None:
        self._by_label[issued.ticket.ticket] = issued
        while len(self._by_label) > self._limit:
            self._by_label.popitem(last=False)

    def take(self, label: bytes, alpn: str | None, now: datetime.datetime) -> Issued | None:
        """Return the ticket and forget it. None when unknown, used before, for another protocol, or outlived."""
        issued = self._by_label.pop(label, None)
        if issued is None or issued.alpn != alpn or now > issued.until or not issued.ticket.is_valid:
            return None
        return issued


@dataclass(frozen=True, slots=True)
class Held:
    """What a client keeps to come back with. `until` is the end of the server's certificate."""

    ticket: SessionTicket
    until: datetime.datetime


Key = tuple[str, str, str]  # peer, ALPN, path


class HeldTickets:
    """A client's tickets by peer, protocol and path, newest first; and the address tokens of servers."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Key, list[Held]] = OrderedDict()
        self._tokens: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def put_token(self, server: tuple[object, ...], token: bytes) -> None:
        """Keep what spares us the server's Retry; it may be shown again until the server says otherwise."""
        self._tokens[server] = token
        self._tokens.move_to_end(server)
        while len(self._tokens) > MAX_PATHS:
            self._tokens.popitem(last=False)

    def token(self, server: tuple[object, ...]) -> bytes:
        """Return the token of a server's address; empty when there is none."""
        return self._tokens.get(server, b"")

    def put(self, key: Key, held: Held) -> None:
        kept = self._by_key.setdefault(key, [])
        kept.append(held)
        del kept[:-MAX_HELD]
        self._by_key.move_to_end(key)
        while len(self._by_key) > MAX_PATHS:
            self._by_key.popitem(last=False)

    def take(self, key: Key, now: datetime.datetime) -> Held | None:
        """Return the newest that is still good and forget it; None when there is none."""
        kept = self._by_key.get(key, [])
        while kept:
            held = kept.pop()
            if now <= held.until and held.ticket.is_valid:
                return held
        self._by_key.pop(key, None)
        return None
