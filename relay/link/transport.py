"""What a link needs of its transport, so that another QUIC library can be put in place of `relay.link.quic`.

All times are microseconds of the monotonic clock (`now`). Callbacks run on the endpoint's event loop, in batches, and
must not block. Names here are a contract: `relay.link` codes against them and against nothing behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relay.errors import PeerError
from relay.link.path import PathReport

Remote = tuple[str, int]  # host and port


class IdentityRefused(PeerError):
    """A peer's certificate is missing, not of this cluster, expired, or names another node than expected."""


class HandshakeFailed(PeerError):
    """No connection came about: nobody answered in time, or TLS or QUIC failed."""


@dataclass(slots=True)
class DatagramCounts:
    """What became of the datagrams given to one connection, in pieces."""

    queued: int = 0  # accepted by send_datagram
    sent: int = 0  # written into packets
    oversize: int = 0  # refused: longer than max_datagram
    overflow: int = 0  # refused: queue full
    stale: int = 0  # dropped from the queue: waited longer than its age limit
    flushed: int = 0  # dropped from the queue by flush_datagrams, and when the path came to take only shorter ones
    received: int = 0
    unheard: int = 0  # received before on_datagrams was set, and more than is kept


class Connection(Protocol):
    """One QUIC connection, either side. Its peer's certificate has been checked before anyone sees it.

    Every token given with an accepted datagram comes back exactly once, in `on_acked` or in `on_lost` (lost, dropped
    from the queue, or never answered when the connection ended). `on_closed` comes once, last, with the reason.
    """

    peer: str  # node name that the certificate proved
    alpn: str
    early: bool  # 0-RTT: the server may see what arrives now as a replay, the client's may be rejected
    counts: DatagramCounts
    on_acked: Callable[[list[object]], None]
    on_lost: Callable[[list[object]], None]
    on_closed: Callable[[str], None]
    on_max_datagram: Callable[[int], None]  # path MTU discovery or migration changed `max_datagram`

    @property
    def on_datagrams(self) -> Callable[[list[bytes]], None] | None:
        """Takes the payloads of a batch, in order of arrival. What came before it was set is kept (bounded)."""

    @on_datagrams.setter
    def on_datagrams(self, value: Callable[[list[bytes]], None]) -> None: ...

    @property
    def on_stream(self) -> Callable[[int, bytes, bool], None] | None:
        """Takes (stream id, bytes, ended). Bytes of one stream come in order; a reset stream comes as `on_reset`."""

    @on_stream.setter
    def on_stream(self, value: Callable[[int, bytes, bool], None]) -> None: ...

    @property
    def on_reset(self) -> Callable[[int, int], None]:
        """Takes (stream id, error code) when the peer gave up a stream or asked us to stop sending on it."""

    @on_reset.setter
    def on_reset(self, value: Callable[[int, int], None]) -> None: ...

    @property
    def max_datagram(self) -> int:
        """Payload bytes of the largest DATAGRAM frame now; 0 when the peer takes none."""

    @property
    def remote(self) -> Remote:
        """Where packets go now; a server follows its client."""

    @property
    def window(self) -> int:
        """Bytes that may be in flight."""

    @property
    def closed(self) -> bool: ...

    def send_datagram(self, data: bytes, token: object = None) -> bool:
        """Queue a datagram; packets leave once per loop tick. False, and counted, when oversize, full or closed."""

    def flush_datagrams(self) -> int:
        """Drop what is still queued. Returns how many."""

    def open_stream(self, *, unidirectional: bool = False) -> int: ...

    def send_stream(self, stream: int, data: bytes, ended: bool = False) -> None:
        """Queue bytes on a stream. Ignored once closed. Raises UsageError on a stream that cannot be written."""

    def reset_stream(self, stream: int, code: int) -> None: ...

    def open_window(self, size: int) -> None:
        """Let at least so many bytes be in flight, as seen on another path just now. Never shrinks the window."""

    def ping(self) -> None:
        """Ask for an acknowledgement."""

    def report(self, now: int) -> PathReport: ...

    def close(self, reason: str = "") -> None:
        """Tell the peer, and end at once: `on_closed` has been called when this returns. May be called again."""

    async def wait_ready(self) -> None:
        """Wait until the handshake is confirmed. Raises HandshakeFailed or IdentityRefused."""


class Endpoint(Protocol):
    """One UDP socket with many connections."""

    on_connection: Callable[[Connection], None]
    on_refused: Callable[[Remote, str], None]

    @property
    def address(self) -> Remote: ...

    async def connect(
        self,
        remote: Remote,
        alpn: str,
        expected_name: str,
        *,
        path: str = "",
        early: bool = True,
        timeout_s: float | None = None,
    ) -> Connection:
        """Dial a node. With a session ticket of (`expected_name`, `alpn`, `path`) and `early`, returns at once: 0-RTT.

        Else waits for the handshake. Raises IdentityRefused, HandshakeFailed within the handshake's time limit, or
        TimeoutError after `timeout_s` if that is less.
        """

    async def close(self, reason: str = "") -> None:
        """Close all connections and the socket. Bounded; leaves no task, timer or socket."""
