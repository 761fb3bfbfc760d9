//! The tables of the plane: sessions, tracks with their layers and sources, slots, and what waits to go out.
//!
//! The twin of `relay/plane/reference/state.py`. Where Python holds a reference this holds a key; a key dies with the
//! last table that names it. Iteration is in order of insertion everywhere, which makes it part of the specification.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::contract::{Address, Event, ExtensionIds, INJECT_EXTENSIONS, PlaneConfig};
use super::fanout::{self, Fanout};
use super::keyed::Keyed;
use super::mirrors::Outbox;
use super::packets::Packets;
use super::sessions::{Session, Slot};
use super::taps::TapQueue;
use super::timers::Timers;
use super::tracks::{Layer, LayerKey, Source, Track};
use crate::error::UsageError;
use crate::nack::LossDetector;
use crate::out::OutBatch;
use crate::transport_cc;

/// 64 random-looking bits for one purpose of one handle: splitmix64 over the three.
///
/// A function of its arguments, not a stream, so that the order of commands does not matter.
pub fn derive(seed: u64, purpose: u64, handle: u32) -> u64 {
    let mut x = seed;
    for word in [purpose, u64::from(handle)] {
        x = x.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(word + 1));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^= x >> 31;
    }
    x
}

/// Buffers that are taken for the length of one call.
#[derive(Default)]
pub struct Scratch {
    pub control: Vec<u8>,
    pub received: Vec<u8>,
    pub lost: Vec<u16>,
    pub slots: Vec<usize>,
    pub feedback: transport_cc::Feedback,
}

/// Everything the plane knows.
pub struct State {
    pub config: PlaneConfig,
    pub now: i64,
    pub sessions: Keyed<Session>,
    pub tracks: Keyed<Track>,
    pub slots: Keyed<Slot>,
    pub sources: Keyed<Source>,
    pub session_keys: HashMap<u32, usize>,
    pub track_keys: HashMap<u32, usize>,
    pub slot_keys: HashMap<u32, usize>,
    pub taps: HashMap<u32, usize>, // handle → track
    pub by_address: HashMap<Address, usize>,
    pub by_ufrag: HashMap<String, usize>,
    pub timers: Timers,
    pub packets: Packets,
    pub out: OutBatch,
    pub fanout: Fanout,
    pub outbox: Outbox,
    pub events: Vec<Event>,
    pub tapped: TapQueue,
    pub unkept: u64,         // packets that came when no slot was free
    pub heard: HashSet<u32>, // audio tracks with a level since the last LoudnessMeasured
    pub drops: IndexMap<&'static str, u64>,
    pub handled: u64,
    pub datagrams_in: u64,
    pub bytes_in: u64,
    pub scratch: Scratch,
}

impl State {
    pub fn new(config: PlaneConfig, packets: Packets) -> Self {
        Self {
            packets,
            config,
            now: 0,
            sessions: Keyed::default(),
            tracks: Keyed::default(),
            slots: Keyed::default(),
            sources: Keyed::default(),
            session_keys: HashMap::new(),
            track_keys: HashMap::new(),
            slot_keys: HashMap::new(),
            taps: HashMap::new(),
            by_address: HashMap::new(),
            by_ufrag: HashMap::new(),
            timers: Timers::default(),
            out: OutBatch::default(),
            fanout: Fanout::default(),
            outbox: Outbox::default(),
            events: Vec::new(),
            tapped: TapQueue::default(),
            unkept: 0,
            heard: HashSet::new(),
            drops: IndexMap::new(),
            handled: 0,
            datagrams_in: 0,
            bytes_in: 0,
            scratch: Scratch::default(),
        }
    }

    /// Count a dropped datagram. Reasons of what could not be sent begin with `out_`.
    pub fn drop(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_insert(0) += 1;
    }

    pub fn layer(&self, key: LayerKey) -> &Layer {
        &self.tracks[key.track].layers[key.index]
    }

