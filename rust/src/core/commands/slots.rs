//! Slots: added, bound, paused, removed.

use super::{Done, RTX_SEQUENCE, SEQUENCE, TIMESTAMP, unused};
use crate::core::binding::{self, plan, serialiser, stop_playing, stop_waiting};
use crate::core::contract::{Kind, NewSlot, PayloadType, SlotStats, TRANSPORT_CC};
use crate::core::sessions::Slot;
use crate::core::state::{State, derive};
use crate::core::timers::Timer;
use crate::error::UsageError;
use crate::estimate::BandwidthEstimator;
use crate::history::{ResendBudget, SentLog};
use crate::rate::Rate;
use crate::rewrite::{PictureIds, Rewriter};

/// Repeats per slot: 8 Mbit/s, beyond which a NACK storm feeds itself.
const REPAIR_BYTES_PER_SECOND: u32 = 1_000_000;
/// Bytes: a lost keyframe of 200 packets can be repeated at once.
const REPAIR_BURST: u32 = 250_000;

pub fn add(core: &mut State, new: NewSlot) -> Done {
    unused(&core.slot_keys, new.slot)?;
    let owner = core.find_session(new.session)?;
    let session = &mut core.sessions[owner];
    let used = |ssrc: u32| session.slots_by_ssrc.contains_key(&ssrc);
    if used(new.ssrc) || new.rtx_ssrc.is_some_and(|rtx| rtx == new.ssrc || used(rtx)) {
        return Err(UsageError::new(format!("ssrcs {} and {:?} are in use", new.ssrc, new.rtx_ssrc)));
    }
    let config = &core.config;
    let ids = session.extensions;
    let transport_cc = new.feedback.transport_cc && ids.0[TRANSPORT_CC] != 0;
    let write = |ssrc: u32| serialiser(ssrc, &new.mid, transport_cc, &ids, None);
    let slot = Slot {
        handle: new.slot,
        session: owner,
        kind: new.kind,
        ssrc: new.ssrc,
        rtx_ssrc: new.rtx_ssrc,
        rtx_types: if new.rtx_ssrc.is_some() { rtx_types(&new.payload_types) } else { Vec::new() },
        payload_types: new.payload_types.into_iter().filter(|kind| kind.codec != "rtx").collect(),
        feedback: new.feedback,
        track: None,
        target: 0,
        wished_type: None,
        paused: false,
        playing: None,
        waiting: Vec::new(),
        out_type: 0,
        marker: 0,
        // Below 2**15, so that a receiver that misses the first packets cannot misjudge the rollover count
        // (RFC 3711 3.3.1).
        rewriter: Rewriter::new(
            derive(config.seed, SEQUENCE, new.slot) as u16 & 0x7FFF,
            derive(config.seed, TIMESTAMP, new.slot) as u32,
        ),
        pictures: PictureIds::default(),
        log: SentLog::new(if new.kind == Kind::Video { config.history_video } else { config.history_audio })?,
        budget: ResendBudget::new(REPAIR_BYTES_PER_SECOND, REPAIR_BURST),
        forwarding: None,
        serialiser: write(new.ssrc)?, // refuses what cannot be written, before anything is changed
        rtx_serialiser: new.rtx_ssrc.map(write).transpose()?,
        transport_cc,
        measured: false,
        rtx_seq: derive(config.seed, RTX_SEQUENCE, new.slot) as u16 & 0x7FFF,
        octets: 0,
        reported: 0,
        fir_number: None,
        rate: Rate::default(),
        stats: SlotStats::default(),
        mid: new.mid,
        cname: new.cname,
    };
    if session.estimator.is_none() {
        let estimator = BandwidthEstimator::new(config.estimate_start, config.estimate_max, config.estimate_min);
        session.estimator = Some(Box::new(estimator));
        session.stats.estimate = config.estimate_start;
    }
    let key = core.slots.insert(slot);
    core.slot_keys.insert(new.slot, key);
    session.slots.insert(new.slot, key);
    let numbered = session.slots.values().any(|&other| core.slots[other].transport_cc);
    for &other in session.slots.values() {
        // a number that is not sent would be taken for a lost packet
        let other = &mut core.slots[other];
        other.measured = other.transport_cc || !numbered;
    }
    session.slots_by_ssrc.insert(new.ssrc, key);
    if let Some(ssrc) = new.rtx_ssrc {
        session.slots_by_ssrc.insert(ssrc, key);
    }
    Ok(())
}

/// Payload type → that of its retransmissions; the last one counts.
fn rtx_types(payload_types: &[PayloadType]) -> Vec<(u8, u8)> {
    let mut found: Vec<(u8, u8)> = Vec::new();
    for kind in payload_types.iter().filter(|kind| kind.codec == "rtx") {
        let Some(apt) = kind.apt else { continue };
        match found.iter_mut().find(|pair| pair.0 == apt) {
            Some(pair) => pair.1 = kind.number,
            None => found.push((apt, kind.number)),
        }
    }
    found
}

pub fn bind(core: &mut State, slot: u32, track: Option<u32>, layer: i64, payload_type: Option<u8>, now: i64) -> Done {
    let key = core.find_slot(slot)?;
    let Some(track) = track else {
        binding::bind(core, key, None, 0, None, now);
        return Ok(());
    };
    let layer = core.find_layer(track, layer)?;
    let found = &core.slots[key];
    if core.tracks[layer.track].kind != found.kind {
        return Err(UsageError::new(format!("slot {slot} cannot play {:?}", core.tracks[layer.track].kind)));
    }
    if let Some(number) = payload_type
        && found.payload_types.iter().all(|kind| kind.number != number)
    {
        return Err(UsageError::new(format!("slot {slot} has no payload type {number}")));
    }
    binding::bind(core, key, Some(layer.track), layer.index, payload_type, now);
    Ok(())
}

pub fn set_layer(core: &mut State, slot: u32, layer: i64, now: i64) -> Done {
    let key = core.find_slot(slot)?;
    let Some(track) = core.slots[key].track else {
        return Err(UsageError::new(format!("slot {slot} is not bound")));
    };
    let layer = core.find_layer(core.tracks[track].handle, layer)?;
    core.slots[key].target = layer.index;
    plan(core, key, now, true);
    Ok(())
}

pub fn pause(core: &mut State, key: usize, paused: bool, now: i64) {
    if std::mem::replace(&mut core.slots[key].paused, paused) == paused {
        return;
    }
    if paused {
        stop_playing(core, key);
        clear_log(core, key);
    }
    plan(core, key, now, true);
}

fn clear_log(core: &mut State, key: usize) {
    let State { slots, packets, .. } = core;
    slots[key].log.clear(|packet| packets.counts.release(packet));
}

pub fn remove(core: &mut State, key: usize) {
    stop_playing(core, key);
    stop_waiting(core, key);
    clear_log(core, key);
    let slot = &core.slots[key];
    let handle = slot.handle;
    if let Some(track) = slot.track {
        core.tracks[track].slots.shift_remove(&handle);
    }
    core.timers.cancel((Timer::SenderReport, handle, 0));
    let session = &mut core.sessions[slot.session];
    session.slots.shift_remove(&handle);
    session.slots_by_ssrc.retain(|_, owner| *owner != key);
    core.slot_keys.remove(&handle);
    core.slots.remove(key);
}
