//! One track on several shards: where it lives, what comes in is noted for the shards that show it; there a mirror of
//! the track takes the notes in, so that its slots are served as if on one shard.
//!
//! A mirror receives by injection, with the header extension ids and the clock of the track's own session. It says
//! nothing of its own: layers, loudness and keyframes are told where the track lives.

use std::collections::HashMap;

use super::binding::for_each;
use super::commands::{Done, leave_session, receive_at, remove_track, unused};
use super::contract::{ExtensionIds, Kind, Media};
use super::ingress::{accept_copy, change_payload_type, source_of, start, stop_layer};
use super::keyframes::request_keyframe;
use super::packets::SPARE;
use super::state::State;
use super::timers::Timer;
use super::tracks::{LayerKey, Track};
use crate::audio_level::WINDOW_US;
use crate::lanes::{MAX_SHARDS, Note, What};

mod counts;

pub use counts::{forget_counts, hand_over};

use counts::add_counts;

/// Notes that wait for the end of a batch of datagrams.
const MAX_NOTES: usize = 4096;
/// A level of another shard holds so long: its windows and ours do not begin together.
const LEVEL_HOLDS_US: i64 = WINDOW_US + WINDOW_US / 2;

/// The bytes of a note that waits.
#[derive(Debug, Clone, Copy)]
enum Bytes {
    None,
    /// Those of a packet, which is held.
    Of(u32),
    /// A part of `Outbox::aside`.
    Aside(usize, usize),
}

/// What makes a track a mirror.
#[derive(Debug, Clone, Copy)]
pub struct Mirror {
    pub origin: u8, // the shard where it lives
    pub generation: u32,
    pub extensions: ExtensionIds,
    pub ntp_offset: Option<i64>,
    pub released: bool, // it goes as soon as nobody shows it
}

/// The shards that are told of a track.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shared {
    pub shards: u64,
    pub generation: u32,
}

/// Notes on their way to other shards: to whom, what, and the bytes that go along.
#[derive(Default)]
pub struct Outbox {
    pub own: u8,
    levels: HashMap<u32, (i64, i64)>, // of other shards' tracks, and when they came
    waiting: Vec<(u64, Note, Bytes)>,
    aside: Vec<u8>, // packets of the spare slot, which belongs to the next one before these notes are handed on
}

impl Outbox {
    /// Other shards' levels wait to be told.
    pub fn has_levels(&self) -> bool {
        !self.levels.is_empty()
    }
}

// --- commands ------------------------------------------------------------------------------------------------------

/// Make a mirror, or let one go on with what its track has become. The same generation again changes nothing.
pub fn mirror_track(core: &mut State, handle: u32, kind: Kind, media: Media, mirror: Mirror, now: i64) -> Done {
    let key = match core.find_track(handle) {
        Ok(key) => {
            if let Some(known) = &mut core.tracks[key].mirror
                && (known.generation, known.origin) == (mirror.generation, mirror.origin)
            {
                known.released = false;
                return Ok(());
            }
            leave_session(core, key);
            key
        }
        Err(_) => {
            unused(&core.track_keys, handle)?;
            let key = core.tracks.insert(Track::new(handle, kind));
            core.track_keys.insert(handle, key);
            key
        }
    };
    let track = &mut core.tracks[key];
    (track.mirror, track.shared) = (Some(mirror), Shared::default());
    receive_at(core, key, None, media);
    for_each(core, |core| &core.tracks[key].slots, |core, slot| super::binding::plan(core, slot, now, true));
    Ok(())
}

/// Forget a mirror: at once, or as soon as nobody shows it. Nothing happens when there is none.
pub fn drop_mirror(core: &mut State, handle: u32, at_once: bool) {
    let Ok(key) = core.find_track(handle) else { return };
    let Some(mirror) = &mut core.tracks[key].mirror else { return };
    mirror.released = true;
    if at_once {
        remove_track(core, key);
    } else {
        leave(core, key);
    }
}

/// Tell one more shard of a track, beginning with how it stands. A mirror is not told on.
pub fn share_track(core: &mut State, handle: u32, shard: u32, generation: u32, now: i64) -> Done {
    let key = core.find_track(handle)?;
    let track = &mut core.tracks[key];
    if track.mirror.is_some() || shard as usize >= MAX_SHARDS {
        return Ok(());
    }
    track.shared = Shared { shards: track.shared.shards | 1 << shard, generation };
    for index in 0..track.layers.len() {
        introduce(core, LayerKey { track: key, index }, 1 << shard, now);
    }
    Ok(())
}

