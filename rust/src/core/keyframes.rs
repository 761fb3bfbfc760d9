//! Keyframe requests to publishers: one per layer in an interval, the rest coalesced. The twin of
//! `relay/plane/reference/keyframes.py`.

use super::contract::{Event, Kind};
use super::mirrors::want;
use super::state::State;
use super::timers::{Key, Timer};
use super::tracks::LayerKey;
use crate::rtcp::{build_fir, build_pli};

/// Between a mirror's wishes.
const MIRROR_INTERVAL_US: i64 = 10_000;

fn timer(core: &State, layer: LayerKey) -> Key {
    (Timer::Keyframe, core.tracks[layer.track].handle, layer.index as u32)
}

/// Ask the layer's publisher for a keyframe, now or when the interval ends.
pub fn request_keyframe(core: &mut State, key: LayerKey, now: i64) {
    if core.tracks[key.track].kind != Kind::Video {
        return;
    }
    let timer = timer(core, key);
    let layer = core.layer_mut(key);
    if now < layer.keyframe_next {
        layer.keyframe_wanted = true;
        let next = layer.keyframe_next;
        core.timers.set(timer, next);
        return;
    }
    ask(core, key, now, false);
}

/// The interval ended: send what was remembered, or repeat what slots still wait for.
pub fn keyframe_due(core: &mut State, key: LayerKey, now: i64) {
    let muted = core.tracks[key.track].muted;
    let layer = core.layer(key);
    if layer.keyframe_wanted || (!layer.waiters.is_empty() && layer.active && !muted) {
        let still = !layer.keyframe_wanted;
        ask(core, key, now, still);
    }
}

/// A decodable frame began: earlier requests are served.
pub fn keyframe_came(core: &mut State, key: LayerKey) {
    let timer = timer(core, key);
    let layer = core.layer_mut(key);
    layer.keyframe_wanted = false;
    if layer.waiters.is_empty() {
        core.timers.cancel(timer);
    }
}

/// Send the request; one that cannot be sent yet stays wanted until the layer starts. `still`: nobody asked anew.
fn ask(core: &mut State, key: LayerKey, now: i64, still: bool) {
    let track = &mut core.tracks[key.track];
    let (handle, feedback) = (track.handle, track.feedback);
    let layer = &mut track.layers[key.index];
    let mirror = track.mirror;
    match track.session {
        None if mirror.is_some() => mirror.iter().for_each(|mirror| want(core, key, mirror.origin, still)),
        None => core.events.push(Event::KeyframeRequested { track: handle, layer: key.index }),
        Some(owner) => {
            let session = &core.sessions[owner];
            let (Some(source), true, true) = (layer.source, session.srtp.is_some(), session.selected.is_some()) else {
                layer.keyframe_wanted = true;
                return;
            };
            let (ssrc, sender) = (core.sources[source].ssrc, session.feedback_ssrc);
            let mut compound = std::mem::take(&mut core.scratch.control);
            compound.clear();
            if feedback.pli {
                build_pli(sender, ssrc, &mut compound);
            } else if feedback.fir {
                layer.fir_number = layer.fir_number.wrapping_add(1);
                build_fir(sender, ssrc, layer.fir_number, &mut compound);
            } else {
                layer.keyframe_wanted = false;
                core.scratch.control = compound;
                return;
            }
            core.send_control(owner, &compound);
            core.scratch.control = compound;
        }
    }
    // A mirror is only spared a storm of wishes: where the track lives they are coalesced.
    let interval = core.config.keyframe_interval_us;
    let next = now + if mirror.is_some() { interval.min(MIRROR_INTERVAL_US) } else { interval };
    let timer = timer(core, key);
    let layer = core.layer_mut(key);
    layer.stats.keyframe_requests += 1;
    layer.keyframe_wanted = false;
    layer.keyframe_next = next;
    core.timers.set(timer, next);
}
