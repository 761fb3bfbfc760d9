"""The receiver packet by packet: duplicates, gaps, requests, parity, sync ids, and bytes of a stranger."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.ids import HybridClock, make_sync_id, sync_id_microseconds
from relay.link import flows, roq
from relay.link.inflow import RESTART_US
from relay.link.marking import Marker
from relay.link.merge import EventMerger
from relay.link.parity import ParityGroup
from relay.link.path import PathName
from relay.link.receiver import EARLY_US, LinkReceiver, PacketsLost, PathFirstHeard, StreamStarted
from relay.plane.reference import rtcp, rtp
from relay.ports import RoomEvent
from relay.settings import LinkFlowSettings

FLOW = flows.FIRST
MS = 1000
SECOND = 1000 * MS


def packet(seq: int, timestamp: int = 0, ssrc: int = 7, body: bytes = b"media") -> bytes:
    return rtp.build_header(96, True, seq & 0xFFFF, timestamp, ssrc) + body


class Receiver:
    """A receiver with one flow."""

    def __init__(self, **more: object) -> None:
        self.machine = LinkReceiver(LinkFlowSettings(**more))  # type: ignore[arg-type]
        self.machine.open_flow(FLOW, 90_000)
        self.counts = self.machine.counts(FLOW)
        self.now = 0

    def take(self, *seqs: int, path: PathName = "primary", ssrc: int = 7) -> list[int]:
        """Let packets come, and return those that are handed on."""
        for seq in seqs:
            self.machine.receive(path, roq.frame(FLOW, packet(seq, ssrc=ssrc)), self.now)
        return self.handed_on()

    def handed_on(self) -> list[int]:
        found = [rtp.parse(arrival.packet, 0) for arrival in self.machine.arrived()]
        return [parsed.seq for parsed in found if parsed is not None]

    def asked(self, at: int) -> list[tuple[PathName, tuple[int, ...]]]:
        """Return what is asked for at a time."""
        self.now = at
        self.machine.handle_timeout(at)
        out = []
        for path, datagram in self.machine.transmit():
            number, data = roq.parse(datagram)
            assert number == flows.feedback_of(FLOW)
            (found,) = rtcp.parse(data).packets
            assert isinstance(found, rtcp.Nack)
            out.append((path, found.lost))
        return out


def test_duplicates_of_both_paths_are_dropped_across_the_wrap() -> None:
    receiver = Receiver()
    assert receiver.take(65_534, 65_535, 0, 1) == [65_534, 65_535, 0, 1]
    assert receiver.take(65_534, 65_535, 0, 1, 2, path="backup") == [2]
    assert receiver.counts.duplicates == 4
    assert receiver.take(65_533) == [65_533]  # overtaken by the very first
    assert receiver.machine.events() == [
        PathFirstHeard("primary"),
        StreamStarted(FLOW, 7, 96, 0),
        PathFirstHeard("backup"),
    ]


def test_what_is_missing_is_asked_for_with_back_off_and_given_up() -> None:
    receiver = Receiver(nack_deadline_ms=400)
    receiver.machine.note_rtt("primary", 40 * MS)
    receiver.take(1, 4)
    assert receiver.machine.next_timeout() == 10 * MS
    assert receiver.asked(9 * MS) == []
    assert receiver.asked(10 * MS) == [("primary", (2, 3))]
    assert receiver.asked(59 * MS) == []
    receiver.take(3)
    assert receiver.asked(60 * MS) == [("primary", (2,)), ("backup", (2,))]
    assert receiver.asked(159 * MS) == []
    assert [path for path, _ in receiver.asked(160 * MS)] == ["primary", "backup"]
    assert receiver.asked(400 * MS) == []
    assert receiver.counts.lost == 1
    assert receiver.machine.events()[-1] == PacketsLost(FLOW, 1)
    assert receiver.machine.next_timeout() is None
    assert receiver.take(2) == [2]  # late is better than never
    assert (receiver.counts.late, receiver.counts.repaired) == (2, 1)


def test_what_was_only_overtaken_is_not_asked_for() -> None:
    receiver = Receiver()
    receiver.take(1, 3, 2, 4)
    assert receiver.asked(10 * MS) == []
    assert (receiver.counts.late, receiver.counts.repaired, receiver.counts.nacks) == (1, 0, 0)


def test_what_the_origin_does_not_have_is_not_waited_for() -> None:
    receiver = Receiver()
    receiver.take(1, 5)
    receiver.machine.receive(
        "primary", roq.frame(flows.feedback_of(FLOW), rtcp.build_nack(0, 7, [2, 3, 9])), receiver.now
    )
    assert receiver.asked(10 * MS) == [("primary", (4,))]
    assert receiver.counts.absent == 2


def test_a_wide_gap_is_bounded() -> None:
    receiver = Receiver(max_missing=16)
    receiver.take(1, 1000)
    assert sum(len(seqs) for _, seqs in receiver.asked(10 * MS)) == 16
    assert receiver.counts.lost == 998 - 16
    receiver.take(1002, 1010)
    assert sum(len(seqs) for _, seqs in receiver.asked(20 * MS)) <= 16


def test_what_is_too_old_to_tell_is_dropped_until_the_source_has_begun_anew() -> None:
    receiver = Receiver(window_packets=256)
    receiver.take(20_000)
    assert receiver.take(10_000) == []
    assert receiver.counts.stale == 1
    receiver.now = RESTART_US
    assert receiver.take(10_000, 10_001) == [10_000, 10_001]


def test_another_source_has_numbers_of_its_own() -> None:
    receiver = Receiver()
    assert receiver.take(100, 101) == [100, 101]
    assert receiver.take(100, 101, ssrc=8) == [100, 101]
    assert receiver.take(101, 102, ssrc=7) == [102]  # what was still under way
    for ssrc in range(9, 20):
        receiver.take(1, ssrc=ssrc)
    assert receiver.counts.duplicates == 1


def test_packets_before_their_subscription_is_known_are_kept() -> None:
    machine = LinkReceiver(LinkFlowSettings())
    for seq in range(400):
        machine.receive("primary", roq.frame(FLOW, packet(seq)), 0)
    machine.open_flow(FLOW, 90_000)
    assert len(machine.arrived()) == 256
    with pytest.raises(UsageError):
        machine.open_flow(FLOW, 90_000)
    with pytest.raises(UsageError):
        machine.open_flow(FLOW + 2, 90_000)
    machine.close_flow(FLOW)
    assert machine.flow_numbers == ()


def test_what_a_former_subscription_left_is_not_taken_for_the_next_one() -> None:
    """The origin numbers a layer's flow once for all links: it comes back with the same number."""
    receiver = Receiver()
    receiver.take(1, 2)
    receiver.machine.close_flow(FLOW)
    assert receiver.take(3, 4) == []  # under way when it was closed
    receiver.machine.handle_timeout(EARLY_US + 1)
    receiver.now = EARLY_US + 2
    receiver.take(900)  # the next one's: a path is faster than the answer
    receiver.machine.open_flow(FLOW, 90_000)
    assert receiver.handed_on() == [900]
    assert receiver.asked(SECOND) == []


