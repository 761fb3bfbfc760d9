"""Address validation tokens of a server (RFC 9000 section 8.1), sealed, so that nothing is remembered of strangers.

A Retry token proves, for half a minute, that a client hears us on its address and port. A lasting one goes to verified
peers in NEW_TOKEN and spares them the Retry, and so 0-RTT its extra round trip, when they come back from that address.
"""

from __future__ import annotations

import ipaddress
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

RETRY_LIFETIME_S = 30.0
LASTING_LIFETIME_S = 86_400.0  # as long as a session ticket
_NONCE = 12  # bytes
_TIME = 8  # bytes, milliseconds
_RETRY, _LASTING = b"retry", b"lasting"


class AddressTokens:
    """Makes and checks tokens with a key of its own life. `now` is in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._seal = AESGCM(AESGCM.generate_key(bit_length=128))

    def retry(self, host: str, port: int, original: bytes, source: bytes, now: float) -> bytes:
        """Make a token for a Retry packet. `original` is the connection id that the client chose, `source` ours."""
        return self._make(_RETRY + _packed(host) + port.to_bytes(2, "big") + source, original, now)

    def check_retry(self, host: str, port: int, destination: bytes, token: bytes, now: float) -> bytes | None:
        """Return the client's original connection id, or None when the token is not ours, not its, or too old."""
        bound = _RETRY + _packed(host) + port.to_bytes(2, "big") + destination
        return self._open(bound, token, now, RETRY_LIFETIME_S)

    def lasting(self, host: str, now: float) -> bytes:
        """Make a token for NEW_TOKEN: good from any port of that host."""
        return self._make(_LASTING + _packed(host), b"", now)

    def check_lasting(self, host: str, token: bytes, now: float) -> bool:
        """Say whether a token is ours, of that host, and not too old."""
        return self._open(_LASTING + _packed(host), token, now, LASTING_LIFETIME_S) is not None

    def _make(self, bound: bytes, content: bytes, now: float) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._seal.encrypt(nonce, int(now * 1000).to_bytes(_TIME, "big") + content, bound)

    def _open(self, bound: bytes, token: bytes, now: float, lifetime_s: float) -> bytes | None:
        if len(token) < _NONCE + _TIME + 16:
            return None
        try:
            plain = self._seal.decrypt(token[:_NONCE], token[_NONCE:], bound)
        except InvalidTag:
            return None
        age = now - int.from_bytes(plain[:_TIME], "big") / 1000
        return plain[_TIME:] if age <= lifetime_s else None


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed
