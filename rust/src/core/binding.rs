//! Which layer a slot shows, which it waits for, and the splice from one to the other. The twin of
//! `relay/plane/reference/binding.py`, where the rules stand.

use super::contract::{ABS_SEND_TIME, Event, ExtensionIds, Kind, MID, PASSED_ON, PayloadType, TRANSPORT_CC};
use super::egress::forward;
use super::fanout::flush;
use super::keyframes::request_keyframe;
use super::packets::SPARE;
use super::sessions::Slot;
use super::state::State;
use super::timers::Timer;
use super::tracks::LayerKey;
use crate::arithmetic::mul_div;
use crate::descriptors::Descriptor;
use crate::error::UsageError;
use crate::rtcp::wall_us_from_ntp;
use crate::rtp::{Packet, timestamp_delta};
use crate::serialise::{Forwarding, Serialiser};

/// Half a second of 4 Mbit/s; a stream with more begins with a fresh keyframe instead.
const RECENT_PACKETS: usize = 192;
/// A sender report this soon after a splice lets the viewer synchronise lips at once.
const FIRST_REPORT_US: i64 = 20_000;
/// Sender reports that disagree with arrival by more than this are not believed.
const MAX_ALIGNMENT_S: i64 = 5;

/// Wish for a track and layer. None silences the slot at once.
pub fn bind(core: &mut State, key: usize, track: Option<usize>, layer: usize, payload_type: Option<u8>, now: i64) {
    let slot = &mut core.slots[key];
    let handle = slot.handle;
    let before = std::mem::replace(&mut slot.track, track);
    slot.target = layer;
    slot.wished_type = payload_type;
    let (playing, out_type) = (slot.playing, slot.out_type);
    if let Some(before) = before.filter(|_| before != track) {
        core.tracks[before].slots.shift_remove(&handle);
    }
    match track {
        None => stop_playing(core, key),
        Some(track) => {
            core.tracks[track].slots.insert(handle, key);
            if let Some(playing) = playing
                && playing.track == track
                && output_type(core, key, playing) != Some(out_type)
            {
                stop_playing(core, key);
            }
            if core.tracks[track].muted && core.tracks[track].kind == Kind::Audio {
                stop_playing(core, key); // nobody may be heard in the place of a muted host
            }
        }
    }
    plan(core, key, now, true);
}

/// Choose anew what the slot waits for and, when told to, ask for the keyframes that it needs.
///
/// A viewer that cannot be reached yet waits for nothing: the keyframe would be spent before it is connected.
pub fn plan(core: &mut State, key: usize, now: i64, ask: bool) {
    stop_waiting(core, key);
    let slot = &core.slots[key];
    let session = &core.sessions[slot.session];
    let Some(owner) = slot.track else { return };
    let track = &core.tracks[owner];
    if slot.paused || track.muted || session.srtp.is_none() || session.selected.is_none() {
        return;
    }
    let target = LayerKey { track: owner, index: slot.target.min(track.layers.len() - 1) };
    let playing = slot.playing;
    if playing == Some(target) {
        return;
    }
    let elsewhere = playing.is_none_or(|layer| layer.track != owner);
    wait(core, key, target);
    if playing.is_none() && start_from_recent(core, key, target, now) {
        return;
    }
    if !core.layer(target).active
        && elsewhere
        && let Some(fallback) = nearest_live(core, target)
    {
        wait(core, key, fallback);
    }
    if ask {
        for index in 0..core.slots[key].waiting.len() {
            let layer = core.slots[key].waiting[index];
            if core.layer(layer).active {
                request_keyframe(core, layer, now);
            }
        }
    }
}

/// A layer of the track started or stopped: slots that show nothing of the track may fall back differently.
pub fn replan_waiting(core: &mut State, track: usize, now: i64, ask: bool) {
    for_each(
        core,
        |core| &core.tracks[track].slots,
        |core, slot| {
            if core.slots[slot].playing.is_none_or(|layer| layer.track != track) {
                plan(core, slot, now, ask);
            }
        },
    );
}

/// Do something to the slots of a table, as they are before the first of them is touched.
pub fn for_each(
    core: &mut State,
    table: impl Fn(&State) -> &indexmap::IndexMap<u32, usize>,
    mut act: impl FnMut(&mut State, usize),
) {
    let mut slots = std::mem::take(&mut core.scratch.slots);
    slots.clear();
    slots.extend(table(core).values());
    for &slot in &slots {
        act(core, slot);
    }
    core.scratch.slots = slots;
}

/// The nearest live layer below, else above.
fn nearest_live(core: &State, target: LayerKey) -> Option<LayerKey> {
    let layers = &core.tracks[target.track].layers;
    let live = |index: &usize| layers[*index].active;
    let index = (0..target.index).rev().find(live).or_else(|| (target.index + 1..layers.len()).find(live))?;
    Some(LayerKey { index, ..target })
}

fn wait(core: &mut State, key: usize, layer: LayerKey) {
    let slot = &mut core.slots[key];
    slot.waiting.push(layer);
    let handle = slot.handle;
    core.layer_mut(layer).waiters.insert(handle, key);
}

