//! Tracks: received at a session or by injection, moved, muted, removed.

use super::{Done, unused};
use crate::core::binding::{for_each, plan, stop_playing, stop_waiting};
use crate::core::contract::{AUDIO_LEVEL, Kind, LayerSpec, Media, TRANSPORT_CC};
use crate::core::mirrors::{self, Shared};
use crate::core::state::State;
use crate::core::timers::Timer;
use crate::core::tracks::{Layer, LayerKey, Source, Track};
use crate::descriptors::Codec;
use crate::error::UsageError;
use crate::nack::LossDetector;

pub fn add(core: &mut State, handle: u32, session: Option<u32>, kind: Kind, media: Media) -> Done {
    unused(&core.track_keys, handle)?;
    let session = session.map(|session| core.find_session(session)).transpose()?;
    check_media(core, session, &media, None)?;
    let key = core.tracks.insert(Track::new(handle, kind));
    core.track_keys.insert(handle, key);
    receive_at(core, key, session, media);
    Ok(())
}

/// Refuse what cannot be received; `moving` is a track whose own mid and SSRCs may be used again.
fn check_media(core: &State, session: Option<usize>, media: &Media, moving: Option<usize>) -> Done {
    if media.layers.is_empty() {
        return Err(UsageError::new("a track without layers"));
    }
    for kind in &media.payload_types {
        if Codec::by_name(&kind.codec).is_none() && kind.codec != "rtx" {
            return Err(UsageError::new(format!("codec {:?} cannot be forwarded", kind.codec)));
        }
        if kind.number >= 128 || kind.clock_hz == 0 {
            let (number, clock) = (kind.number, kind.clock_hz);
            return Err(UsageError::new(format!("payload type {number} with a clock of {clock} Hz")));
        }
    }
    let signalled: Vec<u32> = signalled(&media.layers).collect();
    if (1..signalled.len()).any(|at| signalled[..at].contains(&signalled[at])) {
        return Err(UsageError::new("one ssrc for two streams"));
    }
    let Some(session) = session.map(|session| &core.sessions[session]) else { return Ok(()) };
    if session.tracks.get(&media.mid).is_some_and(|&track| Some(track) != moving) {
        return Err(UsageError::new(format!("mid {:?} is in use", media.mid)));
    }
    for ssrc in signalled {
        if let Some(source) = session.sources.get(&ssrc).map(|&source| &core.sources[source])
            && !source.learned
            && Some(source.layer.track) != moving
        {
            return Err(UsageError::new(format!("ssrc {ssrc} is in use")));
        }
    }
    Ok(())
}

fn signalled(layers: &[LayerSpec]) -> impl Iterator<Item = u32> {
    layers.iter().flat_map(|layer| [layer.ssrc, layer.rtx_ssrc]).flatten()
}

/// Receive a track at an m-line of `session`, or by injection. Layers keep the counters of those before them.
pub fn receive_at(core: &mut State, key: usize, session: Option<usize>, media: Media) {
    let clock = media.payload_types.iter().find(|kind| kind.codec != "rtx").map_or(90_000, |kind| kind.clock_hz);
    let track = &mut core.tracks[key];
    track.session = session;
    track.mid.clone_from(&media.mid);
    track.payload_types.clear();
    for kind in media.payload_types {
        match track.payload_types.iter_mut().find(|known| known.number == kind.number) {
            Some(known) => *known = kind,
            None => track.payload_types.push(kind),
        }
    }
    track.feedback = media.feedback;
    let layers = media.layers.iter().map(|spec| Layer::new(spec.rid.clone())).collect();
    let old = std::mem::replace(&mut track.layers, layers);
    for (before, layer) in old.into_iter().zip(&mut track.layers) {
        let rid = std::mem::take(&mut layer.stats.rid);
        layer.stats = before.stats;
        layer.stats.rid = rid;
        layer.stats.active = false;
        layer.lost_before = before.lost_before;
    }
    for (&tap, &copy) in &track.taps {
        if let Some(layer) = track.layers.get_mut(copy.index) {
            layer.taps.insert(tap, copy);
        }
    }
    let level_id = core.extension_ids(key).0[AUDIO_LEVEL];
    let track = &mut core.tracks[key];
    track.audio_level_id = if track.kind == Kind::Audio && track.mirror.is_none() { level_id } else { 0 };
    let Some(session) = session else { return };
    core.sessions[session].tracks.insert(media.mid, key);
    for (index, spec) in media.layers.iter().enumerate() {
        let layer = LayerKey { track: key, index };
        if let Some(ssrc) = spec.ssrc {
            core.list_source(session, Source::new(ssrc, layer, Some(LossDetector::new(clock)), false));
        }
        if let Some(ssrc) = spec.rtx_ssrc {
            core.list_source(session, Source::new(ssrc, layer, None, false));
        }
    }
    choose_feedback(core, session);
}

