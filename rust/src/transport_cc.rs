//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! The twin of `relay/plane/reference/transport_cc.py`. `Recorder` notes arrivals and writes the feedback packets that
//! a publisher's estimator wants; `parse_feedback` reads those that a viewer sends. Arrival times travel in ticks of
//! 250 µs against a reference in steps of 64 ms (256 ticks).

use crate::rtp::{read_u16, read_u32};

pub const TICK_US: i64 = 250;
pub const REFERENCE_US: i64 = 64_000;
pub const REFERENCE_WRAP_US: i64 = (1 << 24) * REFERENCE_US;
/// Per feedback read; a claim of more is a lie that would cost us time.
pub const MAX_STATUSES: usize = 8192;
/// Of chunks and deltas per feedback written: with headers and SRTCP it stays within an MTU.
pub const MAX_FCI_BYTES: usize = 1100;
/// Sequence numbers remembered; a jump by more is a restart.
pub const WINDOW: i64 = 8192;
/// How far behind the newest a packet may be and still be reported.
pub const MAX_LATE: i64 = 1024;
const MAX_RUN: usize = 8191;
const NONE: i64 = -1;

fn place(seq: i64) -> usize {
    (seq & (WINDOW - 1)) as usize
}

/// Arrivals of one transport (all SSRCs of a session together). `record` per packet, `feedback` every 50–100 ms.
#[derive(Debug)]
pub struct Recorder {
    ticks: Vec<i64>, // arrival in ticks, by extended sequence modulo WINDOW
    highest: i64,    // extended sequence number, -1 before the first packet
    base: i64,       // first one the next feedback speaks about
    count: u8,
    symbols: Vec<u8>,
    deltas: Vec<u8>,
    fci: Vec<u8>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            ticks: vec![NONE; WINDOW as usize],
            highest: -1,
            base: 0,
            count: 0,
            symbols: Vec::new(),
            deltas: Vec::new(),
            fci: Vec::new(),
        }
    }
}

impl Recorder {
    /// Note one arrival. Duplicates and packets more than MAX_LATE behind are ignored.
    pub fn record(&mut self, seq16: u16, arrival_us: i64) {
        let tick = arrival_us / TICK_US;
        let delta = i64::from(seq16.wrapping_sub(self.highest as u16));
        if delta == 1 && self.highest >= 0 {
            self.highest += 1;
            self.ticks[place(self.highest)] = tick;
        } else if self.highest < 0 || (WINDOW..0x8000).contains(&delta) {
            self.highest = i64::from(seq16) + 0x10000; // room for late packets before the first
            self.base = self.highest;
            self.ticks.fill(NONE);
            self.ticks[place(self.highest)] = tick;
        } else if delta >= 0x8000 {
            self.late(self.highest + delta - 0x10000, tick);
        } else if delta > 0 {
            for seq in self.highest + 1..self.highest + delta {
                self.ticks[place(seq)] = NONE;
            }
            self.highest += delta;
            self.ticks[place(self.highest)] = tick;
        }
    }

    /// Report again from a late packet on: its first report said lost.
    fn late(&mut self, seq: i64, tick: i64) {
        if self.highest - seq <= MAX_LATE && self.ticks[place(seq)] == NONE {
            self.ticks[place(seq)] = tick;
            self.base = self.base.min(seq);
        }
    }

    /// Whether a feedback would say anything.
    pub fn pending(&self) -> bool {
        self.highest >= self.base
    }

    /// Hand on the FCI of each RTPFB packet (FMT 15) about everything since the last call.
    pub fn feedback(&mut self, mut emit: impl FnMut(&[u8])) {
        let end = self.highest + 1;
        let mut base = self.base.max(end - WINDOW); // older arrivals were overwritten
        while base < end {
            let Some(next) = self.collect(base, end) else { break };
            self.write_fci(base);
            emit(&self.fci);
            base = next;
        }
        self.base = end;
    }

    /// Collect symbols and deltas of one packet that starts at `base`. Returns where the next one starts.
    fn collect(&mut self, base: i64, end: i64) -> Option<i64> {
        let first = (base..end).find(|&seq| self.ticks[place(seq)] >= 0)?;
        let mut last = self.ticks[place(first)] >> 8 << 8;
        self.symbols.clear();
        self.symbols.resize((first - base) as usize, 0);
        self.deltas.clear();
        let mut seq = first;
        while seq < end && self.deltas.len() + (seq - first) as usize / 7 * 2 < MAX_FCI_BYTES {
            let tick = self.ticks[place(seq)];
            if tick < 0 {
                self.symbols.push(0);
            } else {
                let delta = tick - last;
                if let Ok(small) = u8::try_from(delta) {
                    self.symbols.push(1);
                    self.deltas.push(small);
                } else if let Ok(large) = i16::try_from(delta) {
                    self.symbols.push(2);
                    self.deltas.extend_from_slice(&large.to_be_bytes());
                } else {
                    break;
                }
                last = tick;
            }
            seq += 1;
        }
        Some(seq)
    }

