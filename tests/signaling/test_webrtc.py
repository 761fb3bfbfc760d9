"""WHIP (RFC 9725) and WHEP: every status that the standards name, in the order of cost."""

from __future__ import annotations

import pytest

from tests.signaling.api_client import FRAGMENT, SDP, Api, problem

BOTH = pytest.mark.parametrize(("name", "who"), [("whip", "guest:bob"), ("whep", "viewer:carol")])


@BOTH
async def test_an_offer_is_answered_with_a_resource(api: Api, name: str, who: str) -> None:
    response = await api.offer(f"/{name}/demo", who, **{"User-Agent": "obs"})
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/sdp"
    assert response.text.startswith("v=0")
    assert response.headers["Location"] == f"/{name}/demo/n1~s1"
    assert response.headers["ETag"] == '"ice-1"'
    assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
    offer = api.node.offers[0]
    assert (offer.room, offer.identity, offer.role, offer.client) == (
        "demo",
        who[-3:] if name == "whip" else "carol",
        who.split(":")[0],
        "obs",
    )


async def test_a_viewer_is_told_where_its_events_are(api: Api) -> None:
    response = await api.offer("/whep/demo", "viewer:carol")
    link = response.headers["Link"]
    assert link.startswith("</v1/sessions/n1~s1/events>; ")
    assert 'rel="urn:ietf:params:whep:ext:core:server-sent-events"' in link
    assert "Link" not in (await api.offer("/whip/demo", "guest")).headers


