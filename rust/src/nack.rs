//! Loss detection for one received SSRC: what is missing, when to ask for it, and RFC 3550 reception statistics.
//!
//! The twin of `relay/plane/reference/nack.py`. A missing number is asked for when one three or more ahead of it has
//! come (overtaken by at most two is reordering, by far the most common kind) or 10 ms after the gap was seen,
//! whichever is first.

use crate::arithmetic::mul_div;

pub const REORDER_PACKETS: i64 = 2;
pub const REORDER_US: i64 = 10_000;
pub const MIN_RETRY_US: i64 = 20_000;
pub const MAX_TRIES: u32 = 10;
pub const MAX_AGE_US: i64 = 1_000_000;
/// A longer jump, either way, is a restarted stream.
pub const MAX_JUMP: i64 = 1000;
/// More outstanding than this: only a keyframe helps, the oldest count as lost.
pub const MAX_MISSING: usize = 512;
const RING: usize = 1024; // ≥ MAX_JUMP + 1, so that every packet still accepted has its own place
const NEVER: i64 = -(1 << 62);
const FAR: i64 = 1 << 62;

/// What one packet turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Ahead of all others.
    New,
    /// Late or retransmitted, not seen before.
    Recovered,
    Duplicate,
    /// A jump: the stream starts anew with this packet.
    Reset,
}

/// Fields of a report block (RFC 3550 6.4.1): fraction in 1/256, jitter in clock units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reception {
    pub fraction_lost: u8,
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    pub jitter: u32,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    seq: i64,
    since: i64,
    due: i64,
    tries: u32,
}

/// One per received SSRC. Times are microseconds, sequence numbers 16 bits at the border.
#[derive(Debug)]
pub struct LossDetector {
    clock_rate: u32,
    missing: Vec<Missing>, // ascending
    seen: Vec<i64>,
    next: i64,
    fresh: i64,
    base: i64,
    received: i64,
    received_prior: i64,
    expected_prior: i64,
    transit: i64,
    jitter: i64, // scaled by 16, RFC 3550 A.8
    /// Extended sequence number, -1 before the first packet.
    pub highest: i64,
    pub duplicates: i64,
    pub recovered_count: i64,
    pub given_up: i64,
}

fn place(seq: i64) -> usize {
    (seq & (RING as i64 - 1)) as usize
}

impl LossDetector {
    pub fn new(clock_rate: u32) -> Self {
        let mut made = Self {
            clock_rate,
            missing: Vec::new(),
            seen: vec![NEVER; RING],
            next: FAR,
            fresh: FAR,
            base: 0,
            received: 0,
            received_prior: 0,
            expected_prior: 0,
            transit: NEVER,
            jitter: 0,
            highest: -1,
            duplicates: 0,
            recovered_count: 0,
            given_up: 0,
        };
        made.start(0);
        made.highest = -1;
        made
    }

    /// RFC 3550 A.1 init_seq.
    fn start(&mut self, seq16: u16) {
        self.seen.fill(NEVER);
        self.given_up += self.missing.len() as i64;
        self.missing.clear();
        (self.fresh, self.next) = (FAR, FAR);
        self.base = i64::from(seq16);
        self.highest = self.base;
        (self.received, self.received_prior, self.expected_prior) = (0, 0, 0);
        self.transit = NEVER;
        self.jitter = 0;
    }

    /// Account for one packet. `timestamp` feeds the jitter.
    pub fn received(&mut self, seq16: u16, now: i64, timestamp: Option<u32>) -> Arrival {
        let delta = i64::from(seq16.wrapping_sub(self.highest as u16));
        let mut arrival = Arrival::New;
        if delta == 1 && self.highest >= 0 {
            self.highest += 1;
            self.seen[place(self.highest)] = self.highest;
            self.received += 1;
            if self.highest > self.fresh {
                self.next = now;
            }
        } else {
            arrival = self.irregular(seq16, delta, now);
        }
        if matches!(arrival, Arrival::New | Arrival::Reset)
            && let Some(timestamp) = timestamp
        {
            self.note_jitter(timestamp, now);
        }
        arrival
    }

    /// Everything that is not the next packet in order. `delta` is 16 bits ahead of the highest.
    fn irregular(&mut self, seq16: u16, delta: i64, now: i64) -> Arrival {
        let mut arrival = Arrival::New;
        if self.highest < 0 {
            self.start(seq16);
        } else if delta == 0 {
            self.duplicates += 1;
            self.received += 1; // RFC 3550 A.3 counts them, so that loss can be negative
            return Arrival::Duplicate;
        } else if delta <= MAX_JUMP {
            self.gap(self.highest + 1, self.highest + delta, now);
            self.highest += delta;
            if self.highest > self.fresh {
                self.next = now;
            }
        } else if delta >= 0x10000 - MAX_JUMP {
            self.received += 1;
            return self.late(self.highest + delta - 0x10000);
        } else {
            self.start(seq16);
            arrival = Arrival::Reset;
        }
        self.seen[place(self.highest)] = self.highest;
        self.received += 1;
        arrival
    }

