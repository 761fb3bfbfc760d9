//! The shared-memory rings of a shard: taps go out by some, injected packets come in by others.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll;
use rustix::net::{Shutdown, shutdown};

use crate::io::shared_ring::{Corrupt, Memory, Reader, Writer};
use crate::machine::Tapped;

/// Packets that one round takes from a ring at most, so that no worker keeps the others waiting for long.
const BATCH: usize = 64;

/// What went through a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounts {
    pub packets: u64,
    /// Of a tap ring: it was full, or the packet too long. Of an inject ring: of a stream that is bound to nothing, or
    /// refused.
    pub dropped: u64,
    /// The worker wrote what cannot be; the ring is read no more.
    pub corrupt: bool,
}

struct Inject {
    reader: Reader,
    /// Readable by whoever owns the ring when we shut it down: that is how it learns that the ring is corrupt.
    life: OwnedFd,
    streams: HashMap<u32, (u32, i64)>,
    counts: RingCounts,
}

pub struct RingSet {
    taps: HashMap<u32, Writer>,
    injects: HashMap<u32, Inject>,
    /// Readable when a producer woke us.
    woken: OwnedFd,
    buffer: Vec<u8>,
    /// Tapped packets for rings that are closed.
    pub lost: u64,
}

impl RingSet {
    pub fn new() -> io::Result<Self> {
        let woken = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { taps: HashMap::new(), injects: HashMap::new(), woken, buffer: Vec::new(), lost: 0 })
    }

    /// Taps may go to this ring from now on. `memory` and `wake` are the plane's ends.
    pub fn add_tap(&mut self, ring: u32, memory: OwnedFd, wake: OwnedFd) -> io::Result<()> {
        self.taps.insert(ring, Writer::new(Memory::map(memory)?, wake));
        Ok(())
    }

    /// Take injected packets from this ring.
    pub fn add_inject(&mut self, ring: u32, memory: OwnedFd, wake: OwnedFd, life: OwnedFd) -> io::Result<()> {
        let reader = Reader::new(Memory::map(memory)?, wake);
        epoll::add(&self.woken, &reader, epoll::EventData::new_u64(u64::from(ring)), epoll::EventFlags::IN)?;
        self.buffer.resize(self.buffer.len().max(reader.capacity()), 0);
        self.injects.insert(ring, Inject { reader, life, streams: HashMap::new(), counts: RingCounts::default() });
        Ok(())
    }

    /// Packets of `stream` are those of a track's layer; of nothing with None. False when there is no such ring.
    pub fn bind(&mut self, ring: u32, stream: u32, layer: Option<(u32, i64)>) -> bool {
        let Some(inject) = self.injects.get_mut(&ring) else { return false };
        match layer {
            Some(layer) => inject.streams.insert(stream, layer),
            None => inject.streams.remove(&stream),
        };
        true
    }

    pub fn remove(&mut self, ring: u32) {
        self.taps.remove(&ring);
        if let Some(inject) = self.injects.remove(&ring) {
            let _ = epoll::delete(&self.woken, &inject.reader); // it is not there any more when the worker is gone
        }
    }

    pub fn counts(&self, ring: u32) -> Option<RingCounts> {
        let tap = self.taps.get(&ring).map(|writer| RingCounts {
            packets: writer.put_so_far(),
            dropped: writer.dropped,
            corrupt: false,
        });
        tap.or_else(|| self.injects.get(&ring).map(|inject| inject.counts))
    }

    /// Put a tapped packet into its ring. Wakes nobody: see `flush`.
    pub fn put(&mut self, ring: u32, tapped: &Tapped<'_>) {
        match self.taps.get_mut(&ring) {
            Some(writer) => _ = writer.put(tapped.tap, tapped.arrival, tapped.packet), // it counts what it drops
            None => self.lost += 1,
        }
    }

    /// Wake the workers that have something to read and sleep.
    pub fn flush(&mut self) {
        for writer in self.taps.values_mut() {
            writer.flush();
        }
    }

    /// Hand on what workers inject, a batch of each ring. `inject` says whether the packet was taken.
    pub fn take(&mut self, mut inject: impl FnMut(u32, i64, &[u8]) -> bool) {
        let Self { injects, woken, buffer, .. } = self;
        for one in injects.values_mut().filter(|one| !one.counts.corrupt) {
            for _ in 0..BATCH {
                let slot = match one.reader.take(buffer) {
                    Ok(Some(slot)) => slot,
                    Ok(None) => break,
                    Err(Corrupt) => {
                        one.give_up(woken);
                        break;
                    }
                };
                let layer = one.streams.get(&slot.stream);
                if layer.is_some_and(|&(track, layer)| inject(track, layer, &buffer[..slot.length])) {
                    one.counts.packets += 1;
                } else {
                    one.counts.dropped += 1;
                }
            }
        }
    }

    /// Ask to be woken by every ring. False when something waits already.
    pub fn sleep(&mut self) -> bool {
        let Self { injects, woken, .. } = self;
        let mut asleep = true;
        for one in injects.values_mut().filter(|one| !one.counts.corrupt) {
            match one.reader.sleep() {
                Ok(empty) => asleep &= empty,
                Err(Corrupt) => one.give_up(woken),
            }
        }
        asleep
    }

    /// Forget what woke us; stop listening to workers that are gone.
    pub fn woken(&mut self) {
        for one in self.injects.values() {
            if !one.reader.woken() {
                let _ = epoll::delete(&self.woken, &one.reader);
            }
        }
    }
}

impl Inject {
    fn give_up(&mut self, woken: &OwnedFd) {
        self.counts.corrupt = true;
        let _ = epoll::delete(woken, &self.reader);
        let _ = shutdown(&self.life, Shutdown::Both);
    }
}

impl AsFd for RingSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
