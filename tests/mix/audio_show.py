"""A room in virtual time: real Opus in, real Opus out, ticks by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from relay.mix.audio.input import PacketQueue, packet_queue
from relay.mix.audio.messages import (
    AddInput,
    FromProcess,
    OpenMix,
)
from relay.mix.audio.mix import Encoding
from relay.mix.audio.room import Room
from relay.mix.jitter_steps import JitterSettings
from tests.mix.audio_world import (
    FRAME,
    TICK_US,
    Listener,
    Publisher,
)

START = 1000  # first tick
LATENCY = 3  # frames from an input's packet to its sound in the mix, at most


class Show:
    """A room with people who publish at every tick; `listen` opens a mix."""

    def __init__(self, channels: int = 2, max_inputs: int = 16) -> None:
        self.events: list[FromProcess] = []
        self.room = Room("show", Encoding(channels, 96_000, 5), JitterSettings(), max_inputs, self.events.append)
        self.people: dict[str, tuple[Publisher, PacketQueue]] = {}
        self.ears: dict[str, Listener] = {}
        self.counts: dict[str, int] = {}
        self.number = START
        self.network: Callable[[str, bytes], bytes | None] = lambda _, packet: packet
        self.amplitudes: dict[str, float] = {}
        self.payloads: dict[str, list[bytes]] = {}

    def join(self, identity: str, hz: float, amplitude: float = 0.2, *, voice: bool = False, gain: float = 1.0) -> None:
        queue = packet_queue()
        self.people[identity] = Publisher(hz, amplitude, ssrc=len(self.people) + 1, voice=voice), queue
        self.room.change(AddInput("show", identity, len(self.people), gain), queue)

    def listen(self, mix: str, exclude: tuple[str, ...] = ()) -> Listener:
        self.ears[mix] = listener = Listener()
        number = len(self.ears)
        self.room.change(OpenMix("show", mix, exclude, number, number, number, 65_000, 2**32 - 9 * FRAME, 111))
        return listener

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            now = self.number * TICK_US
            for identity, (publisher, queue) in self.people.items():
                packet = self.network(identity, publisher.packet(self.amplitudes.get(identity)))
                if packet is not None:
                    queue.append((now - 5_000, packet))
            for mix, payload in self.room.tick(self.number, now):
                name = mix.told.mix
                count = self.counts[name] = self.counts.get(name, -1) + 1
                self.payloads.setdefault(name, []).append(payload)
                self.ears[name].take(mix.packet(self.number, count, payload))
            self.number += 1

    def told(self, kind: type[FromProcess]) -> list[FromProcess]:
        return [event for event in self.events if isinstance(event, kind)]


def steady(listener: Listener, begin: int, end: int) -> np.ndarray:
    """What was heard between two ticks."""
    return listener.hear()[begin * FRAME : end * FRAME]