/// A layer for shards that begin in the middle: its stream, its clock, and the video since a young keyframe.
fn introduce(core: &mut State, key: LayerKey, shards: u64, now: i64) {
    let layer = core.layer(key);
    let Some(source) = layer.source.map(|source| &core.sources[source]) else { return };
    let ssrc = source.ssrc;
    let first = layer.recent.first().map(|(first, _)| core.packets.store.packet(*first).arrival);
    let young = first.is_some_and(|arrival| now - arrival < core.config.keyframe_interval_us);
    if let Some(payload_type) = u8::try_from(layer.payload_type).ok().filter(|_| layer.active) {
        let keyframe_timestamp = layer.keyframe_timestamp.filter(|_| !young);

        let (last_packet, parameters_seen) = (layer.last_packet, layer.parameters_seen);
        let what = What::Started { ssrc, payload_type, last_packet, keyframe_timestamp, parameters_seen };
        note(core, key, shards, what, None);
    }
    report_to(core, key, shards);
    if young {
        for index in 0..core.layer(key).recent.len() {
            let id = core.layer(key).recent[index].0;
            let arrival = core.packets.store.packet(id).arrival;
            note(core, key, shards, What::Packet { arrival, recovered: false }, Some(id));
        }
    }
}

// --- where a track lives -------------------------------------------------------------------------------------------

fn note(core: &mut State, key: LayerKey, shards: u64, what: What, id: Option<u32>) {
    let State { tracks, outbox, packets, .. } = core;
    let track = &tracks[key.track];
    if outbox.waiting.len() >= MAX_NOTES {
        core.drop("mirror_overflow");
        return;
    }
    let bytes = match id {
        None => Bytes::None,
        Some(SPARE) => {
            let start = outbox.aside.len();
            outbox.aside.extend_from_slice(packets.store.data(SPARE));
            Bytes::Aside(start, outbox.aside.len())
        }
        Some(id) => {
            packets.counts.retain(id);
            Bytes::Of(id)
        }
    };
    let generation = track.mirror.map_or(track.shared.generation, |mirror| mirror.generation);
    let note = Note { from: outbox.own, track: track.handle, layer: key.index as u32, generation, what };
    outbox.waiting.push((shards, note, bytes));
}

/// A packet was accepted: note it for those who show the track elsewhere.
pub fn copy(core: &mut State, key: LayerKey, id: u32, recovered: bool, now: i64) {
    let shards = core.tracks[key.track].shared.shards;
    if shards != 0 {
        note(core, key, shards, What::Packet { arrival: now, recovered }, Some(id));
    }
}

pub fn stopped(core: &mut State, key: LayerKey) {
    let shards = core.tracks[key.track].shared.shards;
    if shards != 0 {
        note(core, key, shards, What::Stopped, None);
    }
}

/// Another SSRC plays a layer: its sender reports may have come before it.
pub fn taken_over(core: &mut State, key: LayerKey) {
    let shards = core.tracks[key.track].shared.shards;
    if shards != 0 {
        report_to(core, key, shards);
    }
}

fn report_to(core: &mut State, key: LayerKey, shards: u64) {
    let Some(source) = core.layer(key).source.map(|source| &core.sources[source]) else { return };
    if source.report_ntp == 0 {
        return;
    }
    let (ssrc, ntp, rtp, arrival) = (source.ssrc, source.report_ntp, source.report_rtp, source.report_arrival);
    let offset = core.ntp_offset(key.track);
    note(core, key, shards, What::Reported { ssrc, ntp, rtp, arrival, offset }, None);
}

/// A sender report came, which may have moved the clock of all of a session's tracks.
pub fn reported(core: &mut State, session: usize) {
    for place in 0..core.sessions[session].tracks.len() {
        let track = core.sessions[session].tracks[place];
        let shards = core.tracks[track].shared.shards;
        if shards != 0 {
            for index in 0..core.tracks[track].layers.len() {
                report_to(core, LayerKey { track, index }, shards);
            }
        }
    }
}

/// One event tells of all tracks: add what other shards measured lately, or leave it to the first shard to tell.
pub fn gather_levels(core: &mut State, levels: &mut Vec<(u32, i64)>, now: i64) {
    let outbox = &mut core.outbox;
    if outbox.own == 0 {
        outbox.levels.retain(|_, (_, came)| now - *came < LEVEL_HOLDS_US);
        levels.extend(outbox.levels.iter().map(|(&track, &(level, _))| (track, level)));
        return;
    }
    for (track, level) in levels.drain(..) {
        if outbox.waiting.len() < MAX_NOTES {
            let what = What::Level(level);
            outbox.waiting.push((1, Note { from: outbox.own, track, layer: 0, generation: 0, what }, Bytes::None));
        }
    }
}

/// A mirror's slots want a keyframe: ask where the track lives.
pub fn want(core: &mut State, key: LayerKey, origin: u8, still: bool) {
    note(core, key, 1 << origin, What::Wanted { still }, None);
}

