//! What comes from publishers: from an SRTP packet to the layer it belongs to, and on to taps and slots. The twin of
//! `relay/plane/reference/ingress.py`.

use super::MAX_DATAGRAM;
use super::binding::{note_recent, restart_players, splice_waiters};
use super::contract::{Kind, LayerStats};
use super::fanout::{flush, queue};
use super::feedback::{check_losses, note_transport_seq};
use super::keyframes::{keyframe_came, request_keyframe};
use super::mirrors;
use super::packets::{SLOT, SPARE};
use super::state::State;
use super::taps;
use super::tracks::LayerKey;
use crate::descriptors::inspect;
use crate::nack::Arrival;
use crate::rtp::{Packet, decapsulate_rtx, parse, timestamp_delta};
use crate::srtp::Refusal;

mod layers;
mod levels;
mod sources;

pub use layers::{change_payload_type, silence_due, start, stop_layer};
pub use levels::loudness_due;
pub use sources::source_of;

use layers::note_keyframe;
use levels::note_level;
use sources::{learn, take_over};

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

/// Remember when the newest frame began to come: by that others place its timestamp in time.
fn note_frame(stats: &mut LayerStats, packet: &Packet, arrival: Arrival, now: i64) {
    if packet.ssrc != stats.ssrc
        || stats.timestamp < 0
        || timestamp_delta(packet.timestamp, stats.timestamp as u32) > 0
        || arrival == Arrival::Reset
    {
        (stats.ssrc, stats.timestamp, stats.arrival_us) = (packet.ssrc, i64::from(packet.timestamp), now);
    }
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
    note_frame(&mut layer.stats, &packet, arrival, now);
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
        taps::put(core, key, id, now); // whoever counts packets behind a tap would miss its number
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
    taps::put(core, key, id, now);
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
