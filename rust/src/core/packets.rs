//! Fixed slots for ingress packets, with reference counts. One slot per packet, plaintext; whoever may have to repeat
//! the packet keeps the slot.

use crate::rtp::Packet;

/// Bytes of a slot: more than an Ethernet frame.
pub const SLOT: usize = 1536;
const BLOCK: usize = 256; // slots that are made at once

/// The bytes and their parts. Apart from the counts, so that one packet can be read while others are released.
#[derive(Debug, Default)]
pub struct Store {
    blocks: Vec<Box<[u8]>>,
    packets: Vec<(Packet, u32)>, // with the length of the bytes
}

impl Store {
    pub fn buffer(&mut self, id: u32) -> &mut [u8] {
        let at = id as usize % BLOCK * SLOT;
        &mut self.blocks[id as usize / BLOCK][at..at + SLOT]
    }

    /// The packet's bytes.
    pub fn data(&self, id: u32) -> &[u8] {
        let at = id as usize % BLOCK * SLOT;
        &self.blocks[id as usize / BLOCK][at..at + self.length(id)]
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
#[derive(Debug, Default)]
pub struct Counts {
    counts: Vec<u32>,
    free: Vec<u32>,
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
        }
    }

    /// Slots that someone holds.
    pub fn used(&self) -> usize {
        self.counts.len() - self.free.len()
    }
}

#[derive(Debug, Default)]
pub struct Packets {
    pub store: Store,
    pub counts: Counts,
    limit: usize,
}

impl Packets {
    pub fn new(limit: u32) -> Self {
        Self { limit: limit as usize, ..Self::default() }
    }

    /// Take a slot, which is held once. None when all that may be are taken.
    pub fn take(&mut self) -> Option<u32> {
        if self.counts.free.is_empty() {
            self.grow()?;
        }
        let id = self.counts.free.pop()?;
        self.counts.counts[id as usize] = 1;
        Some(id)
    }

    fn grow(&mut self) -> Option<()> {
        let first = self.counts.counts.len();
        let count = BLOCK.min(self.limit.checked_sub(first).filter(|&left| left > 0)?);
        self.store.blocks.push(vec![0; BLOCK * SLOT].into_boxed_slice());
        self.store.packets.resize(first + count, (Packet::default(), 0));
        self.counts.counts.resize(first + count, 0);
        self.counts.free.extend((first..first + count).rev().map(|id| id as u32));
        // A free list that never grows while packets come and go.
        self.counts.free.reserve(first + count);
        Some(())
    }
}