fn choose_feedback(core: &mut State, key: usize) {
    let session = &mut core.sessions[key];
    let wanted = session.tracks.values().any(|&track| core.tracks[track].feedback.transport_cc);
    session.transport_in_id = if wanted { session.extensions.0[TRANSPORT_CC] } else { 0 };
}

/// Stop receiving a track where it is received now.
pub fn leave_session(core: &mut State, key: usize) {
    let handle = core.tracks[key].handle;
    for index in 0..core.tracks[key].layers.len() {
        let layer = LayerKey { track: key, index };
        core.forget_recent(layer);
        for_each(core, |core| &core.layer(layer).players, stop_playing);
        for_each(core, |core| &core.layer(layer).waiters, stop_waiting);
        for timer in [Timer::Nack, Timer::Keyframe, Timer::Silence] {
            core.timers.cancel((timer, handle, index as u32));
        }
        let given_up = core.detector(layer).map_or(0, |detector| detector.given_up);
        let left = core.layer_mut(layer);
        left.lost_before += given_up;
        if let Some(source) = left.source.take() {
            core.release_source(source);
        }
    }
    let Some(owner) = core.tracks[key].session else { return };
    core.sessions[owner].tracks.shift_remove(&core.tracks[key].mid);
    let session = &core.sessions[owner];
    let theirs = session.sources.iter().filter(|(_, source)| core.sources[**source].layer.track == key);
    let ssrcs: Vec<u32> = theirs.map(|(ssrc, _)| *ssrc).collect();
    for ssrc in ssrcs {
        core.unlist_source(owner, ssrc);
    }
    choose_feedback(core, owner);
    if core.sessions[owner].tracks.is_empty() {
        core.timers.cancel((Timer::ReceiverReport, core.sessions[owner].handle, 0));
    }
}

pub fn remove_track(core: &mut State, key: usize) {
    leave_session(core, key);
    for_each(
        core,
        |core| &core.tracks[key].slots,
        |core, slot| {
            core.slots[slot].track = None;
            stop_playing(core, slot);
        },
    );
    let track = &core.tracks[key];
    let handle = track.handle;
    for tap in track.taps.keys() {
        core.taps.remove(tap);
    }
    core.heard.remove(&handle);
    if core.heard.is_empty() && !core.outbox.has_levels() {
        core.timers.cancel((Timer::Loudness, 0, 0));
    }
    core.track_keys.remove(&handle);
    core.tracks.remove(key);
}

pub fn relocate(core: &mut State, track: u32, session: u32, media: Media, now: i64) -> Done {
    let key = core.find_track(track)?;
    let session = core.find_session(session)?;
    check_media(core, Some(session), &media, Some(key))?;
    leave_session(core, key);
    mirrors::forget_counts(core, key);
    let track = &mut core.tracks[key];
    (track.mirror, track.shared) = (None, Shared::default());
    receive_at(core, key, Some(session), media);
    for_each(core, |core| &core.tracks[key].slots, |core, slot| plan(core, slot, now, true));
    Ok(())
}

pub fn mute(core: &mut State, key: usize, muted: bool, now: i64) {
    if std::mem::replace(&mut core.tracks[key].muted, muted) == muted {
        return;
    }
    for index in 0..core.tracks[key].layers.len() {
        core.forget_recent(LayerKey { track: key, index });
        if muted {
            for_each(core, |core| &core.tracks[key].layers[index].players, stop_playing);
        }
    }
    let silences = muted && core.tracks[key].kind == Kind::Audio;
    for_each(
        core,
        |core| &core.tracks[key].slots,
        |core, slot| {
            if silences {
                stop_playing(core, slot);
            }
            plan(core, slot, now, true);
        },
    );
}
