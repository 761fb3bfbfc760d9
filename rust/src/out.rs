//! Where the core writes what is to be sent: one arena for the bytes, one list for where they go, both reused.
//!
//! The caller drains the batch after each call into the core; what has not been drained stays in front, in order.

use std::net::SocketAddr;

/// Bytes that a new batch can hold without growing: what 8 packets for 100 viewers take, which the cache holds too.
const FIRST_ARENA: usize = 1 << 20;
/// Bytes: one packet to 20,000 viewers. What comes above is dropped and counted.
const MAX_ARENA: usize = 32 << 20;

/// One sealed datagram: `arena[offset..offset + length]` goes to `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub address: SocketAddr,
    pub offset: u32,
    pub length: u32,
}

/// Datagrams in the order in which they were committed. After it has grown to what a load needs, it allocates nothing.
pub struct OutBatch {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    used: usize,
    reserved: Option<(SocketAddr, usize)>,
    limit: usize,
    overflowed: u64,
}

impl Default for OutBatch {
    fn default() -> Self {
        Self::with_limit(MAX_ARENA)
    }
}

impl OutBatch {
    /// A batch of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        // Zeroed memory of this size comes from the kernel untouched: what is never used costs nothing.
        let arena = vec![0; FIRST_ARENA.min(limit)];
        Self { arena, entries: Vec::with_capacity(1024), used: 0, reserved: None, limit, overflowed: 0 }
    }

    /// Room for a datagram of at most `longest` bytes, to be written and then given to `commit`. What it holds is left
    /// over from earlier datagrams. A room that is not committed is given again.
    pub fn reserve(&mut self, address: SocketAddr, longest: usize) -> &mut [u8] {
        if self.used + longest > self.arena.len() {
            let wanted = (self.arena.len() * 2).clamp(self.used + longest, self.limit.max(self.used + longest));
            self.arena.resize(wanted, 0);
        }
        self.reserved = Some((address, longest));
        &mut self.arena[self.used..self.used + longest]
    }

    /// The first `length` bytes of the room are a datagram. Nothing happens without a room, or when it is longer.
    pub fn commit(&mut self, length: usize) {
        let Some((address, longest)) = self.reserved.take() else { return };
        if length > longest {
            return;
        }
        if self.used + length > self.limit {
            self.overflowed += 1;
            return;
        }
        self.entries.push(Entry { address, offset: self.used as u32, length: length as u32 });
        self.used += length;
    }

    /// Append a datagram that was made elsewhere.
    pub fn push(&mut self, address: SocketAddr, datagram: &[u8]) {
        self.reserve(address, datagram.len()).copy_from_slice(datagram);
        self.commit(datagram.len());
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn arena(&self) -> &[u8] {
        &self.arena[..self.used]
    }

    pub fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.arena[entry.offset as usize..(entry.offset + entry.length) as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that wait.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Forget what was drained; the memory stays.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
        self.reserved = None;
    }

    /// Datagrams dropped because the batch was full.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
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
        out.reserve(address(1), 100)[..3].copy_from_slice(b"one");
        out.commit(3);
        out.reserve(address(9), 100)[..4].copy_from_slice(b"none");
        out.push(address(2), b"three");
        out.commit(5);
        let got: Vec<_> = out.entries().iter().map(|entry| (entry.address.port(), out.bytes(entry))).collect();
        assert_eq!(got, [(1, &b"one"[..]), (2, &b"three"[..])]);
        out.clear();
        assert!(out.is_empty() && out.used() == 0);
    }

    #[test]
    fn grows_to_its_limit_and_counts_the_rest() {
        let mut out = OutBatch::with_limit(4 << 20);
        for _ in 0..5000 {
            out.push(address(1), &[7; 1000]);
        }
        assert_eq!(out.entries().len() as u64 + out.overflowed(), 5000);
        assert_eq!(out.entries().len(), (4 << 20) / 1000);
        assert_eq!(out.used(), out.entries().len() * 1000);
    }
}