    fn write_fci(&mut self, base: i64) {
        let out = &mut self.fci;
        out.clear();
        let first = base + self.symbols.iter().take_while(|&&symbol| symbol == 0).count() as i64;
        let reference = (self.ticks[place(first)] >> 8) as u32;
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(self.symbols.len() as u16).to_be_bytes());
        out.extend_from_slice(&(reference << 8 | u32::from(self.count)).to_be_bytes());
        self.count = self.count.wrapping_add(1);
        chunks(&self.symbols, out);
        out.extend_from_slice(&self.deltas);
    }
}

/// Status chunks (section 3.1.3, 3.1.4): a run where it is at least as long as a vector would be.
fn chunks(symbols: &[u8], out: &mut Vec<u8>) {
    let mut rest = symbols;
    while let Some(&symbol) = rest.first() {
        let run = rest.iter().take(MAX_RUN).take_while(|&&other| other == symbol).count();
        let few = &rest[..rest.len().min(14)];
        let large = few.contains(&2);
        let (word, taken) = if run >= 14 || run >= few.len() || (run >= 7 && large) {
            (u16::from(symbol) << 13 | run as u16, run)
        } else if large {
            let taken = few.len().min(7);
            let packed = few[..taken].iter().enumerate().map(|(index, &each)| u16::from(each) << (12 - 2 * index));
            (packed.fold(0xC000, |word, bits| word | bits), taken)
        } else {
            let packed = few.iter().enumerate().map(|(index, &each)| u16::from(each) << (13 - index));
            (packed.fold(0x8000, |word, bits| word | bits), few.len())
        };
        out.extend_from_slice(&word.to_be_bytes());
        rest = &rest[taken..];
    }
}

/// One feedback packet as read. `count` is its 8-bit number, `reference_us` modulo 2**24 * 64 ms.
///
/// `packets` are (16-bit sequence number, arrival relative to `reference_us` in µs or None when not received). Keep
/// one and read into it again and again.
#[derive(Debug, Clone, Default)]
pub struct Feedback {
    pub count: u8,
    pub reference_us: i64,
    pub packets: Vec<(u16, Option<i64>)>,
    symbols: Vec<u8>,
}

/// Read the FCI of one feedback packet; false when it is truncated, empty, too long or uses the reserved symbol.
///
/// Bytes after the last delta are padding and ignored, with or without the padding bit.
pub fn parse_feedback(fci: &[u8], into: &mut Feedback) -> bool {
    read(fci, into).is_some()
}

fn read(fci: &[u8], into: &mut Feedback) -> Option<()> {
    if fci.len() < 10 {
        return None;
    }
    let count = usize::from(read_u16(fci, 2));
    if count == 0 || count > MAX_STATUSES {
        return None;
    }
    let symbols = &mut into.symbols;
    symbols.clear();
    let mut at = 8;
    while symbols.len() < count {
        let chunk = u16::from_be_bytes([*fci.get(at)?, *fci.get(at + 1)?]);
        at += 2;
        if chunk & 0x8000 == 0 {
            let run = usize::from(chunk & 0x1FFF).min(count - symbols.len());
            if run == 0 {
                return None;
            }
            symbols.resize(symbols.len() + run, (chunk >> 13) as u8);
        } else if chunk & 0x4000 != 0 {
            symbols.extend((0..7).rev().map(|index| (chunk >> (2 * index) & 3) as u8));
        } else {
            symbols.extend((0..14).rev().map(|index| (chunk >> index & 1) as u8));
        }
    }
    symbols.truncate(count);
    let word = read_u32(fci, 4);
    into.count = word as u8;
    into.reference_us = i64::from(word >> 8) * REFERENCE_US;
    walk_deltas(fci, at, into)
}

/// Walk the deltas that start at `at`; None when they are short or a symbol is reserved.
fn walk_deltas(fci: &[u8], mut at: usize, into: &mut Feedback) -> Option<()> {
    if into.symbols.contains(&3) {
        return None;
    }
    into.packets.clear();
    let mut tick = 0;
    let mut seq = read_u16(fci, 0);
    for &symbol in &into.symbols {
        let arrival = match symbol {
            0 => None,
            1 => {
                tick += i64::from(*fci.get(at)?);
                at += 1;
                Some(tick * TICK_US)
            }
            _ => {
                tick += i64::from(i16::from_be_bytes([*fci.get(at)?, *fci.get(at + 1)?]));
                at += 2;
                Some(tick * TICK_US)
            }
        };
        into.packets.push((seq, arrival));
        seq = seq.wrapping_add(1);
    }
    Some(())
}
