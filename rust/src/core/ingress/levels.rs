//! How loud tracks are.

use crate::audio_level::{WINDOW_US, parse_audio_level};
use crate::core::contract::Event;
use crate::core::mirrors;
use crate::core::state::State;
use crate::core::timers::Timer;
use crate::rtp::Packet;

pub fn note_level(core: &mut State, key: usize, id: u32, packet: &Packet, now: i64) {
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
