"""What is sent, to whom and how it is signed; what an answer means and when the next try is due."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from relay.errors import BadRequest
from relay.ids import make_sync_id
from relay.outbox import NODES, Endpoint, Secret
from relay.ports import RoomEvent
from relay.settings import WebhookSettings
from signaling.webhooks.messages import QUIET, check_secret, headers_of, make_secret, message_of, wants
from signaling.webhooks.sender import check_url, outcome_of, wait_before

AT = make_sync_id(1_763_697_600_123, 4)
OLD, NEW = make_secret(b"o" * 32), make_secret(b"n" * 32)


def event(kind: str = "room.created", **data: object) -> RoomEvent:
    return RoomEvent(AT, kind, dict(data))


def endpoint(*events: str, room: str = "", since: int = 0, active: bool = True) -> Endpoint:
    return Endpoint("e", "https://example.com/", (Secret(NEW),), events or ("*",), room, since, active)


def test_a_message_is_a_cloud_event() -> None:
    message = message_of("demo", event("egress.failed", egress="n1~eg-1", error={"code": "disk-full"}))
    assert json.loads(message.body) == {
        "specversion": "1.0",
        "id": message.id,
        "source": "/v1/rooms/demo",
        "subject": "demo",
        "type": "dev.costream.egress.failed",
        "time": "2025-11-21T04:00:00.123Z",
        "syncid": str(AT),
        "datacontenttype": "application/json",
        "data": {"egress": "n1~eg-1", "error": {"code": "disk-full"}},
    }
    assert message == message_of("demo", event("egress.failed", egress="n1~eg-1", error={"code": "disk-full"}))
    assert "." not in message.id  # Standard Webhooks: it parts what is signed
    assert json.loads(message_of(NODES, event("link.moved")).body)["source"] == "/v1/nodes"


def test_what_is_too_large_is_left_out() -> None:
    body = json.loads(message_of("demo", event(text="ö" * 40_000)).body)
    assert body["data"] == {"left_out": "too large: read the room"}


@pytest.mark.parametrize(
    ("patterns", "kind", "wanted"),
    [
        (("*",), "room.created", True),
        (("room.created",), "room.created", True),
        (("room.created",), "room.ended", False),
        (("egress.*",), "egress.running", True),
        (("egress.*",), "egressed", False),
        (("a.b", "room.*"), "room.ended", True),
        (("*",), "speaker.changed", False),
        (("speaker.changed",), "speaker.changed", True),
        (("speaker.*",), "speaker.changed", True),
        (("*",), "", False),
    ],
)
def test_who_gets_what(patterns: tuple[str, ...], kind: str, wanted: bool) -> None:
    assert wants(endpoint(*patterns), "demo", event(kind)) == wanted


def test_rooms_times_and_rest() -> None:
    assert wants(endpoint(room="demo"), "demo", event())
    assert not wants(endpoint(room="demo"), "other", event())
    assert not wants(endpoint(room="demo"), NODES, event("link.moved"))
    assert wants(endpoint(since=1_763_697_600_123), "demo", event())
    assert not wants(endpoint(since=1_763_697_600_124), "demo", event())
    assert not wants(endpoint(active=False), "demo", event())
    assert not any(wants(endpoint(), "demo", event(kind)) for kind in QUIET)


def test_all_secrets_that_have_not_ended_sign() -> None:
    message, now = message_of("demo", event()), time.time()
    secrets = (Secret(NEW), Secret(OLD, until=now + 60), Secret(make_secret(b"g" * 32), until=now - 1))
    headers = headers_of(Endpoint("e", "https://example.com/", secrets), message, now)
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (NEW, OLD):
        Webhook(secret).verify(message.body, headers)
    for secret, body in ((secrets[2].secret, message.body), (NEW, message.body + " ")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "b" * 44, make_secret(b"x" * 65), "whsec_!!!!" + "A" * 40]
)
def test_secrets_that_cannot_be(secret: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_secret(secret)
    assert len(secret) < 10 or secret not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://",
        "https://user:key@example.com/",
        "https://example.com/#x",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/" + "x" * 2048,
        "https://[::1/",
    ],
)
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_url(url, allow_plain=False)
    assert "key@" not in str(refused.value)


def test_addresses_that_can() -> None:
    assert check_url("https://example.com/a?b=c", allow_plain=False) == ("example.com", 443)
    assert check_url("http://[::1]:8080/", allow_plain=True) == ("::1", 8080)


@given(st.text(max_size=60))
def test_any_address_is_taken_or_refused(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            host, port = check_url(url, allow_plain=True)
        except BadRequest:
            continue
        assert host
        assert 0 < port < 65_536


@pytest.mark.parametrize(
    ("status", "told", "ok", "gone", "wait"),
    [
        (200, "", True, False, 0),
        (299, "", True, False, 0),
        (301, "", False, False, 0),
        (410, "", False, True, 0),
        (429, "17", False, False, 17),
        (503, " 99999999 ", False, False, 86_400),
        (503, "Fri, 31 Dec 1999 23:59:59 GMT", False, False, 0),
        (500, "17", False, False, 0),
    ],
)
def test_what_an_answer_means(status: int, told: str, ok: bool, gone: bool, wait: float) -> None:
    outcome = outcome_of(status, told)
    assert (outcome.ok, outcome.gone, outcome.retry_after) == (ok, gone, wait)
    assert ok or outcome.reason == f"http-{status}"


@given(st.integers(1, 200), st.floats(0, 1))
def test_waits_grow_within_bounds_and_end(tries: int, dice: float) -> None:
    settings = WebhookSettings(attempts=12, retry_min_ms=2000, retry_max_s=3600)
    wait = wait_before(tries, settings, dice)
    if tries >= 12:
        assert wait is None
        return
    assert wait is not None
    longest = min(2 * 3 ** (tries - 1), 3600)
    assert longest / 2 <= wait <= longest
