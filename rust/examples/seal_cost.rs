//! What one forwarded packet costs in the leaves: rewrite, write and seal 1100 bytes of payload for 100 viewers, each
//! with keys of its own; beside it the seal alone. Prints nanoseconds per packet, the least of 20 rounds.
//!
//! `cargo run --release --example seal_cost`

use std::hint::black_box;
use std::time::Instant;

use _native::rewrite::Rewriter;
use _native::rtp;
use _native::serialise::{Block, Fields, Forwarding, Serialiser};
use _native::srtp::{MAX_TRAILER, Profile, Srtp};

const VIEWERS: usize = 100;
const PACKETS: u16 = 100;
const ROUNDS: u16 = 20;
const PAYLOAD: usize = 1100;

struct Viewer {
    srtp: Srtp,
    serialiser: Serialiser,
    rewriter: Rewriter,
}

fn viewers(profile: Profile) -> Vec<Viewer> {
    let forwarding = Forwarding::new(&[(1, 1)], false).expect("good ids");
    (0..VIEWERS as u32)
        .map(|number| {
            let key = vec![number as u8; profile.key_length() + profile.salt_length()];
            let mut rewriter = Rewriter::new(number as u16, number);
            rewriter.splice(0, 0, 0, 90_000, None);
            Viewer {
                srtp: Srtp::new(profile, &key, &key).expect("a good key"),
                serialiser: Serialiser::new(number, &[(4, b"0")], 3, 2, Some(forwarding)).expect("good ids"),
                rewriter,
            }
        })
        .collect()
}

/// Nanoseconds per packet of one round. `burst` packets go to one viewer before the next one's turn.
fn round(viewers: &mut [Viewer], first: u16, burst: u16, whole: bool) -> f64 {
    let mut input = vec![0; 24 + PAYLOAD];
    input[..24]
        .copy_from_slice(&[0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0xBE, 0xDE, 0, 1, 0x10, 0xFF, 0, 0, 1, 2, 3, 4]);
    let mut out = vec![0; 1500 + MAX_TRAILER];
    let mut block = Block::default();
    let start = Instant::now();
    for turn in 0..PACKETS / burst {
        for viewer in &mut *viewers {
            for index in 0..burst {
                let seq = first + turn * burst + index;
                input[2..4].copy_from_slice(&seq.to_be_bytes());
                let mut length = input.len();
                if whole {
                    let packet = rtp::parse(&input, 0).expect("it is RTP");
                    viewer.serialiser.forwarding().block(&input, &packet, &mut block);
                    let (seq, timestamp) = viewer.rewriter.rewrite(packet.seq, packet.timestamp, 0).expect("it maps");
                    let fields = Fields { type_and_marker: 96, seq, timestamp, ..Fields::default() };
                    let written = viewer.serialiser.write(&input, &packet, &block, &fields, &[], &mut out);
                    length = written.expect("it fits");
                } else {
                    out[2..4].copy_from_slice(&seq.to_be_bytes());
                }
                black_box(viewer.srtp.protect_rtp(&mut out, length).expect("it is sealed"));
            }
        }
    }
    start.elapsed().as_nanos() as f64 / f64::from(PACKETS) / VIEWERS as f64
}

fn main() {
    println!("{:<28}{:>8}{:>16}{:>16}", "profile", "burst", "seal ns", "whole path ns");
    for profile in [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::AesCm128HmacSha1] {
        for burst in [1, 10] {
            let mut least = [f64::MAX; 2];
            for (place, whole) in least.iter_mut().zip([false, true]) {
                let mut viewers = viewers(profile);
                for turn in 0..ROUNDS {
                    *place = place.min(round(&mut viewers, turn * PACKETS, burst, whole));
                }
            }
            println!("{:<28}{burst:>8}{:>16.0}{:>16.0}", format!("{profile:?}"), least[0], least[1]);
        }
    }
}
