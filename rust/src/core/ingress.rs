//! What comes from publishers: from an SRTP packet to the layer it belongs to, and on to taps and slots. The twin of
//! `relay/plane/reference/ingress.py`.

use super::MAX_DATAGRAM;
use super::binding::{note_recent, replan_waiting, restart_players, splice_waiters};
use super::contract::{Event, ExtensionIds, Kind, MID, REPAIRED_RID, RID};
use super::fanout::{flush, queue};
use super::feedback::{check_losses, note_transport_seq};
use super::keyframes::{keyframe_came, request_keyframe};
use super::mirrors;
use super::packets::{SLOT, SPARE};
use super::state::{Copied, LayerKey, MAX_TAPPED, Source, State};
use super::timers::Timer;
use crate::audio_level::{WINDOW_US, parse_audio_level};
use crate::descriptors::{Codec, Descriptor, inspect};
use crate::nack::{Arrival, LossDetector};
use crate::rtp::{Packet, decapsulate_rtx, parse};
use crate::srtp::Refusal;

/// SSRCs per session that were not signalled; a browser uses two per layer.
const MAX_LEARNED: usize = 64;

/// Take one SRTP packet from a proved address. Returns why it was dropped, or "" when it was handled.
pub fn receive_rtp(core: &mut State, key: usize, datagram: &[u8], now: i64) -> &'static str {
    if core.sessions[key].srtp.is_none() {
        return "srtp_no_keys";
    }
    let id = take(core);
    let reason = open(core, key, id, datagram, now);
    give_back(core, id);
    reason
}

/// A slot for a packet. What waits to be written may hold some; when none is free at all, the spare one.
fn take(core: &mut State) -> u32 {
    if let Some(id) = core.packets.take() {
        return id;
    }
    flush(core);
    core.packets.take().unwrap_or_else(|| core.packets.take_spare())
}

/// The packet has gone where it was to go. From the spare slot it is written at once: the next one may need it.
fn give_back(core: &mut State, id: u32) {
    if id == SPARE {
        flush(core);
    }
    core.packets.counts.release(id);
}

fn open(core: &mut State, key: usize, id: u32, datagram: &[u8], now: i64) -> &'static str {
    let session = &mut core.sessions[key];
    let Some(srtp) = &mut session.srtp else { return "srtp_no_keys" };
    let buffer = core.packets.store.buffer(id);
    buffer[..datagram.len()].copy_from_slice(datagram);
    let length = match srtp.unprotect_rtp(buffer, datagram.len()) {
        Ok(length) => length,
        Err(refusal) => return srtp_reason(refusal),
    };
    let Some(packet) = parse(&buffer[..length], now) else { return "rtp_malformed" };
    core.packets.store.set(id, packet, length);
    session.stats.packets_in += 1;
    session.stats.bytes_in += datagram.len() as u64;
    session.stats.last_media = now;
    let transport_seq = packet.extension(core.packets.store.data(id), session.transport_in_id);
    if let Some(&[high, low]) = transport_seq.filter(|_| session.transport_in_id != 0) {
        let transport_seq = u16::from_be_bytes([high, low]);
        note_transport_seq(core, key, transport_seq, now);
    }
    let listed = core.sessions[key].sources.get(&packet.ssrc).copied();
    let Some(source) = listed.or_else(|| learn(core, key, id, &packet)) else { return "rtp_unknown_ssrc" };
    let found = &mut core.sources[source];
    found.last_packet = now;
    let layer = found.layer;
    if found.detector.is_none() {
        return receive_repair(core, layer, id, &packet, now);
    }
    if core.layer(layer).source != Some(source) && !take_over(core, layer, source, now) {
        return "rtp_stale_ssrc";
    }
    account(core, layer, source, id, datagram.len(), now)
}

/// Count a packet of the source that plays its layer, and go on.
fn account(core: &mut State, layer: LayerKey, source: usize, id: u32, size: usize, now: i64) -> &'static str {
    let played = core.layer_mut(layer);
    played.rate.add(size, now);
    played.stats.bytes += size as u64;
    let packet = *core.packets.store.packet(id);
    let Some(detector) = &mut core.sources[source].detector else { return "rtp_unknown_ssrc" };
    let arrival = detector.received(packet.seq, now, Some(packet.timestamp));
    accept(core, layer, id, arrival, now)
}

