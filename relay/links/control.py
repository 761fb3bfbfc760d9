"""The link process's end of its control socket, in its event loop: it never waits for the relay."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from relay.errors import PeerError
from relay.links.messages import ORDERS, Order
from relay.process.control import Message, Wire, frame

UNREAD_BYTES = 4 << 20
"""What the relay may leave unread; a relay that is so far behind gets a new link process when it is back."""


class Control:
    """Gives each order to `on_order`. `on_end`, called once: the relay is gone, talks nonsense or does not read."""

    def __init__(self, descriptor: int, on_order: Callable[[Order], None], on_end: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_order, self._on_end = on_order, on_end
        self._wire: Wire[Order] = Wire(*ORDERS)
        self._unsent = bytearray()
        self._ended = False
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self.pump)

    def pump(self) -> None:
        """Take what has been said; may be called at any time, also while an order is carried out."""
        if self._ended:
            return
        try:
            data = self._socket.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end("the relay is gone")
            return
        try:
            orders = self._wire.feed(data)
        except PeerError as error:
            self._end(str(error))
            return
        for order in orders:
            self._on_order(order)

    def send(self, message: Message) -> None:
        """Tell the relay."""
        if self._ended:
            return
        self._unsent += frame(message)
        self._flush()
        if len(self._unsent) > UNREAD_BYTES:
            self._end("the relay does not read")

    def close(self) -> None:
        """Close the socket. Repeatable."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._ended = True

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # its end shows by the reader
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._socket.fileno())

    def _end(self, why: str) -> None:
        self.close()
        self._on_end(why)
