"""STUN as an ICE-lite agent needs it: read binding requests, answer them (RFC 8489, RFC 8445).

`parse` never raises: it returns a `BindingRequest`, a `StunMessage` (anything well formed that is not a binding
request) or a `Drop` that says why the datagram is not worth an answer. Order of checks for a request, RFC 8489 9.1.3
and 6.3.1: `refusal_before_integrity`, the owner looks the local ufrag up (unknown: 401), `verify_integrity` (wrong:
401), `refusal_after_integrity`, then `binding_success`.
"""

from __future__ import annotations

import hmac
from binascii import crc32
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

MAGIC_COOKIE = 0x2112A442
HEADER_SIZE = 20
MAX_SIZE = 2048  # a check carries about 100 bytes; more than one MTU is not a check
MAX_ATTRIBUTES = 64
MAX_UNKNOWN = 16  # unknown attributes listed in a 420
MAX_USERNAME = 513  # RFC 8489 14.3: fewer than 509 bytes; ICE allows 256 + 1 + 256

BINDING_REQUEST = 0x0001
BINDING_INDICATION = 0x0011
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
MESSAGE_INTEGRITY_SHA256 = 0x001C
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
FINGERPRINT = 0x8028
ICE_CONTROLLED = 0x8029
ICE_CONTROLLING = 0x802A

# Comprehension-required attributes that are understood: acted upon, or known to mean nothing in a binding request.
# MAPPED-ADDRESS, REALM, NONCE, PASSWORD-ALGORITHM, USERHASH and the algorithms' kin belong to other mechanisms.
_UNDERSTOOD = frozenset(
    {0x0001, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES, 0x0014, 0x0015}
    | {MESSAGE_INTEGRITY_SHA256, XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE}
)
_REASONS = {
    400: b"Bad Request",
    401: b"Unauthenticated",
    420: b"Unknown Attribute",
    487: b"Role Conflict",
    500: b"Server Error",
}
_FINGERPRINT_XOR = 0x5354554E  # "STUN", RFC 8489 14.7

_HEADER = Struct("!HHI12s")
_ATTRIBUTE = Struct("!HH")
_UINT32 = Struct("!I")
_UINT64 = Struct("!Q")


class Drop(Enum):
    """Why a datagram is not STUN that we can answer."""

    TOO_SHORT = "shorter than a STUN header"
    TOO_LONG = "longer than any connectivity check"
    NOT_STUN = "first bits or magic cookie are not STUN's"
    BAD_LENGTH = "length field disagrees with the datagram"
    TRUNCATED_ATTRIBUTE = "an attribute runs past the end"
    TOO_MANY_ATTRIBUTES = "more attributes than any client sends"
    BAD_ATTRIBUTE = "an attribute has an impossible size or value"
    BAD_FINGERPRINT = "FINGERPRINT is wrong or not last"


@dataclass(frozen=True, slots=True)
class StunMessage:
    """A well-formed header of another kind: `kind` is the 14-bit message type (indication, response, TURN…)."""

    kind: int
    transaction_id: bytes


@dataclass(frozen=True, slots=True)
class BindingRequest:
    """One connectivity check. Ufrags are empty when USERNAME is absent or has no colon.

    `controlling` and `controlled` are the tie-breakers, or None. `integrity_at` is the offset of MESSAGE-INTEGRITY, 0
    when absent. `unknown` are the comprehension-required attributes that we do not understand.
    """

    transaction_id: bytes
    username: bytes
    local_ufrag: str
    remote_ufrag: str
    priority: int
    use_candidate: bool
    controlling: int | None
    controlled: int | None
    integrity_at: int
    fingerprint: bool
    unknown: tuple[int, ...]


def is_stun(datagram: bytes) -> bool:
    """Whether the first byte says STUN (RFC 7983: 0..3) and the cookie agrees."""
    return len(datagram) >= HEADER_SIZE and datagram[0] < 4 and datagram[4:8] == b"\x21\x12\xa4\x42"


