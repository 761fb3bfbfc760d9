"""What comes from publishers: from an SRTP packet to the layer it belongs to, and on to taps and slots."""

from __future__ import annotations

from relay.plane.contract import Kind, LayerStarted, LayerStats, LayerStopped, LoudnessMeasured
from relay.plane.reference.audio_level import WINDOW_US, parse_audio_level
from relay.plane.reference.binding import note_recent, replan_waiting, restart_players, splice_waiters
from relay.plane.reference.descriptors import Descriptor, inspector
from relay.plane.reference.egress import forward
from relay.plane.reference.feedback import check_losses, note_transport_seq
from relay.plane.reference.keyframes import keyframe_came, request_keyframe
from relay.plane.reference.nack import Arrival, LossDetector
from relay.plane.reference.rtp import HEADER_LENGTH, Packet, build_extensions, decapsulate_rtx, parse, timestamp_delta
from relay.plane.reference.state import (
    CODECS,
    INJECT_EXTENSIONS,
    MAX_DATAGRAM,
    MAX_TAPPED,
    PATCHED,
    Core,
    Layer,
    Session,
    Source,
    Track,
)
from relay.plane.reference.timers import Timer

MAX_LEARNED = 64  # SSRCs per session that were not signalled; a browser uses two per layer


def receive_rtp(core: Core, session: Session, datagram: bytes, now: int) -> str:
    """Take one SRTP packet from a proved address. Returns why it was dropped, or "" when it was handled."""
    srtp = session.srtp
    if srtp is None:
        return "srtp_no_keys"
    place = core.slab.take()
    plain = srtp.unprotect_rtp(datagram)
    if plain is None:
        return srtp_reason(session)
    packet = parse(plain, now)
    if packet is None:
        return "rtp_malformed"
    packet.place = place
    stats = session.stats
    stats.packets_in += 1
    stats.bytes_in += len(datagram)
    stats.last_media = now
    if session.transport_in_id:
        note_transport_seq(core, session, packet, now)
    source = session.sources.get(packet.ssrc)
    if source is None:
        source = _learn(session, packet)
        if source is None:
            return "rtp_unknown_ssrc"
    source.last_packet = now
    if source.detector is None:
        return _receive_repair(core, source, packet, now)
    layer = source.layer
    if layer.source is not source and not _take_over(core, layer, source, now):
        return "rtp_stale_ssrc"
    layer.rate.add(len(datagram), now)
    layer.stats.bytes += len(datagram)
    return _accept(core, layer, packet, source.detector.received(packet.seq, now, packet.timestamp), now)


def inject(core: Core, track: Track, index: int, plain: bytes, now: int) -> str:
    """Take one plaintext RTP packet of a track without session. Returns why it was dropped, or ""."""
    if len(plain) > MAX_DATAGRAM:
        return "oversize"
    packet = parse(plain, now)
    if packet is None:
        return "rtp_malformed"
    packet.place = core.slab.take()
    layer = track.layers[index]
    source = layer.source
    if source is None or source.ssrc != packet.ssrc:
        source = Source(packet.ssrc, layer, LossDetector(_clock(track, packet.payload_type)), learned=True)
        _take_over(core, layer, source, now)
    assert source.detector is not None
    source.last_packet = now
    layer.rate.add(len(plain), now)
    layer.stats.bytes += len(plain)
    return _accept(core, layer, packet, source.detector.received(packet.seq, now, packet.timestamp), now)


def srtp_reason(session: Session) -> str:
    """Name what SRTP refused last."""
    refusal = session.srtp.last_refusal if session.srtp is not None else None
    return f"srtp_{refusal.name.lower()}" if refusal is not None else "srtp_no_keys"


def _receive_repair(core: Core, source: Source, packet: Packet, now: int) -> str:
    """Unpack a retransmission into the stream it repairs (RFC 4588). One without payload is a bandwidth probe."""
    layer = source.layer
    media = layer.source
    if packet.payload_end - packet.payload_offset < 2:
        return ""
    kind = layer.track.payload_types.get(packet.payload_type)
    if kind is None or kind.apt is None or media is None or media.detector is None:
        return "rtx_unknown"
    original = decapsulate_rtx(packet, media.ssrc, kind.apt)
    if original is None:
        return "rtx_unknown"
    original.place = packet.place
    return _accept(core, layer, original, media.detector.recovered(original.seq), now)


def _note_frame(stats: LayerStats, packet: Packet, arrival: Arrival, now: int) -> None:
    """Remember when the newest frame began to come: by that others place its timestamp in time."""
    if (
        packet.ssrc != stats.ssrc
        or stats.timestamp < 0
        or timestamp_delta(packet.timestamp, stats.timestamp) > 0
        or arrival is Arrival.RESET
    ):
        stats.ssrc, stats.timestamp, stats.arrival_us = packet.ssrc, packet.timestamp, now


