"""Both ends of a link in virtual time: the real sender, receiver and breaker over two model paths, packet by packet.

As `relay.link.served_link` and `dial` drive them, event by event: a datagram is taken when it arrives, what waits is
sent at once, and all `tick_ms` the paths are reported. That the origin carries on both paths, which the metadata
channel tells the subscriber, is known at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from drills.simulation.carrying_path import CarryingPath
from drills.simulation.link_checks import LinkChecks
from drills.simulation.link_faults import LinkFaults, usual
from drills.simulation.model_path import MS
from drills.simulation.one_link import OneLink
from drills.simulation.publisher import CLOCK_HZ, Publisher
from relay.link import roq, varint
from relay.link.breaker import Breaker, BreakerMoved
from relay.link.history import Entry, FlowSpec
from relay.link.path import PathName
from relay.link.paths import PATHS
from relay.link.receiver import LinkReceiver
from relay.link.sender import LinkSender
from relay.link.sender_events import KeyframeWanted
from relay.plane.contract import Kind
from relay.plane.reference.descriptors import Codec
from relay.settings import BreakerSettings, LinkFlowSettings

VIDEO, AUDIO = 4, 8
WALL_US = 1_763_697_600_000_000
_FRAME_HZ = 30
_SMOOTH = 4  # of round trips, as `served_link` does

MakeSender = Callable[[LinkFlowSettings, Callable[[], bool]], LinkSender]
MakeReceiver = Callable[[LinkFlowSettings], LinkReceiver]


class MediaLink(OneLink):
    """A picture of four packets and a sound of one, thirty times a second."""

    def __init__(self, dice: random.Random, tell: Callable[[str], None], make: Callable[[BreakerSettings], Breaker],
                 make_sender: MakeSender, make_receiver: MakeReceiver) -> None:  # fmt: skip
        settings = LinkFlowSettings()
        super().__init__(BreakerSettings(), _FRAME_HZ, make, settings.tick_ms * MS)
        self._dice, self._tell = dice, tell
        self.paths: dict[PathName, CarryingPath] = {name: CarryingPath(usual(dice), usual(dice)) for name in PATHS}
        self.sender = make_sender(settings, self.breaker.take_probe)
        self.receiver = make_receiver(settings)
        self.faults = LinkFaults(dice, self.paths, tell, self._cut)
        self.checks = LinkChecks(settings, self.sender, self.receiver)
        self._generation: dict[PathName, int] = dict.fromkeys(PATHS, 1)
        self._dial_at: dict[PathName, int] = {}
        self._serial = 0
        self._publishers = [Publisher(VIDEO, Kind.VIDEO, dice, 4, 100), Publisher(AUDIO, Kind.AUDIO, dice, 1, 200)]
        for each in self._publishers:
            self.sender.open_flow(each.flow, FlowSpec(each.kind, {96: Codec.VP8}))
            self.receiver.open_flow(each.flow, CLOCK_HZ)
        for name in PATHS:
            self._open(name, 0)

    def restart_publisher(self) -> None:
        """One comes back on another session."""
        publisher = self._dice.choice(self._publishers)
        publisher.restart()
        self._tell(f"the publisher of flow {publisher.flow} comes back as {publisher.ssrc}")

    # --- connections --------------------------------------------------------------------------------------------------

    def _open(self, name: PathName, now: int) -> None:
        for at in range(3):
            self.paths[name].carry(now + at, b"", None)  # the handshake
        self.sender.path_opened(name, now)
        self.receiver.path_opened(name)

    def _cut(self, name: PathName, until: int) -> None:
        """A connection ends, all that it had on its way with it; the subscriber dials anew until it succeeds."""
        if name not in self._dial_at:
            self.sender.path_closed(name)
            report = replace(self.paths[name].report(self.now), closed=True)
            self.breaker.report(name, report, self._generation[name])
        self._dial_at[name] = max(until, self._dial_at.get(name, 0))

    def _dial(self, now: int) -> None:
        for name in [name for name, at in self._dial_at.items() if at <= now]:
            del self._dial_at[name]
            former = self.paths[name]
            path = self.paths[name] = CarryingPath(former.forth, former.back)
            path.now = now
            self._generation[name] += 1
            self.breaker.report(name, path.report(now), self._generation[name])
            self._open(name, now)
            self._tell(f"{name} has connection {self._generation[name]}")

    # --- a step -------------------------------------------------------------------------------------------------------

    def _due(self) -> Iterable[int]:
        events = [path.next_event() for name, path in self.paths.items() if name not in self._dial_at]
        return (self._next_packet, self._next_report, *(at for at in events if at is not None))

    def _arrive(self, now: int) -> None:
        for name, path in self.paths.items():
            if name in self._dial_at:
                continue
            path.run(now)
            if path.arrived:
                arrived, path.arrived = path.arrived, []
                for datagram in arrived:
                    self.checks.receive(name, datagram, now)
            if path.returned:
                returned, path.returned = path.returned, []
                for datagram in returned:
                    number, start = varint.decode(datagram)
                    self.sender.feedback(number, datagram[start:], now)
            if path.tokens_acked:
                acked, path.tokens_acked = path.tokens_acked, []
                self.sender.acked(name, acked)
            if path.tokens_lost:
                lost, path.tokens_lost = path.tokens_lost, []
                self.sender.lost(name, lost, now)

    def _send(self, now: int) -> None:
        for publisher in self._publishers:
            for packet in publisher.frame(self._serial):
                marked = publisher.marker.mark(packet, WALL_US + now)
                assert marked is not None
                self.checks.publish(publisher.flow, self._serial, marked, now)
                self.sender.push(publisher.flow, marked, roq.frame(publisher.flow, marked.data), now)
                self.checks.pushed(publisher.flow, self._serial)
                self._serial += 1

    def _report(self, now: int) -> None:
        self._dial(now)
        for name, path in self.paths.items():
            if name in self._dial_at:
                continue
            self._ping(name, now)
            report = path.report(now)
            for sample in report.rtt_us:
                known = self.sender.outlets[name].rtt_us
                self.sender.note_rtt(name, known + (sample - known) // _SMOOTH if known else sample)
                self.receiver.note_rtt(name, self.sender.outlets[name].rtt_us)
            self.breaker.report(name, report, self._generation[name])
        self.receiver.both_carry = len(self.sender.carrying) > 1
        self.receiver.handle_timeout(now)
        requests = self.receiver.transmit()
        self.checks.asked(requests, now)
        for name, datagram in requests:
            if name not in self._dial_at:
                self.paths[name].carry_back(now, datagram)

    def _moved(self, moves: list[BreakerMoved], now: int) -> None:
        for move in moves:
            self._tell(f"{move.previous.value} -> {move.state.value}: {move.reason}")
        self.sender.steer(self.breaker.carrying, now)
        self.sender.handle_timeout(now)
        for name, path in self.paths.items():
            for datagram, token in self.sender.transmit(name, self.faults.room(name, now), now):
                assert token is None or isinstance(token, Entry)
                path.carry(now, datagram, token)
        for event in self.sender.events():
            if isinstance(event, KeyframeWanted):
                next(each for each in self._publishers if each.flow == event.flow).keyframe = True
        for heard in self.receiver.events():
            self._tell(f"receiver: {heard}")
