"""RTMP addresses in their parts. Pure: nothing is looked up here."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from relay.errors import BadRequest

PORTS = {"rtmp": 1935, "rtmps": 443}
MAX_URL = 2048


class Target(NamedTuple):
    """An RTMP address in its parts. `playpath` is the last part of the path, with the query: the stream's key."""

    scheme: str
    host: str
    port: int
    app: str
    playpath: str

    @property
    def tc_url(self) -> str:
        """What RTMP's connect command says: the address without the key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}/{self.app}"


def parse_target(url: str) -> Target:
    """Take an `rtmp://` or `rtmps://` address apart. Raises BadRequest, which does not quote it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest("the target is not an address", code="bad-target") from None
    app, _, playpath = parts.path.lstrip("/").rpartition("/")
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in PORTS or not parts.hostname or not app or not playpath or len(url) > MAX_URL:
        raise BadRequest("the target has to be rtmp://host/app/key or rtmps://host/app/key", code="bad-target")
    if parts.username is not None or parts.fragment or port == 0 or not printable:
        raise BadRequest("the target has a user name, a fragment or characters that it may not have", code="bad-target")
    query = f"?{parts.query}" if parts.query else ""
    return Target(parts.scheme, parts.hostname, port or PORTS[parts.scheme], unquote(app), unquote(playpath) + query)


def shown(url: str) -> str:
    """The address without the key, for people and logs."""
    try:
        return f"{parse_target(url).tc_url}/…"
    except BadRequest:
        return "…"
