"""The origin's end of one link, without I/O: which packet goes on which path, and which ones go again.

Packets that were marked come in (`push`), datagrams for each path go out (`transmit`), each with its history entry as
the token that comes back when QUIC knows its fate (`acked`, `lost`). `steer` tells what the breaker says. Times are
monotonic microseconds.

A packet that no path has acknowledged goes again: when QUIC declares it lost, when the subscriber asks for it (both
within a budget, and not twice in a round trip), and when media moves to a path on which it was not sent. Who gets it
twice drops one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from relay.errors import UsageError
from relay.link import flows, roq, varint
from relay.link.history import Budget, Entry, Flow, FlowCounts, FlowSpec
from relay.link.marking import Marked
from relay.link.outlet import Outlet
from relay.link.parity import ParityGroup
from relay.link.parity_control import ParityControl
from relay.link.path import PathName
from relay.link.paths import BIT, PATHS, mask_of, other
from relay.link.sender_events import (
    FlowClosed,
    FlowOpened,
    FlowPaused,
    FramesSkipped,
    KeyframeWanted,
    MediaMoved,
    ParityChanged,
    PathClosed,
    PathOpened,
    SenderEvent,
)
from relay.plane.reference import rtcp
from relay.settings import LinkFlowSettings

MAX_EVENTS = 1024
MIN_REPEAT_US = 10_000  # between two repeats of a packet on a path whose round trip is shorter still
PARITY_HOLD_US = 40_000  # a group that does not fill covers what it has
_OUR_SSRC = 0


def never() -> bool:
    """Grant no probe."""
    return False


class LinkSender:
    """One per link. `take_probe` says for each packet whether to copy it to the path that does not carry."""

    def __init__(self, settings: LinkFlowSettings, take_probe: Callable[[], bool] = never) -> None:
        self._settings = settings
        self._take_probe = take_probe
        self._history_us = settings.history_ms * 1000
        self._resend_us = settings.resend_age_ms * 1000
        self._flows: dict[int, Flow] = {}
        self._closed = FlowCounts()  # of flows that are gone
        self._recent: deque[Entry] = deque()
        self.outlets = {name: Outlet(name, settings.queue_frames, settings.resend_burst) for name in PATHS}
        self.carrying: tuple[PathName, ...] = ("primary",)
        self._mask = BIT["primary"]
        self._budget = Budget(settings.repair_bps)
        self._warm_debt = 0.0
        self._parity = ParityControl(settings)
        self._groups: dict[int, tuple[ParityGroup, int]] = {}
        self._events: deque[SenderEvent] = deque(maxlen=MAX_EVENTS)
        self.last_sync_id = 0
        self.unknown_flow = 0
        self.malformed_feedback = 0

    # --- flows ------------------------------------------------------------------------------------------------------

    def open_flow(self, number: int, spec: FlowSpec) -> None:
        """Begin a flow. UsageError for a number that is taken or no media flow's."""
        if not flows.is_media(number) or number in self._flows:
            raise UsageError(f"flow {number} cannot be opened")
        self._flows[number] = Flow(number, spec)
        self._events.append(FlowOpened(number))

    def close_flow(self, number: int) -> None:
        """End a flow and forget its history. No error when there is none."""
        flow = self._flows.pop(number, None)
        if flow is None:
            return
        flow.open = False
        self._closed.add(flow.counts)
        self._groups.pop(number, None)
        for outlet in self.outlets.values():
            outlet.forget(number)
        self._events.append(FlowClosed(number))

    def pause_flow(self, number: int, paused: bool) -> None:
        """Stop or resume a flow by the subscriber's wish."""
        flow = self._flows.get(number)
        if flow is None or flow.paused == paused:
            return
        flow.paused = paused
        self._events.append(FlowPaused(number, paused))

    @property
    def flow_numbers(self) -> tuple[int, ...]:
        """The open flows."""
        return tuple(self._flows)

    def counts(self, number: int) -> FlowCounts:
        """Return the counters of an open flow."""
        return self._flows[number].counts

    def totals(self) -> FlowCounts:
        """Return the sum of all flows' counters, of those that are closed as well."""
        total = replace(self._closed)
        for flow in self._flows.values():
            total.add(flow.counts)
        return total

    # --- media ------------------------------------------------------------------------------------------------------

    def push(self, number: int, marked: Marked, datagram: bytes, now: int) -> None:
        """Send a packet: `datagram` is it in RoQ framing, shared by all links that carry it."""
        flow = self._flows.get(number)
        if flow is None:
            self.unknown_flow += 1
            return
        if flow.paused:
            flow.counts.while_paused += 1
            return
        self.last_sync_id = max(self.last_sync_id, marked.sync_id)
        entry = flow.remember(marked, datagram, self._settings.history_packets, now)
        self._recent.append(entry)
        flow.counts.packets += 1
        flow.counts.bytes += len(datagram)
        for name in self.carrying:
            outlet = self.outlets[name]
            if outlet.up:
                outlet.put(entry)
        if len(self.carrying) == 1:
            self._copy(entry)
        else:
            flow.counts.copies += 1
        if self._parity.group:
            self._cover(flow, marked, now)

    def _copy(self, entry: Entry) -> None:
        """Copy a packet to the other path: as the breaker's probe, or to keep the backup's window open."""
        outlet = self.outlets[other(self.carrying[0])]
        wanted = self._take_probe()
        if not wanted and outlet.name == "backup":
            self._warm_debt += self._settings.warm_share
            wanted = self._warm_debt >= 1
            self._warm_debt -= wanted
        if wanted and outlet.up and outlet.put(entry):
            entry.flow.counts.copies += 1

    def _cover(self, flow: Flow, marked: Marked, now: int) -> None:
        group, began = self._groups.get(flow.number, (None, now))
        if group is not None and not group.takes(marked.ssrc, marked.seq):
            self._send_parity(flow, group)
            group = None
        if group is None:
            group, began = ParityGroup(), now
            self._groups[flow.number] = (group, began)
        group.add(marked.ssrc, marked.seq, marked.data)
        if group.size >= self._parity.group:
            del self._groups[flow.number]
            self._send_parity(flow, group)

    def _send_parity(self, flow: Flow, group: ParityGroup) -> None:
        if group.size < 2:
            return
        flow.counts.parity += 1
        datagram = varint.encode(flows.parity_of(flow.number)) + group.build()
        for name in self.carrying:
            if self.outlets[name].up:
                self.outlets[name].control.append(datagram)

    # --- paths ------------------------------------------------------------------------------------------------------

    def path_opened(self, name: PathName, now: int) -> None:
        """There is a (new) connection. A path that carries gets what is unacknowledged."""
        outlet = self.outlets[name]
        if outlet.up:
            self.path_closed(name)
        outlet.up = True
        self._events.append(PathOpened(name))
        if name in self.carrying:
            self._resend((), now)

    def path_closed(self, name: PathName) -> None:
        """The connection is gone, and with it whatever was in flight on it."""
        outlet = self.outlets[name]
        if not outlet.up:
            return
        outlet.up = False
        outlet.clear()
        for entry in self._recent:
            entry.flight &= ~outlet.bit
        self._events.append(PathClosed(name))

    def note_rtt(self, name: PathName, rtt_us: int) -> None:
        """Tell a path's round trip: nothing is repeated twice within it."""
        self.outlets[name].rtt_us = rtt_us

    def steer(self, carrying: tuple[PathName, ...], now: int) -> bool:
        """Let these paths carry from now on. Says whether that is a change.

        What no path has acknowledged and no carrying path has in flight goes again, in order, oldest first.
        """
        if carrying == self.carrying:
            return False
        before, self.carrying, self._mask = self.carrying, carrying, mask_of(carrying)
        for name in before:
            if name not in carrying:
                self.outlets[name].clear()
        self._groups.clear()
        added = [name for name in carrying if name not in before]
        resent, too_old = self._resend(added, now)
        self._events.append(MediaMoved(before, carrying, self.last_sync_id, resent, too_old))
        for number in self._flows:
            self._want_keyframe(number)
        return True

    def _resend(self, added: Iterable[PathName], now: int) -> tuple[int, int]:
        """Queue what is open on all carrying paths; on the `added` ones also what another carrying path has."""
        oldest = now - self._resend_us
        fresh = mask_of(added)
        resent = too_old = 0
        for entry in self._recent:
            if entry.acked or not entry.flow.open:
                continue
            busy = entry.flight | entry.queued
            wanted = [
                outlet
                for outlet in map(self.outlets.__getitem__, self.carrying)
                if outlet.up and not busy & outlet.bit and (fresh & outlet.bit or not busy & self._mask)
            ]
            if not wanted:
                continue
            if entry.at < oldest:
                too_old += 1
                entry.flow.counts.too_old += 1
                continue
            resent += 1
            entry.flow.counts.resent += 1
            for outlet in wanted:
                outlet.put_again(entry)
        return resent, too_old

    def transmit(self, name: PathName, room: int, now: int) -> list[tuple[bytes, Entry | None]]:
        """Take at most about `room` datagrams for a path now, with their tokens."""
        outlet = self.outlets[name]
        if not outlet.up:
            return []
        out: list[tuple[bytes, Entry | None]] = [(datagram, None) for datagram in outlet.control]
        outlet.control.clear()
        out += [(entry.datagram, entry) for entry in outlet.take(max(0, room), now - self._resend_us)]
        for number, packets in outlet.skip_late(now):
            self._events.append(FramesSkipped(number, name, packets))
            self._want_keyframe(number)
        return out

    def _want_keyframe(self, number: int) -> None:
        """Ask for a keyframe when a flow skips on every path that carries: nothing else would let it go on."""
        carrying = [self.outlets[name] for name in self.carrying if self.outlets[name].up]
        if carrying and all(outlet.is_skipping(number) for outlet in carrying):
            self._events.append(KeyframeWanted(number))

    def refused(self, name: PathName, token: Entry | None) -> None:
        """The transport did not take a datagram: it is not in flight, and will be asked for."""
        if token is not None:
            token.flight &= ~BIT[name]

    def acked(self, name: PathName, tokens: Iterable[object]) -> None:
        """QUIC says that these arrived."""
        bit = ~BIT[name]
        count = 0
        for entry in tokens:
            if isinstance(entry, Entry):
                count += not entry.acked
                entry.acked = True
                entry.flight &= bit
        if name in self.carrying:
            self._parity.note(count, 0)

    def lost(self, name: PathName, tokens: Iterable[object], now: int) -> None:
        """QUIC says that these are lost, or it dropped them."""
        bit = ~BIT[name]
        count = 0
        for entry in tokens:
            if isinstance(entry, Entry):
                entry.flight &= bit
                if entry.acked:
                    continue
                count += 1
                if not self._may_come(entry, now):
                    entry.repeated_at = 0  # that copy is gone for certain
                    self._repeat(entry, now)
        if name in self.carrying:
            self._parity.note(0, count)

    def _may_come(self, entry: Entry, now: int) -> bool:
        """Say whether a carrying path has a packet, and would not have had to tell by now that it brought it."""
        here = (entry.flight | entry.queued) & self._mask
        waited = now - entry.at
        return any(here & BIT[name] and waited < self.outlets[name].rtt_us for name in self.carrying)

    # --- repair -----------------------------------------------------------------------------------------------------

    def feedback(self, number: int, packet: bytes, now: int) -> None:
        """Take RTCP of a flow: NACKs are answered, from history and within the budget. The rest is ignored."""
        flow = self._flows.get(flows.split(number)[0])
        if flow is None:
            self.unknown_flow += 1
            return
        compound = rtcp.parse(packet)
        found = [part for part in compound.packets if isinstance(part, rtcp.Nack)]
        if not found:
            self.malformed_feedback += 1
        for nack in found:
            if nack.media_ssrc == flow.ssrc:
                self.nack(flow.number, nack.lost, now)

    def nack(self, number: int, wanted: Iterable[int], now: int) -> None:
        """Send these sequence numbers again; tell which are not here, so that nobody waits for them."""
        flow = self._flows.get(number)
        if flow is None:
            self.unknown_flow += 1
            return
        absent = []
        for seq in wanted:
            flow.counts.nacked += 1
            entry = flow.by_seq.get(seq)
            if entry is not None and not (entry.skipped & self._mask == self._mask and not entry.acked):
                self._repeat(entry, now)
            elif flow.newest >= 0 and (flow.newest - seq) & 0xFFFF < 0x8000:
                absent.append(seq)
        if absent:
            flow.counts.absent += len(absent)
            answer = roq.frame(flows.feedback_of(number), rtcp.build_nack(_OUR_SSRC, flow.ssrc, absent))
            for name in self.carrying:
                self.outlets[name].control.append(answer)

    def _repeat(self, entry: Entry, now: int) -> None:
        """Send one packet again on what carries, unless it was within a round trip, or waits to be.

        On a path that takes nothing it may wait long: what waits on one path still goes on the other.
        """
        counts = entry.flow.counts
        outlets = [self.outlets[name] for name in self.carrying]
        wanted = [outlet for outlet in outlets if outlet.up and not entry.queued & outlet.bit]
        if not entry.flow.open or not wanted:
            return
        if now - entry.at > self._resend_us:
            counts.too_old += 1
            return
        rtt = max(MIN_REPEAT_US, min(outlet.rtt_us for outlet in outlets))
        if entry.repeated_at and now - entry.repeated_at < rtt:
            return
        if not self._budget.take(len(entry.datagram), now):
            counts.over_budget += 1
            return
        entry.repeated_at = now
        counts.repeated += 1
        for outlet in wanted:
            outlet.put_again(entry)

    # --- time -------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """Return when `handle_timeout` has something to do: history expires, parity is due."""
        times = [began + PARITY_HOLD_US for _, began in self._groups.values()]
        if self._recent:
            times.append(self._recent[0].at + self._history_us)
        return min(times, default=None)

    def handle_timeout(self, now: int) -> None:
        """Forget what is old, finish parity groups that do not fill, and look at the loss. Call it often or late."""
        oldest = now - self._history_us
        recent = self._recent
        if recent and recent[0].at <= oldest:
            while recent and recent[0].at <= oldest:
                recent.popleft()
            for flow in self._flows.values():
                flow.forget_before(oldest)
        for number, (group, began) in list(self._groups.items()):
            if now - began >= PARITY_HOLD_US:
                del self._groups[number]
                self._send_parity(self._flows[number], group)
        if self._parity.adapt(now):
            self._events.append(ParityChanged(self._parity.group))

    def events(self) -> list[SenderEvent]:
        """Return and forget what happened, at most the newest 1024."""
        drained = list(self._events)
        self._events.clear()
        return drained
