//! Packets that wait to be read by taps: those with a slot hold it, those without one are copied.
//!
//! A node's own viewers get every packet however full the slab is; whoever watches on another node, or by a recording,
//! gets them through a tap and is not to miss what they see.

use super::canonical;
use super::contract::ExtensionIds;
use super::packets::{Packets, SPARE};
use super::state::State;
use super::tracks::LayerKey;
use crate::machine::Tapped;

/// Packets that wait: 4 s of one 1,000 packets/s layer.
pub const MAX_TAPPED: usize = 4096;

/// A packet for one tap.
#[derive(Debug)]
struct Copied {
    tap: u32,
    ring: Option<u32>,
    arrival: i64,
    bytes: Bytes,
}

/// Where a packet is until it is read. `rewrite` has the extension ids that it came with, if it is to get canonical ones.
#[derive(Debug)]
enum Bytes {
    Held { packet: u32, rewrite: Option<ExtensionIds> },
    Aside { start: usize, end: usize },
}

/// See `put` and `drain`.
#[derive(Debug, Default)]
pub struct TapQueue {
    waiting: Vec<Copied>,
    aside: Vec<u8>,     // packets of the spare slot, which belongs to the next one before these are read
    canonical: Vec<u8>, // only grows
    pub dropped: u64,
}

impl TapQueue {
    fn put(&mut self, copied: Copied) {
        self.waiting.push(copied);
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_TAPPED
    }

    /// Copy a packet that nobody may keep.
    fn put_aside(&mut self, packets: &Packets, id: u32, rewrite: Option<ExtensionIds>) -> Bytes {
        let start = self.aside.len();
        self.aside.extend_from_slice(read(packets, id, rewrite.as_ref(), &mut self.canonical));
        Bytes::Aside { start, end: self.aside.len() }
    }

    /// Hand on what waits, in order.
    pub fn drain(&mut self, packets: &mut Packets, mut take: impl FnMut(Tapped<'_>)) {
        for Copied { tap, ring, arrival, bytes } in self.waiting.drain(..) {
            match bytes {
                Bytes::Held { packet, rewrite } => {
                    let data = read(packets, packet, rewrite.as_ref(), &mut self.canonical);
                    take(Tapped { tap, ring, packet: data, arrival });
                    packets.counts.release(packet);
                }
                Bytes::Aside { start, end } => take(Tapped { tap, ring, packet: &self.aside[start..end], arrival }),
            }
        }
        self.aside.clear();
    }
}

/// A packet as taps are to have it.
fn read<'a>(packets: &'a Packets, id: u32, rewrite: Option<&ExtensionIds>, into: &'a mut Vec<u8>) -> &'a [u8] {
    let data = packets.store.data(id);
    match rewrite.filter(|_| data[0] & 0x10 != 0) {
        Some(ids) => canonical::rewrite(data, packets.store.packet(id), ids, into),
        None => data,
    }
}

/// Copy a packet of a layer for its taps.
pub fn put(core: &mut State, key: LayerKey, id: u32, now: i64) {
    if core.layer(key).taps.is_empty() {
        return;
    }
    let injected = core.tracks[key.track].session.is_none() && core.tracks[key.track].mirror.is_none();
    let ids = (!injected).then(|| core.extension_ids(key.track));
    let State { tracks, tapped, packets, .. } = core;
    for (&handle, tap) in &tracks[key.track].layers[key.index].taps {
        if tapped.is_full() {
            tapped.dropped += 1;
            continue;
        }
        let rewrite = ids.filter(|_| tap.canonical);
        let bytes = if id == SPARE {
            tapped.put_aside(packets, id, rewrite)
        } else {
            packets.counts.retain(id);
            Bytes::Held { packet: id, rewrite }
        };
        tapped.put(Copied { tap: handle, ring: tap.ring, arrival: now, bytes });
    }
}
