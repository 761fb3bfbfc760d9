"""RTMP as a publisher speaks it (Adobe's "Real-Time Messaging Protocol" 1.0). Sans-IO: bytes in, bytes out.

Ours because FFmpeg's cannot be told by PyAV which address to take for a name that was looked up and checked, nor how
long to wait, nor to verify a certificate, and hangs with a server that hangs (docs/decisions/0015).
"""

from __future__ import annotations

import struct
from enum import Enum

from relay.egress import amf
from relay.egress.address import Target
from relay.errors import PeerError

CHUNK = 4096
"""Bytes of our chunks."""
MAX_MESSAGE = 1 << 18
"""Bytes of a message of the server: only short answers come from there."""
MAX_STREAMS = 64
"""Chunk streams that a server may use at once."""
VIDEO, AUDIO, DATA, COMMAND = 9, 8, 18, 20
_SET_CHUNK, _ABORT, _ACK, _CONTROL, _WINDOW, _BANDWIDTH = 1, 2, 3, 4, 5, 6
_PING, _PONG = 6, 7
_HANDSHAKE = 1536
_CONNECT, _CREATE = 1.0, 4.0
AGENT = "FMLE/3.0 (compatible; costream)"


class State(Enum):
    """Each leads to the next, and to nowhere else; whatever goes wrong is a PeerError and the end."""

    HANDSHAKE = 1
    CONNECTING = 2
    CREATING = 3
    ASKING = 4
    PUBLISHING = 5


class _Incoming:
    """A message on its way in: what its chunk stream said last, and what is there of it."""

    def __init__(self) -> None:
        self.length = self.kind = 0
        self.extended = False
        self.data = bytearray()


