"""The store is gone: refusals come soon and say when to come back; what a node hosts goes on."""

from __future__ import annotations

import time

import pytest

from relay.cluster import EmbeddedServer, open_store
from relay.settings import dev_settings
from tests.signaling.api_client import RATES, Api, problem

WANTED_S = 0.6  # the store's time-out is 0.5 s; printed, because a busy machine must not decide a test
HANG_S = 5.0  # far above: an answer that takes this long waited for something without a time-out


def told(path: str, seconds: float) -> None:
    """Print how long a refusal took, and refuse to have hung."""
    print(f"{path}: 503 after {seconds * 1000:.0f} ms, wanted within {WANTED_S * 1000:.0f} ms")
    assert seconds < HANG_S


async def test_every_route_says_so_in_time() -> None:
    server = EmbeddedServer()
    await server.start()
    store = await open_store(server.url)
    api = Api(dev_settings(environ={}, overrides=RATES), store)
    try:
        await api.call("POST", "/v1/rooms", "owner", json={"id": "demo"})
        assert "age" not in (await api.call("GET", "/v1/rooms/demo", "owner")).headers
        document = await store.read("demo")
        await server.stop()
        await check_refusals(api)
        api.node.documents["demo"] = document
        await check_copies(api)
        assert (await api.offer("/whip/demo", "guest:bob")).status_code == 201
        assert (await api.offer("/whep/demo", "viewer")).status_code == 201
        assert (await api.call("GET", "/v1/sessions/n1~s1", "guest:bob")).status_code == 200
        assert (await api.call("DELETE", "/whip/demo/n1~s1", "guest:bob")).status_code == 200
        assert (await api.call("GET", "/healthz")).status_code == 200
        assert (await api.call("GET", "/metrics")).text.count("costream_store_failures_total") > 0
    finally:
        await api.client.aclose()
        await store.close()
        await server.stop()


async def check_refusals(api: Api) -> None:
    for method, path, body in (
        ("GET", "/v1/rooms", None),
        ("GET", "/v1/rooms/demo", None),
        ("POST", "/v1/rooms", {"id": "demo"}),
        ("GET", "/v1/rooms/demo/stage", None),
        ("GET", "/v1/rooms/demo/participants", None),
        ("PATCH", "/v1/rooms/demo/participants/bob", {"role": "guest"}),
        ("GET", "/v1/rooms/demo/events", None),
        ("POST", "/v1/rooms/demo/events", {"type": "app.x"}),
    ):
        began = time.monotonic()
        assert problem(await api.call(method, path, "owner", json=body)) == (503, "store-unavailable"), path
        told(path, time.monotonic() - began)
    assert problem(await api.offer("/whip/demo", "guest")) == (503, "store-unavailable")
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["store"]) == (503, False)


async def check_copies(api: Api) -> None:
    """A room that a node hosts is shown as it is there, with its age."""
    for path in ("/v1/rooms/demo", "/v1/rooms/demo/stage", "/v1/rooms/demo/publications"):
        began = time.monotonic()
        found = await api.call("GET", path, "owner")
        assert found.status_code == 200, path
        assert 0 <= int(found.headers["age"]) < 60
        assert time.monotonic() - began < HANG_S
    assert (await api.call("GET", "/v1/rooms/demo", "owner")).json()["id"] == "demo"
    assert problem(await api.call("GET", "/v1/rooms/other", "service")) == (503, "store-unavailable")


@pytest.mark.parametrize("path", ["/v1/rooms/demo", "/v1/rooms"])
async def test_a_store_that_accepts_and_never_answers(path: str) -> None:
    """A partition: the connection stands, nothing comes back."""
    import asyncio

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(swallow, "127.0.0.1", 0)
    store = await open_store(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    api = Api(dev_settings(environ={}, overrides=RATES), store)
    began = time.monotonic()
    assert problem(await api.call("GET", path, "owner")) == (503, "store-unavailable")
    told(path, time.monotonic() - began)
    await api.client.aclose()
    await store.close()
    silent.close()