/// Wait for nothing.
pub fn stop_waiting(core: &mut State, key: usize) {
    let State { slots, tracks, .. } = core;
    let slot = &mut slots[key];
    for layer in slot.waiting.drain(..) {
        tracks[layer.track].layers[layer.index].waiters.shift_remove(&slot.handle);
    }
}

/// Fall silent; sequence numbers and timestamps stay where they are.
pub fn stop_playing(core: &mut State, key: usize) {
    flush(core);
    let State { slots, tracks, .. } = core;
    let slot = &mut slots[key];
    if let Some(layer) = slot.playing.take() {
        tracks[layer.track].layers[layer.index].players.shift_remove(&slot.handle);
        (slot.stats.track, slot.stats.layer) = (-1, -1);
    }
}

/// The layer's stream broke off (another SSRC, codec or a reset): those who show it wait for a fresh start.
pub fn restart_players(core: &mut State, layer: LayerKey, now: i64) {
    core.forget_recent(layer);
    for_each(
        core,
        |core| &core.layer(layer).players,
        |core, slot| {
            stop_playing(core, slot);
            plan(core, slot, now, true);
        },
    );
}

/// The packet starts a decodable frame: take over every waiting slot that can carry its codec.
pub fn splice_waiters(core: &mut State, layer: LayerKey, packet: &Packet, descriptor: &Descriptor, now: i64) {
    for_each(
        core,
        |core| &core.layer(layer).waiters,
        |core, slot| {
            if let Some(out_type) = output_type(core, slot, layer) {
                splice(core, slot, layer, out_type, packet, descriptor, now);
            } else {
                stop_waiting_for(core, slot, layer); // waiting on would ask the publisher for keyframes for ever
            }
        },
    );
}

/// Remember the video since the latest decodable start, for slots that begin a moment later.
pub fn note_recent(core: &mut State, key: LayerKey, id: u32, descriptor: &Descriptor, starts: bool) {
    if starts || id == SPARE {
        core.forget_recent(key);
    }
    let State { tracks, packets, .. } = core;
    let recent = &mut tracks[key.track].layers[key.index].recent;
    if id == SPARE || (!starts && recent.is_empty()) {
        return;
    }
    packets.counts.retain(id);
    recent.push((id, *descriptor));
    if recent.len() > RECENT_PACKETS {
        core.forget_recent(key);
    }
}

/// Start a slot that shows nothing with the packets since a keyframe that is younger than the publisher may be asked
/// for another one. Of many viewers who come at once only the first waits for a keyframe. Returns whether it started.
fn start_from_recent(core: &mut State, key: usize, layer: LayerKey, now: i64) -> bool {
    let played = core.layer(layer);
    let Some((first, descriptor)) = played.recent.first().copied().filter(|_| played.active) else { return false };
    let packet = *core.packets.store.packet(first);
    if now - packet.arrival >= core.config.keyframe_interval_us {
        return false;
    }
    let Some(out_type) = output_type(core, key, layer) else { return false };
    splice(core, key, layer, out_type, &packet, &descriptor, now);
    let recent = std::mem::take(&mut core.layer_mut(layer).recent);
    for (id, descriptor) in &recent {
        forward(core, layer, key, *id, descriptor, now);
    }
    core.layer_mut(layer).recent = recent;
    true
}

fn stop_waiting_for(core: &mut State, key: usize, layer: LayerKey) {
    let slot = &mut core.slots[key];
    let handle = slot.handle;
    if let Some(place) = slot.waiting.iter().position(|other| *other == layer) {
        slot.waiting.remove(place);
    }
    core.layer_mut(layer).waiters.shift_remove(&handle);
}

fn splice(
    core: &mut State,
    key: usize,
    layer: LayerKey,
    out_type: u8,
    packet: &Packet,
    descriptor: &Descriptor,
    now: i64,
) {
    let Some(clock) = core.layer(layer).codec.as_ref().map(|codec| codec.clock_hz) else { return };
    flush(core);
    let alignment = alignment(core, key, layer, packet, clock);
    stop_playing(core, key);
    let last = core.tracks[layer.track].layers.len() - 1;
    let track = core.tracks[layer.track].handle;
    let slot = &mut core.slots[key];
    let handle = slot.handle;
    slot.playing = Some(layer);
    let arrived = slot.track == Some(layer.track) && layer.index == slot.target.min(last);
    core.layer_mut(layer).players.insert(handle, key);
    if arrived {
        stop_waiting(core, key);
    } else {
        stop_waiting_for(core, key, layer);
    }
    let slot = &mut core.slots[key];
    slot.out_type = out_type;
    slot.marker = if slot.kind == Kind::Audio { 0x80 } else { 0 };
    slot.rewriter.splice(packet.seq, packet.timestamp, now, clock, alignment);
    slot.pictures.splice(descriptor);
    use_extensions_of(core, key, layer.track);
    let slot = &mut core.slots[key];
    // the first packet after a splice always maps
    let Some((sequence, timestamp)) = slot.rewriter.rewrite(packet.seq, packet.timestamp, now) else { return };
    (slot.stats.track, slot.stats.layer) = (i64::from(track), layer.index as i64);
    slot.stats.switches += 1;
    let source_timestamp = slot.rewriter.timestamp_in(timestamp);
    let layer = layer.index;
    core.events.push(Event::SlotSwitched { slot: handle, track, layer, sequence, timestamp, source_timestamp });
    core.timers.set((Timer::SenderReport, handle, 0), now + FIRST_REPORT_US);
}

