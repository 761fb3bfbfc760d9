"""An event as services elsewhere get it: a CloudEvent (1.0, structured mode), signed as Standard Webhooks says."""

from __future__ import annotations

import base64
import datetime
import json

from standardwebhooks.webhooks import Webhook

from relay.errors import BadRequest
from relay.ids import sync_id_milliseconds
from relay.outbox import NODES, Endpoint, Message
from relay.ports import RoomEvent

CONTENT_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "dev.costream."
PREFIX = "whsec_"
KEY_BYTES = (24, 64)
"""Shortest and longest key (Standard Webhooks)."""
QUIET = frozenset({"speaker.changed", "publication.layers_changed", "publication.leased"})
"""Many and for pages: sent to those only who name them, or what they begin with."""
_MAX_DATA = 32_768


def message_of(room: str, event: RoomEvent) -> Message:
    """What is sent of an event, to whomever and however often. Data that is too large is left out, and says so."""
    nodes = room == NODES
    ident = f"{'nodes' if nodes else room}_{event.sync_id}"
    body = {
        "specversion": "1.0",
        "id": ident,
        "source": "/v1/nodes" if nodes else f"/v1/rooms/{room}",
        "type": TYPE_PREFIX + event.type,
        "time": _time(sync_id_milliseconds(event.sync_id)),
        "syncid": str(event.sync_id),
        "datacontenttype": "application/json",
        "data": event.data,
    }
    if not nodes:
        body["subject"] = room
    text = _dump(body)
    if len(text.encode()) > _MAX_DATA:
        text = _dump(body | {"data": {"left_out": "too large: read the room"}})
    return Message(ident, event.type, text)


def wants(endpoint: Endpoint, room: str, event: RoomEvent) -> bool:
    """Whether an event is for an endpoint."""
    if not event.type or not endpoint.active or sync_id_milliseconds(event.sync_id) < endpoint.since:
        return False
    if endpoint.room not in ("", room):
        return False
    return any(_matches(pattern, event.type) for pattern in endpoint.events)


def headers_of(endpoint: Endpoint, message: Message, now: float) -> dict[str, str]:
    """The headers of one try, made at `now` (wall seconds). While a secret is being replaced both sign."""
    at = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    good = [each.secret for each in endpoint.secrets if each.until is None or each.until > now]
    signatures = [Webhook(secret).sign(message.id, at, message.body) for secret in good]
    return {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "costream-webhooks/1",
        "webhook-id": message.id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


def make_secret(random: bytes) -> str:
    """A secret of these bytes."""
    return PREFIX + base64.b64encode(random).decode()


def check_secret(secret: str) -> str:
    """Return a secret that can sign. Raises BadRequest, which does not quote it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(PREFIX) or not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise BadRequest(f"a secret is {PREFIX} and 24 to 64 bytes in base64", code="bad-secret")
    return secret


def _matches(pattern: str, kind: str) -> bool:
    if pattern == "*":
        return kind not in QUIET
    if pattern.endswith(".*"):
        return kind.startswith(pattern[:-1])
    return kind == pattern


def _time(milliseconds: int) -> str:
    at = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
