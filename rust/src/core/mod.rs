//! The packet plane as one machine: commands, datagrams and times in; datagrams, events and copies out.
//!
//! `Core` is the twin of `relay.plane.reference.forwarder.Forwarder`. Everything it sends is a function of the
//! configuration (with its seed), the commands, the datagrams and their times. It does no I/O and, once its tables have
//! grown to what the traffic needs, no allocation per packet.

pub mod binding;
mod canonical;
pub mod commands;
pub mod contract;
pub mod egress;
pub mod fanout;
pub mod feedback;
pub mod ingress;
mod keyed;
pub mod keyframes;
mod machine;
pub mod mirrors;
pub mod packets;
pub mod reports;
pub mod sessions;
pub mod state;
pub mod taps;
pub mod timers;
pub mod tracks;
pub mod transport;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use contract::{Address, Command, Event, LayerStats, PlaneConfig, PlaneStats};
use egress::MAX_PAD;
use packets::{MOST, Packets};
use state::State;
use timers::Timer;
use tracks::{LayerKey, Track};

use crate::error::UsageError;
use crate::io::pages::Got;
use crate::machine::Tapped;

/// Bytes: nothing longer arrives in one Ethernet frame, and no WebRTC client sends more.
pub const MAX_DATAGRAM: usize = 1500;

/// The plane without I/O. Nothing that a peer sends is an error; a wrong command is one and changes nothing.
///
/// `now` never goes backwards between calls. After every call drain `transmit`, `events` and `taps`, and see that
/// `handle_timeout` is called at `next_timeout`.
pub struct Core {
    state: State,
    datagrams_out: u64,
    bytes_out: u64,
}

impl Core {
    /// UsageError for a configuration that cannot work.
    pub fn new(config: PlaneConfig) -> Result<Self, UsageError> {
        if config.max_addresses < 1 {
            return Err(UsageError::new("max_addresses must be at least 1"));
        }
        let (least, first, most) = (config.estimate_min, config.estimate_start, config.estimate_max);
        if !(0 < least && least <= first && first <= most) {
            return Err(UsageError::new("estimate_min, estimate_start and estimate_max must be positive and ascend"));
        }
        for (name, interval) in [
            ("keyframe_interval_us", config.keyframe_interval_us),
            ("layer_silence_us", config.layer_silence_us),
            ("transport_cc_interval_us", config.transport_cc_interval_us),
            ("report_interval_us", config.report_interval_us),
        ] {
            if interval <= 0 {
                return Err(UsageError::new(format!("{name} must be positive")));
            }
        }
        for packets in [config.history_video, config.history_audio] {
            if !packets.is_power_of_two() || packets > 32768 {
                return Err(UsageError::new(format!("a history of {packets} packets: not a power of two up to 32768")));
            }
        }
        if !(1..=MOST).contains(&config.slab_packets) {
            return Err(UsageError::new(format!("a slab of {} packets: not 1 to {MOST}", config.slab_packets)));
        }
        if !(1..=MAX_PAD).contains(&config.pad_video) {
            return Err(UsageError::new(format!("padding to {} bytes: not 1 to {MAX_PAD}", config.pad_video)));
        }
        let packets = Packets::new(config.slab_packets, config.slab_memory)
            .map_err(|error| UsageError::new(format!("a slab of {} packets: {error}", config.slab_packets)))?;
        Ok(Self { state: State::new(config, packets), datagrams_out: 0, bytes_out: 0 })
    }

    /// Carry out a command. UsageError for unknown or used handles and for contradictions.
    pub fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError> {
        self.settle();
        self.state.now = now;
        commands::apply(&mut self.state, command, now)
    }

