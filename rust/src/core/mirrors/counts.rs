//! What was counted of a track goes along when it moves to another shard.

use super::note;
use crate::core::contract::LayerStats;
use crate::core::state::State;
use crate::core::tracks::LayerKey;
use crate::lanes::What;

/// A track goes to live elsewhere: what was counted of it goes along.
pub fn hand_over(core: &mut State, handle: u32, shard: u32) {
    let Ok(track) = core.find_track(handle) else { return };
    for index in 0..core.tracks[track].layers.len() {
        let key = LayerKey { track, index };
        let lost = core.layer(key).lost_before + core.detector(key).map_or(0, |detector| detector.given_up);
        let stats = &core.layer(key).stats;
        let counts = [
            stats.packets,
            stats.bytes,
            lost as u64,
            stats.recovered,
            stats.nacks_sent,
            stats.keyframes,
            stats.keyframe_requests,
            u64::from(stats.width),
            u64::from(stats.height),
            stats.jitter_us as u64,
            u64::from(stats.ssrc),
            stats.timestamp as u64,
            stats.arrival_us as u64,
        ];
        note(core, key, 1u64.checked_shl(shard).unwrap_or(0), What::Counted(counts), None);
    }
}

pub(super) fn add_counts(core: &mut State, key: LayerKey, counts: &[u64; 13]) {
    let layer = core.layer_mut(key);
    let [packets, bytes, lost, recovered, nacks_sent, keyframes, keyframe_requests, sizes @ .., ssrc, at, came] =
        *counts;
    let [width, height, jitter_us] = sizes;
    layer.lost_before += lost as i64;
    let stats = &mut layer.stats;
    stats.packets += packets;
    stats.bytes += bytes;
    stats.recovered += recovered;
    stats.nacks_sent += nacks_sent;
    stats.keyframes += keyframes;
    stats.keyframe_requests += keyframe_requests;
    stats.jitter_us = jitter_us as i64;
    if stats.width == 0 {
        (stats.width, stats.height) = (width as u16, height as u16);
    }
    if stats.timestamp < 0 {
        (stats.ssrc, stats.timestamp, stats.arrival_us) = (ssrc as u32, at as i64, came as i64);
    }
}

/// A mirror becomes the track itself: what it counted was counted where the track lived too.
pub fn forget_counts(core: &mut State, key: usize) {
    let track = &mut core.tracks[key];
    if track.mirror.is_some() {
        for layer in &mut track.layers {
            layer.lost_before = 0;
            layer.stats = LayerStats::new(std::mem::take(&mut layer.stats.rid));
        }
    }
}
