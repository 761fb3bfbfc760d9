"""Tickets for HLS: a part of the path, so that the relative addresses in a playlist carry it by themselves.

Not a header, which Safari's player cannot send; not a cookie, which browsers do not send from other sites' pages; not a
query, which relative addresses lose. And not the viewer's token: addresses are copied and logged, and a ticket opens
one stream and nothing else, until it expires.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

_FORM = re.compile(r"([0-9a-f]{8,10})\.([A-Za-z0-9_-]{22})")
_PURPOSE = b"costream hls\0"
MAC_BYTES = 16


def make(keys: Mapping[str, str], egress: str, expires: int) -> str:
    """Sign a ticket for an egress with the first key. `expires` is in seconds since the Unix epoch."""
    secret = next(iter(keys.values()))
    return f"{expires:08x}.{_mac(secret, egress, expires)}"


def check(keys: Mapping[str, str], ticket: str, egress: str, now: float) -> bool:
    """Whether a ticket is good for this egress now, by any of the keys."""
    found = _FORM.fullmatch(ticket)
    if found is None:
        return False
    expires = int(found[1], 16)
    good = [hmac.compare_digest(_mac(secret, egress, expires), found[2]) for secret in keys.values()]
    return any(good) and now < expires


def _mac(secret: str, egress: str, expires: int) -> str:
    message = _PURPOSE + f"{egress}\0{expires}".encode()
    digest = hmac.new(secret.encode(), message, hashlib.sha256).digest()[:MAC_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
