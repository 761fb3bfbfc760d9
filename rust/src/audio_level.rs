//! Client-to-mixer audio level (RFC 6464) and a smoothed loudness per publication.
//!
//! The twin of `relay/plane/reference/audio_level.py`. Loudness is an integer: 0 (silence) to 127 * 256 (0 dBov), in
//! 1/256 dB above -127 dBov. Time is cut in windows of 100 ms; the mean of a window's packets moves the value by 1/2
//! when louder and by 1/8 when quieter.

pub const WINDOW_US: i64 = 100_000;
/// In -dBov, the quietest level that the extension can say.
pub const SILENCE: i64 = 127;
const ATTACK: i64 = 128; // of 256: half of the way per window
const DECAY: i64 = 32; // of 256: an eighth of the way per window, half-life about 520 ms
const FORGET_WINDOWS: i64 = 64; // after 6.4 s of silence nothing audible is left: (7/8)**64 < 0.0002

/// The (level in -dBov, voice) of the ssrc-audio-level extension's body (RFC 6464 3); None for an empty body.
pub fn parse_audio_level(extension: &[u8]) -> Option<(u8, bool)> {
    extension.first().map(|octet| (octet & 0x7F, *octet >= 0x80))
}

/// Smoothed loudness of one publication. `add` per audio packet, `value` whenever someone wants to compare.
#[derive(Debug, Clone)]
pub struct Loudness {
    value: i64,
    sum: i64,
    count: i64,
    window_end: i64,
}

impl Default for Loudness {
    fn default() -> Self {
        Self { value: 0, sum: 0, count: 0, window_end: -1 }
    }
}

impl Loudness {
    /// Take the level of one packet (-dBov, 0..127). Packets without voice count as quieter by 12 dB.
    ///
    /// The handicap keeps a noisy room from beating a speaker, and still ranks clients that never set the flag.
    pub fn add(&mut self, level: u8, voice: bool, now: i64) {
        if now >= self.window_end {
            self.advance(now);
        }
        let loud = SILENCE - i64::from(level & 0x7F);
        self.sum += if voice { loud } else { (loud - 12).max(0) };
        self.count += 1;
    }

    /// Loudness at `now`, 0..127 * 256. Windows without packets are silence (DTX sends none).
    pub fn value(&mut self, now: i64) -> i64 {
        if now >= self.window_end {
            self.advance(now);
        }
        self.value
    }

    /// Close the windows that ended at or before `now`.
    fn advance(&mut self, now: i64) {
        if self.window_end < 0 {
            self.window_end = now + WINDOW_US;
            return;
        }
        let passed = (now - self.window_end) / WINDOW_US + 1;
        self.step(if self.count > 0 { (self.sum << 8) / self.count } else { 0 });
        self.sum = 0;
        self.count = 0;
        if passed > FORGET_WINDOWS {
            self.value = 0;
        } else {
            for _ in 1..passed {
                self.step(0);
            }
        }
        self.window_end += passed * WINDOW_US;
    }

    /// Move towards `target` by the attack or decay share. Decay rounds down, so silence reaches exactly 0.
    fn step(&mut self, target: i64) {
        if target > self.value {
            self.value += ((target - self.value) * ATTACK) >> 8;
        } else {
            self.value -= ((self.value - target) * DECAY + 255) >> 8;
        }
    }
}
