//! What the core costs per forwarded packet: one publisher's 1100-byte packets, opened, accounted, rewritten, written
//! and sealed for N viewers with keys of their own. Prints nanoseconds per packet out, the least of the rounds, and how
//! many allocations the last round made.
//!
//! `cargo run --release --example core_cost [-- VIEWERS…]`; `valgrind --tool=callgrind` on it counts instructions repeatably.

#[cfg(not(test))]
#[path = "../tests/support/counting.rs"]
mod counting;
#[cfg(test)] // a module of a test
use crate::counting;

use std::net::SocketAddr;
use std::time::Instant;

use _native::cluster::Cluster;
use _native::core::Core;
use _native::core::contract::*;
use _native::error::UsageError;
use _native::io::pages::Memory;
use _native::machine::Machine;
use _native::srtp::{Profile, Srtp};

const BURST: usize = 8;
const PACKETS: usize = 64;
const ROUNDS: usize = 40;

fn config() -> PlaneConfig {
    PlaneConfig {
        keyframe_interval_us: 500_000,
        layer_silence_us: 1_500_000,
        history_video: 1024,
        history_audio: 256,
        estimate_start: 1_000_000,
        estimate_min: 50_000,
        estimate_max: 20_000_000,
        transport_cc_interval_us: 50_000,
        report_interval_us: 1_000_000,
        address_stale_us: 2_000_000,
        max_addresses: 8,
        wall_offset_us: 0,
        seed: 1,
        slab_packets: 8192,
        pad_video: 8,
        slab_memory: Memory::Plain,
    }
}

fn key(of: u32) -> Vec<u8> {
    (0..28).map(|index| index as u8 ^ of as u8 ^ (of >> 8) as u8).collect()
}

/// A binding request with USE-CANDIDATE, as a browser sends it.
fn check(ufrag: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let name = format!("{ufrag}:peer");
    for (kind, value) in [(0x0006u16, name.as_bytes()), (0x0025, &[][..])] {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = vec![0, 1];
    message.extend_from_slice(&((body.len() + 24) as u16).to_be_bytes());
    message.extend_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
    message.extend_from_slice(&[7; 12]);
    message.extend_from_slice(&body);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"password");
    let tag = aws_lc_rs::hmac::sign(&key, &message);
    message.extend_from_slice(&[0, 8, 0, 20]);
    message.extend_from_slice(tag.as_ref());
    message
}

/// One core, or several.
trait Plane {
    fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError>;
    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64);
    /// Returns how many datagrams went out.
    fn send(&mut self) -> u32;
    fn time(&mut self, now: i64);
}

impl Plane for Core {
    fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError> {
        Core::apply(self, command, now)
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64) {
        Core::receive(self, datagram, source, now);
    }

    fn send(&mut self) -> u32 {
        let (mut sent, mut more) = (0, true);
        while more {
            more = Machine::settle(self, 0); // part by part, as a shard does
            let out = Machine::transmit(self);
            sent += out.len() as u32;
            out.clear();
        }
        sent
    }

    fn time(&mut self, now: i64) {
        self.handle_timeout(now);
        self.send();
        Core::events(self).for_each(drop);
    }
}

impl Plane for Cluster {
    fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError> {
        Cluster::apply(self, command, now)
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64) {
        Cluster::receive(self, datagram, source, now);
    }

    fn send(&mut self) -> u32 {
        self.flush() as u32
    }

    fn time(&mut self, now: i64) {
        self.handle_timeout(now);
        self.flush();
        self.events();
    }
}

fn open(core: &mut impl Plane, session: u32, shard: u32) -> SocketAddr {
    let address = SocketAddr::from(([10, 0, (session >> 8) as u8, session as u8], 4000));
    let mut extensions = ExtensionIds::default();
    (extensions.0[MID], extensions.0[ABS_SEND_TIME], extensions.0[TRANSPORT_CC]) = (4, 2, 3);
    let (ufrag, password) = (format!("u{session}"), "password".to_owned());
    let opened = Command::OpenSession { session, ufrag: ufrag.clone(), password, extensions, shard };
    core.apply(opened, 0).expect("a new session");
    core.receive(&check(&ufrag), address, 0);
    let (tx_key, rx_key) = (key(session).into(), key(session + 10_000).into());
    let keys = Command::SetKeys { session, profile: Profile::Aes128Gcm, tx_key, rx_key };
    core.apply(keys, 0).expect("good keys");
    address
}

