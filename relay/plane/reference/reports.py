"""RTCP that peers send us: reports, feedback and goodbyes."""

from __future__ import annotations

from collections.abc import Sequence

from relay.plane.contract import EstimateChanged
from relay.plane.reference import rtcp
from relay.plane.reference.egress import send_repair
from relay.plane.reference.ingress import srtp_reason, stop_layer
from relay.plane.reference.keyframes import request_keyframe
from relay.plane.reference.state import Core, Session, Slot
from relay.plane.reference.timers import Timer
from relay.plane.reference.transport_cc import parse_feedback

ESTIMATE_INTERVAL_US = 200_000  # between two EstimateChanged of one session


def receive_rtcp(core: Core, session: Session, datagram: bytes, now: int) -> str:
    """Take one SRTCP packet from a proved address. Returns why it was dropped, or "" when it was handled."""
    srtp = session.srtp
    if srtp is None:
        return "srtp_no_keys"
    plain = srtp.unprotect_rtcp(datagram)
    if plain is None:
        return srtp_reason(session)
    compound = rtcp.parse(plain)
    session.stats.packets_in += 1
    session.stats.bytes_in += len(datagram)
    for packet in compound.packets:
        _act(core, session, packet, now)
    return "rtcp_malformed" if compound.error and not compound.packets else ""


def _act(core: Core, session: Session, packet: rtcp.Packet, now: int) -> None:
    match packet:
        case rtcp.SenderReport():
            _sender_report(core, session, packet, now)
            _report_blocks(core, session, packet.reports, now)
        case rtcp.ReceiverReport():
            _report_blocks(core, session, packet.reports, now)
        case rtcp.Nack():
            slot = session.slots_by_ssrc.get(packet.media_ssrc)
            if slot is not None and slot.feedback.nack:
                send_repair(core, slot, packet.lost, now)
        case rtcp.Pli():
            slot = session.slots_by_ssrc.get(packet.media_ssrc)
            if slot is not None:
                _wants_keyframe(core, slot, now)
        case rtcp.Fir():
            for ssrc, number in packet.entries:
                slot = session.slots_by_ssrc.get(ssrc)
                if slot is not None and slot.fir_number != number:  # a repeated number is the same request
                    slot.fir_number = number
                    _wants_keyframe(core, slot, now)
        case rtcp.TransportFeedback():
            _transport_feedback(core, session, packet, now)
        case rtcp.Remb():
            _remb(core, session, packet, now)
        case rtcp.Bye():
            for ssrc in packet.ssrcs:
                source = session.sources.get(ssrc)
                if source is not None and source.layer.source is source:
                    stop_layer(core, source.layer, now)
        case rtcp.SourceDescription():
            pass


def _sender_report(core: Core, session: Session, report: rtcp.SenderReport, now: int) -> None:
    """Note how the SSRC's timestamps map to the publisher's clock, and its clock to ours.

    The offset of the clocks is the least of (our wall clock at arrival - its NTP time): the report that travelled
    fastest. It may creep up by 1/4096 of the time that passes, more than any quartz drifts, so that a publisher
    whose clock runs slow is followed. One offset for the whole session keeps its audio and video together.
    """
    source = session.sources.get(report.ssrc)
    if source is None or not report.ntp:
        return
    source.report_ntp = report.ntp
    source.report_rtp = report.rtp_timestamp
    source.report_arrival = now
    layer = source.layer
    if layer.source is source:
        stats = layer.stats
        stats.report_ssrc, stats.report_ntp = report.ssrc, report.ntp
        stats.report_timestamp, stats.report_arrival_us = report.rtp_timestamp, now
    sample = now + core.config.wall_offset_us - rtcp.wall_us_from_ntp(report.ntp)
    offset = session.ntp_offset
    if offset is not None:
        sample = min(sample, offset + ((now - session.ntp_offset_at) >> 12))
    session.ntp_offset = sample
    session.ntp_offset_at = now


def _report_blocks(core: Core, session: Session, blocks: Sequence[rtcp.ReportBlock], now: int) -> None:
    """What the peer received of our slots: loss and round trip."""
    worst = -1
    for block in blocks:
        slot = session.slots_by_ssrc.get(block.ssrc)
        if slot is None or slot.ssrc != block.ssrc:
            continue
        worst = max(worst, block.fraction_lost)
        rtt = rtcp.rtt_us(rtcp.ntp_from_wall_us(now + core.config.wall_offset_us), block.lsr, block.dlsr)
        if rtt is not None:
            session.stats.round_trip_us = max(rtt, 1)
            if session.estimator is not None:
                session.estimator.on_rtt(rtt)
    if worst >= 0:
        session.stats.loss_256 = worst
        if session.estimator is not None:
            session.estimator.on_receiver_report(worst, now)
            tell_estimate(core, session, session.estimator.bitrate, now)


def _wants_keyframe(core: Core, slot: Slot, now: int) -> None:
    """The viewer cannot decode what it shows; what it waits for is asked for too."""
    slot.stats.keyframe_requests += 1
    if slot.playing is not None:
        request_keyframe(core, slot.playing, now)
    for layer in slot.waiting:
        if layer.active:
            request_keyframe(core, layer, now)


def _transport_feedback(core: Core, session: Session, packet: rtcp.TransportFeedback, now: int) -> None:
    feedback = parse_feedback(packet.fci)
    if feedback is None or session.estimator is None:
        return
    session.estimator.on_feedback(feedback, now)
    tell_estimate(core, session, session.estimator.bitrate, now)


def _remb(core: Core, session: Session, packet: rtcp.Remb, now: int) -> None:
    """The viewer's own estimate: a ceiling, or all there is where transport-cc was not agreed on."""
    if session.estimator is None or not any(slot.feedback.remb for slot in session.slots.values()):
        return
    session.estimator.on_remb(packet.bitrate, now)
    tell_estimate(core, session, session.estimator.bitrate, now)


def tell_estimate(core: Core, session: Session, bitrate: int, now: int) -> None:
    """Raise EstimateChanged for a move by more than a tenth, at most every 200 ms; a move held back is told later."""
    session.stats.estimate = bitrate
    told = session.estimate_reported
    if abs(bitrate - told) * 10 <= told:
        core.timers.cancel((Timer.ESTIMATE, session.handle, 0))
        return
    if told and now - session.estimate_reported_at < ESTIMATE_INTERVAL_US:
        core.timers.set((Timer.ESTIMATE, session.handle, 0), session.estimate_reported_at + ESTIMATE_INTERVAL_US)
        return
    session.estimate_reported = bitrate
    session.estimate_reported_at = now
    core.events.append(EstimateChanged(session.handle, bitrate))
