"""The pages and the probes: right types, a strict policy, nothing outside the directory, nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.signaling.api_client import Api, problem


@pytest.mark.parametrize("path", ["/", "/index.html", "/studio.html", "/watch.html", "/dashboard.html", "/docs"])
async def test_pages_are_html_under_a_policy(api: Api, path: str) -> None:
    response = await api.call("GET", path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)
    for target in re.findall(r'(?:src|href)="([^"#]+)"', response.text):
        if not target.startswith(("/v1/", "mailto:")):
            assert "://" not in target
            assert (await api.call("GET", "/" + target.lstrip("/"))).status_code == 200, target


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/js/api.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/docs/start.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
async def test_types_of_files(api: Api, path: str, kind: str) -> None:
    response = await api.call("GET", path)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/pyproject.toml",
        "/..%2fpyproject.toml",
        "/js/..%5c..%5cpyproject.toml",
        "//etc/passwd",
        "/%2Fetc/passwd",
        "/.git/config",
        "/js/.hidden.js",
        "/__init__.py",
        "/__pycache__/x.js",
        "/%00.html",
        "/" + "a" * 3000 + ".html",
        "/docs/assets/../../app.py",
        "/nothing.html",
        "/v1/nothing",
    ],
)
async def test_nothing_else_is_served(api: Api, path: str) -> None:
    assert problem(await api.call("GET", path))[0] in {400, 404}


async def test_probes(api: Api) -> None:
    assert (await api.call("GET", "/healthz")).json() == {"status": "ok"}
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()) == (
        200,
        {"status": "ready", "store": True, "plane": True, "nodes": 1, "draining": False},
    )
    api.app.state.context.drain.begin()
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["draining"]) == (503, True)


async def test_a_node_whose_plane_failed_is_not_ready(api: Api) -> None:
    api.node.healthy = False
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["plane"]) == (503, "not ready", False)
    [node] = (await api.call("GET", "/v1/nodes", "owner")).json()["nodes"]
    assert (node["plane"], node["healthy"]) == ("reference", False)


async def test_latency_is_measured_by_route_not_by_id(api: Api) -> None:
    await api.call("GET", "/v1/rooms/demo", "owner")
    await api.call("GET", "/v1/rooms/secret-id", "owner")
    await api.call("BREW", "/v1/rooms/demo", "owner")
    await api.call("GET", "/wp-login.php")
    figures = (await api.call("GET", "/metrics")).text
    assert 'route="/v1/rooms/{room}",status="200"' in figures
    assert "secret-id" not in figures
    assert "BREW" not in figures
    assert "wp-login" not in figures