/// Hand on what was noted: to which shards, what, and the packet's bytes.
pub fn drain(core: &mut State, mut give: impl FnMut(u64, &Note, &[u8]) -> u64) {
    let State { outbox, packets, drops, .. } = core;
    let Outbox { waiting, aside, .. } = outbox;
    for (shards, note, bytes) in waiting.drain(..) {
        let data = match bytes {
            Bytes::None => &[],
            Bytes::Of(id) => packets.store.data(id),
            Bytes::Aside(start, end) => &aside[start..end],
        };
        let refused = give(shards, &note, data);
        if let Bytes::Of(id) = bytes {
            packets.counts.release(id);
        }
        if refused != 0 {
            *drops.entry("mirror_full").or_insert(0) += u64::from(refused.count_ones());
        }
    }
    aside.clear();
}

// --- where it is mirrored ------------------------------------------------------------------------------------------

/// Take a note of another shard in.
pub fn take(core: &mut State, note: &Note, data: &[u8], now: i64) {
    if let What::Level(level) = note.what {
        core.outbox.levels.insert(note.track, (level, now));
        core.timers.set_if_none((Timer::Loudness, 0, 0), now + WINDOW_US);
        return;
    }
    let found = core.find_layer(note.track, i64::from(note.layer)).ok();
    match (note.what, found) {
        (What::Wanted { still }, Some(key)) => {
            if !still || now >= core.layer(key).keyframe_next {
                request_keyframe(core, key, now);
            }
        }
        (What::Left, Some(key)) => {
            core.tracks[key.track].shared.shards &= !(1u64.checked_shl(u32::from(note.from)).unwrap_or(0));
        }
        (What::Counted(counts), Some(key)) => add_counts(core, key, &counts),
        (What::Wanted { .. } | What::Left | What::Counted(_), None) => {}
        _ => take_in(core, note, found, data, now),
    }
}

/// Have a mirror follow where its track lives.
fn take_in(core: &mut State, note: &Note, found: Option<LayerKey>, data: &[u8], now: i64) {
    let Some(mirror) = core.track_keys.get(&note.track).map(|&key| core.tracks[key].mirror) else {
        let left = Note { from: core.outbox.own, what: What::Left, ..*note };
        if core.outbox.waiting.len() < MAX_NOTES {
            core.outbox.waiting.push((1 << note.from, left, Bytes::None));
        }
        return;
    };
    let (Some(key), Some(mirror)) = (found, mirror) else { return };
    if mirror.generation != note.generation || (mirror.released && leave(core, key.track)) {
        return;
    }
    match note.what {
        What::Packet { arrival, recovered } => {
            let reason = accept_copy(core, key, data, recovered, arrival, now);
            if !reason.is_empty() {
                core.drop(reason);
            }
        }
        What::Started { ssrc, payload_type, last_packet, keyframe_timestamp, parameters_seen } => {
            source_of(core, key, ssrc, payload_type, now);
            let layer = core.layer(key);
            if !layer.active
                && (layer.payload_type == i16::from(payload_type) || change_payload_type(core, key, payload_type, now))
            {
                let layer = core.layer_mut(key);
                (layer.keyframe_timestamp, layer.parameters_seen) = (keyframe_timestamp, parameters_seen);
                layer.last_packet = last_packet;
                start(core, key, now);
                if !core.layer(key).waiters.is_empty() {
                    request_keyframe(core, key, now);
                }
            }
        }
        What::Stopped => stop_layer(core, key, now),
        What::Reported { ssrc, ntp, rtp, arrival, offset } => {
            let payload_type = u8::try_from(core.layer(key).payload_type).unwrap_or(0);
            let source = source_of(core, key, ssrc, payload_type, now);
            let source = &mut core.sources[source];
            (source.report_ntp, source.report_rtp, source.report_arrival) = (ntp, rtp, arrival);
            if let Some(mirror) = &mut core.tracks[key.track].mirror {
                mirror.ntp_offset = offset;
            }
        }
        What::Wanted { .. } | What::Left | What::Level(_) | What::Counted(_) => {}
    }
}

/// Let go of a released mirror that nobody shows. Returns whether it went.
fn leave(core: &mut State, key: usize) -> bool {
    let track = &core.tracks[key];
    let Some(mirror) = track.mirror else { return false };
    let shown = track.layers.iter().any(|layer| !layer.players.is_empty());
    if shown || !track.slots.is_empty() || !track.taps.is_empty() {
        return false;
    }
    note(core, LayerKey { track: key, index: 0 }, 1 << mirror.origin, What::Left, None);
    remove_track(core, key);
    true
}

#[cfg(test)]
mod tests;