    /// A packet behind the highest one, by its extended sequence number.
    fn late(&mut self, seq: i64) -> Arrival {
        if self.seen[place(seq)] == seq {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        self.seen[place(seq)] = seq;
        if let Ok(index) = self.missing.binary_search_by_key(&seq, |entry| entry.seq) {
            self.missing.remove(index);
        }
        self.recovered_count += 1;
        Arrival::Recovered
    }

    /// A packet restored by RTX or parity: no longer missing, not counted as received (RFC 4588 section 4).
    pub fn recovered(&mut self, seq16: u16) -> Arrival {
        let behind = i64::from((self.highest as u16).wrapping_sub(seq16));
        if self.highest < 0 || behind > MAX_JUMP {
            return Arrival::Duplicate;
        }
        self.late(self.highest - behind)
    }

    /// first … end - 1 are missing.
    fn gap(&mut self, first: i64, end: i64, now: i64) {
        let due = now + REORDER_US;
        let skipped = (end - MAX_MISSING as i64 - first).max(0);
        self.given_up += skipped;
        for seq in first + skipped..end {
            self.missing.push(Missing { seq, since: now, due, tries: 0 });
        }
        let excess = self.missing.len().saturating_sub(MAX_MISSING);
        self.missing.drain(..excess);
        self.given_up += excess as i64;
        self.next = self.next.min(due);
        if self.fresh == FAR {
            self.fresh = first + skipped + REORDER_PACKETS;
        }
    }

    /// Append the sequence numbers to ask for now, ascending. Nothing and cheap before `next_timeout`.
    ///
    /// Each is asked for again after max(`rtt_us`, 20 ms), at most ten times and for at most 1 s; then it is lost.
    pub fn due(&mut self, now: i64, rtt_us: i64, out: &mut Vec<u16>) {
        if now < self.next || self.missing.is_empty() {
            return;
        }
        let retry = rtt_us.max(MIN_RETRY_US);
        let overtaken = self.highest - REORDER_PACKETS;
        let (mut soonest, mut fresh) = (FAR, FAR);
        let before = self.missing.len();
        self.missing.retain_mut(|entry| {
            if now - entry.since > MAX_AGE_US || (entry.tries >= MAX_TRIES && now >= entry.due) {
                return false;
            }
            if now >= entry.due || (entry.tries == 0 && entry.seq < overtaken) {
                out.push(entry.seq as u16);
                entry.due = now + retry;
                entry.tries += 1;
            } else if entry.tries == 0 && fresh == FAR {
                fresh = entry.seq + REORDER_PACKETS;
            }
            soonest = soonest.min(entry.due);
            true
        });
        self.given_up += (before - self.missing.len()) as i64;
        (self.next, self.fresh) = (soonest, fresh);
    }

    /// When `due` has something to do, in microseconds; None while nothing is missing. May be in the past.
    pub fn next_timeout(&self) -> Option<i64> {
        (!self.missing.is_empty()).then_some(self.next)
    }

    /// How many sequence numbers are outstanding.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// A decodable frame starts at `seq16`: what is missing before it is not needed any more.
    pub fn keyframe(&mut self, seq16: u16) {
        if self.highest < 0 {
            return;
        }
        let seq = self.highest - i64::from((self.highest as u16).wrapping_sub(seq16));
        let stale = self.missing.partition_point(|entry| entry.seq < seq);
        self.missing.drain(..stale);
        self.given_up += stale as i64;
    }

    /// RFC 3550 A.8, in integers; transit wraps at 32 bits with the timestamp.
    fn note_jitter(&mut self, timestamp: u32, now: i64) {
        let transit = (mul_div(now, i64::from(self.clock_rate), 1_000_000) as u32).wrapping_sub(timestamp);
        if self.transit >= 0 {
            let difference = transit.wrapping_sub(self.transit as u32) as i32;
            self.jitter += i64::from(difference.unsigned_abs()) - ((self.jitter + 8) >> 4);
        }
        self.transit = i64::from(transit);
    }

    /// Statistics for a report block; starts the next interval of `fraction_lost` (RFC 3550 A.3).
    pub fn report(&mut self) -> Reception {
        if self.highest < 0 {
            return Reception::default();
        }
        let expected = self.highest - self.base + 1;
        let expected_interval = expected - self.expected_prior;
        let lost_interval = expected_interval - (self.received - self.received_prior);
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lossy = expected_interval > 0 && lost_interval > 0;
        let fraction = if lossy { (lost_interval << 8) / expected_interval } else { 0 };
        Reception {
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: (expected - self.received).clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_sequence: self.highest as u32,
            jitter: (self.jitter >> 4) as u32,
        }
    }
}
