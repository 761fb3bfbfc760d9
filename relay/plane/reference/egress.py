"""What goes to viewers: forwarding, repeats for NACKs, sender reports and bandwidth probes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relay.plane.contract import Kind
from relay.plane.reference.descriptors import Descriptor
from relay.plane.reference.history import Sent
from relay.plane.reference.rtcp import (
    SenderReport,
    build_sdes,
    build_sr,
    ntp_from_wall_us,
    wall_us_from_ntp,
)
from relay.plane.reference.rtp import Packet
from relay.plane.reference.state import Core, Layer, Probe, Session, Slot
from relay.plane.reference.timers import Timer

PROBE_SLICE_US = 5_000  # padding is spread in slices of this, so that it measures the path and not our burst
PROBE_PACKETS = 64  # at most in one slice, whatever rate was asked for
MAX_PADDING = 255  # one octet says how much (RFC 3550 5.1)
REPEATED_IN_PROBE = 16  # the latest packets, in turns, serve as padding that may even repair something
DEFAULT_RTT_US = 50_000  # between repeats to a viewer that has not yet reported

MAX_PAD = 64  # bytes to a multiple of which packets can be padded
PADDED_TO = 1400  # bytes: longer packets are not padded, for some path may carry little more


def pad(plain: bytes, step: int) -> bytes:
    """Add RTP padding (RFC 3550 5.1) up to a multiple of `step`.

    A frame's packets are of nearly one size, most encoders' of two that are a byte apart; those of one size leave in
    one message. The last one may be shorter than the others and stays as it is.
    """
    short = -len(plain) % step
    if not short or len(plain) + short > PADDED_TO:
        return plain
    return b"".join((bytes((plain[0] | 0x20,)), plain[1:], bytes(short - 1), bytes((short,))))


def send_time(now: int) -> int:
    """Absolute send time: 6.18 fixed point seconds, 24 bits."""
    return (now << 18) // 1_000_000 & 0xFFFFFF


def forward(core: Core, slots: Iterable[Slot], layer: Layer, packet: Packet, descriptor: Descriptor, now: int) -> None:
    """Send one packet to slots that show its layer: the loop that everything else stays out of."""
    seq_in, timestamp_in, patched = packet.seq, packet.timestamp, layer.patched
    stamp = (now << 18) // 1_000_000 & 0xFFFFFF
    marker = 0x80 if packet.marker else 0
    patch_offset = descriptor.patch_offset
    payload_size = packet.payload_end - packet.payload_offset
    out, kept = core.out, packet.place is not None
    step = core.config.pad_video if layer.track.kind is Kind.VIDEO and not packet.marker else 1
    for slot in slots:
        session = slot.session
        address, srtp = session.selected, session.srtp
        if address is None or srtp is None:
            slot.rewriter.drop(seq_in)
            continue
        mapped = slot.rewriter.rewrite(seq_in, timestamp_in, now)
        if mapped is None:
            continue
        seq, timestamp = mapped
        second = slot.out_type | marker | slot.marker
        slot.marker = 0
        patch = slot.pictures.patch(descriptor) if patched else b""
        transport_seq = 0
        if slot.measured:
            session.transport_seq = transport_seq = (session.transport_seq + 1) & 0xFFFF
        plain = slot.serialiser.write(packet, second, seq, timestamp, patch_offset, patch, transport_seq, stamp)
        sealed = srtp.protect_rtp(pad(plain, step) if step > 1 else plain)
        if sealed is None:
            core.drop("out_refused")
            continue
        out.append((sealed, address))
        if kept:
            slot.log.put((packet, second, seq, timestamp, patch_offset, patch, transport_seq, stamp))
        else:
            slot.log.forget(seq)
        size = len(sealed)
        if slot.measured and session.estimator is not None:
            session.estimator.on_sent(transport_seq, size, now)
        slot.octets += payload_size
        slot.rate.add(size, now)
        stats = slot.stats
        stats.packets += 1
        stats.bytes += size
        session_stats = session.stats
        session_stats.packets_out += 1
        session_stats.bytes_out += size


def send_repair(core: Core, slot: Slot, sequences: Sequence[int], now: int) -> None:
    """Answer a NACK from the log, by RTX where it was agreed on, else byte for byte as first sent."""
    session = slot.session
    rtt = session.stats.round_trip_us or DEFAULT_RTT_US
    slot.stats.nacks += len(sequences)
    for seq in sequences:
        sent = slot.log.resend(seq, now, rtt, slot.budget)
        if sent is None or session.srtp is None or session.selected is None:
            slot.stats.not_resent += 1
            continue
        if slot.rtx_serialiser is not None and sent.type_and_marker & 0x7F in slot.rtx_types:
            done = _send_rtx(core, slot, sent, now)
        else:
            plain = slot.serialiser.write(*sent)
            if slot.kind is Kind.VIDEO and not sent.type_and_marker & 0x80:
                plain = pad(plain, core.config.pad_video)
            done = _seal_and_send(core, slot, plain, -1, now)
        if done:
            slot.stats.resent += 1
        else:
            slot.stats.not_resent += 1


def _send_rtx(core: Core, slot: Slot, sent: Sent, now: int) -> bool:
    """Send a logged packet again on the repair stream (RFC 4588 4)."""
    assert slot.rtx_serialiser is not None
    plain = slot.rtx_serialiser.write(
        sent.packet,
        sent.type_and_marker & 0x80 | slot.rtx_types[sent.type_and_marker & 0x7F],
        slot.rtx_seq,
        sent.timestamp,
        sent.patch_offset,
        sent.patch,
        _next_transport_seq(slot),
        send_time(now),
        sent.seq.to_bytes(2, "big"),
    )
    slot.rtx_seq = (slot.rtx_seq + 1) & 0xFFFF
    return _seal_and_send(core, slot, plain, slot.session.transport_seq, now)


def _next_transport_seq(slot: Slot) -> int:
    if slot.measured:
        slot.session.transport_seq = (slot.session.transport_seq + 1) & 0xFFFF
    return slot.session.transport_seq


def _seal_and_send(core: Core, slot: Slot, plain: bytes, transport_seq: int, now: int) -> bool:
    """Send a packet that is not a first sending. `transport_seq` is -1 when it has no number of its own."""
    session = slot.session
    if session.srtp is None or session.selected is None:
        return False
    sealed = session.srtp.protect_rtp(plain)
    if sealed is None:
        core.drop("out_refused")
        return False
    core.out.append((sealed, session.selected))
    size = len(sealed)
    if slot.measured and transport_seq >= 0 and session.estimator is not None:
        session.estimator.on_sent(transport_seq, size, now)
    session.stats.packets_out += 1
    session.stats.bytes_out += size
    return True


# --- sender reports -------------------------------------------------------------------------------------------------


def sender_report_due(core: Core, slot: Slot, now: int) -> None:
    """Send SR and SDES while packets go out, and come back in an interval. One who has fallen silent keeps no packets:
    what was lost of the last ones has been asked for by now."""
    if slot.playing is None:
        slot.log.clear()
        return
    core.timers.set((Timer.SENDER_REPORT, slot.handle, 0), now + core.config.report_interval_us)
    if slot.stats.packets == slot.reported:
        return
    slot.reported = slot.stats.packets
    wall = now + core.config.wall_offset_us
    report = SenderReport(
        ssrc=slot.ssrc,
        ntp=ntp_from_wall_us(wall),
        rtp_timestamp=_timestamp_at(slot, slot.playing, wall, now),
        packets=slot.stats.packets,
        octets=slot.octets,
    )
    core.send_control(slot.session, build_sr(report) + build_sdes(slot.ssrc, slot.cname))


def _timestamp_at(slot: Slot, layer: Layer, wall: int, now: int) -> int:
    """The output timestamp of the instant `wall`.

    The publisher's own reports tie its audio and video to one clock of its own. All its streams are moved to our wall
    clock by one common offset (`Session.ntp_offset`), so what it captured together is shown together, whatever the
    streams' different delays to us. Before its first report, arrival has to do.
    """
    source, codec, session = layer.source, layer.codec, layer.track.session
    clock = codec.clock_hz if codec is not None else 90_000
    if source is not None and session is not None and source.report_ntp and session.ntp_offset is not None:
        reported = wall_us_from_ntp(source.report_ntp) + session.ntp_offset
        return slot.rewriter.timestamp_out(source.report_rtp + (wall - reported) * clock // 1_000_000) & 0xFFFFFFFF
    return (slot.rewriter.last_timestamp + (now - layer.last_packet) * clock // 1_000_000) & 0xFFFFFFFF


# --- probes ---------------------------------------------------------------------------------------------------------


def start_probe(core: Core, session: Session, bitrate: int, duration_us: int, now: int) -> None:
    """Begin to send padding; a later probe replaces one that runs. Ignored when nobody could carry or measure it."""
    if _probe_slot(session) is None or bitrate <= 0 or duration_us <= 0:
        return
    if session.estimator is not None:
        session.estimator.on_probe_started(bitrate, now)
    session.probe = Probe(bitrate, now, now + duration_us, session.stats.bytes_out)
    core.timers.set((Timer.PROBE, session.handle, 0), now + PROBE_SLICE_US)


def probe_due(core: Core, session: Session, now: int) -> None:
    """Send the padding that one slice lacks."""
    probe, slot = session.probe, _probe_slot(session)
    if probe is None or slot is None:
        session.probe = None
        return
    elapsed = min(now, probe.end) - probe.start
    missing = probe.bitrate * elapsed // 8_000_000 - (session.stats.bytes_out - probe.bytes_before)
    for turn in range(PROBE_PACKETS):
        if missing <= 0:
            break
        before = session.stats.bytes_out
        sent = slot.log.get((slot.rewriter.last_seq - turn % REPEATED_IN_PROBE) & 0xFFFF)
        if sent is not None and sent.type_and_marker & 0x7F in slot.rtx_types:
            _send_rtx(core, slot, sent, now)
        else:
            _send_padding(core, slot, now)
        missing -= max(1, session.stats.bytes_out - before)
    if now >= probe.end:
        session.probe = None
        if session.estimator is not None:
            session.estimator.on_probe_ended()
    else:
        core.timers.set((Timer.PROBE, session.handle, 0), min(now + PROBE_SLICE_US, probe.end))


def _probe_slot(session: Session) -> Slot | None:
    """The first video slot with a repair stream and transport-cc, while there is a way to the peer."""
    if session.srtp is None or session.selected is None:
        return None
    for slot in session.slots.values():
        if slot.kind is Kind.VIDEO and slot.transport_cc and slot.rtx_serialiser is not None and slot.rtx_types:
            return slot
    return None


def _send_padding(core: Core, slot: Slot, now: int) -> None:
    """A packet of the repair stream with nothing but padding (RFC 4588 allows no empty original)."""
    assert slot.rtx_serialiser is not None
    empty = Packet(b"", now, 0, 0, 0, False, 0, 0, 0, {})
    rtx_type = slot.rtx_types.get(slot.out_type, next(iter(slot.rtx_types.values())))
    plain = slot.rtx_serialiser.write(
        empty,
        rtx_type,
        slot.rtx_seq,
        slot.rewriter.last_timestamp,
        0,
        b"",
        _next_transport_seq(slot),
        send_time(now),
        bytes(MAX_PADDING - 1) + b"\xff",
    )
    slot.rtx_seq = (slot.rtx_seq + 1) & 0xFFFF
    _seal_and_send(core, slot, bytes((plain[0] | 0x20,)) + plain[1:], slot.session.transport_seq, now)
