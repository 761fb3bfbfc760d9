"""Faults on a whole cluster take minutes and want the machine for themselves: `make cluster-tests` runs them."""

from __future__ import annotations

import os

import pytest

HEAVY = (
    "test_cluster_nodes",
    "test_cluster_nodes_liar",
    "test_cluster_nodes_pages",
    "test_drill_chromium",
    "test_link_faults",
    "test_sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("COSTREAM_CLUSTER_TESTS"):
        return
    for item in items:
        if item.path.stem in HEAVY:
            item.add_marker(pytest.mark.skip(reason="faults on a whole cluster: run them by `make cluster-tests`"))
