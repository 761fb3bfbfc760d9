"""Problems: each failure has one class, a stable type, and no secrets."""

from __future__ import annotations

import pytest

from relay import errors
from signaling.problems import StoreUnavailable, all_problems, problem_of
from tests.signaling.api_client import Api, problem

NAMES = [
    "already-on-air",
    "bad-offer",
    "bad-request",
    "banned",
    "body-too-large",
    "codec-not-allowed",
    "conflict",
    "draining",
    "egress-exists",
    "egress-not-found",
    "events-gone",
    "forbidden",
    "internal-error",
    "invalid-parameter",
    "invalid-request",
    "invalid-token",
    "invitation-needed",
    "invitation-not-found",
    "link-not-found",
    "malformed-body",
    "method-not-allowed",
    "missing-token",
    "node-unreachable",
    "not-a-host",
    "not-acceptable",
    "not-found",
    "overloaded",
    "owner-role",
    "participant-not-found",
    "pk-busy",
    "pk-not-found",
    "pk-not-running",
    "pk-over",
    "pk-same-room",
    "precondition-failed",
    "precondition-required",
    "program-not-found",
    "program-publication",
    "publication-not-found",
    "rate-limited",
    "room-exists",
    "room-full",
    "room-not-found",
    "seat-taken",
    "session-not-found",
    "slot-not-found",
    "store-unavailable",
    "target-not-allowed",
    "too-many-mixes",
    "too-many-publications",
    "too-many-webhooks",
    "unacceptable-offer",
    "unsupported-media-type",
    "webhook-in-settings",
    "webhook-not-found",
    "wrong-room",
]


def test_the_names_are_a_promise() -> None:
    assert sorted(each.name() for each in all_problems()) == NAMES


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.BadOffer("x"), (400, "bad-offer")),
        (errors.UnacceptableOffer("x"), (422, "unacceptable-offer")),
        (errors.BadRequest("x"), (400, "bad-request")),
        (errors.Forbidden("x"), (403, "forbidden")),
        (errors.Forbidden("x", code="banned"), (403, "banned")),
        (errors.NotFound("x"), (404, "not-found")),
        (errors.NotFound("x", code="slot-not-found"), (404, "slot-not-found")),
        (errors.NotFound("x", code="seat-taken"), (404, "not-found")),
        (errors.Conflict("x", code="seat-taken"), (409, "seat-taken")),
        (errors.Conflict("x", code="never-heard-of"), (409, "conflict")),
        (errors.PreconditionFailed("x"), (412, "precondition-failed")),
        (errors.PreconditionRequired("x"), (428, "precondition-required")),
        (errors.Overloaded("x"), (503, "overloaded")),
        (errors.NodeUnreachable("x"), (503, "node-unreachable")),
        (errors.StoreUnavailable("x"), (503, "store-unavailable")),
    ],
)
def test_errors_of_the_relay(error: errors.CostreamError, expected: tuple[int, str]) -> None:
    found = problem_of(error)
    assert found is not None
    assert (found.status, found.name()) == expected


def test_our_own_faults_are_no_problems_of_the_client() -> None:
    assert problem_of(errors.UsageError("x")) is None
    assert problem_of(errors.CorruptDocument("x")) is None


def test_a_detail_is_bounded() -> None:
    assert len(StoreUnavailable("x" * 10_000).body("/")["detail"]) <= 500


@pytest.mark.parametrize("fault", [RuntimeError("password is hunter2"), errors.UsageError("hunter2")])
async def test_a_bug_is_an_incident(api: Api, fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def broken(room: str | None = None) -> list[dict[str, object]]:
        raise fault

    api.node.sessions = broken  # type: ignore[method-assign, assignment]
    response = await api.call("GET", "/v1/rooms/demo/sessions", "owner")
    assert problem(response) == (500, "internal-error")
    assert len(response.json()["incident"]) == 16
    assert "hunter2" not in response.text
    assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_whatever_can_be_read_answers_head(api: Api) -> None:
    """Load balancers and monitors ask so (RFC 9110, 9.3.2)."""
    for path, who in (("/healthz", None), ("/v1/rooms/demo", "owner"), ("/v1/rooms/demo/pk", "owner")):
        read, asked = await api.call("GET", path, who), await api.call("HEAD", path, who)
        assert (asked.status_code, asked.content) == (read.status_code, b"") == (200, b"")
        assert asked.headers["content-length"] == read.headers["content-length"]
    assert (await api.call("HEAD", "/v1/rooms/demo")).status_code == 401
    assert (await api.call("HEAD", "/v1/rooms/none", "owner:o@none")).status_code == 404
    stream = await api.call("HEAD", "/v1/rooms/demo/events", "owner")
    assert (stream.status_code, stream.headers["allow"]) == (405, "GET, OPTIONS, POST")
