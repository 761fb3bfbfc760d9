//! The slab of ingress packets: fixed slots with reference counts. One slot per packet, plaintext; whoever may have to
//! repeat the packet keeps the slot. The twin of `relay/plane/reference/packets.py`.
//!
//! When none is free a packet goes to the SPARE slot: it is forwarded at once and copied for taps, and nobody
//! keeps it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::io::pages::{Got, Memory, Pages};
use crate::rtp::Packet;

/// Bytes of a slot: more than an Ethernet frame.
pub const SLOT: usize = 1536;
/// The slot of a packet that nobody may keep.
pub const SPARE: u32 = 0;
/// Slots of one plane: 6 GiB.
pub const MOST: u32 = 1 << 22;
const BLOCK: usize = 256; // slots whose counts are made at once

/// The bytes and their parts. Apart from the counts, so that one packet can be read while others are released.
#[derive(Debug)]
pub struct Store {
    pages: Pages,
    packets: Vec<(Packet, u32)>, // with the length of the bytes
}

impl Store {
    pub fn buffer(&mut self, id: u32) -> &mut [u8] {
        let at = id as usize * SLOT;
        &mut self.pages.bytes_mut()[at..at + SLOT]
    }

    /// The packet's bytes.
    pub fn data(&self, id: u32) -> &[u8] {
        let at = id as usize * SLOT;
        &self.pages.bytes()[at..at + self.length(id)]
    }

    pub fn length(&self, id: u32) -> usize {
        self.packets[id as usize].1 as usize
    }

    pub fn packet(&self, id: u32) -> &Packet {
        &self.packets[id as usize].0
    }

    pub fn set(&mut self, id: u32, packet: Packet, length: usize) {
        self.packets[id as usize] = (packet, length as u32);
    }
}

/// How many hold each slot.
#[derive(Debug)]
pub struct Counts {
    counts: Vec<u32>, // of those that were ever used, and the spare one
    free: Vec<u32>,   // of those
    left: Arc<AtomicU32>,
    total: u32,
}

impl Counts {
    pub fn retain(&mut self, id: u32) {
        self.counts[id as usize] += 1;
    }

    pub fn release(&mut self, id: u32) {
        let count = &mut self.counts[id as usize];
        *count -= 1;
        if *count == 0 {
            self.free.push(id);
            self.tell();
        }
    }

    /// Slots that someone holds.
    pub fn used(&self) -> usize {
        self.counts.len() - 1 - self.free.len()
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    /// Free slots, for threads that may not ask.
    fn tell(&self) {
        self.left.store(self.total - self.used() as u32, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Packets {
    pub store: Store,
    pub counts: Counts,
}

impl Packets {
    /// Room for `total` packets, at most MOST. Nothing is allocated later: address space is reserved for all, and the
    /// kernel gives memory as slots are used for the first time.
    pub fn new(total: u32, memory: Memory) -> io::Result<Self> {
        let slots = total as usize + 1;
        let mut made = Self {
            store: Store { pages: Pages::of(memory, slots * SLOT)?, packets: reserved(slots)? },
            counts: Counts {
                counts: reserved(slots)?,
                free: reserved(slots)?,
                left: Arc::new(AtomicU32::new(total)),
                total,
            },
        };
        made.store.packets.push((Packet::default(), 0));
        made.counts.counts.push(1); // the spare one is never free
        Ok(made)
    }

    /// Take a slot, which is held once. None when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if self.counts.free.is_empty() {
            self.begin_some();
        }
        let id = self.counts.free.pop()?;
        self.counts.counts[id as usize] = 1;
        self.counts.tell();
        Some(id)
    }

    /// Take the spare slot, after which `counts.release` is due as for any other.
    pub fn take_spare(&mut self) -> u32 {
        self.counts.retain(SPARE);
        SPARE
    }

    /// How many are free, kept up to date for readers in other threads.
    pub fn left(&self) -> Arc<AtomicU32> {
        self.counts.left.clone()
    }

    /// What kind of memory the slots are in.
    pub fn memory(&self) -> Got {
        self.store.pages.got()
    }

    /// Put slots that were never used on the free list; the lowest are taken first, so that few pages are touched.
    fn begin_some(&mut self) {
        let first = self.counts.counts.len();
        let end = (first + BLOCK).min(self.counts.total as usize + 1);
        self.store.packets.resize(end, (Packet::default(), 0));
        self.counts.counts.resize(end, 0);
        self.counts.free.extend((first..end).rev().map(|id| id as u32));
    }
}

/// A vector that never moves until it has `slots` items.
fn reserved<T>(slots: usize) -> io::Result<Vec<T>> {
    let mut items = Vec::new();
    items.try_reserve_exact(slots).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slab(total: u32) -> Packets {
        Packets::new(total, Memory::Plain).expect("memory")
    }

    fn left(packets: &Packets) -> u32 {
        packets.left().load(Ordering::Relaxed)
    }

    fn distinct(held: &[(u32, u8)]) -> usize {
        held.iter().map(|one| one.0).collect::<std::collections::HashSet<_>>().len()
    }

    #[test]
    fn slots_do_not_overlap_and_are_bounded() {
        let mut packets = slab(1000);
        let taken: Vec<u32> = std::iter::from_fn(|| packets.take()).collect();
        assert_eq!((taken.len(), left(&packets), packets.take()), (1000, 0, None));
        for &id in &taken {
            packets.store.buffer(id).fill(id as u8);
            packets.store.set(id, Packet::default(), SLOT);
        }
        assert!(taken.iter().all(|&id| id != SPARE && packets.store.data(id).iter().all(|&byte| byte == id as u8)));
        packets.counts.release(taken[7]);
        assert_eq!((left(&packets), packets.take(), packets.take()), (1, Some(taken[7]), None));
    }

    #[test]
    fn the_spare_slot_is_never_free() {
        let mut packets = slab(1);
        let one = packets.take();
        assert_eq!((packets.take_spare(), packets.counts.used()), (SPARE, 1));
        packets.store.buffer(SPARE).fill(9);
        packets.counts.release(SPARE);
        assert_eq!((one, packets.take(), left(&packets)), (Some(1), None, 0));
    }

    proptest! {
        #[test]
        fn what_is_held_stays_and_what_is_not_is_free(steps in prop::collection::vec((0u8..3, any::<u8>()), 0..400)) {
            let mut packets = slab(20);
            let mut held: Vec<(u32, u8)> = Vec::new();
            for (step, mark) in steps {
                match step {
                    0 => match packets.take() {
                        Some(id) => {
                            prop_assert!(held.iter().all(|other| other.0 != id));
                            packets.store.buffer(id)[0] = mark;
                            packets.store.set(id, Packet::default(), 1);
                            held.push((id, mark));
                        }
                        None => prop_assert_eq!(distinct(&held), 20),
                    },
                    1 if !held.is_empty() => {
                        let one = held[usize::from(mark) % held.len()];
                        packets.counts.retain(one.0);
                        held.push(one);
                    }
                    _ if !held.is_empty() => {
                        let one = held.swap_remove(usize::from(mark) % held.len());
                        packets.counts.release(one.0);
                    }
                    _ => {}
                }
                prop_assert!(held.iter().all(|&(id, mark)| packets.store.data(id) == [mark]));
                prop_assert_eq!(left(&packets) as usize, 20 - distinct(&held));
            }
        }
    }
}
