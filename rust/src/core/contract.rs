//! What Python may ask of the packet plane, and what the plane tells back: the twin of `relay/plane/contract`.
//!
//! Units are the contract's: `now` is monotonic microseconds, bitrates are bits per second, handles are chosen by the
//! caller and never reused while the plane lives.

use std::net::SocketAddr;

use super::packets::MOST;
use crate::error::UsageError;
use crate::io::pages::Memory;
use crate::rtp::EXTENSIONS;
use crate::srtp::Profile;

/// Numeric host and port; an IPv4-mapped address is written as IPv4.
pub type Address = SocketAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Audio,
    Video,
}

/// One negotiated RTP payload type of an m-line. `codec` is lower case; `apt` is the payload type that an rtx one
/// repairs (RFC 4588).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    pub number: u8,
    pub codec: String,
    pub clock_hz: u32,
    pub apt: Option<u8>,
    pub profile: String,
}

/// One simulcast encoding of a track, lowest first. `ssrc` is known only when the offer signalled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    pub rid: String,
    pub ssrc: Option<u32>,
    pub rtx_ssrc: Option<u32>,
}

/// RTCP feedback that was negotiated for an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Feedback {
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub remb: bool,
    pub transport_cc: bool,
}

/// Header extension ids by their place in `rtp::EXTENSIONS`; 0 stands for "not agreed on".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds(pub [u8; EXTENSIONS.len()]);

/// Places in `rtp::EXTENSIONS`.
pub const MID: usize = 0;
pub const RID: usize = 1;
pub const REPAIRED_RID: usize = 2;
pub const AUDIO_LEVEL: usize = 3;
pub const ABS_SEND_TIME: usize = 4;
pub const TRANSPORT_CC: usize = 5;
const ORIENTATION: usize = 7;
const COLOR_SPACE: usize = 11;
const DEPENDENCY_DESCRIPTOR: usize = 12;
const ABS_CAPTURE_TIME: usize = 13;

/// Extensions that mean the same at the viewer. Playout delay is not among them: it is the publisher's own wish.
pub const PASSED_ON: [usize; 5] = [AUDIO_LEVEL, ORIENTATION, COLOR_SPACE, DEPENDENCY_DESCRIPTOR, ABS_CAPTURE_TIME];

/// Header extension ids of injected packets: an extension's place in `rtp::EXTENSIONS`, counted from 1.
pub const INJECT_EXTENSIONS: ExtensionIds = ExtensionIds([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// Where and how a track is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    pub mid: String,
    pub payload_types: Vec<PayloadType>,
    pub layers: Vec<LayerSpec>,
    pub feedback: Feedback,
}

/// A slot as it is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSlot {
    pub slot: u32,
    pub session: u32,
    pub kind: Kind,
    pub mid: String,
    pub ssrc: u32,
    pub rtx_ssrc: Option<u32>,
    pub payload_types: Vec<PayloadType>,
    pub feedback: Feedback,
    pub cname: String,
}

/// See the classes of the same names in `contract`; the last ones are what shards are told of each other's tracks
/// (`mirrors`), and only `Router` gives them.
pub enum Command {
    OpenSession { session: u32, ufrag: String, password: String, extensions: ExtensionIds, shard: u32 },
    RestartIce { session: u32, ufrag: String, password: String },
    SetKeys { session: u32, profile: Profile, tx_key: zeroize::Zeroizing<Vec<u8>>, rx_key: zeroize::Zeroizing<Vec<u8>> },
    SendDtls { session: u32, datagram: Vec<u8> },
    CloseSession { session: u32 },
    AddTrack { track: u32, session: Option<u32>, kind: Kind, media: Media },
    RemoveTrack { track: u32 },
    MoveTrack { track: u32, session: u32, media: Media },
    MuteTrack { track: u32, muted: bool },
    RequestKeyframe { track: u32, layer: i64 },
    AddSlot(NewSlot),
    BindSlot { slot: u32, track: Option<u32>, layer: i64, payload_type: Option<u8> },
    SetLayer { slot: u32, layer: i64 },
    PauseSlot { slot: u32, paused: bool },
    RemoveSlot { slot: u32 },
    ProbeBandwidth { session: u32, bitrate: i64, duration_us: i64 },
    AddTap { tap: u32, track: u32, layer: i64, ring: Option<u32>, canonical: bool },
    RemoveTap { tap: u32 },
    RemoveRingTaps { ring: u32 },
    MirrorTrack { track: u32, kind: Kind, media: Media, origin: u8, generation: u32, extensions: ExtensionIds },
    DropMirror { track: u32, at_once: bool },
    HandOverTrack { track: u32, shard: u32 },
    ShareTrack { track: u32, shard: u32, generation: u32 },
}

