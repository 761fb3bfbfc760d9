"""The native core against the reference: every story of the forwarder's tests is told to both at once.

`Twin` gives each command, datagram and time to both planes and compares what they send, tell, tap, count and plan next.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from relay.errors import UsageError
from relay.plane.contract import Address, Command, Event, PlaneConfig, PlaneStats
from relay.plane.reference.forwarder import Forwarder
from tests.plane import world

native = pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md")

STORIES = (
    "connect",
    "estimate",
    "fuzz",
    "inject",
    "keyframes",
    "lipsync",
    "media",
    "padding",
    "recent",
    "slab",
    "sources",
    "storms",
    "switch",
)


made: list[Twin] = []


class Twin:
    """Both planes as one; the reference's answers are handed on."""

    def __init__(self, config: PlaneConfig) -> None:
        made.append(self)
        self.turns = 0
        try:
            self.reference = Forwarder(config)
        except UsageError:
            with pytest.raises(UsageError):
                native.Forwarder(config)
            raise
        self.native = native.Forwarder(config)

    def _both(self, call: str, *args: object) -> Any:
        try:
            expected = getattr(self.reference, call)(*args)
        except UsageError:
            with pytest.raises(UsageError):
                getattr(self.native, call)(*args)
            raise
        found = getattr(self.native, call)(*args)
        if found != expected:
            raise AssertionError(f"{call}: native {found!r}, reference {expected!r}")
        return expected

    def apply(self, command: Command, now: int) -> None:
        self._both("apply", command, now)

    def receive(self, datagram: bytes, source: Address, now: int) -> None:
        self._both("receive", datagram, source, now)

    def inject(self, track: int, layer: int, packet: bytes, now: int) -> None:
        self._both("inject", track, layer, packet, now)

    def handle_timeout(self, now: int) -> None:
        self._both("handle_timeout", now)

    def next_timeout(self) -> int | None:
        due: int | None = self._both("next_timeout")
        return due

    def transmit(self) -> list[tuple[bytes, Address]]:
        out: list[tuple[bytes, Address]] = self._both("transmit")
        return out

    def events(self) -> list[Event]:
        events: list[Event] = self._both("events")
        self._both("next_timeout")
        self.turns += 1
        if self.turns % 500 == 0:
            self._both("stats")
        return events

    def taps(self) -> list[tuple[int, bytes, int]]:
        tapped: list[tuple[int, bytes, int]] = self._both("taps")
        return tapped

    def stats(self) -> PlaneStats:
        stats: PlaneStats = self._both("stats")
        return stats

    def table_sizes(self) -> dict[str, int]:
        expected = self.reference.table_sizes()
        found = self.native.table_sizes()
        assert {name: found[name] for name in expected} == expected
        if not any(expected.values()):
            assert not any(found.values()), "a source or a packet is kept for nobody"
        return expected

    @property
    def _core(self) -> Any:
        """Some stories look into the reference's tables."""
        return self.reference._core

    @property
    def taps_dropped(self) -> int:
        assert self.native.taps_dropped == self.reference.taps_dropped
        return self.reference.taps_dropped

    @property
    def handled(self) -> int:
        assert self.native.handled == self.reference.handled
        return self.reference.handled


@pytest.fixture(autouse=True, scope="module")
def twins() -> Iterator[None]:
    """Worlds of this module run both planes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "Forwarder", Twin)
        for story in STORIES:
            module = importlib.import_module(f"tests.plane.test_forwarder_{story}")
            if hasattr(module, "Forwarder"):
                patch.setattr(module, "Forwarder", Twin)
        yield


@pytest.fixture(autouse=True)
def told_to_both(twins: None) -> Iterator[None]:
    """A story that made no twin would compare nothing."""
    del twins
    made.clear()
    yield
    assert made


for _story in STORIES:
    for _name, _test in vars(importlib.import_module(f"tests.plane.test_forwarder_{_story}")).items():
        if _name.startswith("test_"):
            globals()[_name.replace("test_", f"test_{_story}_", 1)] = _test
