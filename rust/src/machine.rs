//! What a shard drives: the plane without I/O. The forwarder's core is one; tests bring small ones.

use std::net::SocketAddr;

use crate::error::UsageError;
use crate::lanes::Note;
use crate::out::OutBatch;

/// A tapped packet: plaintext RTP, with its arrival and the ring that it is for.
#[derive(Debug, Clone, Copy)]
pub struct Tapped<'a> {
    pub tap: u32,
    pub ring: Option<u32>,
    pub packet: &'a [u8],
    pub arrival: i64,
}

/// `now` is monotonic time in microseconds and never goes backwards between calls.
pub trait Machine: Send + 'static {
    type Command: Send;
    type Event: Send;
    type Stats: Send;

    /// Carry out a command; a wrong one changes nothing.
    fn apply(&mut self, command: Self::Command, now: i64) -> Result<(), UsageError>;

    /// Take a plaintext RTP packet for a track without session.
    fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> Result<(), UsageError>;

    /// Take a datagram of any content from anyone.
    fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64);

    /// Do what was put off while a batch of datagrams came in, or a part of it. Returns whether there is more: send what
    /// waits then, and call it again. Called before each flush.
    fn settle(&mut self, now: i64) -> bool {
        let _ = now;
        false
    }

    /// Bytes that wait to be sent, or will when all is settled.
    fn held(&self) -> usize {
        self.out().bytes()
    }

    /// When `handle_timeout` has something to do.
    fn next_timeout(&self) -> Option<i64>;

    fn handle_timeout(&mut self, now: i64);

    /// What waits to be sent.
    fn out(&self) -> &OutBatch;

    /// Take what waits: it counts as sent. Whoever calls this clears the batch.
    fn transmit(&mut self) -> &mut OutBatch;

    /// Move what happened, in order, to the end of `into`.
    fn events(&mut self, into: &mut Vec<Self::Event>);

    /// Hand on the tapped packets, in order.
    fn taps(&mut self, take: impl FnMut(Tapped<'_>));

    /// It is this one of several shards.
    fn joins(&mut self, shard: usize) {
        let _ = shard;
    }

    /// Hand on what other shards are to know, in order: to which of them, what, and bytes. `give` returns those that did
    /// not take it.
    fn notes(&mut self, give: impl FnMut(u64, &Note, &[u8]) -> u64) {
        let _ = give;
    }

    /// Take a note of another shard.
    fn take_note(&mut self, note: &Note, data: &[u8], now: i64) {
        let _ = (note, data, now);
    }

    fn stats(&self) -> Self::Stats;
}
