"""One audio process with its two rings, as the pool holds it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from relay.errors import Overloaded
from relay.mix.audio.messages import FROM_PROCESS, Command, Configure, FromProcess
from relay.mix.audio.ports import RingPlane
from relay.mix.audio.positions import Positions
from relay.plane.rings import Gone
from relay.process.child import Child
from relay.process.control import Wire
from relay.settings import MixAudioSettings

MODULE = "relay.mix.audio"
TAP_SLOTS = 4096  # 60 ms of 1,300 publications at 50 packets/s
INJECT_SLOTS = 2048
SLOT_SIZE = 1536


class AudioProcess:
    """Spawned at once; `ready` when it has loaded everything. Its rings are freed when it has ended."""

    def __init__(
        self,
        settings: MixAudioSettings,
        plane: RingPlane,
        positions: Positions,
        on_message: Callable[[AudioProcess, FromProcess], None],
        on_end: Callable[[AudioProcess, str], None],
    ) -> None:
        """Raises OSError or Overloaded when it cannot be started."""
        self.born = time.monotonic()
        self.ready = asyncio.Event()
        self._on_end = on_end
        self.tap = plane.open_tap_ring(slots=TAP_SLOTS, slot_size=SLOT_SIZE, on_gone=self._ring_gone)
        try:
            self.inject = plane.open_inject_ring(slots=INJECT_SLOTS, slot_size=SLOT_SIZE, on_gone=self._ring_gone)
        except (OSError, Overloaded):
            self.tap.close()
            raise
        rings = [",".join(map(str, ring.fds)) for ring in (self.tap, self.inject)]
        wire: Wire[FromProcess] = Wire(*FROM_PROCESS)
        try:
            self._child: Child[FromProcess] = Child(
                MODULE,
                [*rings, str(positions.descriptor)],
                [*self.tap.fds, *self.inject.fds, positions.descriptor],
                wire,
                lambda message: on_message(self, message),
                self._ended,
            )
        except OSError:
            self._free()
            raise
        self.tap.passed()
        self.inject.passed()
        self.tell(
            Configure(
                settings.mixers,
                settings.channels,
                settings.bitrate_bps,
                settings.complexity,
                settings.max_inputs,
                settings.jitter_least_ms,
                settings.jitter_first_ms,
                settings.jitter_most_ms,
                settings.priority,
            )
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def tell(self, command: Command) -> None:
        """Never waits; lost when the process is ending."""
        self._child.send(command)

    def kill(self, why: str) -> None:
        self._child.kill(why)

    async def stop(self) -> None:
        """End it in good order."""
        await self._child.stop()

    def _ring_gone(self, why: Gone) -> None:
        self._child.kill(f"its ring is gone: {why}")

    def _ended(self, why: str) -> None:
        self._free()
        self._on_end(self, why)

    def _free(self) -> None:
        self.tap.close()
        self.inject.close()
