//! Where the core writes what is to be sent: one buffer for the bytes, one list of where each datagram ends and goes.
//!
//! The datagrams lie one behind the other, so that several to one destination can leave as one message. Both parts are
//! reused: after they have grown to what a load needs, nothing is allocated.

use std::net::SocketAddr;

use crate::srtp::MAX_TRAILER;

/// Bytes kept free behind what waits to go out: any packet we write fits.
pub const ROOM: usize = 2048 + MAX_TRAILER;
/// Bytes: one packet to 20,000 viewers. What comes above is dropped and counted.
const LIMIT: usize = 32 << 20;

/// Sealed datagrams in the order in which they were written.
#[derive(Debug)]
pub struct OutBatch {
    bytes: Vec<u8>,
    used: usize,
    ends: Vec<(usize, SocketAddr)>,
    limit: usize,
    overflowed: u64,
}

impl Default for OutBatch {
    fn default() -> Self {
        Self::with_limit(LIMIT)
    }
}

impl OutBatch {
    /// A batch that takes datagrams until it holds `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { bytes: Vec::new(), used: 0, ends: Vec::new(), limit, overflowed: 0 }
    }

    /// Where the next datagram is to be written: at least ROOM bytes, with what earlier ones left there.
    pub fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.used < ROOM {
            let longer = (self.bytes.len() * 2).max(self.used + 32 * ROOM);
            self.bytes.resize(longer, 0);
        }
        &mut self.bytes[self.used..]
    }

    /// Send the first `length` bytes of `room`.
    pub fn commit(&mut self, length: usize, address: SocketAddr) {
        if self.used >= self.limit || self.used + length > self.bytes.len() {
            self.overflowed += 1;
            return;
        }
        self.used += length;
        self.ends.push((self.used, address));
    }

    /// Send a copy. Says no to a datagram that is longer than any we write.
    pub fn push(&mut self, datagram: &[u8], address: SocketAddr) -> bool {
        let Some(place) = self.room().get_mut(..datagram.len()) else { return false };
        place.copy_from_slice(datagram);
        self.commit(datagram.len(), address);
        true
    }

    /// Datagrams that wait.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.used
    }

    pub fn waiting(&self) -> Waiting<'_> {
        Waiting { bytes: &self.bytes[..self.used], ends: &self.ends }
    }

    /// Forget what was drained; the memory stays.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.used = 0;
    }

    /// Hand on every datagram in order, and forget them.
    pub fn drain(&mut self, mut send: impl FnMut(&[u8], SocketAddr)) {
        let waiting = self.waiting();
        for index in 0..waiting.ends.len() {
            send(waiting.datagram(index), waiting.ends[index].1);
        }
        self.clear();
    }

    /// Datagrams dropped because the batch was full.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

/// What a batch holds: datagram `i` is what lies between the ends of the one before and its own.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    pub bytes: &'a [u8],
    pub ends: &'a [(usize, SocketAddr)],
}

impl<'a> Waiting<'a> {
    pub fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1].0 }
    }

    pub fn length(&self, index: usize) -> usize {
        self.ends[index].0 - self.start(index)
    }

    pub fn datagram(&self, index: usize) -> &'a [u8] {
        &self.bytes[self.start(index)..self.ends[index].0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn keeps_order_and_bytes() {
        let mut out = OutBatch::default();
        out.room()[..3].copy_from_slice(b"one");
        out.commit(3, address(1));
        out.room()[..4].copy_from_slice(b"none");
        assert!(out.push(b"three", address(2)));
        assert!(!out.push(&[0; 80_000], address(3)));
        let mut got = Vec::new();
        out.drain(|datagram, address| got.push((datagram.to_vec(), address.port())));
        assert_eq!(got, [(b"one".to_vec(), 1), (b"three".to_vec(), 2)]);
        assert!(out.is_empty() && out.bytes() == 0);
    }

    #[test]
    fn grows_to_its_limit_and_counts_the_rest() {
        let mut out = OutBatch::with_limit(1 << 20);
        for _ in 0..5000 {
            out.push(&[7; 1000], address(1));
        }
        assert_eq!(out.len() as u64 + out.overflowed(), 5000);
        assert_eq!(out.len(), (1usize << 20).div_ceil(1000));
        out.clear();
        assert!(out.push(b"again", address(1)));
        assert_eq!(out.waiting().datagram(0), b"again");
    }
}