    pub fn layer_mut(&mut self, key: LayerKey) -> &mut Layer {
        &mut self.tracks[key.track].layers[key.index]
    }

    /// Forget the video since the latest keyframe.
    pub fn forget_recent(&mut self, key: LayerKey) {
        for (packet, _) in self.tracks[key.track].layers[key.index].recent.drain(..) {
            self.packets.counts.release(packet);
        }
    }

    /// The detector of the source that plays a layer.
    pub fn detector(&mut self, key: LayerKey) -> Option<&mut LossDetector> {
        let source = self.layer(key).source?;
        self.sources[source].detector.as_mut()
    }

    /// Header extension ids of the packets that come in for a track.
    pub fn extension_ids(&self, track: usize) -> ExtensionIds {
        let track = &self.tracks[track];
        match (track.session, &track.mirror) {
            (Some(session), _) => self.sessions[session].extensions,
            (None, Some(mirror)) => mirror.extensions,
            (None, None) => INJECT_EXTENSIONS,
        }
    }

    /// What to add to the clock of a track's publisher to have ours; None before its first sender report.
    pub fn ntp_offset(&self, track: usize) -> Option<i64> {
        let track = &self.tracks[track];
        match track.session {
            Some(session) => self.sessions[session].ntp_offset,
            None => track.mirror.and_then(|mirror| mirror.ntp_offset),
        }
    }

    pub fn find_session(&self, handle: u32) -> Result<usize, UsageError> {
        self.session_keys.get(&handle).copied().ok_or_else(|| UsageError::new(format!("no session {handle}")))
    }

    pub fn find_track(&self, handle: u32) -> Result<usize, UsageError> {
        self.track_keys.get(&handle).copied().ok_or_else(|| UsageError::new(format!("no track {handle}")))
    }

    pub fn find_slot(&self, handle: u32) -> Result<usize, UsageError> {
        self.slot_keys.get(&handle).copied().ok_or_else(|| UsageError::new(format!("no slot {handle}")))
    }

    pub fn find_layer(&self, track: u32, layer: i64) -> Result<LayerKey, UsageError> {
        let key = self.find_track(track)?;
        match usize::try_from(layer) {
            Ok(index) if index < self.tracks[key].layers.len() => Ok(LayerKey { track: key, index }),
            _ => Err(UsageError::new(format!("track {track} has no layer {layer}"))),
        }
    }

    /// List a source in its session, in the place of one with the same SSRC.
    pub fn list_source(&mut self, session: usize, source: Source) -> usize {
        let ssrc = source.ssrc;
        let key = self.sources.insert(Source { listed: true, ..source });
        if let Some(old) = self.sessions[session].sources.insert(ssrc, key) {
            self.sources[old].listed = false;
            self.release_source(old);
        }
        key
    }

    /// Take a source off its session's list.
    pub fn unlist_source(&mut self, session: usize, ssrc: u32) {
        if let Some(key) = self.sessions[session].sources.shift_remove(&ssrc) {
            self.sources[key].listed = false;
            self.release_source(key);
        }
    }

    /// Free a source that nobody names any more.
    pub fn release_source(&mut self, key: usize) {
        let source = &self.sources[key];
        if !source.listed && self.layer(source.layer).source != Some(key) {
            self.sources.remove(key);
        }
    }

    /// Seal RTCP and send it to where the session's media goes.
    pub fn send_control(&mut self, session: usize, compound: &[u8]) {
        fanout::flush_session(self, session);
        let session = &mut self.sessions[session];
        let (Some(srtp), Some(address)) = (&mut session.srtp, session.selected) else { return };
        let room = self.out.room();
        let sealed = match room.get_mut(..compound.len()) {
            Some(place) => {
                place.copy_from_slice(compound);
                srtp.protect_rtcp(room, compound.len()).ok()
            }
            None => None,
        };
        let Some(length) = sealed else {
            self.drop("out_refused");
            return;
        };
        session.stats.packets_out += 1;
        session.stats.bytes_out += length as u64;
        self.out.commit(length, address);
    }
}