    /// Take a datagram of any content from anyone: STUN, DTLS or (S)RTP by its first byte (RFC 7983).
    pub fn receive(&mut self, datagram: &[u8], source: Address, now: i64) {
        let core = &mut self.state;
        core.now = now;
        core.datagrams_in += 1;
        core.bytes_in += datagram.len() as u64;
        let Some(&first) = datagram.first() else {
            core.drop("empty");
            return;
        };
        let reason = match first {
            _ if datagram.len() > MAX_DATAGRAM => "oversize",
            128..192 => receive_media(core, datagram, source, now),
            0..4 => transport::receive_stun(core, datagram, source, now),
            20..64 => transport::receive_dtls(core, datagram, source),
            _ => "unknown_protocol",
        };
        if reason.is_empty() {
            core.handled += 1;
        } else {
            core.drop(reason);
        }
    }

    /// Take a plaintext RTP packet as if a publisher had sent it. Its header extension ids are those of
    /// `contract::INJECT_EXTENSIONS`. UsageError for an unknown track or layer, or one that belongs to a session.
    ///
    /// A packet that is too long, malformed, a duplicate or of an unknown payload type is dropped and counted as
    /// `inject_…`.
    pub fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> Result<(), UsageError> {
        let core = &mut self.state;
        core.now = now;
        let takes = |track: &Track| track.session.is_none() && track.mirror.is_none();
        let found = core.find_layer(track, layer).ok().filter(|key| takes(&core.tracks[key.track]));
        let Some(key) = found else {
            return Err(UsageError::new(format!("layer {layer} of track {track} does not take injected packets")));
        };
        let reason = ingress::inject(core, key, packet, now);
        if !reason.is_empty() {
            core.drop(reason);
        }
        Ok(())
    }

    /// When `handle_timeout` has something to do; None while nothing is due ever.
    pub fn next_timeout(&self) -> Option<i64> {
        self.state.timers.first()
    }

    /// Do what is due at or before `now`.
    pub fn handle_timeout(&mut self, now: i64) {
        self.state.now = now;
        while let Some((timer, handle, index)) = self.state.timers.pop(now) {
            self.settle();
            self.fire(timer, handle, index, now);
        }
    }

    fn fire(&mut self, timer: Timer, handle: u32, index: u32, now: i64) {
        let core = &mut self.state;
        match timer {
            Timer::Nack | Timer::Keyframe | Timer::Silence => {
                let Ok(layer) = core.find_layer(handle, i64::from(index)) else { return };
                fire_layer(core, timer, layer, now);
            }
            Timer::SenderReport => {
                if let Ok(slot) = core.find_slot(handle) {
                    egress::sender_report_due(core, slot, now);
                }
            }
            Timer::Loudness => ingress::loudness_due(core, now),
            Timer::TransportFeedback | Timer::ReceiverReport | Timer::Probe | Timer::Estimate => {
                let Ok(session) = core.find_session(handle) else { return };
                match timer {
                    Timer::TransportFeedback => feedback::transport_feedback_due(core, session),
                    Timer::ReceiverReport => feedback::receiver_report_due(core, session, now),
                    Timer::Probe => egress::probe_due(core, session, now),
                    _ => {
                        let estimate = core.sessions[session].stats.estimate;
                        reports::tell_estimate(core, session, estimate, now);
                    }
                }
            }
        }
    }

    /// Write what was put off: media is forwarded to many in batches, viewer by viewer.
    pub fn settle(&mut self) {
        fanout::flush(&mut self.state);
    }

    /// Settle, and hand on what is to be sent, in order.
    pub fn transmit(&mut self, send: impl FnMut(&[u8], Address)) {
        self.settle();
        self.datagrams_out += self.state.out.len() as u64;
        self.bytes_out += self.state.out.bytes() as u64;
        self.state.out.drain(send);
    }