@BOTH
@pytest.mark.parametrize(
    ("sdp", "headers", "expected"),
    [
        ("v=0", {"Content-Type": "application/json"}, (415, "unsupported-media-type")),
        ("v=0", {"Content-Type": "text/plain; x=application/sdp"}, (415, "unsupported-media-type")),
        ("v=0", {"Accept": "text/html"}, (406, "not-acceptable")),
        ("v=0", {"Accept": "*/*, application/sdp;q=0"}, (406, "not-acceptable")),
        ("", {}, (400, "malformed-body")),
        (" \r\n", {}, (400, "malformed-body")),
        ("bad", {}, (400, "bad-offer")),
        ("unanswerable", {}, (422, "unacceptable-offer")),
        ("v" * 32_769, {}, (413, "body-too-large")),
    ],
)
async def test_wrong_offers(
    api: Api, name: str, who: str, sdp: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert problem(await api.offer(f"/{name}/demo", who, sdp, **headers)) == expected


@pytest.mark.parametrize("accept", ["*/*", "application/*;q=0.1", "text/html, application/sdp", "APPLICATION/SDP"])
async def test_accepted_types(api: Api, accept: str) -> None:
    assert (await api.offer("/whip/demo", "guest", Accept=accept)).status_code == 201


async def test_content_type_parameters_do_not_matter(api: Api) -> None:
    headers = {"Content-Type": "Application/SDP; charset=utf-8"}
    assert (await api.call("POST", "/whip/demo", "guest", content="v=0", headers=headers)).status_code == 201


async def test_a_body_without_a_length_is_bounded_too(api: Api) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(40):
            yield b"v" * 1024

    response = await api.client.post("/whip/demo", content=chunks(), headers=api.token("guest") | SDP)
    assert problem(response) == (413, "body-too-large")


async def test_offers_that_are_not_utf8(api: Api) -> None:
    response = await api.call("POST", "/whip/demo", "guest", content=b"v=0\xff", headers=SDP)
    assert problem(response) == (400, "malformed-body")


@BOTH
async def test_who_may_not_come(api: Api, name: str, who: str) -> None:
    assert problem(await api.offer(f"/{name}/demo", None)) == (401, "missing-token")
    assert problem(await api.offer(f"/{name}/demo", f"{who}@other")) == (403, "wrong-room")
    assert problem(await api.offer(f"/{name}/nowhere", f"{who}@nowhere")) == (404, "room-not-found")
    assert problem(await api.offer(f"/{name}/a%20b", who)) == (400, "invalid-parameter")


@pytest.mark.parametrize("who", ["viewer", "moderator", "service"])
async def test_only_hosts_publish(api: Api, who: str) -> None:
    assert problem(await api.offer("/whip/demo", who)) == (403, "forbidden")
    assert not api.node.offers


async def test_a_role_given_in_the_room_counts_over_the_tokens(api: Api) -> None:
    role = {"role": "guest"}
    assert (await api.call("PATCH", "/v1/rooms/demo/participants/carol", "owner", json=role)).status_code == 200
    assert (await api.offer("/whip/demo", "viewer:carol")).status_code == 201
    assert api.node.offers[0].role == "guest"
    role = {"role": "viewer"}
    assert (await api.call("PATCH", "/v1/rooms/demo/participants/bob", "owner", json=role)).status_code == 200
    assert problem(await api.offer("/whip/demo", "guest:bob")) == (403, "forbidden")


async def test_the_removed_stay_out_until_the_ban_ends(api: Api) -> None:
    path = "/v1/rooms/demo/participants/bob?ban_s=30"
    assert (await api.call("DELETE", path, "moderator")).status_code == 204
    for name in ("whip", "whep"):
        assert problem(await api.offer(f"/{name}/demo", "guest:bob")) == (403, "banned")
    api.now += 31
    assert (await api.offer("/whip/demo", "guest:bob")).status_code == 201


async def test_a_full_node_refuses_before_it_reads(api: Api) -> None:
    api.node.full = True
    response = await api.offer("/whip/nowhere", "guest@nowhere", "v" * 50_000)
    assert problem(response) == (503, "overloaded")
    assert response.headers["Retry-After"] == "7"


async def test_a_draining_node_takes_nobody(api: Api) -> None:
    resource = (await api.offer("/whip/demo", "guest")).headers["Location"]
    api.app.state.context.drain.begin()
    assert problem(await api.offer("/whip/demo", "guest")) == (503, "draining")
    assert problem(await api.offer("/whep/demo", None)) == (503, "draining")
    assert (await api.call("DELETE", resource, "guest")).status_code == 200


class TestAutoCreate:
    @pytest.fixture
    def overrides(self) -> dict[str, object]:
        return {"room.auto_create": True}

    async def test_an_owner_makes_the_room_by_coming(self, api: Api) -> None:
        assert problem(await api.offer("/whip/new", "guest@new")) == (404, "room-not-found")
        assert (await api.offer("/whip/new", "owner@new")).status_code == 201
        assert (await api.offer("/whip/new", "guest@new")).status_code == 201
        assert (await api.call("GET", "/v1/rooms/new", "guest@new")).json()["id"] == "new"


class TestRates:
    @pytest.fixture
    def overrides(self) -> dict[str, object]:
        return {"rate.joins_per_minute": 6, "rate.api_per_minute": 60}

    async def test_offers_are_limited_by_bearer(self, api: Api) -> None:
        assert (await api.offer("/whip/demo", "guest")).status_code == 201
        refused = await api.offer("/whip/demo", "guest")
        assert problem(refused) == (429, "rate-limited")
        assert (await api.offer("/whip/demo", "guest:other")).status_code == 201
        api.now += int(refused.headers["Retry-After"])
        assert (await api.offer("/whip/demo", "guest")).status_code == 201

    async def test_bad_tokens_are_limited_by_address(self, api: Api) -> None:
        bad = {"Authorization": "Bearer x"}
        statuses = [(await api.call("GET", "/v1/rooms", headers=bad)).status_code for _ in range(11)]
        assert statuses == [401] * 10 + [429]
        assert (await api.call("GET", "/v1/rooms", "guest")).status_code == 200


@BOTH
async def test_the_resource(api: Api, name: str, who: str) -> None:
    resource = (await api.offer(f"/{name}/demo", who)).headers["Location"]
    for method in ("GET", "HEAD"):
        response = await api.call(method, resource, who)
        assert (response.status_code, response.content) == (204, b"")
    refused = await api.call("POST", resource, who)
    assert problem(refused) == (405, "method-not-allowed")
    assert refused.headers["Allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
    assert problem(await api.call("PUT", f"/{name}/demo", who))[0] == 405
    assert (await api.call("DELETE", resource, who)).status_code == 200
    assert problem(await api.call("DELETE", resource, who)) == (404, "session-not-found")
    assert problem(await api.call("GET", resource, who)) == (404, "session-not-found")


@BOTH
@pytest.mark.parametrize(
    ("fragment", "headers", "expected"),
    [
        ("a=candidate", {}, 204),
        ("a=candidate", {"If-Match": '"ice-1"'}, 204),
        ("a=candidate", {"If-Match": '"ice-0"'}, (412, "precondition-failed")),
        ("a=candidate", {"If-Match": 'W/"ice-1"'}, (412, "precondition-failed")),
        ("a=candidate", {"If-Match": '"other", "ice-1"'}, 204),
        ("a=ice-ufrag", {"If-Match": "*"}, 200),
        ("a=ice-ufrag", {"If-Match": '"ice-1"'}, 200),
        ("a=ice-ufrag", {}, (428, "precondition-required")),
        ("bad", {}, (400, "bad-offer")),
        ("", {}, (400, "malformed-body")),
        ("a=candidate", {"Content-Type": "application/sdp"}, (415, "unsupported-media-type")),
        ("x" * 32_769, {}, (413, "body-too-large")),
    ],
)
async def test_patching_the_resource(
    api: Api, name: str, who: str, fragment: str, headers: dict[str, str], expected: int | tuple[int, str]
) -> None:
    resource = (await api.offer(f"/{name}/demo", who)).headers["Location"]
    response = await api.call("PATCH", resource, who, content=fragment, headers=FRAGMENT | headers)
    if isinstance(expected, tuple):
        assert problem(response) == expected
        return
    assert response.status_code == expected
    if expected == 200:
        assert response.headers["ETag"] == '"ice-2"'
        assert response.headers["content-type"] == "application/trickle-ice-sdpfrag"
    else:
        assert response.content == b""


async def test_whose_resource_it_is(api: Api) -> None:
    resource = (await api.offer("/whip/demo", "guest:bob")).headers["Location"]
    for who in ("guest:eve", "viewer"):
        for method in ("GET", "DELETE"):
            assert problem(await api.call(method, resource, who)) == (403, "forbidden")
    assert problem(await api.call("GET", resource, "guest:bob@other")) == (403, "wrong-room")
    assert problem(await api.call("GET", resource.replace("whip", "whep"), "guest:bob")) == (404, "session-not-found")
    assert problem(await api.call("GET", resource.replace("demo", "other"), "guest:bob@other"))[0] == 404
    assert problem(await api.call("GET", "/whip/demo/n2~s1", "guest:bob")) == (404, "session-not-found")
    assert problem(await api.call("GET", resource)) == (401, "missing-token")
    assert (await api.call("GET", resource, "moderator")).status_code == 204
    assert (await api.call("DELETE", resource, "service")).status_code == 200


@pytest.mark.parametrize("name", ["whip", "whep"])
async def test_options_and_cors(api: Api, name: str) -> None:
    preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for headers in ({}, preflight):
        response = await api.call("OPTIONS", f"/{name}/demo", headers=headers)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["Accept-Post"] == "application/sdp"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    resource = await api.call("OPTIONS", f"/{name}/demo/n1~s1", headers=preflight)
    assert resource.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
    refused = await api.offer(f"/{name}/demo", None, Origin="https://example.org")
    assert {"Location", "ETag", "Link", "Retry-After", "Accept-Patch"} <= set(
        refused.headers["Access-Control-Expose-Headers"].split(", ")
    )
