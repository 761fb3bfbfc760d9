"""Who gets in: attacks on tokens, and the role matrix over every route."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from relay.settings import DEV_KEY_ID, DEV_SECRET
from tests.signaling.api_client import Api, problem


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def forge(api: Api, header: Any = None, secret: str = DEV_SECRET, **changes: Any) -> str:
    """A token signed by hand, so that anything can be in it."""
    claims = {"iss": DEV_KEY_ID, "sub": "alice", "room": "demo", "role": "owner", "exp": api.now + 60} | changes
    claims = {name: value for name, value in claims.items() if value is not ...}
    head = encode(json.dumps(header or {"alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


async def ask(api: Api, token: str) -> tuple[int, str]:
    response = await api.call("GET", "/v1/rooms/demo", headers={"Authorization": f"Bearer {token}"})
    return (200, "") if response.status_code == 200 else problem(response)


async def test_a_good_token_by_hand(api: Api) -> None:
    assert await ask(api, forge(api)) == (200, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS512"}},
        {"header": {"alg": "RS256"}},
        {"secret": "x" * 32},
        {"secret": ""},
        {"iss": "nobody"},
        {"iss": 1},
        {"iss": ...},
        {"exp": 1},
        {"exp": ...},
        {"exp": "tomorrow"},
        {"exp": True},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "x" * 65},
        {"sub": ["alice"]},
        {"room": "*"},
        {"room": "a/b"},
        {"room": None},
        {"role": "admin"},
        {"role": {}},
        {"nbf": 9_999_999_999},
        {"pad": "x" * 5000},
    ],
)
async def test_forged_and_broken_tokens(api: Api, changes: dict[str, Any]) -> None:
    assert await ask(api, forge(api, **changes)) == (401, "invalid-token")


@pytest.mark.parametrize("token", ["x", "..", "a.b.c", "é", "x" * 7000, "e30.e30.", "e30.e30.e30.e30.e30"])
async def test_things_that_are_no_tokens(api: Api, token: str) -> None:
    response = await api.client.get("/v1/rooms/demo", headers=[(b"Authorization", b"Bearer " + token.encode())])
    assert problem(response) == (401, "invalid-token")


@pytest.mark.parametrize("header", ["", "Basic YWxpY2U6eA==", "Bearer", "Bearer  "])
async def test_no_token(api: Api, header: str) -> None:
    response = await api.call("GET", "/v1/rooms/demo", headers={"Authorization": header} if header else {})
    assert problem(response) == (401, "missing-token")
    assert "error=" not in response.headers["WWW-Authenticate"]  # RFC 6750 section 3.1


async def test_the_reason_stands_in_the_challenge(api: Api) -> None:
    headers = {"Authorization": f"Bearer {forge(api, exp=1)}"}
    challenge = (await api.call("GET", "/v1/rooms/demo", headers=headers)).headers["WWW-Authenticate"]
    assert 'error="invalid_token"' in challenge
    assert "expired" in challenge


async def test_a_token_in_the_query_opens_only_event_streams(api: Api) -> None:
    token = api.token("owner")["Authorization"].removeprefix("Bearer ")
    assert problem(await api.call("GET", f"/v1/rooms/demo?access_token={token}")) == (401, "missing-token")


OFFICES = ("owner", "guest", "moderator", "viewer", "service")
ROUTES: list[tuple[str, str, Any, set[str]]] = [
    ("GET", "/v1/rooms/demo", None, set(OFFICES)),
    ("GET", "/v1/rooms/demo/participants", None, set(OFFICES)),
    ("GET", "/v1/rooms/demo/stage", None, set(OFFICES)),
    ("GET", "/v1/rooms/demo/publications", None, set(OFFICES)),
    ("GET", "/v1/rooms/demo/sessions", None, set(OFFICES)),
    ("GET", "/v1/nodes", None, {"owner", "moderator", "service"}),
    ("GET", "/v1/links", None, {"owner", "moderator", "service"}),
    ("POST", "/v1/rooms", {"id": "demo"}, {"owner", "service"}),
    ("DELETE", "/v1/rooms/demo", None, {"owner", "service"}),
    ("POST", "/v1/tokens", {"room": "demo", "identity": "x", "role": "viewer"}, {"owner", "service"}),
    ("POST", "/v1/tokens", {"room": "demo", "identity": "x", "role": "service"}, {"service"}),
    ("POST", "/v1/tokens", {"room": "*", "identity": "x", "role": "service"}, {"service"}),
    ("POST", "/v1/tokens", {"room": "*", "identity": "x", "role": "guest"}, set()),
    ("PATCH", "/v1/rooms/demo/participants/zoe", {"role": "guest"}, {"owner", "service"}),
    ("DELETE", "/v1/rooms/demo/participants/zoe", None, {"owner", "moderator", "service"}),
    ("POST", "/v1/rooms/demo/stage/invitations", {"identity": "zoe"}, {"owner", "moderator", "service"}),
    ("POST", "/v1/rooms/demo/events", {"type": "app.x"}, {"owner", "guest", "moderator", "service"}),
]


@pytest.mark.parametrize(("method", "path", "body", "allowed"), ROUTES)
@pytest.mark.parametrize("office", OFFICES)
async def test_role_matrix(api: Api, office: str, method: str, path: str, body: Any, allowed: set[str]) -> None:
    response = await api.call(method, path, office, json=body)
    if office in allowed:
        assert response.status_code in {200, 201, 202, 204, 409}, response.text
    else:
        assert response.status_code == 403, response.text
        assert problem(response)[1] in {"forbidden", "wrong-room"}


@pytest.mark.parametrize(("method", "path", "body", "allowed"), ROUTES)
async def test_a_token_for_one_room_opens_no_other(
    api: Api, method: str, path: str, body: Any, allowed: set[str]
) -> None:
    if path in {"/v1/nodes", "/v1/links"}:
        return
    assert problem(await api.call(method, path, "owner@other", json=body)) in {(403, "wrong-room"), (403, "forbidden")}
    assert problem(await api.call(method, path, json=body))[0] == 401


async def test_a_service_token_for_one_room_opens_no_other(api: Api) -> None:
    assert problem(await api.call("GET", "/v1/rooms/demo", "service@other")) == (403, "wrong-room")
    assert (await api.call("GET", "/v1/rooms", "service@other")).json() == {"rooms": []}
