//! The tables of the plane: sessions, tracks with their layers and sources, slots, and what waits to go out.
//!
//! The twin of `relay/plane/reference/state.py`. Where Python holds a reference this holds a key; a key dies with the
//! last table that names it. Iteration is in order of insertion everywhere, which makes it part of the specification.

use std::collections::{HashMap, HashSet};
use std::ops::{Index, IndexMut};

use indexmap::IndexMap;

use super::contract::{
    Address, Event, ExtensionIds, Feedback, INJECT_EXTENSIONS, Kind, LayerStats, PayloadType, PlaneConfig,
    SessionStats, SlotStats,
};
use super::fanout::{self, Fanout};
use super::mirrors::{Mirror, Outbox, Shared};
use super::packets::Packets;
use super::timers::Timers;
use crate::audio_level::Loudness;
use crate::descriptors::{Codec, Descriptor};
use crate::error::UsageError;
use crate::estimate::BandwidthEstimator;
use crate::history::{ResendBudget, SentLog};
use crate::nack::LossDetector;
use crate::out::OutBatch;
use crate::rate::Rate;
use crate::rewrite::{PictureIds, Rewriter};
use crate::serialise::{Forwarding, Serialiser};
use crate::srtp::Srtp;
use crate::transport_cc::{self, Recorder};

/// Packets waiting for `taps()`: 4 s of one 1,000 packets/s layer.
pub const MAX_TAPPED: usize = 4096;

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

/// Things by keys that are given out again once they are free.
#[derive(Debug)]
pub struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub fn insert(&mut self, item: T) -> usize {
        if let Some(key) = self.free.pop() {
            self.items[key] = Some(item);
            return key;
        }
        self.items.push(Some(item));
        self.items.len() - 1
    }

    pub fn remove(&mut self, key: usize) -> Option<T> {
        let item = self.items[key].take();
        if item.is_some() {
            self.free.push(key);
        }
        item
    }

    /// All keys are below this.
    pub fn keys(&self) -> usize {
        self.items.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten()
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        self.items[key].as_ref().expect("a key outlived what it named")
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.items[key].as_mut().expect("a key outlived what it named")
    }
}

/// One layer of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKey {
    pub track: usize,
    pub index: usize,
}

/// One received SSRC. `layer.source` is the one that plays the layer's media; a repair stream has no detector.
///
/// It lives while its session lists it or its layer plays it.
pub struct Source {
    pub ssrc: u32,
    pub layer: LayerKey,
    pub detector: Option<LossDetector>,
    pub learned: bool,
    pub listed: bool,
    pub last_packet: i64,
    pub report_ntp: u64, // of its latest sender report, 64-bit NTP; 0 before the first
    pub report_rtp: u32,
    pub report_arrival: i64,
}

impl Source {
    pub fn new(ssrc: u32, layer: LayerKey, detector: Option<LossDetector>, learned: bool) -> Self {
        Self {
            ssrc,
            layer,
            detector,
            learned,
            listed: false,
            last_packet: 0,
            report_ntp: 0,
            report_rtp: 0,
            report_arrival: 0,
        }
    }
}

/// A copy of a layer's packets.
#[derive(Debug, Clone, Copy)]
pub struct Tap {
    pub index: usize, // of the layer
    pub ring: Option<u32>,
    pub canonical: bool,
}

/// A tapped packet, held. `rewrite` has the extension ids that it came with, if it is to get canonical ones.
#[derive(Debug)]
pub struct Copied {
    pub tap: u32,
    pub ring: Option<u32>,
    pub packet: u32,
    pub arrival: i64,
    pub rewrite: Option<ExtensionIds>,
}

/// One encoding of a track. `players` show it now, `waiters` will from its next decodable frame on: handle → slot.
pub struct Layer {
    pub source: Option<usize>,
    pub active: bool,
    pub last_packet: i64,
    pub payload_type: i16,
    pub codec: Option<PayloadType>,
    pub inspected: Codec,
    pub patched: bool,
    pub players: IndexMap<u32, usize>,
    pub waiters: IndexMap<u32, usize>,
    pub taps: IndexMap<u32, Tap>,
    pub keyframe_next: i64,              // no request may be sent before
    pub keyframe_wanted: bool,           // a request waits for that time
    pub keyframe_timestamp: Option<u32>, // RTP timestamp of the latest keyframe
    pub parameters_seen: bool,           // H264: parameter sets come in band, so a decodable start has them
    pub fir_number: u8,
    pub recent: Vec<(u32, Descriptor)>, // video since the latest keyframe, held; empty when too long
    pub queued: u32,                    // where `Fanout` lists it, if it does
    pub rate: Rate,
    pub lost_before: i64, // by sources that this layer had earlier
    pub stats: LayerStats,
}

impl Layer {
    pub fn new(rid: String) -> Self {
        Self {
            source: None,
            active: false,
            last_packet: 0,
            payload_type: -1,
            codec: None,
            inspected: Codec::Opus,
            patched: false,
            players: IndexMap::new(),
            waiters: IndexMap::new(),
            taps: IndexMap::new(),
            keyframe_next: 0,
            keyframe_wanted: false,
            keyframe_timestamp: None,
            parameters_seen: false,
            fir_number: 0,
            recent: Vec::new(),
            queued: 0,
            rate: Rate::default(),
            lost_before: 0,
            stats: LayerStats::new(rid),
        }
    }
}

