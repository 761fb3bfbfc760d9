//! A batch of datagrams onto the wire, and what is done when it does not take them.

use std::io;
use std::net::SocketAddr;

use super::plan::{MAX_SEGMENTS, Plan};
use super::wire::{Batch, Wire};
use crate::out::{OutBatch, Waiting};

/// Datagrams kept while the socket is full: one large frame; older media is worth less than newer.
pub const BACKLOG: usize = 64;

/// What was sent and what was not, since the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendCounts {
    pub datagrams: u64,
    pub bytes: u64,
    /// Messages of one or more datagrams.
    pub messages: u64,
    /// System calls.
    pub calls: u64,
    /// Messages of several datagrams that were refused, and sent one by one.
    pub refused: u64,
    /// Dropped because the socket and the backlog were full.
    pub socket_full: u64,
    /// Dropped by errno.
    pub errors: Vec<(i32, u64)>,
}

/// Count an errno.
pub fn count_error(errors: &mut Vec<(i32, u64)>, error: &io::Error, datagrams: u64) {
    let code = error.raw_os_error().unwrap_or(0);
    match errors.iter_mut().find(|entry| entry.0 == code) {
        Some(entry) => entry.1 += datagrams,
        None => errors.push((code, datagrams)),
    }
}

/// Sends batches; each destination gets its datagrams in order.
pub struct Sender<W> {
    wire: W,
    segments: usize,
    plan: Plan,
    backlog: OutBatch,
    spare: OutBatch,
    pub counts: SendCounts,
}

impl<W: Wire> Sender<W> {
    /// `joined`: the kernel takes several datagrams of one size as one message (UDP_SEGMENT).
    pub fn new(wire: W, joined: bool) -> Self {
        let segments = if joined { MAX_SEGMENTS } else { 1 };
        Self {
            wire,
            segments,
            plan: Plan::default(),
            backlog: OutBatch::default(),
            spare: OutBatch::default(),
            counts: SendCounts::default(),
        }
    }

    /// Send all of `out`, or keep and count what the socket does not take. `out` is empty afterwards.
    pub fn flush(&mut self, out: &mut OutBatch) {
        if out.is_empty() {
            return;
        }
        if self.backlog.is_empty() {
            let waiting = out.waiting();
            let done = self.transmit(waiting);
            let rest = &self.plan.order[done..];
            keep(&mut self.backlog, &mut self.counts, rest.iter().map(|&index| part(waiting, index as usize)));
        } else {
            let waiting = out.waiting();
            let all = (0..waiting.ends.len()).map(|index| part(waiting, index));
            keep(&mut self.backlog, &mut self.counts, all);
        }
        out.clear();
    }

    /// The socket is full: call `resume` when it takes datagrams again.
    pub fn is_blocked(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Send what was kept.
    pub fn resume(&mut self) {
        let backlog = std::mem::take(&mut self.backlog);
        let waiting = backlog.waiting();
        let done = self.transmit(waiting);
        let rest = &self.plan.order[done..];
        keep(&mut self.spare, &mut self.counts, rest.iter().map(|&index| part(waiting, index as usize)));
        std::mem::swap(&mut self.backlog, &mut self.spare);
        self.spare = backlog;
        self.spare.clear();
    }

    #[cfg(test)]
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// Whether several datagrams still leave as one message.
    pub fn joins(&self) -> bool {
        self.segments > 1
    }

    /// Returns how many datagrams of `plan.order` are done with; the socket takes no more of the rest now.
    fn transmit(&mut self, waiting: Waiting<'_>) -> usize {
        self.plan.make(waiting, self.segments);
        let mut next = 0;
        while next < self.plan.runs.len() {
            let batch = Batch { waiting, order: &self.plan.order, runs: &self.plan.runs[next..] };
            self.counts.calls += 1;
            match self.wire.send(batch) {
                Ok(0) => return self.plan.runs[next].first as usize,
                Ok(sent) => {
                    self.count_sent(waiting, next, sent);
                    next += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.plan.runs[next].first as usize;
                }
                Err(error) => {
                    let count = self.plan.runs[next].count;
                    if count > 1 {
                        self.refuse(&error);
                        self.plan.split(next);
                    } else {
                        // Unreachable, forbidden, too long for the interface: this datagram's loss.
                        count_error(&mut self.counts.errors, &error, 1);
                        next += 1;
                    }
                }
            }
        }
        self.plan.order.len()
    }

    fn count_sent(&mut self, waiting: Waiting<'_>, first: usize, sent: usize) {
        let runs = &self.plan.runs[first..first + sent];
        let datagrams: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        let start = runs[0].first as usize;
        let indices = &self.plan.order[start..start + datagrams as usize];
        self.counts.messages += sent as u64;
        self.counts.datagrams += datagrams;
        self.counts.bytes += indices.iter().map(|&index| waiting.length(index as usize) as u64).sum::<u64>();
    }

    /// A message of several datagrams was refused: EIO says that the device cannot checksum them. Anything else may be
    /// due to this destination (its MTU, its route), and one destination must not make sending dearer for the others.
    fn refuse(&mut self, error: &io::Error) {
        self.counts.refused += 1;
        if error.raw_os_error() == Some(libc::EIO) {
            self.segments = 1;
        }
    }
}

fn part(waiting: Waiting<'_>, index: usize) -> (&[u8], SocketAddr) {
    (waiting.datagram(index), waiting.ends[index].1)
}

/// Copy what there is room for, count the rest.
fn keep<'a>(into: &mut OutBatch, counts: &mut SendCounts, parts: impl Iterator<Item = (&'a [u8], SocketAddr)>) {
    for (datagram, address) in parts {
        if into.len() >= BACKLOG || !into.push(datagram, address) {
            counts.socket_full += 1;
        }
    }
}
