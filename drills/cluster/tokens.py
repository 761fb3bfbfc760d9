"""Tokens as a backend makes them: drills sign their own, with the key that they put into the cluster's settings."""

from __future__ import annotations

import secrets
import time

from joserfc import jwt
from joserfc.jwk import OctKey

LIFETIME_S = 86_400


def sign(key_id: str, secret: str, *, room: str, identity: str, role: str) -> str:
    """A token for one room (`*` for a service) that is good for a day."""
    now = int(time.time())
    claims: dict[str, str | int] = {
        "iss": key_id,
        "sub": identity,
        "room": room,
        "role": role,
        "iat": now,
        "exp": now + LIFETIME_S,
    }
    claims["jti"] = secrets.token_urlsafe(9)
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret), algorithms=["HS256"])
