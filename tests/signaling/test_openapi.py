"""The OpenAPI document: complete, and true when a machine tries it."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core.transport import Response

from relay.cluster import RedisStore
from relay.cluster.pk_desk import PkDesk
from relay.errors import Conflict
from relay.metrics import Metrics
from relay.settings import dev_settings
from relay.stage.pk import invite
from signaling.app import create_app
from signaling.nodes import LocalNodes
from tests.signaling.api_client import Api
from tests.signaling.memory_node import MemoryNode

METHODS = {"get", "post", "put", "patch", "delete", "head"}
PUBLIC = {"/healthz", "/readyz", "/metrics"}


async def document(api: Api) -> dict[str, Any]:
    response = await api.call("GET", "/openapi.json")
    found: dict[str, Any] = response.json()
    return found


async def test_every_operation_is_described(api: Api) -> None:
    found = await document(api)
    assert found["openapi"].startswith("3.1")
    ids = []
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            assert method in METHODS
            where = f"{method} {path}"
            ids.append(operation["operationId"])
            assert operation["summary"], where
            assert operation["tags"], where
            if path in PUBLIC:
                continue
            assert operation["security"] == [{"bearer": []}], where
            assert {"401", "429", "503"} <= set(operation["responses"]), where
            for status, response in operation["responses"].items():
                assert response["description"], where
                if int(status) >= 400:
                    (kind,) = response["content"]
                    assert kind == "application/problem+json", where
                    assert response["content"][kind]["examples"], where
    assert len(ids) == len(set(ids))


async def test_examples_match_their_schemas(api: Api) -> None:
    found = await document(api)
    checked = 0
    for operations in found["paths"].values():
        for operation in operations.values():
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                assert "example" in body
                if kind == "application/json":
                    schema = body["schema"] | {"components": found["components"]}
                    jsonschema_rs.Draft202012Validator(schema).validate(body["example"])
                    checked += 1
    assert checked >= 8


async def test_references_resolve(api: Api) -> None:
    found = await document(api)
    known = found["components"]["schemas"]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                assert value["$ref"].removeprefix("#/components/schemas/") in known
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(found)


@schemathesis.serializer("application/sdp", "application/trickle-ice-sdpfrag")
def as_text(context: Any, value: Any) -> bytes:
    """Tell schemathesis how to send SDP."""
    return str(value).encode("utf-8", "surrogatepass")


KNOWN = {
    "link": "l1",
    "room": "demo",
    "identity": "bob",
    "session": "n1~s1",
    "publication": "p",
    "index": 0,
    "pk": "pk1",
}
"""Things that exist, so that requests get further than 404."""


@cache
def strategies(mode: GenerationMode) -> list[st.SearchStrategy[Any]]:
    """Makers of requests, one for each operation that ends and that can be got wrong in this mode."""
    app = create_app(dev_settings(environ={}), RedisStore("redis://127.0.0.1:1"), LocalNodes(MemoryNode()), Metrics())
    made = []
    for result in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        operation = result.ok()
        endless = operation.path.endswith("/events") and operation.method == "get"
        if not endless and (mode.is_positive or operation.path.startswith(("/v1/", "/whip/"))):
            made.append(operation.as_strategy(generation_mode=mode))
    return made


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data(), known=st.booleans(), who=st.sampled_from(["owner", "service", "viewer:bob"]))
async def test_a_machine_tries_the_operations(
    api: Api, mode: GenerationMode, data: st.DataObject, known: bool, who: str
) -> None:
    """Requests made by schemathesis from the document, right ones or wrong ones: the answers are as it says."""
    await api.call("POST", "/v1/rooms", "owner", json={"id": "demo"})
    await invite_demo(api)
    case = data.draw(data.draw(st.sampled_from(strategies(mode))))
    if known:
        case.path_parameters |= {name: KNOWN[name] for name in case.path_parameters}
    await try_case(api, case, who)


async def invite_demo(api: Api) -> None:
    """Another room invites this one to a PK, if it has not done so."""
    await api.call("POST", "/v1/rooms", "service", json={"id": "other"})
    with contextlib.suppress(Conflict):
        await PkDesk(api.store, lambda: api.now).invite(invite("pk1", "other", "demo", "olga", api.now))


async def try_case(api: Api, case: Any, who: str) -> None:
    """Send a request and check status, type, headers and body of the answer against the document."""
    arguments = case.as_transport_kwargs(base_url="http://test", headers=api.token(who))
    arguments = {
        name: arguments[name] for name in arguments.keys() & {"method", "url", "headers", "params", "json", "data"}
    }
    request = requests.Request(**arguments).prepare()
    answer = await api.client.request(
        str(request.method), str(request.url), content=request.body, headers=dict(request.headers)
    )
    assert answer.status_code not in {500, 503}, answer.text
    response = Response(
        status_code=answer.status_code,
        headers={name.lower(): [value] for name, value in answer.headers.items()},
        content=answer.content,
        request=request,
        elapsed=0.1,
        verify=False,
    )
    checks = CHECKS.get_by_names(
        [
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "response_headers_conformance",
        ]
    )
    case.validate_response(response, checks=checks)
