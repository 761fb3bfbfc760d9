//! Sessions: opened, given new credentials and keys, closed.

use super::slots;
use super::{Done, FEEDBACK_SSRC, remove_track, unused};
use crate::core::binding::{for_each, plan};
use crate::core::contract::ExtensionIds;
use crate::core::sessions::Session;
use crate::core::state::{State, derive};
use crate::core::timers::Timer;
use crate::core::transport;
use crate::error::UsageError;
use crate::rtcp::{MAX_BLOCKS, build_bye, build_rr};
use crate::srtp::{Profile, Srtp};

pub fn open(core: &mut State, handle: u32, ufrag: String, password: String, extensions: ExtensionIds) -> Done {
    unused(&core.session_keys, handle)?;
    free_ufrag(core, &ufrag)?;
    let mut opened = Session::new(handle, ufrag.clone(), password, extensions);
    opened.feedback_ssrc = derive(core.config.seed, FEEDBACK_SSRC, handle) as u32;
    let key = core.sessions.insert(opened);
    core.session_keys.insert(handle, key);
    core.by_ufrag.insert(ufrag, key);
    Ok(())
}

fn free_ufrag(core: &State, ufrag: &str) -> Done {
    if ufrag.is_empty() || core.by_ufrag.contains_key(ufrag) {
        return Err(UsageError::new(format!("ufrag {ufrag:?} is empty or in use")));
    }
    Ok(())
}

pub fn restart_ice(core: &mut State, session: u32, ufrag: String, password: String) -> Done {
    let key = core.find_session(session)?;
    free_ufrag(core, &ufrag)?;
    let before = core.sessions[key].restart.replace((ufrag.clone(), password.into_bytes()));
    if let Some((before, _)) = before {
        core.by_ufrag.remove(&before);
    }
    core.by_ufrag.insert(ufrag, key);
    Ok(())
}

pub fn set_keys(core: &mut State, session: u32, profile: Profile, tx_key: &[u8], rx_key: &[u8], now: i64) -> Done {
    let key = core.find_session(session)?;
    if core.sessions[key].srtp.is_some() {
        return Err(UsageError::new(format!("session {session} has keys already")));
    }
    core.sessions[key].srtp = Some(Srtp::new(profile, tx_key, rx_key)?);
    for_each(core, |core| &core.sessions[key].slots, |core, slot| plan(core, slot, now, true));
    Ok(())
}

pub fn close(core: &mut State, key: usize) {
    let slots: Vec<usize> = core.sessions[key].slots.values().copied().collect();
    let playing = slots.iter().map(|&slot| &core.slots[slot]).filter(|slot| slot.stats.packets > 0);
    let ssrcs: Vec<u32> = playing.map(|slot| slot.ssrc).collect();
    let mut compound = Vec::new();
    for some in ssrcs.chunks(MAX_BLOCKS) {
        compound.clear();
        build_rr(some[0], &[], &mut compound);
        build_bye(some, &mut compound);
        core.send_control(key, &compound);
    }
    for slot in slots {
        slots::remove(core, slot);
    }
    let tracks: Vec<usize> = core.sessions[key].tracks.values().copied().collect();
    for track in tracks {
        remove_track(core, track);
    }
    transport::forget_all(core, key);
    let handle = core.sessions[key].handle;
    for timer in [Timer::TransportFeedback, Timer::ReceiverReport, Timer::Probe, Timer::Estimate] {
        core.timers.cancel((timer, handle, 0));
    }
    core.session_keys.remove(&handle);
    core.sessions.remove(key); // which zeroes the keys
}
