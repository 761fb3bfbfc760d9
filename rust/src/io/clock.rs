//! The plane's clock.

use rustix::time::{ClockId, clock_gettime};

/// Monotonic microseconds: what Python's `time.monotonic_ns() // 1000` says.
pub fn now_us() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}
