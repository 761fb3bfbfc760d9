//! NTP times of reports.

const NTP_UNIX: i128 = 2_208_988_800; // seconds from 1900 to 1970
const RTT_LIMIT: u32 = 60 << 16; // in 1/65536 s; more is a lie or a stale LSR

/// 64-bit NTP timestamp of `us` microseconds since 1970 UTC, modulo 2**64.
pub fn ntp_from_wall_us(us: i64) -> u64 {
    let (seconds, micros) = (i128::from(us.div_euclid(1_000_000)), i128::from(us.rem_euclid(1_000_000)));
    (((seconds + NTP_UNIX) << 32) | ((micros << 32) / 1_000_000)) as u64
}

/// Microseconds since 1970 UTC of a 64-bit NTP timestamp of era 0 (until 2036), rounded to the nearest.
pub fn wall_us_from_ntp(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64 - NTP_UNIX as i64;
    seconds * 1_000_000 + (((ntp & 0xFFFF_FFFF) * 1_000_000 + 0x8000_0000) >> 32) as i64
}

/// The middle 32 bits: unit 1/65536 s (RFC 3550 section 4).
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round trip in microseconds from a report block (RFC 3550 6.4.1), None when it says nothing or nonsense.
///
/// Rounding can make a tiny round trip negative; it counts as 0.
pub fn rtt_us(now_ntp: u64, lsr: u32, dlsr: u32) -> Option<i64> {
    if lsr == 0 {
        return None;
    }
    let delta = ntp_middle(now_ntp).wrapping_sub(lsr).wrapping_sub(dlsr);
    if delta >= 0x8000_0000 {
        return (delta >= 0xFFFF_FF00).then_some(0); // within 4 ms below zero
    }
    (delta <= RTT_LIMIT).then_some((i64::from(delta) * 1_000_000) >> 16)
}