fn vp8() -> Vec<PayloadType> {
    let media = PayloadType { number: 96, codec: "vp8".into(), clock_hz: 90_000, apt: None, profile: String::new() };
    let repair = PayloadType { number: 97, codec: "rtx".into(), apt: Some(96), ..media.clone() };
    vec![media, repair]
}

/// The publisher is on the first shard, the viewers on the last.
fn stage(core: &mut impl Plane, viewers: u32, shards: u32) -> (Srtp, SocketAddr) {
    let feedback = Feedback { nack: true, pli: true, fir: true, remb: true, transport_cc: true };
    let source = open(core, 0, 0);
    let layers = vec![LayerSpec { rid: String::new(), ssrc: Some(77), rtx_ssrc: None }];
    let media = Media { mid: "0".into(), payload_types: vp8(), layers, feedback };
    core.apply(Command::AddTrack { track: 1, session: Some(0), kind: Kind::Video, media }, 0).expect("a new track");
    for viewer in 1..=viewers {
        open(core, viewer, shards - 1);
        let slot = NewSlot {
            slot: viewer,
            session: viewer,
            kind: Kind::Video,
            mid: "0".into(),
            ssrc: 1000 + viewer,
            rtx_ssrc: Some(100_000 + viewer),
            payload_types: vp8(),
            feedback,
            cname: "c".into(),
        };
        core.apply(Command::AddSlot(slot), 0).expect("a new slot");
        let bind = Command::BindSlot { slot: viewer, track: Some(1), layer: 0, payload_type: Some(96) };
        core.apply(bind, 0).expect("a slot and a track");
    }
    core.send();
    let sender = Srtp::new(Profile::Aes128Gcm, &key(10_000), &key(0)).expect("good keys");
    (sender, source)
}

fn publish(sender: &mut Srtp, seq: u16) -> Vec<u8> {
    let mut packet = vec![0; 1140];
    packet[..2].copy_from_slice(&[0x80, 96]);
    packet[2..4].copy_from_slice(&seq.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(seq) / 8 * 3000).to_be_bytes());
    packet[11] = 77;
    // the start of a key frame of 640x360
    packet[12..23].copy_from_slice(&[0x10, 0x10, 2, 0, 0x9D, 1, 0x2A, 0x80, 2, 0x68, 1]);
    let length = sender.protect_rtp(&mut packet, 1112).expect("it is sealed");
    packet.truncate(length);
    packet
}

/// The least nanoseconds per packet out, packets out in all, and allocations of the last round.
#[allow(dead_code)] // each test needs one of these
pub fn measure(viewers: u32) -> (f64, u64, u64) {
    let mut core = Core::new(config()).expect("a good configuration");
    run(&mut core, viewers, 1)
}

/// The same with the publisher on one shard and the viewers on another.
#[allow(dead_code)]
pub fn measure_across(viewers: u32) -> (f64, u64, u64) {
    let mut cluster = Cluster::new(&config(), 2).expect("a good configuration");
    run(&mut cluster, viewers, 2)
}

fn run(core: &mut impl Plane, viewers: u32, shards: u32) -> (f64, u64, u64) {
    let (mut sender, source) = stage(core, viewers, shards);
    let (mut least, mut now, mut seq, mut sent, mut allocations) = (f64::MAX, 1_000_000, 0u16, 0, 0);
    for _ in 0..ROUNDS {
        let sealed: Vec<Vec<u8>> = (0..PACKETS as u16).map(|index| publish(&mut sender, seq + index)).collect();
        seq += PACKETS as u16;
        let before = counting::allocations();
        let (start, mut round) = (Instant::now(), 0u32);
        for burst in sealed.chunks(BURST) {
            for datagram in burst {
                core.receive(datagram, source, now);
            }
            round += core.send();
            now += 33_000;
            core.time(now);
        }
        least = least.min(start.elapsed().as_nanos() as f64 / f64::from(round));
        sent += u64::from(round);
        allocations = counting::allocations() - before;
    }
    (least, sent, allocations)
}

#[allow(dead_code)] // not when this is a module of a test
fn main() {
    println!("{:>8}{:>8}{:>16}{:>16}{:>16}", "shards", "viewers", "ns per packet", "packets out", "allocations");
    let asked: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    for viewers in if asked.is_empty() { vec![10, 100, 500, 2000] } else { asked } {
        for (shards, (least, sent, allocations)) in [(1, measure(viewers)), (2, measure_across(viewers))] {
            println!("{shards:>8}{viewers:>8}{least:>16.0}{sent:>16}{allocations:>16}");
        }
    }
}
