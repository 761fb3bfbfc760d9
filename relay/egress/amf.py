"""AMF0 (Adobe's Action Message Format 0), as much of it as RTMP's commands use. Sans-IO."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from relay.errors import PeerError

Value = float | bool | str | None | Mapping[str, "Value"]

MAX_DEPTH = 8
_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _UNDEFINED, _ARRAY, _END, _LIST, _DATE, _LONG = (
    0, 1, 2, 3, 5, 6, 8, 9, 10, 11, 12,
)  # fmt: skip


def encode(*values: Value) -> bytes:
    """Values one after another. Strings have to be shorter than 64 KiB."""
    return b"".join(map(_encode, values))


def _encode(value: Value) -> bytes:
    if value is None:
        return bytes([_NULL])
    if isinstance(value, bool):
        return bytes([_BOOLEAN, value])
    if isinstance(value, int | float):
        return struct.pack("!Bd", _NUMBER, value)
    if isinstance(value, str):
        return bytes([_STRING]) + _text(value)
    fields = b"".join(_text(name) + _encode(each) for name, each in value.items())
    return bytes([_OBJECT]) + fields + bytes([0, 0, _END])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def decode(data: bytes) -> list[Value]:
    """All values of a message. Raises PeerError for what is none, or cut short, or too deep."""
    found: list[Value] = []
    position = 0
    try:
        while position < len(data):
            value, position = _decode(data, position, 0)
            found.append(value)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise PeerError("an AMF value that cannot be read") from None
    return found


def _decode(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    kind = data[at]
    at += 1
    if depth > MAX_DEPTH:
        raise PeerError("AMF values within values")
    if kind == _NUMBER:
        return struct.unpack_from("!d", data, at)[0], at + 8
    if kind == _BOOLEAN:
        return bool(data[at]), at + 1
    if kind == _STRING:
        return _read_text(data, at)
    if kind in (_NULL, _UNDEFINED):
        return None, at
    if kind in (_OBJECT, _ARRAY):
        return _decode_fields(data, at + 4 * (kind == _ARRAY), depth)
    if kind == _LIST:
        (count,) = struct.unpack_from("!I", data, at)
        at += 4
        values: dict[str, Value] = {}
        for index in range(count):
            values[str(index)], at = _decode(data, at, depth + 1)
        return values, at
    if kind == _DATE:
        return struct.unpack_from("!d", data, at)[0], at + 10
    if kind == _LONG:
        (size,) = struct.unpack_from("!I", data, at)
        return _slice(data, at + 4, size).decode(), at + 4 + size
    raise PeerError(f"an AMF value of type {kind}")


def _decode_fields(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    fields: dict[str, Value] = {}
    while True:
        name, at = _read_text(data, at)
        if not name and data[at] == _END:
            return fields, at + 1
        fields[name], at = _decode(data, at, depth + 1)


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("!H", data, at)
    return _slice(data, at + 2, size).decode(), at + 2 + size


def _slice(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
