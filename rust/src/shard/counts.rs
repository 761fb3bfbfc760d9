//! What a shard's socket and rings have seen.

use crate::io::SendCounts;

/// What the socket did, since the beginning.
#[derive(Debug, Clone, Default)]
pub struct IoCounts {
    pub sent: SendCounts,
    /// Messages that came, of one or more datagrams, and the system calls for them.
    pub messages_in: u64,
    pub calls_in: u64,
    pub datagrams_in: u64,
    /// Errors in place of datagrams, by errno.
    pub errors_in: Vec<(i32, u64)>,
    pub rounds: u64,
    pub events_lost: u64,
    pub taps_lost: u64,
    pub orders_refused: u64,
    /// Injected packets that the machine refused after all.
    pub injects_refused: u64,
    /// Datagrams dropped because too much waited to be sent.
    pub out_overflowed: u64,
}

impl IoCounts {
    /// Add what another shard of the same plane counts. They have their ring for events in common.
    pub fn add(&mut self, other: &Self) {
        let (mine, theirs) = (&mut self.sent, &other.sent);
        for (sum, more) in [
            (&mut mine.datagrams, theirs.datagrams),
            (&mut mine.bytes, theirs.bytes),
            (&mut mine.messages, theirs.messages),
            (&mut mine.calls, theirs.calls),
            (&mut mine.refused, theirs.refused),
            (&mut mine.socket_full, theirs.socket_full),
            (&mut self.messages_in, other.messages_in),
            (&mut self.calls_in, other.calls_in),
            (&mut self.datagrams_in, other.datagrams_in),
            (&mut self.rounds, other.rounds),
            (&mut self.orders_refused, other.orders_refused),
            (&mut self.injects_refused, other.injects_refused),
            (&mut self.out_overflowed, other.out_overflowed),
        ] {
            *sum += more;
        }
        self.events_lost = self.events_lost.max(other.events_lost);
        self.taps_lost += other.taps_lost;
        for (sum, more) in [(&mut self.errors_in, &other.errors_in), (&mut mine.errors, &theirs.errors)] {
            for &(errno, count) in more {
                match sum.iter_mut().find(|(known, _)| *known == errno) {
                    Some((_, known)) => *known += count,
                    None => sum.push((errno, count)),
                }
            }
        }
    }
}
