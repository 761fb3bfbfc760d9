//! Which packets of an SSRC were seen: packet indices and replay windows.

use super::{REPLAY_WINDOW, Refusal};

/// Packet index and replay window of one SSRC's RTP (RFC 3711 3.3.1, 3.3.2), as libsrtp's rdbx keeps them.
#[derive(Clone)]
pub struct RtpWindow {
    pub index: u64,
    bits: [u64; REPLAY_WINDOW / 64],
}

impl RtpWindow {
    pub fn new() -> Self {
        Self { index: 0, bits: [0; REPLAY_WINDOW / 64] }
    }

    /// How far the packet is ahead of the newest one.
    pub fn delta(&self, seq: u16) -> i64 {
        let seq = i64::from(seq);
        let local = (self.index & 0xFFFF) as i64;
        // Near the start a rollover counter below zero could be guessed; so there it is 0.
        if self.index <= 0x8000 {
            return seq - local;
        }
        if local < 0x8000 && seq - local > 0x8000 {
            seq - local - 0x10000
        } else if local >= 0x8000 && local - 0x8000 > seq {
            seq - local + 0x10000
        } else {
            seq - local
        }
    }

    fn is_set(&self, index: u64) -> bool {
        let place = index as usize % REPLAY_WINDOW;
        self.bits[place / 64] >> (place % 64) & 1 != 0
    }

    fn set(&mut self, index: u64, value: bool) {
        let place = index as usize % REPLAY_WINDOW;
        let bit = 1 << (place % 64);
        if value {
            self.bits[place / 64] |= bit;
        } else {
            self.bits[place / 64] &= !bit;
        }
    }

    /// `repeats` lets through what was seen before, as long as the window remembers it.
    pub fn check(&self, delta: i64, repeats: bool) -> Result<(), Refusal> {
        if delta > 0 {
            return Ok(());
        }
        let too_old = delta <= -(REPLAY_WINDOW as i64);
        if too_old || (!repeats && self.is_set(self.index.wrapping_add_signed(delta))) {
            return Err(Refusal::Replay);
        }
        Ok(())
    }

    pub fn add(&mut self, delta: i64) {
        if delta > 0 {
            if delta >= REPLAY_WINDOW as i64 {
                self.bits.fill(0);
            } else {
                for passed in 1..delta as u64 {
                    self.set(self.index + passed, false);
                }
            }
            self.index += delta as u64;
            self.set(self.index, true);
        } else {
            self.set(self.index.wrapping_add_signed(delta), true);
        }
    }
}

/// Replay window of one SSRC's RTCP, of 128 packets, as libsrtp's rdb keeps it. A sender uses `start` as its index.
#[derive(Clone, Default)]
pub struct RtcpWindow {
    pub start: u32,
    bits: u128,
}

impl RtcpWindow {
    pub fn check(&self, index: u32) -> Result<(), Refusal> {
        match index.checked_sub(self.start) {
            None => Err(Refusal::Replay),
            Some(ahead) if ahead < 128 && self.bits >> ahead & 1 != 0 => Err(Refusal::Replay),
            Some(_) => Ok(()),
        }
    }

    pub fn add(&mut self, index: u32) {
        let ahead = index - self.start;
        if ahead < 128 {
            self.bits |= 1 << ahead;
            return;
        }
        let shift = ahead - 127;
        self.bits = if shift < 128 { self.bits >> shift } else { 0 } | 1 << 127;
        self.start += shift;
    }
}
