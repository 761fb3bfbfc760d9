//! The bitrate of a stream over the last second. The twin of `relay/plane/reference/rate.py`.

pub const BITRATE_WINDOW_US: i64 = 1_000_000;

/// Bits per second over the last full second.
#[derive(Debug, Clone)]
pub struct Rate {
    start: i64,
    bytes: i64,
    value: i64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { start: -1, bytes: 0, value: 0 }
    }
}

impl Rate {
    /// Count `size` bytes at `now`.
    pub fn add(&mut self, size: usize, now: i64) {
        if now - self.start >= BITRATE_WINDOW_US {
            self.roll(now);
        }
        self.bytes += size as i64;
    }

    fn roll(&mut self, now: i64) {
        if self.start >= 0 {
            self.value = self.over(now - self.start);
        }
        self.start = now;
        self.bytes = 0;
    }

    fn over(&self, elapsed: i64) -> i64 {
        if elapsed < 2 * BITRATE_WINDOW_US { self.bytes * 8_000_000 / elapsed } else { 0 }
    }

    /// The rate as of `now`; 0 when nothing came for a second, the rate so far in the first second.
    pub fn value(&self, now: i64) -> i64 {
        if self.start < 0 {
            return 0;
        }
        let elapsed = now - self.start;
        if elapsed >= BITRATE_WINDOW_US {
            return self.over(elapsed);
        }
        if self.value != 0 { self.value } else { self.bytes * 8 }
    }
}