/// Take one plaintext RTP packet of a track without session. Returns why it was dropped, or "".
pub fn inject(core: &mut State, key: LayerKey, plain: &[u8], now: i64) -> &'static str {
    if plain.len() > MAX_DATAGRAM {
        return "inject_oversize";
    }
    let Some(packet) = parse(plain, now) else { return "inject_malformed" };
    let id = take(core);
    core.packets.store.buffer(id)[..plain.len()].copy_from_slice(plain);
    core.packets.store.set(id, packet, plain.len());
    let source = source_of(core, key, packet.ssrc, packet.payload_type, now);
    core.sources[source].last_packet = now;
    let reason = account(core, key, source, id, plain.len(), now);
    give_back(core, id);
    match reason {
        "rtp_duplicate" => "inject_duplicate",
        "rtp_unknown_payload_type" => "inject_unknown_payload_type",
        other => other,
    }
}

/// The source of an SSRC of a track without session: the one that plays the layer, else a new one that does from now on.
pub fn source_of(core: &mut State, key: LayerKey, ssrc: u32, payload_type: u8, now: i64) -> usize {
    if let Some(source) = core.layer(key).source.filter(|&source| core.sources[source].ssrc == ssrc) {
        return source;
    }
    let clock = core.tracks[key.track].payload_type(payload_type).map_or(90_000, |kind| kind.clock_hz);
    let source = core.sources.insert(Source::new(ssrc, key, Some(LossDetector::new(clock)), true));
    take_over(core, key, source, now);
    source
}

/// Take a packet of a mirror, which was accepted where its track lives. Returns why it was dropped, or "".
pub fn accept_copy(
    core: &mut State,
    key: LayerKey,
    plain: &[u8],
    recovered: bool,
    arrival: i64,
    now: i64,
) -> &'static str {
    let Some(packet) = parse(plain, arrival).filter(|_| plain.len() <= SLOT) else { return "mirror_malformed" };
    let id = take(core);
    core.packets.store.buffer(id)[..plain.len()].copy_from_slice(plain);
    core.packets.store.set(id, packet, plain.len());
    let source = source_of(core, key, packet.ssrc, packet.payload_type, now);
    let source = &mut core.sources[source];
    source.last_packet = now;
    let kind = source.detector.as_mut().map_or(Arrival::Duplicate, |detector| {
        if recovered { detector.recovered(packet.seq) } else { detector.received(packet.seq, now, None) }
    });
    let before = core.layer(key).last_packet;
    let reason = accept(core, key, id, kind, now);
    let layer = core.layer_mut(key);
    if layer.last_packet != before {
        layer.last_packet = arrival.max(before); // it may be an older one, for those who begin in the middle
    }
    give_back(core, id);
    match reason {
        "rtp_duplicate" => "mirror_duplicate",
        "rtp_unknown_payload_type" => "mirror_unknown_payload_type",
        other => other,
    }
}

/// Name what SRTP refused.
pub fn srtp_reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Auth => "srtp_auth",
        Refusal::Replay => "srtp_replay",
        Refusal::Oversize => "srtp_oversize",
        Refusal::Malformed => "srtp_malformed",
        Refusal::Closed => "srtp_closed",
        Refusal::Streams => "srtp_streams",
    }
}

/// Unpack a retransmission into the stream it repairs (RFC 4588). One without payload is a bandwidth probe.
fn receive_repair(core: &mut State, layer: LayerKey, id: u32, packet: &Packet, now: i64) -> &'static str {
    if packet.payload_size() < 2 {
        return "";
    }
    let apt = core.tracks[layer.track].payload_type(packet.payload_type).and_then(|kind| kind.apt);
    let media = core.layer(layer).source;
    let (Some(apt), Some(media)) = (apt, media) else { return "rtx_unknown" };
    let media = &mut core.sources[media];
    let Some(detector) = &mut media.detector else { return "rtx_unknown" };
    let buffer = core.packets.store.buffer(id);
    let Some(original) = decapsulate_rtx(buffer, packet, media.ssrc, apt) else { return "rtx_unknown" };
    core.packets.store.set(id, original, original.payload_end as usize);
    let arrival = detector.recovered(original.seq);
    accept(core, layer, id, arrival, now)
}

