//! What was sent, so that a lost packet can be repeated.
//!
//! The twin of `relay/plane/reference/history.py`. Payloads are kept once, in the slot of the ingress packet; a
//! viewer's NACK is answered from its `SentLog`, which names that slot and everything that was added to it, so that
//! the repeat is byte for byte the first sending (or its RTX).

use crate::error::UsageError;
use crate::rewrite::Patch;

/// Microseconds: a repeat that was asked for sooner than this after the last one is still under way.
pub const MIN_RESEND_US: i64 = 10_000;

/// Bounds the bytes of repeats: a token bucket filled by time.
#[derive(Debug, Clone)]
pub struct ResendBudget {
    rate: i64,
    burst: i64,
    tokens: i64, // in millionths of a byte, so that no remainder is lost
    at: i64,
}

impl ResendBudget {
    /// The bucket starts full, with `burst` bytes.
    pub fn new(bytes_per_second: u32, burst: u32) -> Self {
        let burst = i64::from(burst) * 1_000_000;
        Self { rate: i64::from(bytes_per_second), burst, tokens: burst, at: -1 }
    }

    /// Change the filling rate from the next call on.
    pub fn set_rate(&mut self, bytes_per_second: u32) {
        self.rate = i64::from(bytes_per_second);
    }

    /// Spend `size` bytes if they are there.
    pub fn take(&mut self, size: usize, now: i64) -> bool {
        if self.at >= 0 && now > self.at {
            let filled = (now - self.at).saturating_mul(self.rate).saturating_add(self.tokens);
            self.tokens = self.burst.min(filled);
        }
        self.at = self.at.max(now);
        let wanted = size as i64 * 1_000_000;
        if self.tokens < wanted {
            return false;
        }
        self.tokens -= wanted;
        true
    }
}

/// One sent packet: what `Serialiser::write` needs to write it again. `packet` names the ingress packet's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    pub packet: u32,
    pub timestamp: u32,
    pub send_time: u32,
    pub seq: u16,
    pub transport_seq: u16,
    pub type_and_marker: u8,
    pub patch_offset: u8,
    pub patch: Patch,
}

const EMPTY: u32 = u32::MAX;
const NEVER: i64 = -1;

/// The latest packets of one output stream, by output sequence number.
///
/// It keeps the ingress packets' slots: every one that `put` or `clear` gives back is the caller's to release.
#[derive(Debug)]
pub struct SentLog {
    mask: u16,
    ring: Vec<(Sent, i64)>, // with the time of the latest repeat; made at the first `put`, for idle slots are many
}

impl SentLog {
    /// `packets` is a power of two up to 32768; UsageError otherwise.
    pub fn new(packets: u32) -> Result<Self, UsageError> {
        if !packets.is_power_of_two() || packets > 32768 {
            return Err(UsageError::new(format!("a log of {packets} packets: not a power of two up to 32768")));
        }
        Ok(Self { mask: (packets - 1) as u16, ring: Vec::new() })
    }

    /// Note a sent packet. Returns the ingress packet that it pushed out.
    pub fn put(&mut self, sent: Sent) -> Option<u32> {
        if self.ring.is_empty() {
            let empty = Sent { packet: EMPTY, ..Sent::default() };
            self.ring = vec![(empty, NEVER); usize::from(self.mask) + 1];
        }
        let place = &mut self.ring[usize::from(sent.seq & self.mask)];
        let old = place.0.packet;
        *place = (sent, NEVER);
        (old != EMPTY).then_some(old)
    }

    /// Note a sent packet that is not kept. Returns the ingress packet that it pushed out.
    pub fn forget(&mut self, seq: u16) -> Option<u32> {
        let place = self.ring.get_mut(usize::from(seq & self.mask))?;
        let old = std::mem::replace(&mut place.0.packet, EMPTY);
        (old != EMPTY).then_some(old)
    }

    /// The packet sent with this number, None when it is unknown or overwritten.
    pub fn get(&self, seq: u16) -> Option<Sent> {
        let (sent, _) = self.ring.get(usize::from(seq & self.mask))?;
        (sent.packet != EMPTY && sent.seq == seq).then_some(*sent)
    }

    /// The packet to repeat for a NACK at `now`; notes the repeat. `size` tells an ingress packet's bytes.
    ///
    /// None when it is unknown, was repeated less than `rtt` (at least MIN_RESEND_US) ago, or is over budget.
    pub fn resend(
        &mut self,
        seq: u16,
        now: i64,
        rtt: i64,
        budget: Option<&mut ResendBudget>,
        size: impl FnOnce(u32) -> usize,
    ) -> Option<Sent> {
        let (sent, repeated) = self.ring.get_mut(usize::from(seq & self.mask))?;
        if sent.packet == EMPTY || sent.seq != seq {
            return None;
        }
        if *repeated >= 0 && now - *repeated < rtt.max(MIN_RESEND_US) {
            return None;
        }
        if let Some(budget) = budget
            && !budget.take(size(sent.packet), now)
        {
            return None;
        }
        *repeated = now;
        Some(*sent)
    }

    /// Forget everything.
    pub fn clear(&mut self, mut release: impl FnMut(u32)) {
        for (sent, repeated) in &mut self.ring {
            if sent.packet != EMPTY {
                release(sent.packet);
            }
            sent.packet = EMPTY;
            *repeated = NEVER;
        }
    }
}
