"""Push to an RTMP(S) service: dialled again and again, never waited for.

A thread does all that may wait, each wait bounded; what comes meanwhile waits in a bounded queue, and beyond that is
left out up to the next keyframe. Addresses are looked up once per try, checked, and dialled themselves; RTMPS verifies
the certificate against the name.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from relay.egress import amf
from relay.egress.address import parse_target
from relay.egress.h264 import Parameters
from relay.egress.media import AUDIO_RATE, AudioConfig, AudioUnit, Unit, VideoUnit
from relay.egress.messages import AddPush, Stated
from relay.egress.mp4 import avc_configuration
from relay.egress.rtmp_session import AUDIO, DATA, VIDEO, RtmpSession, State
from relay.egress.targets import addresses_of
from relay.errors import BadRequest, PeerError
from relay.process.child import Restarts

CLOSE_S = 2.0
BATCH = 64 << 10
LINGER_S = 0.5
"""For the words of farewell."""
_AAC = b"\xaf"  # AAC, 44 kHz, 16 bit, stereo, as the FLV specification wants it whatever the sound is


class PushOutput:
    """One push. `dropped` counts units left out."""

    def __init__(self, wanted: AddPush, audio: AudioConfig, video: bool, tell: Callable[[Stated], object]) -> None:
        self.id = wanted.id
        self.bytes = self.pictures = self.dropped = 0
        self._wanted, self._audio, self._video, self._tell = wanted, audio, video, tell
        self._queue: deque[Unit] = deque()
        self._held = 0
        self._skips = True
        self._connected = False
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)
        self._thread.start()

    def take(self, unit: Unit) -> None:
        with self._changed:
            begins = not self._video or (isinstance(unit, VideoUnit) and unit.keyframe)
            if self._skips and not begins:
                self.dropped += self._connected
                return
            if not self._connected and begins and isinstance(unit, VideoUnit):
                self._forget()  # nobody wants to see what was on when the server was away
            if self._held + len(unit.data) > self._wanted.queue_bytes:
                self._skips = True
                self.dropped += 1
                return
            self._skips = False
            self._queue.append(unit)
            self._held += len(unit.data)
            self._changed.notify()

    def tick(self, now: int) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        wanted = self._wanted
        waits = Restarts(wanted.retry_min_ms / 1000, wanted.retry_max_ms / 1000)
        while not self._closed:
            began = time.monotonic()
            try:
                self._attempt()
                return
            except BadRequest as error:
                self._tell(Stated(self.id, "failed", error.code, str(error)))
                return
            except PeerError as error:
                code, why = "refused", str(error)
            except ssl.SSLError as error:
                code, why = (
                    "tls",
                    error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else "TLS failed",
                )
            except (OSError, TimeoutError) as error:
                code, why = "unreachable", error.strerror or "it does not answer in time"
            finally:
                self._connected = False
            self._tell(Stated(self.id, "retrying", code, why))
            self._sleep(max(wanted.retry_min_ms / 1000, waits.died(time.monotonic() - began)))

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _attempt(self) -> None:
        """One connection, until it fails or the output is closed."""
        stall_s = self._wanted.stall_ms / 1000
        target = parse_target(self._wanted.url)
        addresses = addresses_of(target, self._wanted.allow_private)
        with contextlib.closing(_dial(addresses, target.port, stall_s)) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = plain
            if target.scheme == "rtmps":
                connection = ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
            with contextlib.closing(connection):
                session = RtmpSession(target)
                pipe = _Pipe(connection, session, stall_s)
                pipe.until(lambda: session.state is State.PUBLISHING or self._closed)
                if not self._closed:
                    self._publish(session, pipe)

    def _publish(self, session: RtmpSession, pipe: _Pipe) -> None:
        with self._changed:
            self._connected = True
            if not (self._queue and isinstance(self._queue[0], VideoUnit) and self._queue[0].keyframe):
                self._forget()
                self._skips = True
        self._tell(Stated(self.id, "running"))
        muxer = _Flv(session, self._audio)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed, 0.25)
                units, self._held = list(self._queue)[:128], 0
                for _ in units:
                    self._queue.popleft()
                self._held = sum(len(unit.data) for unit in self._queue)
                over = self._closed and not units
            if over:
                session.finish()
                with contextlib.suppress(OSError):
                    pipe.flush(LINGER_S)
                return
            for unit in units:
                muxer.send(unit)
                if isinstance(unit, VideoUnit):
                    self.pictures += 1
            self.bytes += pipe.flush()

    def _forget(self) -> None:
        self.dropped += len(self._queue) if self._connected else 0
        self._queue.clear()
        self._held = 0


class _Pipe:
    """A session on a socket; no call lasts longer than `stall_s` without progress. Raises OSError, PeerError."""

    def __init__(self, connection: socket.socket, session: RtmpSession, stall_s: float) -> None:
        self._connection, self._session, self._stall_s = connection, session, stall_s
        connection.setblocking(False)

    def until(self, done: Callable[[], bool]) -> None:
        """Go on until `done`."""
        end = time.monotonic() + self._stall_s
        while not done():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.flush()
            self._wait(min(left, 0.25), writing=False)
            self._read()

    def flush(self, patience_s: float | None = None) -> int:
        """Send what the session has; returns how many bytes. Reads too, or both sides would wait for each other."""
        data = memoryview(self._session.transmit())
        whole = len(data)
        end = time.monotonic() + (patience_s or self._stall_s)
        self._read()
        while data:
            try:
                sent = self._connection.send(data[:BATCH])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                sent = 0
            data = data[sent:]
            if sent:
                end = time.monotonic() + (patience_s or self._stall_s)
            elif time.monotonic() > end:
                raise TimeoutError
            else:
                self._wait(0.25, writing=True)
                self._read()
        return whole

    def _read(self) -> None:
        while True:
            try:
                data = self._connection.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                raise ConnectionResetError(104, "the server closed the connection")
            self._session.receive(data)

    def _wait(self, seconds: float, *, writing: bool) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if writing else 0))
        poll.poll(seconds * 1000)


class _Flv:
    """Units as FLV's tag bodies (Adobe's "Video File Format Specification", E.4), which are RTMP's messages."""

    def __init__(self, session: RtmpSession, audio: AudioConfig) -> None:
        self._session, self._audio = session, audio
        self._start: int | None = None
        self._parameters: object = None

    def send(self, unit: Unit) -> None:
        if self._start is None:
            self._start = unit.time
            self._session.send_media(AUDIO, 0, _AAC + b"\0" + self._audio.config)
        at = max(0, (unit.time - self._start) // 1000)
        if isinstance(unit, AudioUnit):
            self._session.send_media(AUDIO, at, _AAC + b"\1" + unit.data)
            return
        if unit.parameters != self._parameters:
            assert isinstance(unit.parameters, Parameters)  # `check_codecs` lets no other in
            self._parameters = unit.parameters
            self._describe(unit, at)
            self._session.send_media(VIDEO, at, b"\x17\0\0\0\0" + avc_configuration(unit.parameters))
        self._session.send_media(VIDEO, at, (b"\x17" if unit.keyframe else b"\x27") + b"\1\0\0\0" + unit.data)

    def _describe(self, unit: VideoUnit, at: int) -> None:
        facts: dict[str, amf.Value] = {
            "width": unit.parameters.width,
            "height": unit.parameters.height,
            "videocodecid": 7,
            "audiocodecid": 10,
            "audiosamplerate": AUDIO_RATE,
            "stereo": True,
            "encoder": "costream",
        }
        self._session.send_media(DATA, at, amf.encode("@setDataFrame", "onMetaData", facts))


def _dial(addresses: list[str], port: int, patience_s: float) -> socket.socket:
    """Connect to the first address that answers; `patience_s` for all of them. Blocking, with that time-out after."""
    last: OSError = TimeoutError()
    for address in addresses[:4]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(patience_s / min(len(addresses), 4))
        try:
            connection.connect((address, port))
        except OSError as error:
            connection.close()
            last = error
        else:
            connection.settimeout(patience_s)
            return connection
    raise last