/// See the classes of the same names in `contract`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    DtlsReceived { session: u32, datagram: Vec<u8> },
    AddressSelected { session: u32, address: Address },
    IceRestarted { session: u32 },
    LayerStarted { track: u32, layer: usize, ssrc: u32, payload_type: i16 },
    LayerStopped { track: u32, layer: usize },
    SlotSwitched { slot: u32, track: u32, layer: usize, sequence: u16, timestamp: u32, source_timestamp: u32 },
    EstimateChanged { session: u32, bitrate: i64 },
    LoudnessMeasured { levels: Vec<(u32, i64)> },
    KeyframeRequested { track: u32, layer: usize },
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SessionStats {
    pub packets_in: u64,
    pub bytes_in: u64,
    pub packets_out: u64,
    pub bytes_out: u64,
    pub last_consent: i64,
    pub last_media: i64,
    pub round_trip_us: i64,
    pub loss_256: u8,
    pub estimate: i64,
    pub address: Option<Address>,
}

#[derive(Debug, Clone)]
pub struct LayerStats {
    pub rid: String,
    pub active: bool,
    pub packets: u64,
    pub bytes: u64,
    pub lost: i64,
    pub recovered: u64,
    pub nacks_sent: u64,
    pub keyframes: u64,
    pub keyframe_requests: u64,
    pub jitter_us: i64,
    pub bitrate: i64,
    pub width: u16,
    pub height: u16,
    pub payload_type: i16,
    pub ssrc: u32,
    pub timestamp: i64, // -1 before any frame
    pub arrival_us: i64,
    pub report_ssrc: u32, // of the newest sender report of a stream that carried the layer
    pub report_ntp: u64,  // 0 before the first
    pub report_timestamp: u32,
    pub report_arrival_us: i64,
}

impl LayerStats {
    pub fn new(rid: String) -> Self {
        Self {
            rid,
            active: false,
            packets: 0,
            bytes: 0,
            lost: 0,
            recovered: 0,
            nacks_sent: 0,
            keyframes: 0,
            keyframe_requests: 0,
            jitter_us: 0,
            bitrate: 0,
            width: 0,
            height: 0,
            payload_type: -1,
            ssrc: 0,
            timestamp: -1,
            arrival_us: 0,
            report_ssrc: 0,
            report_ntp: 0,
            report_timestamp: 0,
            report_arrival_us: 0,
        }
    }
}

/// `track` and `layer` are what plays now, -1 when nothing does.
#[derive(Debug, Clone, Copy)]
pub struct SlotStats {
    pub track: i64,
    pub layer: i64,
    pub packets: u64,
    pub bytes: u64,
    pub nacks: u64,
    pub resent: u64,
    pub not_resent: u64,
    pub keyframe_requests: u64,
    pub switches: u64,
    pub bitrate: i64,
}

impl Default for SlotStats {
    fn default() -> Self {
        Self {
            track: -1,
            layer: -1,
            packets: 0,
            bytes: 0,
            nacks: 0,
            resent: 0,
            not_resent: 0,
            keyframe_requests: 0,
            switches: 0,
            bitrate: 0,
        }
    }
}

/// A snapshot of everything countable.
#[derive(Debug, Clone, Default)]
pub struct PlaneStats {
    pub sessions: Vec<(u32, SessionStats)>,
    pub tracks: Vec<(u32, Vec<LayerStats>)>,
    pub slots: Vec<(u32, SlotStats)>,
    pub drops: Vec<(&'static str, u64)>,
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Slots for ingress packets: those that nobody holds, and all.
    pub slab_free: u32,
    pub slab_total: u32,
    /// Packets that were forwarded but not kept, because no slot was free.
    pub unkept: u64,
}

/// Limits and times of the plane, and how many packets it may keep.
#[derive(Debug, Clone)]
pub struct PlaneConfig {
    pub keyframe_interval_us: i64,
    pub layer_silence_us: i64,
    pub history_video: u32,
    pub history_audio: u32,
    pub estimate_start: i64,
    pub estimate_min: i64,
    pub estimate_max: i64,
    pub transport_cc_interval_us: i64,
    pub report_interval_us: i64,
    pub address_stale_us: i64,
    pub max_addresses: usize,
    pub wall_offset_us: i64,
    pub seed: u64,
    /// Ingress packets that are kept at most, in slots of 1.5 KiB each.
    pub slab_packets: u32,
    /// Video packets but the last of a frame get RTP padding to a multiple of so many bytes; 1 for none.
    pub pad_video: usize,
    pub slab_memory: Memory,
}

impl PlaneConfig {
    /// For each of several shards: they divide the slab. UsageError when there is not a slot for each, or too many.
    pub fn among(&self, shards: usize) -> Result<Vec<Self>, UsageError> {
        let count = shards as u32;
        if !(count..=MOST).contains(&self.slab_packets) {
            let text = format!("a slab of {} packets for {shards} shards: not {shards} to {MOST}", self.slab_packets);
            return Err(UsageError::new(text));
        }
        let share = |index: u32| (self.slab_packets - index).div_ceil(count);
        Ok((0..count).map(|index| Self { slab_packets: share(index), ..self.clone() }).collect())
    }
}
