"""One end of a control socket in an event loop: it never waits for the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic

from relay.errors import PeerError
from relay.process.control import M, Message, Wire, frame

UNREAD_BYTES = 4 << 20
"""What the other end may leave unread; then it hangs, and is given up."""
GONE = "it closed its control socket"


class ControlStream(Generic[M]):
    """Gives each message to `on_message`. `on_end`, called once, when the socket is closed: the other end is `GONE`,
    talks nonsense or does not read; not after `close`."""

    def __init__(
        self,
        control: socket.socket,
        wire: Wire[M],
        on_message: Callable[[M], None],
        on_end: Callable[[str], None],
    ) -> None:
        """The socket is this one's from now on."""
        self._loop = asyncio.get_running_loop()
        self._control, self._wire = control, wire
        self._on_message, self._on_end = on_message, on_end
        self._unsent = bytearray()
        control.setblocking(False)
        self._loop.add_reader(control.fileno(), self.pump)

    def pump(self) -> None:
        """Take what has been said; may be called at any time, also while a message is handled."""
        if self._closed:
            return
        try:
            data = self._control.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end(GONE)
            return
        try:
            messages = self._wire.feed(data)
        except PeerError as error:
            self._end(f"it said nonsense: {error}")
            return
        for message in messages:
            self._on_message(message)

    def send(self, message: Message) -> None:
        """Tell the other end. What is told to a closed one is lost."""
        if self._closed:
            return
        self._unsent += frame(message)
        self._flush()
        if len(self._unsent) > UNREAD_BYTES:
            self._end("it does not read its control socket")

    def close(self) -> None:
        """Close the socket. Repeatable."""
        if not self._closed:
            self._loop.remove_reader(self._control.fileno())
            self._loop.remove_writer(self._control.fileno())
            self._control.close()

    @property
    def _closed(self) -> bool:
        return self._control.fileno() < 0

    def _flush(self) -> None:
        try:
            sent = self._control.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # its end shows by the reader
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._control.fileno(), self._flush)
        else:
            self._loop.remove_writer(self._control.fileno())

    def _end(self, why: str) -> None:
        self.close()
        self._on_end(why)
