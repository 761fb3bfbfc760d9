"""Webhooks over HTTP: who may, what is refused, what is told and what is not."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.signaling.api_client import Api, problem

HOOKS = "/v1/webhooks"
BODY = {"url": "https://127.0.0.1:9/hook", "events": ["room.*", "egress.failed"]}
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


async def make(api: Api, who: str = "service", **more: Any) -> dict[str, Any]:
    made = await api.call("POST", HOOKS, who, json=BODY | more)
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    assert made.headers["location"] == f"{HOOKS}/{found['id']}"
    return found


async def test_make_list_read_rotate_delete(api: Api) -> None:
    made = await make(api)
    assert made["secret"].startswith("whsec_")
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    read = await api.call("GET", f"{HOOKS}/{made['id']}", "service")
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert read.json() == shown
    assert (shown["events"], shown["active"], shown["origin"], shown["waiting"]) == (BODY["events"], True, "rest", 0)
    assert (await api.call("GET", HOOKS, "service")).json() == {"webhooks": [shown]}
    rotated = await api.call("POST", f"{HOOKS}/{made['id']}/secrets", "service")
    assert rotated.status_code == 201
    assert rotated.json()["secret"] != made["secret"]
    assert (await api.call("GET", f"{HOOKS}/{made['id']}/dead", "service")).json() == {"dead": []}
    assert (await api.call("POST", f"{HOOKS}/{made['id']}/dead/retry", "service")).json() == {"revived": 0}
    assert (await api.call("DELETE", f"{HOOKS}/{made['id']}", "service")).status_code == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/secrets"), ("GET", "/dead"), ("POST", "/dead/retry")):
        gone = await api.call(method, f"{HOOKS}/{made['id']}{path}", "service")
        assert problem(gone) == (404, "webhook-not-found")


async def test_a_secret_of_the_callers_own(api: Api) -> None:
    assert (await make(api, secret=SECRET))["secret"] == SECRET
    for secret in ("whsec_AAAA", "x" * 40):
        refused = await api.call("POST", HOOKS, "service", json=BODY | {"secret": secret})
        assert problem(refused)[0] == 400
        assert secret not in refused.text


@pytest.mark.parametrize("who", ["owner", "moderator", "guest", "viewer"])
async def test_only_services_manage(api: Api, who: str) -> None:
    assert problem(await api.call("POST", HOOKS, who, json=BODY)) == (403, "forbidden")
    assert problem(await api.call("GET", HOOKS, who)) == (403, "forbidden")
    assert problem(await api.call("DELETE", f"{HOOKS}/wh-1", who)) == (403, "forbidden")


async def test_a_service_of_one_room_sees_that_rooms(api: Api) -> None:
    everywhere, own = await make(api), await make(api, "service:s@demo", room="demo")
    listed = await api.call("GET", HOOKS, "service:s@demo")
    assert [each["id"] for each in listed.json()["webhooks"]] == [own["id"]]
    for path in (everywhere["id"],):
        assert problem(await api.call("GET", f"{HOOKS}/{path}", "service:s@demo")) == (404, "webhook-not-found")
    for room in (None, "other"):
        refused = await api.call("POST", HOOKS, "service:s@demo", json=BODY | {"room": room})
        assert problem(refused) == (403, "wrong-room")


@pytest.mark.parametrize("overrides", [{"webhooks.allow_private_targets": "false", "webhooks.max_endpoints": 1}])
async def test_refusals(api: Api) -> None:
    assert problem(await api.call("POST", HOOKS, json=BODY)) == (401, "missing-token")
    for body in (
        {},
        {"url": "https://example.com/", "events": []},
        {"url": "https://example.com/", "events": ["Room"]},
        {"url": "https://example.com/", "events": ["room.*.x"]},
        {"url": "https://example.com/", "room": "a/b"},
        {"url": "https://example.com/", "more": 1},
    ):
        assert problem(await api.call("POST", HOOKS, "service", json=body)) == (422, "invalid-request"), body
    for url in ("https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://10.1.2.3:8443/x"):
        refused = await api.call("POST", HOOKS, "service", json={"url": url})
        assert problem(refused) == (400, "target-not-allowed")
    for url in ("ftp://example.com/", "https://user@example.com/", "https://example.com:99999/", "https://a..b/hook"):
        assert problem(await api.call("POST", HOOKS, "service", json={"url": url})) == (400, "bad-request")
    made = await api.call("POST", HOOKS, "service", json={"url": "https://8.8.8.8/"})
    assert made.status_code == 201
    full = await api.call("POST", HOOKS, "service", json={"url": "https://8.8.8.8/"})
    assert problem(full) == (409, "too-many-webhooks")
    assert problem(await api.call("GET", f"{HOOKS}/{'x' * 65}", "service")) == (400, "invalid-parameter")
