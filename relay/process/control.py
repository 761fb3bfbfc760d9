"""What a relay and its worker processes say to each other: typed messages over a stream socket.

A message is a frozen dataclass derived from `Message`. On the wire it is four bytes of length, big-endian, and as much
JSON: `["ClassName", {fields}]`. Both sides know the classes that the other may say. Whoever says anything else (a
length beyond `MAX_BYTES`, no JSON, an unknown class, a field that is missing, unknown or of the wrong type) gets a
PeerError and is ended: both ends come from one release, so nonsense means a fault and not a newer version.

`Wire` does no I/O: bytes in, messages out.
"""

from __future__ import annotations

from dataclasses import asdict
from struct import Struct
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from relay.errors import PeerError, UsageError

MAX_BYTES = 1 << 20
"""Of one message. The longest is a video program's layout; a hundredth of this holds one."""

_LENGTH = Struct("!I")


class Message:
    """Base of all messages: strict about types, and no field too many."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


M = TypeVar("M", bound=Message)


class Wire(Generic[M]):
    """One direction of a control socket: `heard` are the classes that come in by it."""

    def __init__(self, *heard: type[M]) -> None:
        self._adapters: dict[str, TypeAdapter[M]] = {}
        self._bytes = bytearray()
        self.hear(*heard)

    def hear(self, *kinds: type[M]) -> None:
        """Take these classes, too."""
        self._adapters |= {kind.__name__: TypeAdapter(kind) for kind in kinds}

    def feed(self, data: bytes) -> list[M]:
        """Take bytes, return the messages that they complete. Raises PeerError for nonsense; feed no more then."""
        self._bytes += data
        messages: list[M] = []
        start, held = 0, len(self._bytes)
        while held - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes, start)
            if length > MAX_BYTES:
                raise PeerError(f"a control message of {length} bytes")
            end = start + _LENGTH.size + length
            if end > held:
                break
            messages.append(self._read(bytes(self._bytes[start + _LENGTH.size : end])))
            start = end
        del self._bytes[:start]
        return messages

    def _read(self, body: bytes) -> M:
        try:
            found = from_json(body, allow_inf_nan=False)
            name, fields = found
            adapter = self._adapters[name]
            # Strict JSON takes an array for a tuple and strict Python does not, so the fields are written once more.
            return adapter.validate_json(to_json(fields))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise PeerError(f"the control message {name} is wrong at {place or 'its fields'}: {first['msg']}") from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise PeerError("a control message that cannot be read") from None


def frame(message: Message) -> bytes:
    """Return the bytes of a message. Raises UsageError when it is too long."""
    fields: Any = asdict(message)  # type: ignore[call-overload]
    body = to_json([type(message).__name__, fields])
    if len(body) > MAX_BYTES:
        raise UsageError(f"a control message of {len(body)} bytes: {type(message).__name__}")
    return _LENGTH.pack(len(body)) + body