def test_in_doubt_both_paths_are_asked() -> None:
    receiver = Receiver()
    receiver.machine.both_carry = True
    receiver.take(1, 3)
    assert receiver.asked(20 * MS) == [("primary", (2,)), ("backup", (2,))]


def test_parity_builds_the_last_packet_that_nothing_follows() -> None:
    receiver = Receiver()
    group = ParityGroup()
    for seq in (1, 2, 3):
        group.add(7, seq, packet(seq))
    receiver.take(1, 2)
    receiver.machine.receive("primary", bytes([flows.parity_of(FLOW)]) + group.build(), 0)
    assert receiver.handed_on() == [3]
    assert receiver.counts.rebuilt == 1
    assert receiver.take(3) == []


def test_parity_waits_for_all_but_one() -> None:
    receiver = Receiver()
    group = ParityGroup()
    for seq in (1, 2, 3, 4):
        group.add(7, seq, packet(seq))
    receiver.take(1, 4)
    receiver.machine.receive("primary", bytes([flows.parity_of(FLOW)]) + group.build(), 0)
    assert receiver.handed_on() == []
    assert receiver.take(2) == [2, 3]


def test_frames_have_their_sync_ids_and_the_others_are_reckoned() -> None:
    receiver = Receiver()
    marker = Marker(HybridClock(), 90_000)
    for frame in range(3):
        marked = marker.mark(packet(frame, frame * 3000), 1_000_000 + frame * 100_000 // 3)
        assert marked is not None
        if frame != 1:
            receiver.machine.receive("primary", roq.frame(FLOW, marked.data), 0)
    assert receiver.machine.sync_id_of(FLOW, 0) == make_sync_id(1000, 0)
    for frame in (1, 2):  # the first of them is lost: the other one minus 33.3 ms
        found = receiver.machine.sync_id_of(FLOW, frame * 3000)
        assert found is not None
        assert abs(sync_id_microseconds(found) - 1_000_000 - frame * 100_000 // 3) <= 2
    assert receiver.machine.sync_id_of(FLOW + 4, 0) is None


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=80), st.integers(0, 65_535))
def test_each_number_is_handed_on_once(steps: list[tuple[int, bool]], first: int) -> None:
    receiver = Receiver()
    seen: list[int] = []
    for ahead, on_backup in steps:
        seen += receiver.take(first + ahead, path="backup" if on_backup else "primary")
    assert sorted(seen) == sorted({(first + ahead) & 0xFFFF for ahead, _ in steps})


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 7))
def test_bytes_of_a_stranger_are_counted(datagrams: list[bytes], number: int) -> None:
    receiver = Receiver()
    receiver.take(1, 3)
    for data in datagrams:
        receiver.machine.receive("backup", data, 0)
        receiver.machine.receive("backup", bytes([number]) + data, 0)
    receiver.machine.handle_timeout(10 * MS)
    for arrival in receiver.machine.arrived():
        assert len(arrival.packet) >= rtp.HEADER_LENGTH


