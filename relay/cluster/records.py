"""Reading a node's record: what another process wrote is checked before anybody acts on it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from urllib.parse import urlsplit

import structlog
from pydantic import TypeAdapter, ValidationError

from relay.ports import NodeRecord

MOST_BYTES = 32_768
"""Of a record; most of one is its certificate."""
MOST_SESSIONS = 1_000_000
_MOST_LINKS = 8
_MOST_HEARD = 256
_MOST_COMPLAINTS = 1000

_RECORD: TypeAdapter[NodeRecord] = TypeAdapter(NodeRecord)

log = structlog.get_logger(__name__)


class Unbelievable(ValueError):
    """A record that is malformed or cannot be true; the message says why."""


def write_record(record: NodeRecord) -> str:
    """Return a record as JSON, the same text for the same record."""
    return json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))


def read_record(body: str, node: str | None = None) -> NodeRecord:
    """Read a record, of `node` when given. Raises Unbelievable."""
    if len(body) > MOST_BYTES:
        raise Unbelievable(f"it has more than {MOST_BYTES} characters")
    try:
        record = _RECORD.validate_json(body, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        raise Unbelievable(f"{'.'.join(map(str, found['loc']))}: {found['msg']}") from None
    if node is not None and record.id != node:
        raise Unbelievable(f"it names itself {record.id[:64]!r}")
    _check(record)
    return record


def _check(record: NodeRecord) -> None:
    """Raise Unbelievable for figures that cannot be: placement would send everybody there, or nobody."""
    if not record.id:
        raise Unbelievable("it has no id")
    if not (math.isfinite(record.load) and 0 <= record.load <= 1):
        raise Unbelievable(f"its load is {record.load}, not from 0 to 1")
    if not (0 <= record.sessions <= MOST_SESSIONS and 1 <= record.max_sessions <= MOST_SESSIONS):
        raise Unbelievable(f"it has {record.sessions} of {record.max_sessions} sessions")
    if len(record.link) > _MOST_LINKS or not all(_is_address(each) for each in record.link):
        raise Unbelievable("its link addresses are not host:port")
    if len(record.hears) > _MOST_HEARD:
        raise Unbelievable(f"it hears {len(record.hears)} nodes")
    if record.public_url and not _is_url(record.public_url):
        raise Unbelievable("its public_url is no https:// or http:// address")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname and parts.port) and parts.netloc == text and parts.username is None
    except ValueError:
        return False


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # It becomes a header: what `urlsplit` strips or a header cannot hold must not be in it.
        plain = text.isascii() and text.isprintable() and " " not in text
        return plain and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class RecordReader:
    """Reads records and complains of each node's once, until it is good again."""

    def __init__(self) -> None:
        self._bad: set[str] = set()

    def read(self, node: str, body: str) -> NodeRecord | None:
        """Return the record, or None with a line in the log: a bad one must not hide the others."""
        try:
            record = read_record(body, node)
        except Unbelievable as error:
            if node not in self._bad and len(self._bad) < _MOST_COMPLAINTS:
                self._bad.add(node)
                log.warning("a record in the directory of nodes is left out", node=node[:64], reason=str(error))
            return None
        self._bad.discard(node)
        return record

    def forget(self, node: str) -> None:
        """The node is gone."""
        self._bad.discard(node)
