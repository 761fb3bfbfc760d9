"""Programs on a cluster that begins without machines: Ray's own autoscaler has them come, and go, as programs do."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
import yaml

from relay.mix.video import events
from relay.settings import MixRaySettings
from relay.workers.executor import RayActors
from tests.mix.video_world import SMALL, opened, until
from tests.workers.ray_cluster import ROOT, autoscaled, machine, need_ray
from tests.workers.test_ray import LEFT, advances

EXAMPLE = ROOT / "configs" / "ray.yaml"
COME_S = 90.0
GO_S = 90.0
IDLE_MINUTES = 0.05


def example() -> dict[str, Any]:
    """The example as `ray up` hands it to the head: checked, with Ray's defaults. Skips without Ray."""
    need_ray()
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(EXAMPLE.read_text()))
    validate_config(config)
    return config


@pytest.mark.timeout(300)
async def test_a_machine_comes_for_a_program_and_goes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is the example's, but for the minutes and where machines come from. A relay's machine has joined it,
    which the autoscaler does not know."""
    none_waits = SMALL.model_copy(update={"spares": 0})
    config = example() | {"idle_timeout_minutes": IDLE_MINUTES}
    with autoscaled(config, monkeypatch) as cluster, machine(cluster.address, 0):
        try:
            actors = RayActors(MixRaySettings(address=cluster.address), none_waits.hang_ms)
            async with opened(none_waits, actors) as world:
                publisher = world.publish("h264")
                program, viewer = world.program()
                assert cluster.journal() == []
                opened_at = time.monotonic()
                world.pool.open_stage("s", program)
                world.pool.add_input("s", "ann", "Ann", publisher.source)
                world.pool.add_input("s", "bob", "Bob")
                await until(cluster.journal, COME_S)
                await until(partial(advances, viewer, LEFT, publisher.track), COME_S)
                print(f"the picture runs after {time.monotonic() - opened_at:.1f} s")
                assert cluster.journal() == [["begun", "m1", "pictures"]]
                assert world.event(events.WorkerLost) == []

                closed_at = time.monotonic()
                world.pool.close_stage("s")
                await until(lambda: len(cluster.journal()) > 1, GO_S)
                print(f"the machine is gone after {time.monotonic() - closed_at:.1f} s")
                assert cluster.journal() == [["begun", "m1", "pictures"], ["ended", "m1", "pictures"]]
                assert world.pool.workers == []
                assert world.event(events.WorkerLost) == []
        except BaseException:
            print(cluster.told())
            raise


def test_a_machine_of_the_example_takes_workers_and_its_head_none() -> None:
    kinds = example()["available_node_types"]
    assert kinds["pictures"]["resources"]["CPU"] >= MixRaySettings().cpus
    assert kinds["head"]["resources"]["CPU"] == 0