def _accept(core: Core, layer: Layer, packet: Packet, arrival: Arrival, now: int) -> str:
    """One media packet of a layer, however it came."""
    if arrival is Arrival.DUPLICATE:
        return "rtp_duplicate"
    # A late packet of the format before this one must not bring that back.
    if packet.payload_type != layer.payload_type and (
        arrival is Arrival.RECOVERED or not _change_payload_type(core, layer, packet, now)
    ):
        return "rtp_unknown_payload_type"
    track = layer.track
    layer.last_packet = now
    layer.stats.packets += 1
    _note_frame(layer.stats, packet, arrival, now)
    if arrival is not Arrival.NEW:
        if arrival is Arrival.RECOVERED:
            layer.stats.recovered += 1
        else:
            restart_players(core, layer, now)
    started = not layer.active
    if started:
        _start(core, layer, now)
    detector = layer.source.detector if layer.source is not None else None
    if detector is not None and detector.missing:
        check_losses(core, layer, now)
    if packet.payload_end == packet.payload_offset:
        if layer.taps:  # whoever counts packets behind a tap would miss its number
            _tap(core, layer, packet, now)
        for slot in layer.players.values():
            slot.rewriter.drop(packet.seq)  # padding alone: those behind it close up
        return ""
    if packet.place is None:
        core.unkept += 1
    descriptor = layer.inspect(packet.data, packet.payload_offset, packet.payload_end)
    decodable = descriptor.is_keyframe_start
    if track.kind is Kind.VIDEO:
        if decodable:
            decodable = _note_keyframe(core, layer, packet, descriptor, detector)
        elif (started and layer.waiters) or layer.keyframe_wanted:
            request_keyframe(core, layer, now)
    elif track.audio_level_id:
        _note_level(core, track, packet, now)
    if layer.taps:
        _tap(core, layer, packet, now)
    if track.muted:
        return ""
    if track.kind is Kind.VIDEO:
        note_recent(layer, packet, descriptor, decodable and arrival is not Arrival.RECOVERED)
    if decodable and layer.waiters and arrival is not Arrival.RECOVERED:
        splice_waiters(core, layer, packet, descriptor, now)
    if decodable and track.kind is Kind.VIDEO:
        keyframe_came(core, layer)
    if layer.players:
        forward(core, layer.players.values(), layer, packet, descriptor, now)
    return ""


# --- finding the layer ----------------------------------------------------------------------------------------------


def _learn(session: Session, packet: Packet) -> Source | None:
    """Find the layer of an SSRC that is heard for the first time: mid and rid, else the payload type (RFC 9143 9.2)."""
    ids = session.extensions
    mid = packet.extension(ids["mid"]) if "mid" in ids else None
    if mid is not None:
        track = session.tracks.get(mid.decode("utf-8", "replace"))
    else:
        having = [t for t in session.tracks.values() if packet.payload_type in t.payload_types]
        track = having[0] if len(having) == 1 else None
    kind = track.payload_types.get(packet.payload_type) if track is not None else None
    if track is None or kind is None:
        return None
    repair = kind.codec == "rtx"
    layer = _layer_by_rid(track, packet, ids, repair)
    if layer is None:
        return None
    if sum(source.learned for source in session.sources.values()) >= MAX_LEARNED:
        _forget_oldest(session)
    detector = None if repair else LossDetector(kind.clock_hz)
    source = session.sources[packet.ssrc] = Source(packet.ssrc, layer, detector, learned=True)
    return source


def _layer_by_rid(track: Track, packet: Packet, ids: dict[str, int], repair: bool) -> Layer | None:
    rid = packet.extension(ids["rrid"]) if repair and "rrid" in ids else None
    if rid is None and "rid" in ids:
        rid = packet.extension(ids["rid"])
    if rid is None:
        return track.layers[0] if len(track.layers) == 1 else None
    name = rid.decode("utf-8", "replace")
    for layer in track.layers:
        if layer.stats.rid == name:
            return layer
    return None


def _forget_oldest(session: Session) -> None:
    """Make room among the learned SSRCs; one that plays a layer stays if there is any other."""
    learned = [source for source in session.sources.values() if source.learned]
    oldest = min(learned, key=lambda source: (source.layer.source is source, source.last_packet))
    del session.sources[oldest.ssrc]
    if oldest.layer.source is oldest:
        _retire(oldest.layer)


def _take_over(core: Core, layer: Layer, source: Source, now: int) -> bool:
    """Let another SSRC play the layer: a new one always, a former one only when the present one has gone silent."""
    old = layer.source
    if old is not None:
        former = source.detector is not None and source.detector.highest >= 0
        if former and now - layer.last_packet < core.config.layer_silence_us:
            return False
        _retire(layer)
        layer.active = False
        restart_players(core, layer, now)
    layer.source = source
    return True


def _retire(layer: Layer) -> None:
    """Take the layer's source away, keeping what it counted."""
    layer.recent = []
    if layer.source is not None and layer.source.detector is not None:
        layer.lost_before += layer.source.detector.given_up
    layer.source = None


def _clock(track: Track, payload_type: int) -> int:
    kind = track.payload_types.get(payload_type)
    return kind.clock_hz if kind is not None else 90_000


# --- what a packet changes ------------------------------------------------------------------------------------------


