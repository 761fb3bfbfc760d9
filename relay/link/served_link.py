"""One link at its origin: the sender and the breaker, the subscriber's channel, and the paths that are there now.

Driven from outside: `tick` often, `flush` after media was pushed. Times are monotonic microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog

from relay.link import varint
from relay.link.breaker import Breaker, BreakerMoved, BreakerState
from relay.link.media_path import MediaPath
from relay.link.messages import LinkState, Message
from relay.link.metadata import MetadataChannel
from relay.link.path import PathName, PathReport
from relay.link.paths import PATHS
from relay.link.sender import LinkSender
from relay.link.sender_events import KeyframeWanted, MediaMoved
from relay.link.transport import Connection
from relay.settings import BreakerSettings, LinkFlowSettings

TELL_US = 10_000_000  # between two log lines about packets of one link that cannot be read
log = structlog.get_logger(__name__)
_SMOOTH = 4  # of round trips: a quarter of each sample
FIRST_CONNECTION_US = 500_000  # how long the primary may take longer than the backup when the link begins


def now_us() -> int:
    """Return the monotonic time in microseconds."""
    return time.monotonic_ns() // 1000


class ServedLink:
    """One per subscriber. `flows` maps (publication, layer) to the flow that carries it here."""

    def __init__(
        self,
        link: str,
        peer: str,
        settings: LinkFlowSettings,
        breaker: BreakerSettings,
        on_moved: Callable[[ServedLink, LinkState], None],
        on_keyframe: Callable[[int], None],
    ) -> None:
        self.link = link
        self.peer = peer
        self.breaker = Breaker(breaker)
        self.sender = LinkSender(settings, self.breaker.take_probe)
        self.channel: MetadataChannel | None = None
        self.paths: dict[PathName, MediaPath] = {}
        self.generations: dict[PathName, int] = {}
        self.flows: dict[tuple[str, int], int] = {}
        self.rooms: set[str] = set()
        self.moves = 0
        self.alone_since = 0
        """When the channel was lost; 0 while it is there."""
        self._first_path_at: int | None = None
        self._told_malformed, self._told_at = 0, -TELL_US
        self._settings = settings
        self._on_moved = on_moved
        self._on_keyframe = on_keyframe

    def say(self, message: Message) -> None:
        """Send a message when the channel is there; what must not be lost is said again when it comes back."""
        if self.channel is not None:
            self.channel.send(message)

    # --- paths ------------------------------------------------------------------------------------------------------

    def attach(self, name: PathName, connection: Connection, generation: int) -> bool:
        """Use a connection as a path. False when a later one is known."""
        if generation <= self.generations.get(name, -1):
            return False
        self.detach(name, "replaced by a new connection")
        path = MediaPath(name, connection, generation)
        self.paths[name] = path
        self.generations[name] = generation
        connection.on_acked = lambda tokens: self._acked(path, tokens)
        connection.on_lost = lambda tokens: self.sender.lost(name, tokens, now_us())
        connection.on_datagrams = lambda datagrams: self._feedback(datagrams)
        standing = self.paths.get("backup" if name == "primary" else "primary")
        if standing is not None:
            connection.open_window(standing.connection.window // 2)
        now = now_us()
        self._first_path_at = self._first_path_at or now
        self.breaker.report(name, connection.report(now), generation)
        self.sender.path_opened(name, now)
        self.flush(now)
        return True

    def detach(self, name: PathName, reason: str) -> None:
        """Give up a path's connection. No error when there is none."""
        path = self.paths.pop(name, None)
        if path is None:
            return
        self.sender.path_closed(name)
        path.connection.close(reason)
        now = now_us()
        self.breaker.report(name, path.connection.report(now), path.generation)
        self._steer(now)

    def _acked(self, path: MediaPath, tokens: list[object]) -> None:
        self.sender.acked(path.name, tokens)

    def _feedback(self, datagrams: list[bytes]) -> None:
        now = now_us()
        for datagram in datagrams:
            try:
                flow, start = varint.decode(datagram)
            except varint.Malformed:
                self.sender.malformed_feedback += 1
                continue
            self.sender.feedback(flow, datagram[start:], now)
        self.flush(now)

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Report the paths to the breaker, follow it, and send what waits."""
        for name in PATHS:
            path = self.paths.get(name)
            if path is None:
                self._miss(name, now)
                continue
            report = path.connection.report(now)
            for sample in report.rtt_us:
                known = self.sender.outlets[name].rtt_us
                self.sender.note_rtt(name, known + (sample - known) // _SMOOTH if known else sample)
            self.breaker.report(name, report, path.generation)
        self.breaker.handle_timeout(now)
        self._steer(now)
        self.sender.handle_timeout(now)
        self.flush(now)
        if self.channel is not None:
            self.channel.tick(now)
        if self.sender.malformed_feedback > self._told_malformed and now - self._told_at >= TELL_US:
            packets = self.sender.malformed_feedback - self._told_malformed
            log.warning("packets of a link cannot be read", peer=self.peer, packets=packets)
            self._told_malformed, self._told_at = self.sender.malformed_feedback, now

    def _miss(self, name: PathName, now: int) -> None:
        """A path that never connected, while the other did, is as good as closed: the breaker has to know of it."""
        first = self._first_path_at
        if name not in self.generations and first is not None and now - first > FIRST_CONNECTION_US:
            self.generations[name] = 0  # the subscriber counts from 1
            self.breaker.report(name, PathReport(now, (), 0, 0, 0, None, 0, closed=True))

    def _steer(self, now: int) -> None:
        moves = self.breaker.events()
        before = self.sender.carrying
        if self.sender.steer(self.breaker.carrying, now):
            for name in before:
                if name not in self.breaker.carrying and name in self.paths:
                    self.paths[name].flush()
            self._keep_windows_open()
            self.flush(now)
        for move in moves:
            self._announce(move)

    def _keep_windows_open(self) -> None:
        """What one path could carry a moment ago is a better guess for the other than the least window."""
        windows = [path.connection.window for path in self.paths.values()]
        if len(windows) == len(PATHS):
            for name in self.breaker.carrying:
                self.paths[name].connection.open_window(max(windows) // 2)

    def _announce(self, move: BreakerMoved) -> None:
        self.moves += 1
        stable = move.state is BreakerState.CLOSED
        message = LinkState(
            code="LINK_STABLE" if stable else "LINK_UNSTABLE",
            state=move.state.value,
            previous=move.previous.value,
            reason=move.reason,
            sync_id=self.sender.last_sync_id,
            carrying=self.breaker.carrying,
        )
        self.say(message)
        self._on_moved(self, message)

    def flush(self, now: int) -> None:
        """Hand what waits to the transport, as far as it has room."""
        sender = self.sender
        for name, path in self.paths.items():
            room = self._settings.queue_datagrams - path.waiting
            for datagram, token in sender.transmit(name, room, now):
                if not path.send(datagram, token):
                    sender.refused(name, token)
        for event in sender.events():
            if isinstance(event, KeyframeWanted):
                self._on_keyframe(event.flow)
            elif isinstance(event, MediaMoved):
                self.last_move = event

    last_move: MediaMoved | None = None

    # --- by hand ----------------------------------------------------------------------------------------------------

    def force_open(self) -> None:
        """Put media on the backup until `reset`."""
        now = now_us()
        self.breaker.force_open(now)
        self._steer(now)

    def reset(self) -> None:
        """Put media on the primary and forget what was held against it."""
        now = now_us()
        self.breaker.reset(now)
        self._steer(now)

    def state(self) -> dict[str, Any]:
        """Describe the link, JSON-ready."""
        counts = asdict(self.sender.totals()) | {"malformed": self.sender.malformed_feedback}
        return {
            "link": self.link,
            "peer": self.peer,
            "role": "origin",
            "breaker": self.breaker.state.value,
            "forced": self.breaker.forced,
            "carrying": list(self.breaker.carrying),
            "hold_ms": self.breaker.hold_us // 1000,
            "moves": self.moves,
            "metadata": self.channel is not None,
            "paths": {
                name: {
                    "remote": list(path.connection.remote),
                    "generation": path.generation,
                    "rtt_us": self.sender.outlets[name].rtt_us,
                    "verdict": self.breaker.verdict(name).level.name.lower(),
                    "window": path.connection.window,
                    "max_datagram": path.connection.max_datagram,
                    "long_packets": path.long_packets,
                }
                for name, path in self.paths.items()
            },
            "flows": len(self.flows),
            "bytes": counts.pop("bytes"),
            "counts": counts,
        }

    def close(self, reason: str) -> None:
        """End the channel and the paths."""
        for path in self.paths.values():
            path.connection.on_closed = lambda reason: None
            path.connection.close(reason)
        self.paths.clear()
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.on_closed = lambda reason: None
            channel.close(reason)
