"""Marking, history and the sender's answers, packet by packet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import UsageError
from relay.ids import HybridClock, make_sync_id
from relay.link import flows, roq
from relay.link.history import Budget, FlowSpec
from relay.link.marking import SYNC_ID_EXTENSION, FrameMarks, Marker, read_sync_id
from relay.link.parity import ParityGroup, read_parity, rebuild
from relay.link.parity_control import MIN_PACKETS, WINDOW_US, ParityControl
from relay.link.path import PathName
from relay.link.sender import LinkSender
from relay.link.sender_events import (
    FlowClosed,
    FlowOpened,
    FlowPaused,
    KeyframeWanted,
    MediaMoved,
    PathClosed,
    PathOpened,
)
from relay.plane.contract import Kind
from relay.plane.reference import rtcp, rtp
from relay.plane.reference.state import INJECT_EXTENSIONS
from relay.settings import LinkFlowSettings
from relay.stage.timeline import Timeline

FLOW = flows.FIRST
MS = 1000


def packet(seq: int, timestamp: int = 0, extensions: tuple[tuple[int, bytes], ...] = (), ssrc: int = 7) -> bytes:
    return rtp.build_header(96, True, seq & 0xFFFF, timestamp, ssrc, extensions) + b"payload" + bytes([seq & 0xFF])


class Sender:
    """A sender with one flow and both paths; `out` drains what it sends."""

    def __init__(self, **more: object) -> None:
        self.machine = LinkSender(LinkFlowSettings(**more))  # type: ignore[arg-type]
        self.marker = Marker(HybridClock(), 90_000)
        self.machine.open_flow(FLOW, FlowSpec(Kind.VIDEO))
        for name in ("primary", "backup"):
            self.machine.path_opened(name, 0)
        self.now = 0

    def push(self, *seqs: int, timestamp: int = 0, ssrc: int = 7) -> None:
        for seq in seqs:
            marked = self.marker.mark(packet(seq, timestamp, ssrc=ssrc), 1_000_000 + self.now)
            assert marked is not None
            self.machine.push(FLOW, marked, roq.frame(FLOW, marked.data), self.now)

    def out(self, name: PathName) -> list[tuple[int, object]]:
        sent = []
        for data, token in self.machine.transmit(name, 1000, self.now):
            number, found = roq.parse(data) if token is not None else (0, b"")
            parsed = rtp.parse(found, 0)
            sent.append((parsed.seq if parsed else -1, token))
            assert number in {0, FLOW}
        return sent

    def seqs(self, name: PathName) -> list[int]:
        return [seq for seq, _ in self.out(name)]


def test_marking_translates_extensions_and_names_the_frame() -> None:
    marker = Marker(HybridClock(), 90_000, {"orientation": 4, "mid": 1, "abs_capture_time": 9, "rid": 2})
    data = packet(1, 3000, ((1, b"0"), (2, b"q"), (4, b"\x01"), (9, bytes(8))))
    marked = marker.mark(data, 5_000_000)
    assert marked is not None
    parsed = rtp.parse(marked.data, 0)
    assert parsed is not None
    assert set(parsed.extensions) == {
        SYNC_ID_EXTENSION,
        INJECT_EXTENSIONS["orientation"],
        INJECT_EXTENSIONS["abs_capture_time"],
    }
    assert parsed.payload == rtp.parse(data, 0).payload  # type: ignore[union-attr]
    assert read_sync_id(marked.data) == marked.sync_id == make_sync_id(5000, 0)
    second = marker.mark(packet(2, 3000), 5_001_000)
    assert second is not None
    assert (second.first, second.sync_id) == (False, marked.sync_id)
    assert second.data == packet(2, 3000)
    assert SYNC_ID_EXTENSION not in INJECT_EXTENSIONS.values()
    assert marker.mark(b"\x80\x00", 1) is None
    assert marker.malformed == 1


def test_padding_and_contributing_sources_survive_marking() -> None:
    marker = Marker(HybridClock(), 90_000)
    fixed = bytes((0xA2, 0x60)) + bytes((0, 9)) + bytes(8) + b"srcAsrcB"
    marked = marker.mark(fixed + b"media\x00\x00\x03", 1)
    assert marked is not None
    parsed = rtp.parse(marked.data, 0)
    assert parsed is not None
    assert parsed.payload == b"media"
    assert b"srcAsrcB" in marked.data


def test_padding_is_no_frame() -> None:
    marker = Marker(HybridClock(), 90_000)
    head = rtp.build_header(96, True, 1, 3000, 9)
    padding = bytes((0xA0, 96, 0, 2)) + (1_000_000).to_bytes(4, "big") + head[8:] + b"\x00\x02"
    early = marker.mark(padding, 1)
    assert early is not None
    assert (early.data, early.sync_id, early.first) == (padding, 0, False)
    frame, later = marker.mark(head + b"media", 2), marker.mark(padding, 3)
    assert frame is not None
    assert later is not None
    assert (later.data, later.sync_id, later.first) == (padding, frame.sync_id, False)
    assert marker.frames.anchor == (3000, frame.sync_id)


def test_sync_ids_keep_the_order_of_frames() -> None:
    frames = FrameMarks(HybridClock(), Timeline(90_000))
    first, _ = frames.stamp(1, 90_000, 1_000_000)
    third, _ = frames.stamp(1, 96_000, 1_067_000)
    second, fresh = frames.stamp(1, 93_000, 1_070_000)
    assert fresh
    assert first < second < third
    assert frames.stamp(1, 93_000, 2_000_000) == (second, False)
    assert frames.anchor == (96_000, third)
    for step in range(2000):
        frames.stamp(1, (96_000 - 3000 * step) & 0xFFFFFFFF, 3_000_000)
    assert frames.anchor == (96_000, third)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 400_000)), max_size=60), st.integers(0, 2**32 - 1))
def test_sync_ids_keep_the_order_of_frames_whatever_the_network_does(steps: list[tuple[int, int]], base: int) -> None:
    timeline = Timeline(90_000)
    frames = FrameMarks(HybridClock(), timeline)
    newest, told = 0, {0: frames.stamp(1, base, 10_000_000)[0]}
    for ahead, delay in steps:
        frame = max(0, newest + ahead)
        told[frame] = frames.stamp(1, (base + frame * 3000) & 0xFFFFFFFF, 10_000_000 + frame * 33_333 + delay)[0]
        if frame > newest:
            assert told[frame] > told[newest]
            newest = frame
            # what the local viewers are told of the newest frame is what the links carry
            here = timeline.sync_id((base + frame * 3000) & 0xFFFFFFFF)
            assert here is not None
            assert 0 <= told[frame] - here < 400 << 16


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_marking_takes_any_bytes(data: bytes) -> None:
    marked = Marker(HybridClock(), 90_000).mark(data, 1)
    if marked is not None:
        assert read_sync_id(marked.data) == marked.sync_id
        assert rtp.parse(marked.data, 0) is not None


def test_each_packet_goes_where_media_is_carried() -> None:
    sender = Sender(warm_share=0)
    sender.push(1, 2)
    assert (sender.seqs("primary"), sender.seqs("backup")) == ([1, 2], [])
    sender.machine.steer(("primary", "backup"), 0)
    sender.push(3)
    assert (sender.seqs("primary"), sender.seqs("backup")) == ([3], [3, 1, 2])
    sender.machine.steer(("backup",), 0)
    sender.push(4)
    assert (sender.seqs("primary"), sender.seqs("backup")) == ([], [4])
    assert not sender.machine.steer(("backup",), 0)


def test_probes_are_copies() -> None:
    grants = iter([True, False, True])
    machine = LinkSender(LinkFlowSettings(), lambda: next(grants))
    sender = Sender()
    sender.machine = machine
    machine.open_flow(FLOW, FlowSpec(Kind.AUDIO))
    machine.path_opened("primary", 0)
    machine.path_opened("backup", 0)
    machine.steer(("backup",), 0)
    sender.push(1, 2, 3)
    assert (sender.seqs("primary"), sender.seqs("backup")) == ([1, 3], [1, 2, 3])


def test_what_was_acknowledged_does_not_go_again() -> None:
    sender = Sender(warm_share=0)
    sender.push(1, 2, 3, 4)
    tokens = dict(sender.out("primary"))
    sender.machine.acked("primary", [tokens[2], None, "a stranger's token"])
    sender.machine.steer(("backup",), 0)
    assert sender.seqs("backup") == [1, 3, 4]
    moved = sender.machine.events()[-1]
    assert isinstance(moved, MediaMoved)
    assert (moved.before, moved.after, moved.resent, moved.too_old) == (("primary",), ("backup",), 3, 0)
    assert moved.sync_id == sender.machine.last_sync_id > 0


def test_media_that_is_too_old_stays_behind_and_new_media_goes_first() -> None:
    sender = Sender(warm_share=0, resend_burst=2)
    sender.push(1, 2)
    sender.seqs("primary")
    sender.now = 700 * MS
    sender.push(3, 4, 5)
    sender.seqs("primary")
    sender.now = 1200 * MS
    sender.machine.steer(("backup",), sender.now)
    sender.push(6)
    assert sender.seqs("backup") == [6, 3, 4]
    assert sender.seqs("backup") == [5]
    assert sender.machine.counts(FLOW).too_old == 2


def test_a_loss_that_quic_tells_of_is_repeated_unless_another_path_has_it() -> None:
    sender = Sender(warm_share=0)
    sender.push(1)
    ((_, token),) = sender.out("primary")
    sender.machine.lost("primary", [token], 0)
    assert sender.seqs("primary") == [1]
    sender.machine.steer(("primary", "backup"), 0)
    sender.machine.note_rtt("backup", 50 * MS)
    sender.push(2, 3)
    sender.out("backup")
    (_, second), (_, third) = sender.out("primary")
    sender.machine.lost("primary", [second], 49 * MS)
    assert sender.seqs("primary") == []
    sender.machine.lost("primary", [third], 50 * MS)  # it would have told by now
    assert sender.seqs("primary") == sender.seqs("backup") == [3]


def nack(sender: Sender, *seqs: int, ssrc: int = 7) -> None:
    sender.machine.feedback(flows.feedback_of(FLOW), rtcp.build_nack(0, ssrc, seqs), sender.now)


def test_a_request_is_answered_once_in_a_round_trip() -> None:
    sender = Sender(warm_share=0)
    sender.machine.note_rtt("primary", 50 * MS)
    sender.push(65_535, 65_536)
    sender.seqs("primary")
    sender.now = 100 * MS
    nack(sender, 65_535, 0)
    nack(sender, 65_535)
    assert sender.seqs("primary") == [65_535, 0]
    nack(sender, 0)
    assert sender.seqs("primary") == []
    sender.now = 151 * MS
    nack(sender, 0)
    assert sender.seqs("primary") == [0]
    nack(sender, 65_535, ssrc=8)
    assert sender.seqs("primary") == []


def test_what_is_not_here_is_said_to_be_absent() -> None:
    sender = Sender(warm_share=0)
    sender.push(10, 12)
    sender.seqs("primary")
    nack(sender, 11, 12, 13)
    sent = sender.machine.transmit("primary", 100, 0)
    assert [token is None for _, token in sent] == [True, False]
    number, answer = roq.parse(sent[0][0])
    assert number == flows.feedback_of(FLOW)
    (found,) = rtcp.parse(answer).packets
    assert isinstance(found, rtcp.Nack)
    assert found.lost == (11,)  # 13 may yet come
    assert sender.machine.counts(FLOW).absent == 1


def test_history_is_bounded_by_number_and_by_age() -> None:
    sender = Sender(warm_share=0, history_packets=64)
    sender.push(*range(100))
    sender.seqs("primary")
    nack(sender, 35, 36)
    assert 36 in sender.seqs("primary")
    sender.now = 2001 * MS
    sender.machine.handle_timeout(sender.now)
    assert sender.machine.next_timeout() is None
    nack(sender, 99)
    assert sender.machine.counts(FLOW).absent == 2


def test_another_source_begins_another_history() -> None:
    sender = Sender(warm_share=0)
    sender.push(500)
    sender.push(3, ssrc=8)
    sender.seqs("primary")
    nack(sender, 500, ssrc=7)
    nack(sender, 3, ssrc=8)
    assert sender.seqs("primary") == [3]


def test_flows_open_pause_and_close_once() -> None:
    sender = Sender()
    with pytest.raises(UsageError):
        sender.machine.open_flow(FLOW, FlowSpec(Kind.VIDEO))
    with pytest.raises(UsageError):
        sender.machine.open_flow(FLOW + 1, FlowSpec(Kind.VIDEO))
    sender.machine.pause_flow(FLOW, True)
    sender.machine.pause_flow(FLOW, True)
    sender.push(1)
    assert sender.seqs("primary") == []
    sender.machine.pause_flow(FLOW, False)
    sender.push(2)
    sender.machine.close_flow(FLOW)
    sender.machine.close_flow(FLOW)
    assert sender.seqs("primary") == []
    sender.push(3)
    sender.machine.path_closed("primary")
    sender.machine.path_closed("primary")
    assert sender.machine.unknown_flow == 1
    assert sender.machine.events() == [
        FlowOpened(FLOW),
        PathOpened("primary"),
        PathOpened("backup"),
        FlowPaused(FLOW, True),
        FlowPaused(FLOW, False),
        FlowClosed(FLOW),
        PathClosed("primary"),
    ]


@settings(max_examples=200)
@given(st.integers(0, 40), st.binary(max_size=60))
def test_feedback_of_a_stranger_costs_nothing(number: int, data: bytes) -> None:
    sender = Sender(warm_share=0)
    sender.push(1)
    sender.machine.feedback(number, data, 0)
    assert sender.seqs("primary")[-1] in {1, -1}


def test_a_budget_fills_up_with_time() -> None:
    budget = Budget(8_000_000, burst_us=1000)
    assert budget.take(1000, 0)
    assert not budget.take(1, 0)
    assert not budget.take(501, 500)
    assert budget.take(500, 500)
    assert not budget.take(1001, 1_000_000)


@settings(max_examples=100)
@given(st.lists(st.binary(min_size=0, max_size=60), min_size=2, max_size=20), st.integers(0, 65_535), st.data())
def test_parity_builds_any_one_packet(payloads: list[bytes], first: int, data: st.DataObject) -> None:
    group = ParityGroup()
    packets = {}
    for index, payload in enumerate(payloads):
        seq = (first + index) & 0xFFFF
        packets[seq] = rtp.build_header(96, False, seq, index, 7) + payload
        assert group.takes(7, seq)
        group.add(7, seq, packets[seq])
    parity = read_parity(group.build())
    assert parity is not None
    assert parity.covered == tuple(packets)
    missing = data.draw(st.sampled_from(sorted(packets)))
    others = [packet for seq, packet in packets.items() if seq != missing]
    assert rebuild(parity, missing, others) == packets[missing]
    assert rebuild(parity, missing, others[1:]) is None or len(others) == 0
    assert not group.takes(8, first + 21)
    assert not group.takes(7, first)
    assert not group.takes(7, (first + 32) & 0xFFFF)


def test_parity_follows_the_loss() -> None:
    control = ParityControl(LinkFlowSettings())
    now = 0
    seen = []
    for lost in (0, 0, 5, 10, 20, 20, 1, 0, 0, 0, 0, 0, 0, 0, 0):
        now += WINDOW_US
        control.note(MIN_PACKETS - lost, lost)
        control.adapt(now)
        seen.append(control.group)
    assert seen[:2] == [0, 0]
    assert seen[5] == 4
    assert seen[-1] == 0
    off = ParityControl(LinkFlowSettings(parity="off"))
    off.note(50, 50)
    assert not off.adapt(now)


def test_a_new_connection_gets_what_the_lost_one_had_in_flight_and_what_came_between() -> None:
    sender = Sender(warm_share=0)
    sender.push(1, 2)
    sender.out("primary")
    sender.machine.path_closed("primary")
    sender.push(3)
    assert sender.seqs("primary") == []
    sender.machine.path_opened("primary", 0)
    assert sender.seqs("primary") == [1, 2, 3]


def test_what_is_acknowledged_while_it_waits_to_go_again_stays() -> None:
    sender = Sender(warm_share=0)
    sender.push(1, 2)
    tokens = dict(sender.out("primary"))
    sender.machine.lost("primary", tokens.values(), 0)
    sender.machine.acked("primary", [tokens[1]])
    assert sender.seqs("primary") == [2]


def test_a_flow_that_skips_on_all_that_carries_wants_a_keyframe() -> None:
    sender = Sender(warm_share=0)
    sender.machine.steer(("primary", "backup"), 0)
    for frame in range(5):
        sender.push(frame, timestamp=3000 * (frame + 1))
    for turn in range(7):
        sender.machine.transmit("primary", 0, turn * 20_000)
    assert KeyframeWanted(FLOW) not in sender.machine.events()  # the backup may yet bring it
    for turn in range(7):
        sender.machine.transmit("backup", 0, turn * 20_000)
    assert KeyframeWanted(FLOW) in sender.machine.events()