def _change_payload_type(core: Core, layer: Layer, packet: Packet, now: int) -> bool:
    """The publisher sends another format from here on: whoever shows the layer starts anew at a decodable frame."""
    kind = layer.track.payload_types.get(packet.payload_type)
    if kind is None or kind.codec not in CODECS:
        return False
    layer.payload_type = layer.stats.payload_type = packet.payload_type
    layer.codec = kind
    layer.inspect = inspector(CODECS[kind.codec])
    layer.patched = kind.codec in PATCHED
    layer.parameters_seen = False
    layer.keyframe_timestamp = -1
    layer.active = False
    restart_players(core, layer, now)
    return True


def _start(core: Core, layer: Layer, now: int) -> None:
    """Packets come (again)."""
    layer.active = layer.stats.active = True
    ssrc = layer.source.ssrc if layer.source is not None else 0
    track = layer.track
    core.events.append(LayerStarted(track.handle, layer.index, ssrc, layer.payload_type))
    core.timers.set((Timer.SILENCE, track.handle, layer.index), now + core.config.layer_silence_us)
    replan_waiting(core, track, now, ask=False)  # this very packet may begin a keyframe
    session = track.session
    if session is not None:
        core.timers.set_if_none((Timer.RECEIVER_REPORT, session.handle, 0), now + core.config.report_interval_us)


def silence_due(core: Core, layer: Layer, now: int) -> None:
    """Stop a layer that has been silent for the configured time, or look again when it may have been."""
    if not layer.active:
        return
    silent_at = layer.last_packet + core.config.layer_silence_us
    if now < silent_at:
        core.timers.set((Timer.SILENCE, layer.track.handle, layer.index), silent_at)
    else:
        stop_layer(core, layer, now)


def stop_layer(core: Core, layer: Layer, now: int) -> None:
    """The layer fell silent or said goodbye."""
    if not layer.active:
        return
    layer.active = layer.stats.active = False
    core.timers.cancel((Timer.SILENCE, layer.track.handle, layer.index))
    core.timers.cancel((Timer.NACK, layer.track.handle, layer.index))
    core.events.append(LayerStopped(layer.track.handle, layer.index))
    replan_waiting(core, layer.track, now, ask=True)


def _note_keyframe(
    core: Core, layer: Layer, packet: Packet, descriptor: Descriptor, detector: LossDetector | None
) -> bool:
    """Count a keyframe once. Returns whether a decoder can begin at this very packet.

    An H264 picture may begin with its parameter sets in a packet of their own: where a publisher sends them in band,
    one begins there and not at the slice that follows. GStreamer repeats them before every slice of a picture: only
    what comes first of a timestamp begins it.
    """
    stats = layer.stats
    first = packet.timestamp != layer.keyframe_timestamp
    if first:
        layer.keyframe_timestamp = packet.timestamp
        stats.keyframes += 1
        if detector is not None and detector.missing:
            detector.keyframe(packet.seq)
    if descriptor.width:
        stats.width, stats.height = descriptor.width, descriptor.height
    if descriptor.has_parameters:
        layer.parameters_seen = True
    return first and (descriptor.has_parameters or not layer.parameters_seen)


def _note_level(core: Core, track: Track, packet: Packet, now: int) -> None:
    value = packet.extension(track.audio_level_id)
    level = parse_audio_level(value) if value is not None else None
    if level is None:
        return
    track.loudness.add(level.level, level.voice, now)
    core.heard.add(track.handle)
    core.timers.set_if_none((Timer.LOUDNESS, 0, 0), now + WINDOW_US)


def loudness_due(core: Core, now: int) -> None:
    """Tell how loud the tracks are that were heard since the last time."""
    levels = []
    for handle in sorted(core.heard):
        track = core.tracks.get(handle)
        if track is not None and not track.muted:
            levels.append((handle, track.loudness.value(now) >> 8))
    core.heard.clear()
    if levels:
        core.events.append(LoudnessMeasured(tuple(levels)))


def _tap(core: Core, layer: Layer, packet: Packet, now: int) -> None:
    """Copy a packet for the layer's taps. One without a place is copied too: who watches elsewhere is no newcomer."""
    session = layer.track.session
    for handle, tap in layer.taps.items():
        if len(core.tapped) < MAX_TAPPED:
            data = packet.data if session is None or not tap.canonical else _canonical(packet, session.extensions)
            core.tapped.append((handle, data, now, tap.ring, packet.place))
        else:
            core.taps_dropped += 1


def _canonical(packet: Packet, ids: dict[str, int]) -> bytes:
    """The packet with the header extension ids of injected ones, in their order."""
    if not packet.data[0] & 0x10:
        return packet.data
    found = ((number, packet.extension(ids[name])) for name, number in INJECT_EXTENSIONS.items() if name in ids)
    block = build_extensions([(number, value) for number, value in found if value is not None])
    data = packet.data
    first = data[0] if block else data[0] & 0xEF
    fixed = HEADER_LENGTH + 4 * (first & 0x0F)
    return b"".join((bytes((first,)), data[1:fixed], block, data[packet.payload_offset :]))
