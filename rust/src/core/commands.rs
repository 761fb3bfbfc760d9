//! Commands: what Python may ask of the plane. Each is checked first, so that a wrong one changes nothing. The twin of
//! `relay/plane/reference/commands.py`.

use std::collections::HashMap;

use super::binding::{bind, for_each, plan, serialiser, stop_playing, stop_waiting};
use super::contract::{AUDIO_LEVEL, Command, Kind, LayerSpec, Media, NewSlot, PayloadType, TRANSPORT_CC};
use super::egress::start_probe;
use super::keyframes::request_keyframe;
use super::mirrors::{self, Mirror, Shared};
use super::state::{Layer, LayerKey, Session, Slot, Source, State, Tap, Track, derive};
use super::timers::Timer;
use super::transport;
use crate::descriptors::Codec;
use crate::error::UsageError;
use crate::estimate::BandwidthEstimator;
use crate::history::{ResendBudget, SentLog};
use crate::nack::LossDetector;
use crate::rate::Rate;
use crate::rewrite::{PictureIds, Rewriter};
use crate::rtcp::{MAX_BLOCKS, build_bye, build_rr};
use crate::srtp::{Profile, Srtp};

// purposes of `derive`
const FEEDBACK_SSRC: u64 = 0;
const SEQUENCE: u64 = 1;
const TIMESTAMP: u64 = 2;
const RTX_SEQUENCE: u64 = 3;
/// Repeats per slot: 8 Mbit/s, beyond which a NACK storm feeds itself.
const REPAIR_BYTES_PER_SECOND: u32 = 1_000_000;
/// Bytes: a lost keyframe of 200 packets can be repeated at once.
const REPAIR_BURST: u32 = 250_000;

pub type Done = Result<(), UsageError>;

/// Carry out one command. UsageError for a handle that is unknown or in use, and for contradictions.
pub fn apply(core: &mut State, command: Command, now: i64) -> Done {
    match command {
        Command::OpenSession { shard, .. } if shard != 0 => {
            return Err(UsageError::new(format!("no shard {shard}")));
        }
        Command::OpenSession { session, ufrag, password, extensions, .. } => {
            unused(&core.session_keys, session)?;
            free_ufrag(core, &ufrag)?;
            let mut opened = Session::new(session, ufrag.clone(), password, extensions);
            opened.feedback_ssrc = derive(core.config.seed, FEEDBACK_SSRC, session) as u32;
            let key = core.sessions.insert(opened);
            core.session_keys.insert(session, key);
            core.by_ufrag.insert(ufrag, key);
        }
        Command::RestartIce { session, ufrag, password } => restart_ice(core, session, ufrag, password)?,
        Command::SetKeys { session, profile, tx_key, rx_key } => {
            set_keys(core, session, profile, &tx_key, &rx_key, now)?
        }
        Command::SendDtls { session, datagram } => {
            let session = core.find_session(session)?;
            transport::send_dtls(core, session, &datagram);
        }
        Command::CloseSession { session } => {
            let session = core.find_session(session)?;
            close_session(core, session);
        }
        Command::AddTrack { track, session, kind, media } => add_track(core, track, session, kind, media)?,
        Command::RemoveTrack { track } => {
            let track = core.find_track(track)?;
            remove_track(core, track);
        }
        Command::MoveTrack { track, session, media } => move_track(core, track, session, media, now)?,
        Command::MuteTrack { track, muted } => {
            let track = core.find_track(track)?;
            mute_track(core, track, muted, now);
        }
        Command::RequestKeyframe { track, layer } => {
            let layer = core.find_layer(track, layer)?;
            request_keyframe(core, layer, now);
        }
        Command::AddSlot(new) => add_slot(core, new)?,
        Command::BindSlot { slot, track, layer, payload_type } => {
            bind_slot(core, slot, track, layer, payload_type, now)?
        }
        Command::SetLayer { slot, layer } => set_layer(core, slot, layer, now)?,
        Command::PauseSlot { slot, paused } => {
            let slot = core.find_slot(slot)?;
            pause_slot(core, slot, paused, now);
        }
        Command::RemoveSlot { slot } => {
            let slot = core.find_slot(slot)?;
            remove_slot(core, slot);
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

fn free_ufrag(core: &State, ufrag: &str) -> Done {
    if ufrag.is_empty() || core.by_ufrag.contains_key(ufrag) {
        return Err(UsageError::new(format!("ufrag {ufrag:?} is empty or in use")));
    }
    Ok(())
}

fn restart_ice(core: &mut State, session: u32, ufrag: String, password: String) -> Done {
    let key = core.find_session(session)?;
    free_ufrag(core, &ufrag)?;
    let before = core.sessions[key].restart.replace((ufrag.clone(), password.into_bytes()));
    if let Some((before, _)) = before {
        core.by_ufrag.remove(&before);
    }
    core.by_ufrag.insert(ufrag, key);
    Ok(())
}

fn set_keys(core: &mut State, session: u32, profile: Profile, tx_key: &[u8], rx_key: &[u8], now: i64) -> Done {
    let key = core.find_session(session)?;
    if core.sessions[key].srtp.is_some() {
        return Err(UsageError::new(format!("session {session} has keys already")));
    }
    core.sessions[key].srtp = Some(Srtp::new(profile, tx_key, rx_key)?);
    for_each(core, |core| &core.sessions[key].slots, |core, slot| plan(core, slot, now, true));
    Ok(())
}

fn close_session(core: &mut State, key: usize) {
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
        remove_slot(core, slot);
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

fn add_track(core: &mut State, handle: u32, session: Option<u32>, kind: Kind, media: Media) -> Done {
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

fn move_track(core: &mut State, track: u32, session: u32, media: Media, now: i64) -> Done {
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

fn mute_track(core: &mut State, key: usize, muted: bool, now: i64) {
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

fn add_slot(core: &mut State, new: NewSlot) -> Done {
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
        stats: super::contract::SlotStats::default(),
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

fn bind_slot(core: &mut State, slot: u32, track: Option<u32>, layer: i64, payload_type: Option<u8>, now: i64) -> Done {
    let key = core.find_slot(slot)?;
    let Some(track) = track else {
        bind(core, key, None, 0, None, now);
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
    bind(core, key, Some(layer.track), layer.index, payload_type, now);
    Ok(())
}

fn set_layer(core: &mut State, slot: u32, layer: i64, now: i64) -> Done {
    let key = core.find_slot(slot)?;
    let Some(track) = core.slots[key].track else {
        return Err(UsageError::new(format!("slot {slot} is not bound")));
    };
    let layer = core.find_layer(core.tracks[track].handle, layer)?;
    core.slots[key].target = layer.index;
    plan(core, key, now, true);
    Ok(())
}

fn pause_slot(core: &mut State, key: usize, paused: bool, now: i64) {
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

fn remove_slot(core: &mut State, key: usize) {
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

fn remove_tap(core: &mut State, tap: u32) -> Done {
    let track = core.taps.remove(&tap).ok_or_else(|| UsageError::new(format!("no tap {tap}")))?;
    let track = &mut core.tracks[track];
    let copy = track.taps.shift_remove(&tap);
    if let Some(layer) = copy.and_then(|copy| track.layers.get_mut(copy.index)) {
        layer.taps.shift_remove(&tap);
    }
    Ok(())
}