/// What to add to the new layer's timestamps to have those of the old layer of the same track, from sender reports.
///
/// None when there is nothing to align with, or when the publisher's reports contradict what arrives.
fn alignment(core: &State, key: usize, layer: LayerKey, packet: &Packet, clock: u32) -> Option<i64> {
    let slot = &core.slots[key];
    let old = slot.playing.filter(|old| old.track == layer.track && *old != layer)?;
    let old = &core.sources[core.layer(old).source?];
    let new = &core.sources[core.layer(layer).source?];
    if old.report_ntp == 0 || new.report_ntp == 0 {
        return None;
    }
    let clock = i64::from(clock);
    let apart = wall_us_from_ntp(new.report_ntp) - wall_us_from_ntp(old.report_ntp);
    let alignment = i64::from(old.report_rtp) - i64::from(new.report_rtp) + mul_div(apart, clock, 1_000_000);
    let out = slot.rewriter.timestamp_out(i64::from(packet.timestamp) + alignment);
    let ahead = timestamp_delta(out, slot.rewriter.last_timestamp());
    (-MAX_ALIGNMENT_S * clock < ahead && ahead < MAX_ALIGNMENT_S * clock).then_some(alignment)
}

/// Pass on the track's header extensions that the viewer has agreed on too.
fn use_extensions_of(core: &mut State, key: usize, track: usize) {
    let ids_in = core.extension_ids(track);
    let State { slots, sessions, packets, .. } = core;
    let slot = &mut slots[key];
    let ids_out = sessions[slot.session].extensions;
    let mut pairs = [(0, 0); PASSED_ON.len()];
    let mut count = 0;
    for place in PASSED_ON {
        if ids_in.0[place] != 0 && ids_out.0[place] != 0 {
            pairs[count] = (ids_in.0[place], ids_out.0[place]);
            count += 1;
        }
    }
    let Ok(forwarding) = Forwarding::new(&pairs[..count], false) else { return };
    if slot.forwarding == Some(forwarding) {
        return;
    }
    // What cannot be written was refused when the slot was added.
    let _ = make_serialisers(slot, &ids_out, Some(forwarding));
    if slot.payload_types.iter().any(|kind| slot.rtx_type(kind.number).is_none()) {
        // A repeat under the same SSRC must be byte for byte the first sending (RFC 7714 8.1); what was written with
        // the old serialiser no longer can be.
        slot.log.clear(|packet| packets.counts.release(packet));
    }
}

/// The serialiser of one of a slot's streams.
pub fn serialiser(
    ssrc: u32,
    mid: &str,
    transport_cc: bool,
    ids: &ExtensionIds,
    forwarding: Option<Forwarding>,
) -> Result<Serialiser, UsageError> {
    let fixed = [(ids.0[MID], mid.as_bytes())];
    let fixed = if ids.0[MID] != 0 { &fixed[..] } else { &[] };
    let transport_id = if transport_cc { ids.0[TRANSPORT_CC] } else { 0 };
    Serialiser::new(ssrc, fixed, transport_id, ids.0[ABS_SEND_TIME], forwarding)
}

/// Write the slot's headers from now on with these extensions passed on.
fn make_serialisers(slot: &mut Slot, ids: &ExtensionIds, forwarding: Option<Forwarding>) -> Result<(), UsageError> {
    slot.forwarding = forwarding;
    slot.serialiser = serialiser(slot.ssrc, &slot.mid, slot.transport_cc, ids, forwarding)?;
    if let Some(ssrc) = slot.rtx_ssrc {
        slot.rtx_serialiser = Some(serialiser(ssrc, &slot.mid, slot.transport_cc, ids, forwarding)?);
    }
    Ok(())
}

/// The slot's payload type for what the layer sends now; None when the slot has not negotiated that codec.
fn output_type(core: &State, key: usize, layer: LayerKey) -> Option<u8> {
    let slot = &core.slots[key];
    let codec: &PayloadType = core.layer(layer).codec.as_ref()?;
    let mut same = slot.payload_types.iter().filter(|kind| kind.codec == codec.codec);
    if let Some(wished) = slot.wished_type.filter(|_| slot.track == Some(layer.track)) {
        return same.find(|kind| kind.number == wished).map(|kind| kind.number);
    }
    let exact = same.clone().find(|kind| kind.profile == codec.profile);
    exact.or_else(|| same.next()).map(|kind| kind.number)
}
