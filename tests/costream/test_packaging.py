"""What is shipped: every package on disk is installed, and the files around the code agree with it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from relay.metrics import Metrics
from relay.plane.contract import PlaneStats
from relay.settings import NodeSettings, SignalingSettings
from relay.settings.source import read_settings

ROOT = Path(__file__).parents[2]
SHIPPED = ("costream", "relay", "signaling", "drills")


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts) for top in SHIPPED for path in (ROOT / top).rglob("__init__.py")
    }
    assert {name for name in listed if name != "costream_web"} == on_disk


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for top in SHIPPED for path in (ROOT / top).rglob("*.py")}
    assert [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()] == []


LINK = {"peer": "n2", "role": "origin", "link": "n1>n2", "flows": 1, "breaker": "closed", "carrying": ["primary"],
        "counts": {"packets": 1}}  # fmt: skip


def test_the_dashboard_plots_metrics_that_exist() -> None:
    metrics = Metrics()
    metrics.watch_plane(lambda: PlaneStats({}, {}, {}, {"stranger": 1}))
    metrics.watch_links(lambda: [LINK])
    metrics.watch_egress(list)
    for labelled in (metrics.joins, metrics.refusals, metrics.join_latency, metrics.mix_replacements,
                     metrics.mix_troubles, metrics.webhooks):  # fmt: skip
        labelled.labels("x")
    metrics.link_moves.labels("n2", "open")
    metrics.sessions.labels("viewer", "live")
    metrics.api_latency.labels("GET", "/", "200")
    known = set(re.findall(r"^(\w+)[ {]", metrics.render()[0].decode(), re.M))
    panels = json.loads((ROOT / "configs" / "grafana.json").read_text())["panels"]
    used = {name for panel in panels for target in panel["targets"] for name in _names(target["expr"])}
    assert used
    assert used <= known


def _names(expression: str) -> list[str]:
    return re.findall(r"\b(?:costream|process)_\w+", expression)


@pytest.mark.parametrize("service", ["signaling", "relay-1", "relay-2"])
def test_compose_sets_settings_that_exist(service: str) -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    environment = {name: str(value) for name, value in services[service]["environment"].items()}
    environment["COSTREAM_AUTH__KEYS"] = json.dumps({"compose": "s" * 64})
    if "COSTREAM_MEDIA__ADVERTISE" in environment:
        environment["COSTREAM_MEDIA__ADVERTISE"] = "203.0.113.7"
    model = SignalingSettings if service == "signaling" else NodeSettings
    settings = read_settings(model, ROOT / "configs" / f"{service.partition('-')[0]}.toml", environment)
    assert settings.store.url == "redis://redis:6379/0"
    if isinstance(settings, NodeSettings):
        assert f"{settings.media.port}:{settings.media.port}/udp" in services[service]["ports"]
        assert settings.cluster.control_url == f"https://{service}:{settings.http.port}"