@settings(max_examples=100)
@given(st.lists(st.integers(1, 30), max_size=20), st.integers(0, 99))
def test_events_leave_once_in_order_and_none_stays(ids: list[int], seed: int) -> None:
    dice = random.Random(seed)
    merger = EventMerger(300 * MS)
    out: list[int] = []
    now = 0
    for sync_id in ids:
        now += dice.randrange(100 * MS)
        merger.add(RoomEvent(sync_id, "t", {}), now)
        if dice.random() < 0.7:
            merger.media(dice.randrange(30), now)
        out += [event.sync_id for event in merger.take(now)]
    out += [event.sync_id for event in merger.take(now + 300 * MS)]
    assert out == sorted(set(out))
    newest, expected = 0, []
    for sync_id in ids:
        if sync_id > newest:
            newest = sync_id
            expected.append(sync_id)
    assert out == expected
    assert merger.next_timeout() is None


def test_an_event_waits_for_its_frame() -> None:
    merger = EventMerger(300 * MS)
    merger.media(5, 0)
    merger.add(RoomEvent(9, "score", {}), MS)
    assert merger.take(200 * MS) == []
    assert merger.next_timeout() == 301 * MS
    merger.media(9, 201 * MS)
    assert [event.sync_id for event in merger.take(201 * MS)] == [9]
    merger.add(RoomEvent(20, "score", {}), 202 * MS)
    merger.media(10, 400 * MS)
    assert [event.sync_id for event in merger.take(502 * MS)] == [20]
    assert merger.held_out == 1
    merger.add(RoomEvent(30, "score", {}), 900 * MS)
    assert [event.sync_id for event in merger.take(900 * MS)] == [30]  # no media: nothing to wait for