/// One media packet of a layer, however it came.
fn accept(core: &mut State, key: LayerKey, id: u32, arrival: Arrival, now: i64) -> &'static str {
    if arrival == Arrival::Duplicate {
        return "rtp_duplicate";
    }
    let packet = *core.packets.store.packet(id);
    // A late packet of the format before this one must not bring that back.
    if i16::from(packet.payload_type) != core.layer(key).payload_type
        && (arrival == Arrival::Recovered || !change_payload_type(core, key, packet.payload_type, now))
    {
        return "rtp_unknown_payload_type";
    }
    let layer = core.layer_mut(key);
    layer.last_packet = now;
    layer.stats.packets += 1;
    match arrival {
        Arrival::Recovered => layer.stats.recovered += 1,
        Arrival::Reset => restart_players(core, key, now),
        _ => {}
    }
    let started = !core.layer(key).active;
    if started {
        start(core, key, now);
    }
    if core.detector(key).is_some_and(|detector| detector.missing() > 0) {
        check_losses(core, key, now);
    }
    mirrors::copy(core, key, id, arrival == Arrival::Recovered, now);
    if packet.payload_size() == 0 {
        flush(core);
        let State { tracks, slots, .. } = core;
        for &slot in tracks[key.track].layers[key.index].players.values() {
            slots[slot].rewriter.drop(packet.seq); // padding alone: those behind it close up
        }
        return "";
    }
    pass_on(core, key, id, &packet, arrival, started, now);
    ""
}

/// What a packet with a payload means to the layer, its taps and its slots.
fn pass_on(core: &mut State, key: LayerKey, id: u32, packet: &Packet, arrival: Arrival, started: bool, now: i64) {
    if id == SPARE {
        core.unkept += 1;
    }
    let layer = core.layer(key);
    let (start, end) = (packet.payload_offset as usize, packet.payload_end as usize);
    let descriptor = inspect(layer.inspected, core.packets.store.data(id), start, end);
    let mut decodable = descriptor.is_keyframe_start;
    let wanted = (started && !layer.waiters.is_empty()) || layer.keyframe_wanted;
    let track = &core.tracks[key.track];
    let (kind, muted) = (track.kind, track.muted);
    if kind == Kind::Video {
        if decodable {
            decodable = note_keyframe(core, key, packet, &descriptor);
        } else if wanted {
            request_keyframe(core, key, now);
        }
    } else if track.audio_level_id != 0 {
        note_level(core, key.track, id, packet, now);
    }
    if !core.layer(key).taps.is_empty() {
        tap(core, key, id, now);
    }
    if muted {
        return;
    }
    if kind == Kind::Video {
        note_recent(core, key, id, &descriptor, decodable && arrival != Arrival::Recovered);
    }
    if decodable && !core.layer(key).waiters.is_empty() && arrival != Arrival::Recovered {
        splice_waiters(core, key, packet, &descriptor, now);
    }
    if decodable && kind == Kind::Video {
        keyframe_came(core, key);
    }
    if !core.layer(key).players.is_empty() {
        queue(core, key, id, &descriptor, now);
    }
}

/// Find the layer of an SSRC that is heard for the first time: mid and rid, else the payload type (RFC 9143 9.2).
fn learn(core: &mut State, key: usize, id: u32, packet: &Packet) -> Option<usize> {
    let session = &core.sessions[key];
    let data = core.packets.store.data(id);
    let ids = session.extensions;
    let track = match extension(data, packet, &ids, MID) {
        Some(mid) => *session.tracks.get(&*String::from_utf8_lossy(mid))?,
        None => {
            let having = |track: &&usize| core.tracks[**track].payload_type(packet.payload_type).is_some();
            let mut having = session.tracks.values().filter(having);
            *having.next().filter(|_| having.next().is_none())?
        }
    };
    let kind = core.tracks[track].payload_type(packet.payload_type)?;
    let repair = kind.codec == "rtx";
    let detector = (!repair).then_some(kind.clock_hz);
    let layer = layer_by_rid(core, track, data, packet, &ids, repair)?;
    let learned = session.sources.values().filter(|&&source| core.sources[source].learned).count();
    if learned >= MAX_LEARNED {
        forget_oldest(core, key);
    }
    let source = Source::new(packet.ssrc, layer, detector.map(LossDetector::new), true);
    Some(core.list_source(key, source))
}

