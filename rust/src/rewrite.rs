//! One output stream out of many inputs: continuous sequence numbers, timestamps and picture ids across splices.
//!
//! The twin of `relay/plane/reference/rewrite.py`. A splice is the moment a slot goes over to another publication,
//! layer or codec. The caller feeds packets of the current input only. Inside, sequence numbers are unwrapped
//! integers, so distinct input packets never share an output number.

use std::collections::VecDeque;

use crate::descriptors::Descriptor;

/// Packets (RFC 3550 A.1 MAX_DROPOUT): a longer hole cannot be repaired, so it is closed.
pub const MAX_GAP: u16 = 3000;
/// Packets: the sender's SRTP window, beyond which a packet could not be sealed.
pub const MAX_LATE: i64 = 1024;
/// Remembered holes that were closed; a packet from before them all comes too late.
pub const MAX_DROPS: usize = 256;
/// The least distance of the frames at a splice: one Opus packet, or a frame at 50/s.
pub const MIN_STEP_US: i64 = 20_000;
/// Below half the 32-bit range for every clock up to 596 kHz.
pub const MAX_STEP_US: i64 = 3_600_000_000;

const HALF16: u16 = 0x8000;
const HALF32: u32 = 0x8000_0000;

fn is_ahead(ticks: u32) -> bool {
    0 < ticks && ticks < HALF32
}

/// Maps sequence numbers and timestamps of the current input to those of one output stream. Splice first.
#[derive(Debug, Clone)]
pub struct Rewriter {
    high: i64,                   // newest input sequence number, unwrapped
    floor: i64,                  // oldest input sequence number that still maps
    offset: i64,                 // output = input + offset
    drops: VecDeque<(i64, i64)>, // (input number, offset of those before it)
    ts_offset: u32,
    last_ts: u32,             // newest output timestamp
    last_now: i64,            // when it was first sent; -1 before the first packet
    extra: u32,               // ticks added until the aligned timestamps have overtaken the output
    extra_until: Option<u32>, // the input timestamp from which on `extra` no longer counts
}

impl Rewriter {
    /// The first packet after the first splice gets these; the caller draws them at random (RFC 3550 5.1).
    pub fn new(first_seq: u16, first_timestamp: u32) -> Self {
        Self {
            high: 0,
            floor: 1,
            offset: i64::from(first_seq) + 0xFFFF,
            drops: VecDeque::new(),
            ts_offset: 0,
            last_ts: first_timestamp,
            last_now: -1,
            extra: 0,
            extra_until: None,
        }
    }

    /// The newest output sequence number (before the first packet: one less than the first will be).
    pub fn last_seq(&self) -> u16 {
        self.high.wrapping_add(self.offset) as u16
    }

    /// The newest output timestamp.
    pub fn last_timestamp(&self) -> u32 {
        self.last_ts
    }

    /// Go over to another input, whose first packet is (`first_seq`, `first_timestamp`).
    ///
    /// Its output number is the last one plus 1. Its output timestamp is the last one plus the time since then by
    /// `clock` (Hz), within MIN_STEP_US..MAX_STEP_US. With `alignment`, what must be added to a timestamp of the new
    /// input to have that of the same instant in the old one (from sender reports), timestamps stay exact; a first
    /// frame that is not later than the output so far is sent 1 tick after it, and those that follow are exact again
    /// as soon as they are later.
    pub fn splice(&mut self, first_seq: u16, first_timestamp: u32, now: i64, clock: u32, alignment: Option<i64>) {
        let last_out = self.high + self.offset;
        self.high = i64::from(first_seq) - 1;
        self.floor = self.high + 1;
        self.offset = last_out - self.high;
        self.drops.clear();
        self.extra = 0;
        self.extra_until = None;
        if self.last_now < 0 {
            self.ts_offset = self.last_ts.wrapping_sub(first_timestamp);
            return;
        }
        match alignment {
            None => {
                let elapsed = (now - self.last_now).clamp(MIN_STEP_US, MAX_STEP_US);
                let ticks = (i128::from(elapsed) * i128::from(clock) / 1_000_000) as u32;
                self.ts_offset = self.last_ts.wrapping_add(ticks).wrapping_sub(first_timestamp);
            }
            Some(alignment) => {
                self.ts_offset = self.ts_offset.wrapping_add(alignment as u32);
                let ahead = first_timestamp.wrapping_add(self.ts_offset).wrapping_sub(self.last_ts);
                if !is_ahead(ahead) {
                    self.extra = 1u32.wrapping_sub(ahead);
                }
            }
        }
    }

    /// The output (sequence number, timestamp) of an input packet; a duplicate maps as before.
    ///
    /// None for what must not be sent: from before the splice, dropped, or too late.
    pub fn rewrite(&mut self, seq: u16, timestamp: u32, now: i64) -> Option<(u16, u32)> {
        let delta = seq.wrapping_sub(self.high as u16);
        if !(0 < delta && delta < HALF16) {
            return self.rewrite_late(seq, timestamp);
        }
        if delta > MAX_GAP {
            self.close_gap(delta);
        }
        self.high += i64::from(delta);
        let mut out_ts = timestamp.wrapping_add(self.ts_offset);
        if self.extra != 0 {
            out_ts = self.with_extra(timestamp, out_ts);
        }
        if is_ahead(out_ts.wrapping_sub(self.last_ts)) || self.last_now < 0 {
            self.last_ts = out_ts;
            self.last_now = now;
        }
        Some((self.last_seq(), out_ts))
    }

