//! What a tap by a shared-memory ring costs per packet: an injected track's 1100-byte packets, with and without a tap that
//! puts them into a ring; and the limit, which is to copy them into the ring and nothing else. Prints JSON: nanoseconds per
//! packet, the least of the rounds, and how many allocations the last round made.
//!
//! `cargo run --release --example ring_cost`

#[cfg(not(test))]
#[path = "../tests/support/counting.rs"]
mod counting;
#[cfg(test)] // a module of a test
use crate::counting;

use std::os::unix::net::UnixStream;
use std::time::Instant;

use _native::core::Core;
use _native::core::contract::*;
use _native::io::pages::Memory as Pages;
use _native::io::shared_ring::{Memory, Reader, Writer};
use _native::ring_set::RingSet;

const SLOTS: u64 = 2048;
const SLOT_SIZE: u64 = 1536;
const BURST: usize = 8;
const PACKETS: usize = 1024;
const ROUNDS: usize = 40;
const RING: u32 = 1;

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
        slab_memory: Pages::Plain,
    }
}

fn packet(seq: u16) -> [u8; 1100] {
    let mut packet = [0; 1100];
    packet[..2].copy_from_slice(&[0x80, 111]);
    packet[2..4].copy_from_slice(&seq.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(seq) * 960).to_be_bytes());
    packet
}

/// A core with an injected track, its rings, and the worker's end of the one that taps go to.
fn stage(tapped: bool) -> (Core, RingSet, Reader) {
    let memory = Memory::create(SLOTS, SLOT_SIZE).expect("memory");
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut rings = RingSet::new().expect("a descriptor");
    rings.add_tap(RING, memory.try_clone().expect("a descriptor"), ours.into()).expect("a ring");
    let mut core = Core::new(config()).expect("a good configuration");
    let opus = PayloadType { number: 111, codec: "opus".into(), clock_hz: 48_000, apt: None, profile: String::new() };
    let layers = vec![LayerSpec { rid: String::new(), ssrc: None, rtx_ssrc: None }];
    let media = Media { mid: String::new(), payload_types: vec![opus], layers, feedback: Feedback::default() };
    core.apply(Command::AddTrack { track: 1, session: None, kind: Kind::Audio, media }, 0).expect("a new track");
    if tapped {
        let tap = Command::AddTap { tap: 1, track: 1, layer: 0, ring: Some(RING), canonical: true };
        core.apply(tap, 0).expect("a new tap");
    }
    (core, rings, Reader::new(Memory::map(memory).expect("a ring"), theirs.into()))
}

/// Take all; the worker sleeps then, so that it has to be woken.
fn drain(reader: &mut Reader, buffer: &mut [u8]) -> u64 {
    let mut taken = 0;
    while reader.take(buffer).expect("sound memory").is_some() {
        taken += 1;
    }
    reader.woken();
    reader.sleep().expect("sound memory");
    taken
}

/// Nanoseconds per packet, packets that came out, and allocations of the last round.
pub fn measure(tapped: bool) -> (f64, u64, u64) {
    let (mut core, mut rings, mut reader) = stage(tapped);
    let (mut least, mut seq, mut now, mut came, mut allocations) = (f64::MAX, 0u16, 0, 0, 0);
    let mut buffer = vec![0; reader.capacity()];
    for _ in 0..ROUNDS {
        let packets: Vec<[u8; 1100]> = (0..PACKETS as u16).map(|index| packet(seq.wrapping_add(index))).collect();
        seq = seq.wrapping_add(PACKETS as u16);
        let (before, start) = (counting::allocations(), Instant::now());
        for burst in packets.chunks(BURST) {
            for one in burst {
                core.inject(1, 0, one, now).expect("its track");
            }
            core.taps(|tapped| rings.put(RING, &tapped));
            rings.flush();
            core.events().for_each(drop);
            now += 1000;
        }
        least = least.min(start.elapsed().as_nanos() as f64 / PACKETS as f64);
        allocations = counting::allocations() - before;
        came += drain(&mut reader, &mut buffer);
    }
    (least, came, allocations)
}

/// Nanoseconds per packet of copying into a ring.
#[allow(dead_code)] // not when this is a module of a test
pub fn limit() -> f64 {
    let memory = Memory::create(SLOTS, SLOT_SIZE).expect("memory");
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let map = || Memory::map(memory.try_clone().expect("a descriptor")).expect("a ring");
    let (mut writer, mut reader) = (Writer::new(map(), ours.into()), Reader::new(map(), theirs.into()));
    let (mut least, mut buffer) = (f64::MAX, vec![0; reader.capacity()]);
    for _ in 0..ROUNDS {
        let packets: Vec<[u8; 1100]> = (0..PACKETS as u16).map(packet).collect();
        let start = Instant::now();
        for one in &packets {
            writer.put(1, 0, one);
        }
        least = least.min(start.elapsed().as_nanos() as f64 / PACKETS as f64);
        drain(&mut reader, &mut buffer);
    }
    least
}

#[allow(dead_code)] // not when this is a module of a test
fn main() {
    let ((without, ..), (with, _, allocations)) = (measure(false), measure(true));
    let tap = with - without;
    println!("{{\"limit_ns\": {:.1}, \"tap_ns\": {tap:.1}, \"allocations\": {allocations}}}", limit());
}
