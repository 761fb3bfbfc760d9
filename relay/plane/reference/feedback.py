"""RTCP that we send to publishers: NACK, transport-cc, receiver reports and REMB."""

from __future__ import annotations

from relay.plane.reference.rtcp import ReportBlock, build_nack, build_remb, build_rr, build_sdes, ntp_middle
from relay.plane.reference.rtp import Packet
from relay.plane.reference.state import Core, Layer, Session
from relay.plane.reference.timers import Timer
from relay.plane.reference.transport_cc import Recorder

CNAME = "costream"  # RFC 3550 6.1 wants one in every compound packet; publishers have no use for it
MAX_BLOCKS = 31  # the count of a report has five bits
DEFAULT_RTT_US = 100_000  # between repeated NACKs while the round trip to a publisher is not known

# REMB for publishers without transport-cc: additive growth while the loss is small, and room above what is sent.
_LOSS_LOW = 5  # of 256, 2 %
_LOSS_HIGH = 26  # of 256, 10 %


def note_transport_seq(core: Core, session: Session, packet: Packet, now: int) -> None:
    """Record a packet's transport-wide sequence number and see that it is reported soon."""
    span = packet.extensions.get(session.transport_in_id)
    if span is None or span[1] != 2:
        return
    at = span[0]
    recorder = session.recorder
    if recorder is None:
        recorder = session.recorder = Recorder()
    if not recorder.pending:
        core.timers.set_if_none(
            (Timer.TRANSPORT_FEEDBACK, session.handle, 0), now + core.config.transport_cc_interval_us
        )
    recorder.record(packet.data[at] << 8 | packet.data[at + 1], now)


def transport_feedback_due(core: Core, session: Session, now: int) -> None:
    """Tell the publisher what arrived when. The next report is set by the next packet."""
    if session.recorder is None:
        return
    media_ssrc = next(iter(session.sources), 0)
    for feedback in session.recorder.feedback(now, session.feedback_ssrc, media_ssrc):
        core.send_control(session, feedback)


def check_losses(core: Core, layer: Layer, now: int) -> None:
    """Ask for what is missing and due, and look again when more will be."""
    source, session = layer.source, layer.track.session
    if source is None or source.detector is None:
        return
    detector = source.detector
    rtt = session.stats.round_trip_us if session is not None else 0
    lost = detector.due(now, rtt or DEFAULT_RTT_US)
    if lost and session is not None and layer.track.feedback.nack:
        for at in range(0, len(lost), 256):
            core.send_control(session, build_nack(session.feedback_ssrc, source.ssrc, lost[at : at + 256]))
        layer.stats.nacks_sent += len(lost)
    again = detector.next_timeout()
    if again is not None:
        core.timers.set((Timer.NACK, layer.track.handle, layer.index), max(again, now + 1_000))


def receiver_report_due(core: Core, session: Session, now: int) -> None:
    """Report on every SSRC that was heard lately, with REMB where that is all the publisher understands."""
    heard_since = now - 2 * core.config.report_interval_us
    blocks = []
    worst = 0
    for source in session.sources.values():
        detector = source.detector
        if detector is None or detector.highest < 0 or source.last_packet < heard_since:
            continue
        reception = detector.report()
        worst = max(worst, reception.fraction_lost)
        layer = source.layer
        clock = layer.codec.clock_hz if layer.codec is not None else 90_000
        layer.stats.jitter_us = reception.jitter * 1_000_000 // clock
        known = source.report_ntp != 0
        blocks.append(
            ReportBlock(
                ssrc=source.ssrc,
                fraction_lost=reception.fraction_lost,
                cumulative_lost=reception.cumulative_lost,
                highest_sequence=reception.highest_sequence,
                jitter=reception.jitter,
                lsr=ntp_middle(source.report_ntp) if known else 0,
                dlsr=((now - source.report_arrival) * 65_536 // 1_000_000) & 0xFFFFFFFF if known else 0,
            )
        )
    if not blocks:
        return  # the next layer that starts sets the timer again
    core.timers.set((Timer.RECEIVER_REPORT, session.handle, 0), now + core.config.report_interval_us)
    tail = build_sdes(session.feedback_ssrc, CNAME) + _remb(core, session, worst, now)
    for at in range(0, len(blocks), MAX_BLOCKS):
        core.send_control(session, build_rr(session.feedback_ssrc, blocks[at : at + MAX_BLOCKS]) + tail)
        tail = build_sdes(session.feedback_ssrc, CNAME)


def _remb(core: Core, session: Session, loss_256: int, now: int) -> bytes:
    """A receiver-side limit for publishers that negotiated only REMB.

    It starts at `estimate_start`, grows by an eighth per report while less than 2 % is lost (never below one and a
    half times what arrives, so that it does not hold back a publisher who has shown more), and shrinks by half the
    loss above 10 %.
    """
    tracks = session.tracks.values()
    if any(t.feedback.transport_cc for t in tracks) or not any(t.feedback.remb for t in tracks):
        return b""
    config = core.config
    layers = [layer for track in tracks for layer in track.layers if layer.source is not None]
    rate = session.remb or config.estimate_start
    if loss_256 > _LOSS_HIGH:
        rate -= rate * loss_256 >> 9
    elif loss_256 < _LOSS_LOW:
        arriving = sum(layer.rate.value(now) for layer in layers)
        rate = max(rate + (rate >> 3), arriving + (arriving >> 1))
    session.remb = rate = max(config.estimate_min, min(rate, config.estimate_max))
    ssrcs = [layer.source.ssrc for layer in layers if layer.source is not None]
    return build_remb(session.feedback_ssrc, rate, ssrcs[:255])
