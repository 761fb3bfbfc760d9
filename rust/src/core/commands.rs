//! Commands: what Python may ask of the plane. Each is checked first, so that a wrong one changes nothing. The twin of
//! `relay/plane/reference/commands.py`.

use std::collections::HashMap;

use super::contract::Command;
use super::egress::start_probe;
use super::keyframes::request_keyframe;
use super::mirrors::{self, Mirror};
use super::state::State;
use super::tracks::Tap;
use super::transport;
use crate::error::UsageError;

mod sessions;
mod slots;
mod tracks;

pub use tracks::{leave_session, receive_at, remove_track};

// purposes of `derive`
const FEEDBACK_SSRC: u64 = 0;
const SEQUENCE: u64 = 1;
const TIMESTAMP: u64 = 2;
const RTX_SEQUENCE: u64 = 3;

pub type Done = Result<(), UsageError>;

/// Carry out one command. UsageError for a handle that is unknown or in use, and for contradictions.
pub fn apply(core: &mut State, command: Command, now: i64) -> Done {
    match command {
        Command::OpenSession { shard, .. } if shard != 0 => {
            return Err(UsageError::new(format!("no shard {shard}")));
        }
        Command::OpenSession { session, ufrag, password, extensions, .. } => {
            sessions::open(core, session, ufrag, password, extensions)?;
        }
        Command::RestartIce { session, ufrag, password } => sessions::restart_ice(core, session, ufrag, password)?,
        Command::SetKeys { session, profile, tx_key, rx_key } => {
            sessions::set_keys(core, session, profile, &tx_key, &rx_key, now)?
        }
        Command::SendDtls { session, datagram } => {
            let session = core.find_session(session)?;
            transport::send_dtls(core, session, &datagram);
        }
        Command::CloseSession { session } => {
            let session = core.find_session(session)?;
            sessions::close(core, session);
        }
        Command::AddTrack { track, session, kind, media } => tracks::add(core, track, session, kind, media)?,
        Command::RemoveTrack { track } => {
            let track = core.find_track(track)?;
            remove_track(core, track);
        }
        Command::MoveTrack { track, session, media } => tracks::relocate(core, track, session, media, now)?,
        Command::MuteTrack { track, muted } => {
            let track = core.find_track(track)?;
            tracks::mute(core, track, muted, now);
        }
        Command::RequestKeyframe { track, layer } => {
            let layer = core.find_layer(track, layer)?;
            request_keyframe(core, layer, now);
        }
        Command::AddSlot(new) => slots::add(core, new)?,
        Command::BindSlot { slot, track, layer, payload_type } => {
            slots::bind(core, slot, track, layer, payload_type, now)?
        }
        Command::SetLayer { slot, layer } => slots::set_layer(core, slot, layer, now)?,
        Command::PauseSlot { slot, paused } => {
            let slot = core.find_slot(slot)?;
            slots::pause(core, slot, paused, now);
        }
        Command::RemoveSlot { slot } => {
            let slot = core.find_slot(slot)?;
            slots::remove(core, slot);
        }
        Command::ProbeBandwidth { session, bitrate, duration_us } => {
            let session = core.find_session(session)?;
            start_probe(core, session, bitrate, duration_us, now);
        }
        Command::AddTap { tap, track, layer, ring, canonical } => {
            unused(&core.taps, tap)?;
            let layer = core.find_layer(track, layer)?;
            let copy = Tap { index: layer.index, ring, canonical };
            core.taps.insert(tap, layer.track);
            core.tracks[layer.track].taps.insert(tap, copy);
            core.layer_mut(layer).taps.insert(tap, copy);
        }
        Command::RemoveTap { tap } => remove_tap(core, tap)?,
        Command::MirrorTrack { track, kind, media, origin, generation, extensions } => {
            let mirror = Mirror { origin, generation, extensions, ntp_offset: None, released: false };
            mirrors::mirror_track(core, track, kind, media, mirror, now)?
        }
        Command::DropMirror { track, at_once } => mirrors::drop_mirror(core, track, at_once),
        Command::HandOverTrack { track, shard } => mirrors::hand_over(core, track, shard),
        Command::ShareTrack { track, shard, generation } => mirrors::share_track(core, track, shard, generation, now)?,
        Command::RemoveRingTaps { ring } => {
            let State { taps, tracks, .. } = core;
            let goes_there =
                |(tap, track): (&u32, &usize)| (tracks[*track].taps[tap].ring == Some(ring)).then_some(*tap);
            for tap in taps.iter().filter_map(goes_there).collect::<Vec<_>>() {
                remove_tap(core, tap)?;
            }
        }
    }
    Ok(())
}

pub fn unused<T>(table: &HashMap<u32, T>, handle: u32) -> Done {
    if table.contains_key(&handle) {
        return Err(UsageError::new(format!("handle {handle} is in use")));
    }
    Ok(())
}

fn remove_tap(core: &mut State, tap: u32) -> Done {
    let track = core.taps.remove(&tap).ok_or_else(|| UsageError::new(format!("no tap {tap}")))?;
    let track = &mut core.tracks[track];
    let copy = track.taps.shift_remove(&tap);
    if let Some(layer) = copy.and_then(|copy| track.layers.get_mut(copy.index)) {
        layer.taps.shift_remove(&tap);
    }
    Ok(())
}