    /// Leave out an input packet. Later packets close up, unless one has been sent already: then a hole stays.
    pub fn drop(&mut self, seq: u16) {
        let delta = seq.wrapping_sub(self.high as u16);
        if !(0 < delta && delta < HALF16) {
            return;
        }
        if delta > MAX_GAP {
            self.close_gap(delta);
        }
        self.high += i64::from(delta);
        if self.drops.len() == MAX_DROPS
            && let Some((oldest, _)) = self.drops.pop_front()
        {
            self.floor = self.floor.max(oldest + 1);
        }
        self.drops.push_back((self.high, self.offset));
        self.offset -= 1;
    }

    /// The output timestamp of an input instant, e.g. for the sender report of the output stream.
    pub fn timestamp_out(&self, timestamp: i64) -> u32 {
        (timestamp as u32).wrapping_add(self.ts_offset)
    }

    /// Return the input instant of an output timestamp.
    pub fn timestamp_in(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_sub(self.ts_offset)
    }

    fn close_gap(&mut self, delta: u16) {
        self.floor = self.high + i64::from(delta);
        self.offset -= i64::from(delta) - 1;
        self.drops.clear();
    }

    fn with_extra(&mut self, timestamp: u32, exact: u32) -> u32 {
        if self.extra_until.is_none() && is_ahead(exact.wrapping_sub(self.last_ts)) {
            self.extra_until = Some(timestamp);
        }
        self.late_extra(timestamp, exact)
    }

    fn rewrite_late(&self, seq: u16, timestamp: u32) -> Option<(u16, u32)> {
        let unwrapped = self.high - i64::from((self.high as u16).wrapping_sub(seq));
        if unwrapped < self.floor || unwrapped < self.high - MAX_LATE {
            return None;
        }
        let mut offset = self.offset;
        for &(dropped, before) in self.drops.iter().rev() {
            if unwrapped > dropped {
                break;
            }
            if unwrapped == dropped {
                return None;
            }
            offset = before;
        }
        let mut out_ts = timestamp.wrapping_add(self.ts_offset);
        if self.extra != 0 {
            out_ts = self.late_extra(timestamp, out_ts);
        }
        Some((unwrapped.wrapping_add(offset) as u16, out_ts))
    }

    fn late_extra(&self, timestamp: u32, exact: u32) -> u32 {
        match self.extra_until {
            Some(until) if timestamp.wrapping_sub(until) < HALF32 => exact,
            _ => exact.wrapping_add(self.extra),
        }
    }
}

/// The bytes to put at a descriptor's `patch_offset`: at most a wide picture id, VP9's layer octet and TL0PICIDX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patch {
    bytes: [u8; 4],
    length: u8,
}

impl Patch {
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn push(&mut self, octet: u8) {
        self.bytes[usize::from(self.length)] = octet;
        self.length += 1;
    }
}

/// Keeps VP8 and VP9 picture ids and TL0PICIDX of one output stream continuous across splices.
///
/// A patch has the width that the input has: a payload never grows. So an input of 7-bit ids gives 7-bit ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct PictureIds {
    id_offset: i32,
    tl0_offset: i32,
    last_id: i32,
    last_tl0: i32,
    started: bool,
}

impl PictureIds {
    /// Make the frame of `descriptor`, the first of another input, follow the newest one that was patched.
    pub fn splice(&mut self, descriptor: &Descriptor) {
        if !self.started {
            return;
        }
        if descriptor.picture_id >= 0 {
            self.id_offset = self.last_id + 1 - descriptor.picture_id;
        }
        if descriptor.tl0_pic_idx >= 0 {
            self.tl0_offset = self.last_tl0 + 1 - i32::from(descriptor.tl0_pic_idx);
        }
    }

    /// The bytes to put at `descriptor.patch_offset` of the payload; empty when there is nothing to patch.
    pub fn patch(&mut self, descriptor: &Descriptor) -> Patch {
        let mut patch = Patch::default();
        let bits = descriptor.picture_id_bits;
        let has_tl0 = descriptor.tl0_pic_idx >= 0;
        if bits == 0 && !has_tl0 {
            return patch;
        }
        let tl0 = (i32::from(descriptor.tl0_pic_idx) + self.tl0_offset) & 0xFF;
        if has_tl0 {
            let ahead = (tl0 - self.last_tl0) & 0xFF;
            if !self.started || (0 < ahead && ahead < 0x80) {
                self.last_tl0 = tl0;
            }
        }
        if bits != 0 {
            let mask = if bits == 15 { 0x7FFF } else { 0x7F };
            let picture_id = (descriptor.picture_id + self.id_offset) & mask;
            let ahead = (picture_id - self.last_id) & mask;
            if !self.started || (0 < ahead && ahead <= mask >> 1) {
                self.last_id = picture_id;
            }
            if bits == 15 {
                patch.push((picture_id >> 8) as u8 | 0x80);
            }
            patch.push(picture_id as u8);
            if has_tl0 && descriptor.layer_octet >= 0 {
                patch.push(descriptor.layer_octet as u8);
            }
        }
        if has_tl0 {
            patch.push(tl0 as u8);
        }
        self.started = true;
        patch
    }
}
