//! Is a queue growing between us and a viewer? A trendline over one-way delay differences.
//!
//! The twin of `relay/plane/reference/delay_trend.py`: the filter of draft-ietf-rmcat-gcc-02 sections 5.2 to 5.4, with
//! the linear regression that libwebrtc put in the place of the Kalman filter. Only + - * / on f64, in the order of the
//! twin, so that both agree to the bit.

/// Packets sent within 5 ms are one group.
pub const BURST_US: i64 = 5_000;
/// Group deltas in the regression.
pub const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MAX_DELTAS: i64 = 60;
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;
const ADAPT_UP: f64 = 0.0087; // per ms
const ADAPT_DOWN: f64 = 0.039;
const ADAPT_LIMIT_MS: f64 = 15.0; // outliers further off than this do not move the threshold
const OVERUSE_MS: f64 = 10.0; // a slope has to stay this long
const REORDERED_LIMIT: u32 = 3;
const STALL_US: i64 = 3_000_000; // groups further apart than this do not belong to one trend

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Normal,
    /// The queue grows.
    Overuse,
    /// The queue drains.
    Underuse,
}

/// The latest WINDOW points, oldest first.
#[derive(Debug, Clone, Default)]
struct History {
    points: [(f64, f64); WINDOW],
    start: usize,
    count: usize,
}

impl History {
    fn push(&mut self, point: (f64, f64)) {
        if self.count < WINDOW {
            self.points[(self.start + self.count) % WINDOW] = point;
            self.count += 1;
        } else {
            self.points[self.start] = point;
            self.start = (self.start + 1) % WINDOW;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        (0..self.count).map(|index| self.points[(self.start + index) % WINDOW])
    }
}

/// Feed acknowledged packets in sending order; read `usage`.
#[derive(Debug, Clone)]
pub struct DelayTrend {
    history: History,
    threshold: f64,
    first_send: i64,
    previous_send: i64,
    send: i64,
    arrival: i64,
    previous_arrival: i64,
    first_arrival: i64,
    reordered: u32,
    deltas: i64,
    over_count: u32,
    accumulated: f64,
    smoothed: f64,
    slope: f64,
    over_ms: f64,
    updated_us: i64,
    pub usage: Usage,
}

impl Default for DelayTrend {
    fn default() -> Self {
        Self {
            history: History::default(),
            threshold: THRESHOLD_MS,
            first_send: -1,
            previous_send: -1,
            send: 0,
            arrival: 0,
            previous_arrival: 0,
            first_arrival: 0,
            reordered: 0,
            deltas: 0,
            over_count: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            slope: 0.0,
            over_ms: 0.0,
            updated_us: -1,
            usage: Usage::Normal,
        }
    }
}

impl DelayTrend {
    /// Forget the past, after idling or a jump of the receiver's clock. The adapted threshold stays.
    pub fn reset(&mut self) {
        *self = Self { threshold: self.threshold, ..Self::default() };
    }

    /// One packet, with our sending time and the receiver's arrival time (any offset).
    pub fn add(&mut self, send_us: i64, arrival_us: i64) {
        let since = send_us - self.first_send;
        if self.first_send < 0 {
            self.open(send_us, arrival_us);
        } else if since < 0 {
            // older than the current group: its trend is history
        } else if since <= BURST_US || self.is_pile(send_us, arrival_us) {
            self.send = self.send.max(send_us);
            self.arrival = self.arrival.max(arrival_us);
        } else {
            if self.previous_send >= 0 {
                self.compare();
            }
            (self.previous_send, self.previous_arrival) = (self.send, self.arrival);
            self.open(send_us, arrival_us);
        }
    }

    /// A pile that left the bottleneck at once belongs together however it was sent.
    fn is_pile(&self, send_us: i64, arrival_us: i64) -> bool {
        let later = arrival_us - self.arrival;
        (0..=BURST_US).contains(&later) && later < send_us - self.send && arrival_us - self.previous_arrival < 100_000
    }

    fn open(&mut self, send_us: i64, arrival_us: i64) {
        (self.first_send, self.send) = (send_us, send_us);
        self.arrival = arrival_us;
    }

    /// The current group is complete: compare it with the one before.
    fn compare(&mut self) {
        let sent = self.send - self.previous_send;
        let arrived = self.arrival - self.previous_arrival;
        if sent > STALL_US || arrived > STALL_US {
            self.reset();
            return;
        }
        if arrived < 0 {
            self.reordered += 1;
            if self.reordered >= REORDERED_LIMIT {
                self.reset();
            }
            return;
        }
        self.reordered = 0;
        if self.deltas == 0 {
            self.first_arrival = self.arrival;
        }
        self.deltas += 1;
        self.accumulated += (arrived - sent) as f64 / 1000.0;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        self.history.push(((self.arrival - self.first_arrival) as f64 / 1000.0, self.smoothed));
        let slope = if self.history.count == WINDOW { self.regress() } else { self.slope };
        self.judge(slope, sent as f64 / 1000.0);
    }

    /// Least-squares slope of smoothed delay over arrival time; the old slope when all arrived at once.
    fn regress(&self) -> f64 {
        let (mut sum_x, mut sum_y) = (0.0, 0.0);
        for (x, y) in self.history.iter() {
            sum_x += x;
            sum_y += y;
        }
        let (mean_x, mean_y) = (sum_x / WINDOW as f64, sum_y / WINDOW as f64);
        let (mut numerator, mut denominator) = (0.0, 0.0);
        for (x, y) in self.history.iter() {
            numerator += (x - mean_x) * (y - mean_y);
            denominator += (x - mean_x) * (x - mean_x);
        }
        if denominator > 0.0 { numerator / denominator } else { self.slope }
    }

    fn judge(&mut self, slope: f64, sent_ms: f64) {
        let scaled = self.deltas.min(MAX_DELTAS) as f64 * slope * GAIN;
        if scaled > self.threshold {
            self.over_ms += sent_ms;
            self.over_count += 1;
            if self.over_ms > OVERUSE_MS && self.over_count > 1 && slope >= self.slope {
                (self.over_ms, self.over_count) = (0.0, 0);
                self.usage = Usage::Overuse;
            }
        } else {
            (self.over_ms, self.over_count) = (0.0, 0);
            self.usage = if scaled < -self.threshold { Usage::Underuse } else { Usage::Normal };
        }
        self.slope = slope;
        self.adapt(if scaled >= 0.0 { scaled } else { -scaled });
    }

    /// Let the threshold follow the noise (section 5.4), so that jitter is not taken for a queue.
    fn adapt(&mut self, size: f64) {
        let elapsed =
            if self.updated_us < 0 { 0.0 } else { ((self.arrival - self.updated_us) as f64 / 1000.0).min(100.0) };
        self.updated_us = self.arrival;
        if size > self.threshold + ADAPT_LIMIT_MS {
            return;
        }
        let gain = if size < self.threshold { ADAPT_DOWN } else { ADAPT_UP };
        let threshold = self.threshold + gain * (size - self.threshold) * elapsed;
        self.threshold = threshold.clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
    }
}
