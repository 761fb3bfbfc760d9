//! What is received: publications, their layers, the SSRCs these come by, and who copies them.

use indexmap::IndexMap;

use super::contract::{Feedback, Kind, LayerStats, PayloadType};
use super::mirrors::{Mirror, Shared};
use crate::audio_level::Loudness;
use crate::descriptors::{Codec, Descriptor};
use crate::nack::LossDetector;
use crate::rate::Rate;

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
