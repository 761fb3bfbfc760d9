"""Tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA256, one room and one role each.

The key id stands in `iss`. The algorithm is pinned: what a token's header asks for is never obeyed (RFC 8725
section 3.1).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from relay.errors import BadRequest, RequestError

Role = Literal["owner", "guest", "moderator", "viewer", "service"]
ROLES: tuple[Role, ...] = get_args(Role)

ALGORITHM = "HS256"
MAX_TOKEN_BYTES = 4096  # fits into the 8 KiB that proxies allow for all headers
MAX_NAME_LENGTH = 128  # characters of `sub` and `room`; they become keys of the store and labels of log lines
LEEWAY_S = 5  # clocks of two machines differ; NTP keeps them well within

CONTROL_AUDIENCE = "costream-control/"
"""Start of the `aud` of the tokens with which a signaling service calls a node; the node's id follows."""

_MAX_TIME = 253_402_300_799  # 9999-12-31; anything later is not a date that a library can show


class InvalidToken(RequestError):
    """The token is malformed, expired, or signed by nobody known (401). The message never quotes the token."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. `expires` and `issued` are in seconds since the Unix epoch."""

    key_id: str
    identity: str
    room: str
    role: Role
    expires: int
    issued: int
    token_id: str


def mint(
    keys: Mapping[str, str],
    *,
    room: str,
    identity: str,
    role: str,
    ttl_s: int,
    now: float,
    key_id: str | None = None,
    audience: str | None = None,
) -> str:
    """Sign a token with `keys[key_id]` (default: the first key). `now` is in seconds since the Unix epoch.

    `audience` becomes `aud` (RFC 7519 section 4.1.3); tokens for the API have none.

    Raises BadRequest for a name, role, lifetime or key that no verifier would accept.
    """
    key_id = next(iter(keys), None) if key_id is None else key_id
    if key_id is None or key_id not in keys:
        raise BadRequest(f"there is no key {key_id!r} to sign with" if key_id else "there is no key to sign with")
    for name, value in (("room", room), ("identity", identity)):
        if not is_name(value):
            raise BadRequest(f"{name} must have 1 to {MAX_NAME_LENGTH} printable characters")
    if role not in ROLES:
        raise BadRequest(f"role must be one of {', '.join(ROLES)}")
    issued = int(now)
    if ttl_s < 1 or issued + ttl_s > _MAX_TIME:
        raise BadRequest("the lifetime of a token must be at least 1 second and end before the year 10000")
    claims: dict[str, str | int] = {
        "iss": key_id,
        "sub": identity,
        "room": room,
        "role": role,
        "iat": issued,
        "exp": issued + ttl_s,
        "jti": secrets.token_urlsafe(9),
    }
    if audience is not None:
        claims["aud"] = audience
    payload = json.dumps(claims, separators=(",", ":"))
    token = jws.serialize_compact(
        {"alg": ALGORITHM, "typ": "JWT"}, payload, OctKey.import_key(keys[key_id]), [ALGORITHM]
    )
    if len(token) > MAX_TOKEN_BYTES:
        raise BadRequest(f"the token would exceed {MAX_TOKEN_BYTES} bytes: use a shorter key id, room or identity")
    return token


def verify(token: str, keys: Mapping[str, str], now: float, audience: str | None = None) -> Claims:
    """Check a token's signature and claims. `now` is in seconds since the Unix epoch. Raises InvalidToken.

    With `audience` only a token made for it passes; without, none that was made for the control API of a node.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken(f"the token exceeds {MAX_TOKEN_BYTES} bytes")
    try:
        unchecked = jws.extract_compact(token.encode("ascii"))
        if unchecked.protected.get("alg") != ALGORITHM:
            raise InvalidToken(f"the token is not signed with {ALGORITHM}")
        secret = keys.get(_text(_object(unchecked.payload), "iss"))
        if secret is None:
            raise InvalidToken("the token is signed with an unknown key")
        checked = jws.deserialize_compact(token.encode("ascii"), OctKey.import_key(secret), [ALGORITHM])
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidToken("the token is malformed or its signature is wrong") from None
    claims = _object(checked.payload)
    _check_audience(claims.get("aud"), audience)
    return _claims(claims, now)


def is_name(value: object) -> bool:
    """Return whether a value can name a room or a participant."""
    return (
        isinstance(value, str) and 1 <= len(value) <= MAX_NAME_LENGTH and value.isprintable() and value.strip() == value
    )


def _claims(claims: dict[str, Any], now: float) -> Claims:
    expires, issued = _time(claims, "exp"), _time(claims, "iat", now)
    if "nbf" in claims and _time(claims, "nbf") > now + LEEWAY_S:
        raise InvalidToken("the token is not valid yet")
    if issued > now + LEEWAY_S:
        raise InvalidToken("the token was issued in the future: check the clocks")
    if expires <= now - LEEWAY_S:
        raise InvalidToken("the token has expired")
    for claim in ("sub", "room"):
        if not is_name(claims.get(claim)):
            raise InvalidToken(f"the claim {claim!r} must have 1 to {MAX_NAME_LENGTH} printable characters")
    role = claims.get("role")
    if role not in ROLES:
        raise InvalidToken(f"the claim 'role' must be one of {', '.join(ROLES)}")
    token_id = _text(claims, "jti") if "jti" in claims else ""
    key_id = _text(claims, "iss")
    return Claims(key_id, claims["sub"], claims["room"], cast(Role, role), int(expires), int(issued), token_id)


def _check_audience(given: object, wanted: str | None) -> None:
    if wanted is None:
        named = given if isinstance(given, list) else [given]
        if any(isinstance(each, str) and each.startswith(CONTROL_AUDIENCE) for each in named):
            raise InvalidToken("the token is for the control API of a node")
    elif given != wanted:
        raise InvalidToken(f"the token is not for {wanted}")


def _object(payload: bytes | None) -> dict[str, Any]:
    try:
        claims = json.loads(payload or b"")
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise InvalidToken("the token does not carry a JSON object")
    return claims


def _text(claims: Mapping[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str):
        raise InvalidToken(f"the claim {claim!r} must be a string")
    return value


def _time(claims: Mapping[str, Any], claim: str, default: float | None = None) -> float:
    value = claims.get(claim, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TIME:
        raise InvalidToken(f"the claim {claim!r} must be a time in seconds since 1970")
    return value
