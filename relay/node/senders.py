"""When frames of this node's tracks were captured by their senders' clocks, for who puts sound and picture together.

Publishers' sender reports come to the plane. Links carry no RTCP: what follows from the reports of a publisher on
another node comes with that node's catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from relay.node.local import LocalTrack
from relay.plane.contract import LayerStats
from relay.stage.sender_clock import Anchor, Refusal, Report, SenderClock

log = structlog.get_logger()

MOVED_US = 2000
"""A line that moved by less is not worth telling to other nodes."""


class SenderClocks:
    """All of one node. `refused` hears why reports are not used, of the first of those in a row."""

    def __init__(self) -> None:
        self.refused: Callable[[Refusal], None] = lambda why: None
        self._sessions: dict[str, SenderClock] = {}
        self._session_of: dict[int, str] = {}
        self._linked: dict[tuple[int, int], Anchor] = {}

    def take(self, tracks: Iterable[LocalTrack], stats: Mapping[int, Sequence[LayerStats]]) -> bool:
        """Take the newest reports of tracks that are sent to this node. Returns whether the `captured` of any changed,
        of which other nodes have to be told."""
        changed = False
        for track in tracks:
            for layer, newest in enumerate(stats.get(track.handle, ())):
                if newest.report_ntp and newest.report_ssrc == newest.ssrc and newest.timestamp >= 0:
                    self._report(track, layer, newest)
                changed |= self._tell(track, layer)
        return changed

    def linked(self, track: int, layer: int, anchor: Anchor | None) -> None:
        """What another node knows of a layer that it sends."""
        if anchor is None:
            self._linked.pop((track, layer), None)
        else:
            self._linked[track, layer] = anchor

    def anchor(self, track: int, layer: int) -> Anchor | None:
        """Return when a frame of a layer was captured; None while that is not known."""
        session = self._session_of.get(track)
        if session is None:
            return self._linked.get((track, layer))
        return self._sessions[session].anchor((track, layer))

    def forget(self, track: int) -> None:
        """A track is gone, or another session sends it."""
        for key in [key for key in self._linked if key[0] == track]:
            del self._linked[key]
        session = self._session_of.pop(track, None)
        if session is None:
            return
        clock = self._sessions[session]
        clock.forget(track)
        if session not in self._session_of.values():
            del self._sessions[session]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _report(self, track: LocalTrack, layer: int, newest: LayerStats) -> None:
        if self._session_of.get(track.handle) != track.session:
            self.forget(track.handle)
            self._session_of[track.handle] = track.session
        clock = self._sessions.setdefault(track.session, SenderClock())
        report = Report(newest.report_ssrc, newest.report_timestamp, newest.report_ntp, newest.report_arrival_us)
        why = clock.report((track.handle, layer), _clock_hz(track), report, (newest.timestamp, newest.arrival_us))
        if why is not None:
            log.info("sender reports are not used", session=track.session, publication=track.publication, reason=why)
            self.refused(why)

    def _tell(self, track: LocalTrack, layer: int) -> bool:
        anchor, told = self.anchor(track.handle, layer), track.captured.get(layer)
        if anchor is None:
            return track.captured.pop(layer, None) is not None
        if anchor.is_near(told, _clock_hz(track), MOVED_US):
            return False
        track.captured[layer] = anchor
        return True


def _clock_hz(track: LocalTrack) -> int:
    return track.plan.payload_types[0].clock_hz
