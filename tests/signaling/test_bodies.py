"""JSON bodies of wrong types and sizes: a clear problem, never an error of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signaling.rooms.schemas import MAX_DATA_BYTES
from tests.signaling.api_client import Api, problem

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "malformed-body")),
        (b"{", (400, "malformed-body")),
        (b'{"id": "a",}', (400, "malformed-body")),
        (b"\xff\xfe", (400, "malformed-body")),
        (b"[" * 30_000, (400, "malformed-body")),
        (b'{"metadata":' * 5000, (400, "malformed-body")),
        (b'{"id": "a", "metadata": {"x": ' + b"[" * 5000 + b"]" * 5000 + b"}}", (400, "malformed-body")),
        (b'{"id": "' + b"a" * 70_000 + b'"}', (413, "body-too-large")),
        (b"null", (422, "invalid-request")),
        (b"[]", (422, "invalid-request")),
        (b"{}", (422, "invalid-request")),
        (b'{"id": 1}', (422, "invalid-request")),
        (b'{"id": ""}', (422, "invalid-request")),
        (b'{"id": "a b"}', (422, "invalid-request")),
        (b'{"id": "a\\n"}', (422, "invalid-request")),
        (b'{"id": "' + b"a" * 65 + b'"}', (422, "invalid-request")),
        (b'{"id": "a", "max_seats": "8"}', (422, "invalid-request")),
        (b'{"id": "a", "max_seats": true}', (422, "invalid-request")),
        (b'{"id": "a", "max_seats": 0}', (422, "invalid-request")),
        (b'{"id": "a", "max_seats": 1e999}', (422, "invalid-request")),
        (b'{"id": "a", "max_seats": 123456789012345678901234567890}', (422, "invalid-request")),
        (b'{"id": "a", "codecs": []}', (422, "invalid-request")),
        (b'{"id": "a", "codecs": ["mp3"]}', (422, "invalid-request")),
        (b'{"id": "a", "codecs": ["vp8", "vp8"]}', (422, "invalid-request")),
        (b'{"id": "a", "metadata": []}', (422, "invalid-request")),
    ],
)
async def test_wrong_bodies(api: Api, body: bytes, expected: tuple[int, str]) -> None:
    assert problem(await api.call("POST", "/v1/rooms", "service", content=body, headers=JSON)) == expected


async def test_unknown_fields_are_named_and_values_are_not_repeated(api: Api) -> None:
    wanted = {"id": "a", "maxSeats": "hunter2"}
    response = await api.call("POST", "/v1/rooms", "service", json=wanted)
    assert problem(response) == (422, "invalid-request")
    assert response.json()["errors"][0]["pointer"] == "/maxSeats"
    assert "hunter2" not in response.text


async def test_metadata_and_event_data_are_bounded(api: Api) -> None:
    fits = {"x": "y" * (MAX_DATA_BYTES - 8)}
    over = {"x": "y" * (MAX_DATA_BYTES - 7)}
    path = "/v1/rooms/demo/events"
    assert (await api.call("POST", path, "owner", json={"type": "app.x", "data": fits})).status_code == 202
    assert problem(await api.call("POST", path, "owner", json={"type": "app.x", "data": over}))[0] == 422
    assert problem(await api.call("POST", "/v1/rooms", "service", json={"id": "a", "metadata": over}))[0] == 422


@pytest.mark.parametrize(
    ("at", "status"), [("18446744073709551615", 202), ("18446744073709551616", 422), ("-1", 422), (7, 422)]
)
async def test_an_event_names_its_frame_by_a_sync_id(api: Api, at: object, status: int) -> None:
    body = {"type": "app.score", "data": {"points": 1}, "at": at}
    assert (await api.call("POST", "/v1/rooms/demo/events", "owner", json=body)).status_code == status


@pytest.mark.parametrize("name", ["room.ended", "app.", "app", "app." + "x" * 61, "app.a b", "APP.x"])
async def test_applications_cannot_forge_our_events(api: Api, name: str) -> None:
    assert problem(await api.call("POST", "/v1/rooms/demo/events", "owner", json={"type": name})) == (
        422,
        "invalid-request",
    )


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json-patch+json"])
async def test_only_json_is_taken(api: Api, kind: str) -> None:
    response = await api.call("POST", "/v1/rooms", "service", content=b'{"id":"a"}', headers={"Content-Type": kind})
    assert problem(response) == (415, "unsupported-media-type")


async def test_the_token_is_asked_before_the_body(api: Api) -> None:
    assert problem(await api.call("POST", "/v1/rooms", content=b"{", headers=JSON)) == (401, "missing-token")


async def test_paths_and_queries_are_checked(api: Api) -> None:
    for path in ("/v1/rooms/" + "a" * 65, "/v1/rooms/a%2Fb", "/v1/rooms/%00", "/v1/rooms/demo/participants/a%20b"):
        status, _ = problem(await api.call("DELETE", path, "owner"))
        assert status in {400, 404}
    for query in ("-1", "x", "1e9", "86401"):
        response = await api.call("DELETE", f"/v1/rooms/demo/participants/bob?ban_s={query}", "owner")
        assert problem(response) == (400, "invalid-parameter")


ROUTES = [
    ("POST", "/v1/rooms"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/rooms/demo/events"),
    ("POST", "/v1/rooms/demo/stage/invitations"),
    ("PUT", "/v1/rooms/demo/stage/seats/bob"),
    ("PATCH", "/v1/rooms/demo/participants/bob"),
    ("PATCH", "/v1/rooms/demo/publications/p"),
]
NAMES = st.sampled_from(
    [
        "id",
        "codecs",
        "max_seats",
        "stage_policy",
        "traffic",
        "metadata",
        "room",
        "identity",
        "role",
        "ttl_s",
        "type",
        "data",
        "state",
        "muted",
        "audio",
        "video",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["bob", "guest"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ROUTES), VALUES | st.binary(max_size=200))
async def test_any_body_gets_an_answer(api: Api, route: tuple[str, str], body: Any) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
    response = await api.call(*route, "service", content=content, headers=JSON)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        problem(response)
