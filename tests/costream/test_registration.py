"""What a relay says of itself in the directory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from costream.serve import BUSIEST, load_of_node, ranking_others
from relay.ports import NodeRecord
from relay.settings import LimitSettings

IDLE = {"sessions": 0, "max_sessions": 100, "bitrate_out_bps": 0, "memory_bytes": 0, "cpu_percent": 0.0}
LIMITS = LimitSettings(max_bitrate_bps=1000, max_memory_bytes=1000)


@pytest.mark.parametrize(
    ("changes", "load"),
    [
        ({}, 0.0),
        ({"sessions": 50, "memory_bytes": 400}, 0.5),
        ({"bitrate_out_bps": 750}, 0.75),
        ({"bitrate_out_bps": 5000}, 1.0),
        ({"sessions": 100}, 1.0),
        ({"cpu_percent": 1e6}, BUSIEST),
    ],
)
def test_the_load_is_the_greatest_share(changes: dict[str, float], load: float) -> None:
    assert load_of_node(IDLE | changes, LIMITS) == load


def test_newcomers_are_sent_to_others_that_clients_reach() -> None:
    here = NodeRecord("n1", "http://a", "eu", "0", public_url="https://n1")

    class Known:
        def records(self) -> tuple[NodeRecord, ...]:
            return (
                here,
                replace(here, id="n2", public_url=""),
                replace(here, id="n3", region="us", public_url="https://n3"),
                replace(here, id="n4", public_url="https://n4"),
                replace(here, id="n5", public_url="https://n5", draining=True),
            )

        def get(self, node: str) -> NodeRecord | None:
            return None

    others = ranking_others("n1", "eu", Known())
    assert others("demo", "") == ["https://n4", "https://n3"]
    assert others("demo", "us") == ["https://n3", "https://n4"]