    /// Hand on what happened, in order.
    pub fn events(&mut self) -> std::vec::Drain<'_, Event> {
        self.state.events.drain(..)
    }

    /// Hand on the tapped packets. At most 4096 wait; the rest is counted as lost.
    pub fn taps(&mut self, take: impl FnMut(Tapped<'_>)) {
        self.state.tapped.drain(&mut self.state.packets, take);
    }

    /// Tapped packets that were lost because `taps` was not drained.
    pub fn taps_dropped(&self) -> u64 {
        self.state.tapped.dropped
    }

    /// Datagrams that were not dropped.
    pub fn handled(&self) -> u64 {
        self.state.handled
    }

    /// Free slots for ingress packets, kept up to date for readers in other threads.
    pub fn slab_left(&self) -> Arc<AtomicU32> {
        self.state.packets.left()
    }

    /// All slots for ingress packets.
    pub fn slab_total(&self) -> u32 {
        self.state.packets.counts.total()
    }

    /// What kind of memory the slots are in.
    pub fn slab_memory(&self) -> Got {
        self.state.packets.memory()
    }

    /// Count everything, as of the latest call that had a time.
    pub fn stats(&self) -> PlaneStats {
        let core = &self.state;
        let bitrate = |slot: &sessions::Slot| slot.rate.value(core.now);
        PlaneStats {
            sessions: core.sessions.iter().map(|session| (session.handle, session.stats)).collect(),
            tracks: core
                .tracks
                .iter()
                .filter(|track| track.mirror.is_none())
                .map(|track| (track.handle, layer_stats(core, track)))
                .collect(),
            slots: core
                .slots
                .iter()
                .map(|slot| (slot.handle, contract::SlotStats { bitrate: bitrate(slot), ..slot.stats }))
                .collect(),
            drops: core.drops.iter().map(|(&reason, &count)| (reason, count)).collect(),
            datagrams_in: core.datagrams_in,
            datagrams_out: self.datagrams_out + core.out.len() as u64,
            bytes_in: core.bytes_in,
            bytes_out: self.bytes_out + core.out.bytes() as u64,
            slab_free: core.packets.counts.total() - core.packets.counts.used() as u32,
            slab_total: core.packets.counts.total(),
            unkept: core.unkept,
        }
    }

    /// How much is remembered: all zero once every session, track, slot and tap is gone and the taps are drained.
    pub fn table_sizes(&self) -> [(&'static str, usize); 10] {
        let core = &self.state;
        [
            ("sessions", core.session_keys.len()),
            ("tracks", core.track_keys.len()),
            ("slots", core.slot_keys.len()),
            ("taps", core.taps.len()),
            ("addresses", core.by_address.len()),
            ("ufrags", core.by_ufrag.len()),
            ("timers", core.timers.len()),
            ("heard", core.heard.len()),
            ("sources", core.sources.iter().count()),
            ("packets", core.packets.counts.used()),
        ]
    }
}

/// RTP or RTCP of a proved address (RFC 5761 4). A packet that was authenticated keeps its address fresh.
fn receive_media(core: &mut State, datagram: &[u8], source: Address, now: i64) -> &'static str {
    let Some(&session) = core.by_address.get(&source) else { return "srtp_stranger" };
    if datagram.len() < 12 {
        return "srtp_short";
    }
    let reason = if (192..=223).contains(&datagram[1]) {
        reports::receive_rtcp(core, session, datagram, now)
    } else {
        ingress::receive_rtp(core, session, datagram, now)
    };
    let unauthenticated = reason.starts_with("srtp_");
    if !unauthenticated && let Some(heard) = core.sessions[session].addresses.get_mut(&source) {
        *heard = now;
    }
    reason
}

fn fire_layer(core: &mut State, timer: Timer, layer: LayerKey, now: i64) {
    match timer {
        Timer::Nack => feedback::check_losses(core, layer, now),
        Timer::Keyframe => keyframes::keyframe_due(core, layer, now),
        _ => ingress::silence_due(core, layer, now),
    }
}

fn layer_stats(core: &State, track: &Track) -> Vec<LayerStats> {
    let stats = track.layers.iter().map(|layer| {
        let detector = layer.source.and_then(|source| core.sources[source].detector.as_ref());
        let lost = layer.lost_before + detector.map_or(0, |detector| detector.given_up);
        LayerStats { lost, bitrate: layer.rate.value(core.now), ..layer.stats.clone() }
    });
    stats.collect()
}
