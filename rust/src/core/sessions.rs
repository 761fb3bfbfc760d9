//! Peers, and the streams that go out to them.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::contract::{Address, ExtensionIds, Feedback, Kind, PayloadType, SessionStats, SlotStats};
use super::tracks::LayerKey;
use crate::estimate::BandwidthEstimator;
use crate::history::{ResendBudget, SentLog};
use crate::rate::Rate;
use crate::rewrite::{PictureIds, Rewriter};
use crate::serialise::{Forwarding, Serialiser};
use crate::srtp::Srtp;
use crate::transport_cc::Recorder;

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