fn extension<'a>(data: &'a [u8], packet: &Packet, ids: &ExtensionIds, place: usize) -> Option<&'a [u8]> {
    let id = ids.0[place];
    if id == 0 { None } else { packet.extension(data, id) }
}

fn layer_by_rid(
    core: &State,
    track: usize,
    data: &[u8],
    packet: &Packet,
    ids: &ExtensionIds,
    repair: bool,
) -> Option<LayerKey> {
    let repaired = if repair { extension(data, packet, ids, REPAIRED_RID) } else { None };
    let layers = &core.tracks[track].layers;
    let index = match repaired.or_else(|| extension(data, packet, ids, RID)) {
        None if layers.len() == 1 => 0,
        None => return None,
        Some(rid) => {
            let name = String::from_utf8_lossy(rid);
            layers.iter().position(|layer| layer.stats.rid == name)?
        }
    };
    Some(LayerKey { track, index })
}

/// Make room among the learned SSRCs; one that plays a layer stays if there is any other.
fn forget_oldest(core: &mut State, key: usize) {
    let session = &core.sessions[key];
    let plays = |source: usize| core.layer(core.sources[source].layer).source == Some(source);
    let learned = session.sources.values().copied().filter(|&source| core.sources[source].learned);
    let oldest = learned.min_by_key(|&source| (plays(source), core.sources[source].last_packet));
    let Some(oldest) = oldest else { return };
    let (played, layer, ssrc) = (plays(oldest), core.sources[oldest].layer, core.sources[oldest].ssrc);
    if played {
        retire(core, layer);
    }
    core.unlist_source(key, ssrc);
}

/// Let another SSRC play the layer: a new one always, a former one only when the present one has gone silent.
fn take_over(core: &mut State, key: LayerKey, source: usize, now: i64) -> bool {
    if core.layer(key).source.is_some() {
        let former = core.sources[source].detector.as_ref().is_some_and(|detector| detector.highest >= 0);
        if former && now - core.layer(key).last_packet < core.config.layer_silence_us {
            return false;
        }
        retire(core, key);
        core.layer_mut(key).active = false;
        restart_players(core, key, now);
    }
    core.layer_mut(key).source = Some(source);
    mirrors::taken_over(core, key);
    true
}

/// Take the layer's source away, keeping what it counted.
fn retire(core: &mut State, key: LayerKey) {
    core.forget_recent(key);
    let given_up = core.detector(key).map_or(0, |detector| detector.given_up);
    let layer = core.layer_mut(key);
    layer.lost_before += given_up;
    if let Some(source) = layer.source.take() {
        core.release_source(source);
    }
}

/// The publisher sends another format from here on: whoever shows the layer starts anew at a decodable frame.
pub fn change_payload_type(core: &mut State, key: LayerKey, number: u8, now: i64) -> bool {
    let Some(kind) = core.tracks[key.track].payload_type(number) else { return false };
    let Some(codec) = Codec::by_name(&kind.codec) else { return false };
    let kind = kind.clone();
    let layer = core.layer_mut(key);
    layer.payload_type = i16::from(number);
    layer.stats.payload_type = layer.payload_type;
    layer.codec = Some(kind);
    layer.inspected = codec;
    layer.patched = codec.is_patched();
    layer.parameters_seen = false;
    layer.keyframe_timestamp = None;
    layer.active = false;
    restart_players(core, key, now);
    true
}

/// Packets come (again).
pub fn start(core: &mut State, key: LayerKey, now: i64) {
    let source = core.layer(key).source;
    let ssrc = source.map_or(0, |source| core.sources[source].ssrc);
    let track = &mut core.tracks[key.track];
    let (handle, session, mirrored) = (track.handle, track.session, track.mirror.is_some());
    let layer = &mut track.layers[key.index];
    layer.active = true;
    layer.stats.active = true;
    let payload_type = layer.payload_type;
    if !mirrored {
        core.events.push(Event::LayerStarted { track: handle, layer: key.index, ssrc, payload_type });
    }
    core.timers.set((Timer::Silence, handle, key.index as u32), now + core.config.layer_silence_us);
    replan_waiting(core, key.track, now, false); // this very packet may begin a keyframe
    if let Some(session) = session {
        let owner = core.sessions[session].handle;
        core.timers.set_if_none((Timer::ReceiverReport, owner, 0), now + core.config.report_interval_us);
    }
}