/// A publication. `session` is None when its packets are injected; `slots` are those bound to it: handle → slot.
pub struct Track {
    pub handle: u32,
    pub kind: Kind,
    pub session: Option<usize>,
    pub mid: String,
    pub payload_types: Vec<PayloadType>, // one of each number
    pub feedback: Feedback,
    pub layers: Vec<Layer>,
    pub muted: bool,
    pub slots: IndexMap<u32, usize>,
    pub taps: IndexMap<u32, Tap>,
    pub loudness: Loudness,
    pub audio_level_id: u8,
    pub mirror: Option<Mirror>, // it lives on another shard
    pub shared: Shared,         // shards that mirror it
}

impl Track {
    pub fn new(handle: u32, kind: Kind) -> Self {
        Self {
            handle,
            kind,
            session: None,
            mid: String::new(),
            payload_types: Vec::new(),
            feedback: Feedback::default(),
            layers: Vec::new(),
            muted: false,
            slots: IndexMap::new(),
            taps: IndexMap::new(),
            loudness: Loudness::default(),
            audio_level_id: 0,
            mirror: None,
            shared: Shared::default(),
        }
    }

    pub fn payload_type(&self, number: u8) -> Option<&PayloadType> {
        self.payload_types.iter().find(|kind| kind.number == number)
    }
}

/// One outgoing stream. It shows `playing` while it waits for the layers in `waiting`; `target` is the wish.
pub struct Slot {
    pub handle: u32,
    pub session: usize,
    pub kind: Kind,
    pub mid: String,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub payload_types: Vec<PayloadType>,
    pub rtx_types: Vec<(u8, u8)>, // payload type → that of its retransmissions
    pub feedback: Feedback,
    pub cname: String,
    pub track: Option<usize>,
    pub target: usize,
    pub wished_type: Option<u8>,
    pub paused: bool,
    pub playing: Option<LayerKey>,
    pub waiting: Vec<LayerKey>,
    pub out_type: u8,
    pub marker: u8, // 0x80 until the first packet after a splice of audio has gone (RFC 3551 4.1)
    pub rewriter: Rewriter,
    pub pictures: PictureIds,
    pub log: SentLog,
    pub budget: ResendBudget,
    pub forwarding: Option<Forwarding>,
    pub serialiser: Serialiser,
    pub rtx_serialiser: Option<Serialiser>,
    pub transport_cc: bool, // its packets carry transport-wide sequence numbers
    pub measured: bool,     // its packets count for the session's estimate
    pub rtx_seq: u16,
    pub octets: u64,            // payload bytes, for sender reports
    pub reported: u64,          // packets sent when the latest sender report was
    pub fir_number: Option<u8>, // of the latest FIR that was acted upon
    pub rate: Rate,
    pub stats: SlotStats,
}

impl Slot {
    /// The payload type of retransmissions of `number`.
    pub fn rtx_type(&self, number: u8) -> Option<u8> {
        self.rtx_types.iter().find(|pair| pair.0 == number).map(|pair| pair.1)
    }
}

/// Padding under way: until `end`, all that the session sends shall make `bitrate`.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub bitrate: i64,
    pub start: i64,
    pub end: i64,
    pub bytes_before: u64,
}

/// One peer. Media comes from `addresses` only (address → last authenticated packet) and goes to `selected`.
pub struct Session {
    pub handle: u32,
    pub credentials: (String, Vec<u8>),
    pub restart: Option<(String, Vec<u8>)>,
    pub extensions: ExtensionIds,
    pub addresses: IndexMap<Address, i64>,
    pub selected: Option<Address>,
    pub srtp: Option<Srtp>,
    pub tracks: IndexMap<String, usize>, // by mid
    pub sources: IndexMap<u32, usize>,   // by SSRC
    pub slots: IndexMap<u32, usize>,
    pub slots_by_ssrc: HashMap<u32, usize>, // media and repair SSRCs
    pub feedback_ssrc: u32,
    pub transport_in_id: u8, // extension id while a track of ours wants transport-cc feedback, else 0
    pub recorder: Option<Box<Recorder>>,
    pub transport_seq: u16, // the latest that was used
    pub written: u64,       // packets of `Fanout` before this one have been written to it
    pub estimator: Option<Box<BandwidthEstimator>>,
    pub estimate_reported: i64,
    pub estimate_reported_at: i64,
    pub remb: i64,
    pub ntp_offset: Option<i64>,
    pub ntp_offset_at: i64,
    pub probe: Option<Probe>,
    pub stats: SessionStats,
}

impl Session {
    pub fn new(handle: u32, ufrag: String, password: String, extensions: ExtensionIds) -> Self {
        Self {
            handle,
            credentials: (ufrag, password.into_bytes()),
            restart: None,
            extensions,
            addresses: IndexMap::new(),
            selected: None,
            srtp: None,
            tracks: IndexMap::new(),
            sources: IndexMap::new(),
            slots: IndexMap::new(),
            slots_by_ssrc: HashMap::new(),
            feedback_ssrc: 0,
            transport_in_id: 0,
            recorder: None,
            transport_seq: 0xFFFF,
            written: 0,
            estimator: None,
            estimate_reported: 0,
            estimate_reported_at: 0,
            remb: 0,
            ntp_offset: None,
            ntp_offset_at: 0,
            probe: None,
            stats: SessionStats::default(),
        }
    }
}

/// Buffers that are taken for the length of one call.
#[derive(Default)]
pub struct Scratch {
    pub canonical: Vec<u8>,
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
    pub sessions: Slab<Session>,
    pub tracks: Slab<Track>,
    pub slots: Slab<Slot>,
    pub sources: Slab<Source>,
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
    pub tapped: Vec<Copied>,
    pub taps_dropped: u64,
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
            sessions: Slab::default(),
            tracks: Slab::default(),
            slots: Slab::default(),
            sources: Slab::default(),
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
            tapped: Vec::new(),
            taps_dropped: 0,
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