def parse(datagram: bytes) -> BindingRequest | StunMessage | Drop:
    """Classify one datagram of any size and content. A request's FINGERPRINT is verified when present."""
    size = len(datagram)
    if size < HEADER_SIZE:
        return Drop.TOO_SHORT
    if datagram[0] > 3:
        return Drop.NOT_STUN
    kind, length, cookie, transaction_id = _HEADER.unpack_from(datagram)
    if cookie != MAGIC_COOKIE:
        return Drop.NOT_STUN
    if size > MAX_SIZE:
        return Drop.TOO_LONG
    if length & 3 or length + HEADER_SIZE != size:
        return Drop.BAD_LENGTH
    if kind != BINDING_REQUEST:
        return StunMessage(kind, transaction_id)
    found = _attributes(datagram)
    if isinstance(found, Drop):
        return found
    values, integrity_at, unknown = found
    return _request(transaction_id, values, integrity_at, unknown)


def _attributes(datagram: bytes) -> tuple[dict[int, bytes], int, tuple[int, ...]] | Drop:
    """Attribute values (first of each type), offset of MESSAGE-INTEGRITY, unknown required types."""
    values: dict[int, bytes] = {}
    unknown: list[int] = []
    integrity_at = 0
    offset, size, count = HEADER_SIZE, len(datagram), 0
    while offset < size:
        kind, length = _ATTRIBUTE.unpack_from(datagram, offset)  # both sizes are multiples of 4: four bytes are there
        end = offset + 4 + length
        if end > size:
            return Drop.TRUNCATED_ATTRIBUTE
        count += 1
        if count > MAX_ATTRIBUTES:
            return Drop.TOO_MANY_ATTRIBUTES
        if kind == FINGERPRINT:
            if length != 4 or end != size:
                return Drop.BAD_FINGERPRINT
            if _UINT32.unpack_from(datagram, offset + 4)[0] != crc32(datagram[:offset]) ^ _FINGERPRINT_XOR:
                return Drop.BAD_FINGERPRINT
            values[kind] = b""
        elif not integrity_at:  # what follows MESSAGE-INTEGRITY is not protected: ignored, RFC 8489 14.5
            if kind == MESSAGE_INTEGRITY:
                if length != 20:
                    return Drop.BAD_ATTRIBUTE
                integrity_at = offset
            elif kind < 0x8000 and kind not in _UNDERSTOOD:
                if len(unknown) < MAX_UNKNOWN and kind not in unknown:
                    unknown.append(kind)
            elif kind not in values:
                values[kind] = datagram[offset + 4 : end]
        offset = end + (-length & 3)
    return values, integrity_at, tuple(unknown)


def _request(
    transaction_id: bytes, values: dict[int, bytes], integrity_at: int, unknown: tuple[int, ...]
) -> BindingRequest | Drop:
    username = values.get(USERNAME, b"")
    priority = values.get(PRIORITY, b"\0\0\0\0")
    controlling, controlled = values.get(ICE_CONTROLLING), values.get(ICE_CONTROLLED)
    if len(username) > MAX_USERNAME or len(priority) != 4:
        return Drop.BAD_ATTRIBUTE
    if (controlling is not None and len(controlling) != 8) or (controlled is not None and len(controlled) != 8):
        return Drop.BAD_ATTRIBUTE
    local, colon, remote = username.partition(b":")
    plain = bool(colon) and username.isascii()  # ice-char is a subset of ASCII, RFC 8839 5.4
    return BindingRequest(
        transaction_id=transaction_id,
        username=username,
        local_ufrag=local.decode("ascii") if plain else "",
        remote_ufrag=remote.decode("ascii") if plain else "",
        priority=_UINT32.unpack(priority)[0],
        use_candidate=USE_CANDIDATE in values,
        controlling=None if controlling is None else _UINT64.unpack(controlling)[0],
        controlled=None if controlled is None else _UINT64.unpack(controlled)[0],
        integrity_at=integrity_at,
        fingerprint=FINGERPRINT in values,
        unknown=unknown,
    )


def verify_integrity(datagram: bytes, request: BindingRequest, password: bytes) -> bool:
    """Whether MESSAGE-INTEGRITY is HMAC-SHA1 of `datagram` under `password` (RFC 8489 14.5). Constant time."""
    at = request.integrity_at
    if not at:
        return False
    expected = hmac.digest(password, _with_length(datagram[:at], at + 4), "sha1")
    return hmac.compare_digest(expected, datagram[at + 4 : at + 24])