class RtmpSession:
    """One connection. Send what `transmit` gives; `send_media` once the state is PUBLISHING."""

    def __init__(self, target: Target) -> None:
        self.state = State.HANDSHAKE
        self._target = target
        self._out = bytearray(b"\x03" + bytes(8) + (bytes(range(256)) * 6)[: _HANDSHAKE - 8])
        self._in = bytearray()
        self._chunk = 128
        self._incoming: dict[int, _Incoming] = {}
        self._stream = 0
        self._received = self._acknowledged = 0
        self._window = 0

    def transmit(self) -> bytes:
        """What has to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Take bytes. Raises PeerError when the server refuses or says nonsense."""
        self._in += data
        self._received += len(data)
        if self.state is State.HANDSHAKE and not self._shake():
            return
        while self._read_chunk():
            pass
        if self._window and self._received - self._acknowledged >= self._window:
            self._acknowledged = self._received
            self._send(2, _ACK, struct.pack("!I", self._received & 0xFFFFFFFF))

    def send_media(self, kind: int, timestamp: int, payload: bytes) -> None:
        """A message of VIDEO, AUDIO or DATA; `timestamp` in milliseconds from the stream's start."""
        self._send({VIDEO: 6, AUDIO: 4, DATA: 5}[kind], kind, payload, timestamp & 0xFFFFFFFF, self._stream)

    def finish(self) -> None:
        """Say that the stream is over."""
        if self.state is State.PUBLISHING:
            self._command("FCUnpublish", 6, None, self._target.playpath)
            self._command("deleteStream", 7, None, self._stream)

    def _shake(self) -> bool:
        if len(self._in) < 1 + 2 * _HANDSHAKE:
            if self._in and self._in[0] != 3:
                raise PeerError("the server does not speak RTMP")
            return False
        if self._in[0] != 3:
            raise PeerError("the server does not speak RTMP")
        self._out += self._in[1 : 1 + _HANDSHAKE]
        del self._in[: 1 + 2 * _HANDSHAKE]
        self.state = State.CONNECTING
        self._send(2, _SET_CHUNK, struct.pack("!I", CHUNK))
        told = {"app": self._target.app, "type": "nonprivate", "flashVer": AGENT, "tcUrl": self._target.tc_url}
        self._command("connect", _CONNECT, told)
        return True

    def _read_chunk(self) -> bool:
        """Section 5.3.1. False when there is no whole chunk."""
        data = self._in
        if not data:
            return False
        form, number, at = data[0] >> 6, data[0] & 63, 1
        if number < 2:
            at += 1 + number
            if len(data) < at:
                return False
            number = 64 + int.from_bytes(data[1:at], "little")
        header = at + (11, 7, 3, 0)[form]
        if len(data) < header:
            return False
        known = self._incoming.get(number)
        message = known or _Incoming()
        length, kind, extended = message.length, message.kind, message.extended
        if form < 3:
            extended = bytes(data[at : at + 3]) == b"\xff\xff\xff"
        if form < 2:
            length, kind = int.from_bytes(data[at + 3 : at + 6], "big"), data[at + 6]
        header += 4 * extended
        if length > MAX_MESSAGE or (known is None and (form or len(self._incoming) >= MAX_STREAMS)):
            raise PeerError("the server sends chunks that cannot be")
        take = min(self._chunk, length - len(message.data))
        if len(data) < header + take:
            return False
        message.length, message.kind, message.extended = length, kind, extended
        self._incoming[number] = message
        message.data += data[header : header + take]
        del data[: header + take]
        if len(message.data) >= length:
            whole, message.data = bytes(message.data), bytearray()
            self._take(kind, whole)
        return True

    def _take(self, kind: int, data: bytes) -> None:
        if kind in (_SET_CHUNK, _WINDOW, _BANDWIDTH, _ABORT):
            if len(data) < 4:
                raise PeerError("the server's message is too short")
            number = int.from_bytes(data[:4], "big")
            if kind == _SET_CHUNK:
                if not 1 <= number & 0x7FFFFFFF <= MAX_MESSAGE:
                    raise PeerError("the server's chunks have a size that cannot be")
                self._chunk = number & 0x7FFFFFFF
            elif kind == _WINDOW:
                self._window = number
            elif kind == _BANDWIDTH:
                self._send(2, _WINDOW, data[:4])
            elif number in self._incoming:
                self._incoming[number].data.clear()
        elif kind == _CONTROL and len(data) >= 6 and int.from_bytes(data[:2], "big") == _PING:
            self._send(2, _CONTROL, struct.pack("!H", _PONG) + data[2:6])
        elif kind == COMMAND:
            self._obey(amf.decode(data))

    def _obey(self, values: list[amf.Value]) -> None:
        name, number = (*values, None, None)[:2]
        if name == "_error" and number in (_CONNECT, _CREATE):
            raise PeerError(f"the server refused: {_reason(values)}")
        if name == "close":
            raise PeerError("the server closed the stream")
        if name == "_result" and number == _CONNECT and self.state is State.CONNECTING:
            self.state = State.CREATING
            self._command("releaseStream", 2, None, self._target.playpath)
            self._command("FCPublish", 3, None, self._target.playpath)
            self._command("createStream", _CREATE, None)
        elif name == "_result" and number == _CREATE and self.state is State.CREATING:
            stream = values[3] if len(values) > 3 else None
            if not isinstance(stream, float) or not 0 <= stream < 1 << 32:
                raise PeerError("the server made a stream without a number")
            self._stream, self.state = int(stream), State.ASKING
            self._command("publish", 5, None, self._target.playpath, "live", stream=self._stream)
        elif name == "onStatus":
            self._hear_status(values)

    def _hear_status(self, values: list[amf.Value]) -> None:
        status = next((each for each in values if isinstance(each, dict)), {})
        if status.get("level") == "error" or status.get("code") == "NetStream.Unpublish.Success":
            raise PeerError(f"the server refused: {_reason(values)}")
        if status.get("code") == "NetStream.Publish.Start" and self.state is State.ASKING:
            self.state = State.PUBLISHING

    def _command(self, name: str, number: float, *values: amf.Value, stream: int = 0) -> None:
        self._send(3, COMMAND, amf.encode(name, float(number), *values), 0, stream)

    def _send(self, channel: int, kind: int, payload: bytes, timestamp: int = 0, stream: int = 0) -> None:
        """Section 5.3.1: a first chunk with a whole header, then continuations."""
        late = struct.pack("!I", timestamp) if timestamp >= 0xFFFFFF else b""
        self._out += bytes([channel]) + min(timestamp, 0xFFFFFF).to_bytes(3, "big")
        self._out += len(payload).to_bytes(3, "big") + bytes([kind]) + struct.pack("<I", stream) + late
        self._out += payload[:CHUNK]
        for start in range(CHUNK, len(payload), CHUNK):
            self._out += bytes([0xC0 | channel]) + late + payload[start : start + CHUNK]


def _reason(values: list[amf.Value]) -> str:
    """What a server says of itself; short and printable, for it goes into events."""
    for each in values:
        if isinstance(each, dict) and "code" in each:
            text = f"{each['code']} {each.get('description', '')}".strip()
            return "".join(letter for letter in text if letter.isprintable())[:120]
    return "without a reason"