/// Stop a layer that has been silent for the configured time, or look again when it may have been.
pub fn silence_due(core: &mut State, key: LayerKey, now: i64) {
    let handle = core.tracks[key.track].handle;
    let layer = core.layer(key);
    if !layer.active {
        return;
    }
    let silent_at = layer.last_packet + core.config.layer_silence_us;
    if now < silent_at {
        core.timers.set((Timer::Silence, handle, key.index as u32), silent_at);
    } else {
        stop_layer(core, key, now);
    }
}

/// The layer fell silent or said goodbye.
pub fn stop_layer(core: &mut State, key: LayerKey, now: i64) {
    let track = &mut core.tracks[key.track];
    let (handle, mirrored) = (track.handle, track.mirror.is_some());
    let layer = &mut track.layers[key.index];
    if !layer.active {
        return;
    }
    layer.active = false;
    layer.stats.active = false;
    core.timers.cancel((Timer::Silence, handle, key.index as u32));
    core.timers.cancel((Timer::Nack, handle, key.index as u32));
    if !mirrored {
        core.events.push(Event::LayerStopped { track: handle, layer: key.index });
    }
    mirrors::stopped(core, key);
    replan_waiting(core, key.track, now, true);
}

/// Count a keyframe once. Returns whether a decoder can begin at this very packet.
///
/// An H264 picture may begin with its parameter sets in a packet of their own: where a publisher sends them in band,
/// one begins there and not at the slice that follows. GStreamer repeats them before every slice of a picture: only what
/// comes first of a timestamp begins it.
fn note_keyframe(core: &mut State, key: LayerKey, packet: &Packet, descriptor: &Descriptor) -> bool {
    let layer = core.layer_mut(key);
    let first = layer.keyframe_timestamp != Some(packet.timestamp);
    if first {
        layer.keyframe_timestamp = Some(packet.timestamp);
        layer.stats.keyframes += 1;
        if let Some(detector) = core.detector(key)
            && detector.missing() > 0
        {
            detector.keyframe(packet.seq);
        }
    }
    let layer = core.layer_mut(key);
    if descriptor.width != 0 {
        (layer.stats.width, layer.stats.height) = (descriptor.width, descriptor.height);
    }
    layer.parameters_seen |= descriptor.has_parameters;
    first && (descriptor.has_parameters || !layer.parameters_seen)
}

fn note_level(core: &mut State, key: usize, id: u32, packet: &Packet, now: i64) {
    let track = &mut core.tracks[key];
    let value = packet.extension(core.packets.store.data(id), track.audio_level_id);
    let Some((level, voice)) = value.and_then(parse_audio_level) else { return };
    track.loudness.add(level, voice, now);
    core.heard.insert(track.handle);
    core.timers.set_if_none((Timer::Loudness, 0, 0), now + WINDOW_US);
}

/// Tell how loud the tracks are that were heard since the last time.
pub fn loudness_due(core: &mut State, now: i64) {
    let mut levels = Vec::new();
    for handle in core.heard.drain() {
        let Some(&key) = core.track_keys.get(&handle) else { continue };
        let track = &mut core.tracks[key];
        if !track.muted {
            levels.push((handle, track.loudness.value(now) >> 8));
        }
    }
    mirrors::gather_levels(core, &mut levels, now);
    if !levels.is_empty() {
        levels.sort_unstable();
        core.events.push(Event::LoudnessMeasured { levels });
    }
}

fn tap(core: &mut State, key: LayerKey, id: u32, now: i64) {
    let injected = core.tracks[key.track].session.is_none() && core.tracks[key.track].mirror.is_none();
    let ids = (!injected).then(|| core.extension_ids(key.track));
    let State { tracks, tapped, taps_dropped, packets, .. } = core;
    let track = &tracks[key.track];
    for (&handle, tap) in &track.layers[key.index].taps {
        if tapped.len() < MAX_TAPPED && id != SPARE {
            packets.counts.retain(id);
            let rewrite = ids.filter(|_| tap.canonical);
            tapped.push(Copied { tap: handle, ring: tap.ring, packet: id, arrival: now, rewrite });
        } else {
            *taps_dropped += 1;
        }
    }
}
