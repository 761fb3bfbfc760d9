"""The worker's side of what `relay.process.child` starts: its control socket, and its end when the relay's comes."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Generic

from relay.process.control import M, Message, Wire, frame

_PR_SET_PDEATHSIG = 1
SEND_S = 1.0


class ControlEnd(Generic[M]):
    """The worker's end of the control socket. Any thread may `send`; one `receive`s."""

    def __init__(self, descriptor: int, wire: Wire[M]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(True)
        self._socket.settimeout(SEND_S)
        # Not select.select: it ends at descriptor 1024, and what the relay hands on has its numbers from there.
        self._readable = selectors.DefaultSelector()
        self._readable.register(self._socket, selectors.EVENT_READ)
        self._wire = wire
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self, timeout: float) -> list[M] | None:
        """Return what was said, after at most `timeout` seconds. None when the relay is gone: end then.

        Raises PeerError for nonsense.
        """
        if not self._readable.select(timeout):
            return []
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        return self._wire.feed(data) if data else None

    def send(self, message: Message) -> bool:
        """Tell the relay. False when it is gone or has not read for `SEND_S`: end then."""
        data = frame(message)
        with self._lock:
            try:
                self._socket.sendall(data)
            except OSError:
                return False
        return True

    def close(self) -> None:
        """For an end that does not go with its process. Repeatable."""
        self._readable.close()
        self._socket.close()


def begin(arguments: Sequence[str], wire: Wire[M]) -> ControlEnd[M]:
    """Take the last two arguments, die with the parent, leave Ctrl-C to it, and return the control socket.

    Raises SystemExit when the parent is gone already.
    """
    control, parent = (int(word) for word in arguments[-2:])
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a line of log must not stop it, whatever `stty tostop` says
    return ControlEnd(control, wire)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that spawned it ends (prctl(2), PR_SET_PDEATHSIG)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before the kernel was asked
        raise SystemExit(0)