def refusal_before_integrity(request: BindingRequest) -> int:
    """400 when the request cannot be authenticated at all or contradicts itself, else 0 (RFC 8489 9.1.3)."""
    if not request.integrity_at or not request.local_ufrag or not request.remote_ufrag:
        return 400
    if request.controlling is not None and request.controlled is not None:
        return 400
    return 0


def refusal_after_integrity(request: BindingRequest) -> int:
    """420 for unknown required attributes, 487 when the peer thinks it is controlled, else 0.

    We are lite and so always the controlled end (RFC 8445 6.1.1); a peer without a role attribute is an old one
    whose conflict cannot be seen (7.3.1.1).
    """
    if request.unknown:
        return 420
    return 487 if request.controlled is not None else 0


def binding_success(transaction_id: bytes, source_host: str, source_port: int, password: bytes) -> bytes:
    """The answer: XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT.

    `source_host` is a numeric IPv4 or IPv6 address, as recvfrom gives it (a scope id is ignored, an IPv4-mapped
    address is answered as IPv4). Anything else is a ValueError: our own bug.
    """
    body = _attribute(XOR_MAPPED_ADDRESS, _xor_address(transaction_id, source_host, source_port))
    return _seal(BINDING_SUCCESS, transaction_id, body, password)


def binding_error(
    transaction_id: bytes, code: int, password: bytes | None = None, unknown: Sequence[int] = ()
) -> bytes:
    """An error answer (300..699). Give `password` only after the request's integrity was verified.

    400 and 401 go without MESSAGE-INTEGRITY (RFC 8489 9.1.3); `unknown` fills UNKNOWN-ATTRIBUTES of a 420.
    """
    reason = _REASONS.get(code, b"")
    body = _attribute(ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + reason)
    if unknown:
        body += _attribute(UNKNOWN_ATTRIBUTES, b"".join(kind.to_bytes(2, "big") for kind in unknown))
    return _seal(BINDING_ERROR, transaction_id, body, password)


def binding_request(
    transaction_id: bytes,
    username: str,
    password: bytes,
    *,
    priority: int = 0x6E7F1EFF,
    tie_breaker: int = 1,
    controlled: bool = False,
    use_candidate: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A check as a full agent sends it; `username` is `receiver:sender`. `extra` are encoded attributes."""
    body = _attribute(USERNAME, username.encode())
    body += _attribute(PRIORITY, _UINT32.pack(priority))
    body += _attribute(ICE_CONTROLLED if controlled else ICE_CONTROLLING, _UINT64.pack(tie_breaker))
    if use_candidate:
        body += _attribute(USE_CANDIDATE, b"")
    return _seal(BINDING_REQUEST, transaction_id, body + extra, password)


def _xor_address(transaction_id: bytes, host: str, port: int) -> bytes:
    """RFC 8489 14.2: family, port and address, both XORed with cookie and transaction id."""
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    xport = (port ^ (MAGIC_COOKIE >> 16)).to_bytes(2, "big")
    if isinstance(address, IPv4Address):
        return b"\x00\x01" + xport + _UINT32.pack(int(address) ^ MAGIC_COOKIE)
    mask = int.from_bytes(_UINT32.pack(MAGIC_COOKIE) + transaction_id, "big")
    return b"\x00\x02" + xport + (int(address) ^ mask).to_bytes(16, "big")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) & 3)


def _with_length(message: bytes, length: int) -> bytes:
    """`message` with the length field of its header set."""
    return message[:2] + length.to_bytes(2, "big") + message[4:]


def _seal(kind: int, transaction_id: bytes, body: bytes, password: bytes | None) -> bytes:
    """Header, body, MESSAGE-INTEGRITY (when there is a password) and FINGERPRINT."""
    message = _HEADER.pack(kind, len(body), MAGIC_COOKIE, transaction_id) + body
    if password is not None:
        message = _with_length(message, len(message) + 4)
        message += _attribute(MESSAGE_INTEGRITY, hmac.digest(password, message, "sha1"))
    message = _with_length(message, len(message) - HEADER_SIZE + 8)
    return message + _attribute(FINGERPRINT, _UINT32.pack(crc32(message) ^ _FINGERPRINT_XOR))
