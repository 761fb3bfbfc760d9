"""The native core as a shard drives it: what comes in a batch is written viewer by viewer when the batch ends.

The stories of the forwarder's tests again. The native core hands out what it wrote only now and then, so packets wait
while commands, timers, reports and checks come between them. Each destination must get the reference's datagrams, byte
for byte and in the reference's order.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Iterator

import pytest

from relay.plane.contract import Address, PlaneConfig
from tests.plane import world
from tests.plane.peers import Publisher, Viewer
from tests.plane.world import SECOND, World

core = pytest.importorskip("tests.plane.test_native_core", reason="the native plane is not built: see rust/README.md")

BATCH = 7  # calls for which packets may wait

made: list[DeferredTwin] = []


class DeferredTwin(core.Twin):  # type: ignore[misc, name-defined]
    """Both planes as one; the native one hands out at every BATCHth call of `transmit`."""

    def __init__(self, config: PlaneConfig) -> None:
        super().__init__(config)
        self.native = core.native.Forwarder(config, deferred=True)
        self.calls = 0
        self.regrouped = 0
        self.expected: list[tuple[bytes, Address]] = []
        self.found: list[tuple[bytes, Address]] = []
        made.append(self)

    def compare(self) -> None:
        """Compare what each destination got since the last time; the reference's is drained."""
        self.found += self.native.transmit()
        by_destination: list[dict[Address, list[bytes]]] = []
        for sent in (self.expected, self.found):
            by_destination.append(defaultdict(list))
            for datagram, address in sent:
                by_destination[-1][address].append(datagram)
        assert by_destination[0] == by_destination[1]
        self.regrouped += self.found != self.expected
        self.expected, self.found = [], []

    def transmit(self) -> list[tuple[bytes, Address]]:
        out: list[tuple[bytes, Address]] = self.reference.transmit()
        self.expected += out
        self.calls += 1
        if self.calls % BATCH == 0:
            self.compare()
        return out

    def _both(self, call: str, *args: object) -> object:
        if call == "stats":
            self.found += self.native.transmit()
        return super()._both(call, *args)


@pytest.fixture(autouse=True, scope="module")
def twins() -> Iterator[None]:
    """Worlds of this module run both planes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Forwarder", DeferredTwin)
        for story in core.STORIES:
            module = importlib.import_module(f"tests.plane.test_forwarder_{story}")
            if hasattr(module, "Forwarder"):
                patch.setattr(module, "Forwarder", DeferredTwin)
        yield


@pytest.fixture(autouse=True)
def told_to_both(twins: None) -> Iterator[None]:
    """A story that made no twin would compare nothing; what still waits at its end counts too."""
    del twins
    core.made.clear()
    made.clear()
    yield
    assert core.made
    for twin in made:
        twin.expected += twin.reference.transmit()
        twin.compare()


def test_packets_of_a_batch_leave_viewer_by_viewer() -> None:
    """Otherwise the stories would compare nothing new."""
    world = World()
    publisher = Publisher(world)
    viewers = [Viewer(world) for _ in range(3)]
    video = publisher.video()[0].start()
    for viewer in viewers:
        viewer.watch(video)
    world.run(2 * SECOND)
    assert made[0].regrouped > 10


for _name, _test in vars(core).items():
    if _name.startswith(tuple(f"test_{story}_" for story in core.STORIES)):
        globals()[_name] = _test
