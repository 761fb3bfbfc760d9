//! How much may be sent to one viewer: send-side bandwidth estimation.
//!
//! The twin of `relay/plane/reference/estimate.py`. Delay: draft-ietf-rmcat-gcc-02. Loss: a ceiling that sinks above
//! 10 % loss and rises 8 % a second below 2 %. Probes: short trains sent faster than the estimate; what arrives of them
//! lifts it at once. REMB is a ceiling, or the estimate itself for clients without transport-cc. Rates are integers in
//! bit/s, times microseconds.

use crate::arithmetic::mul_div;
use crate::delay_trend::{DelayTrend, Usage};
use crate::transport_cc::{Feedback, REFERENCE_WRAP_US};

mod acked;
mod train;

use acked::AckedRate;
use train::Probe;

/// Packets in flight: 2 s at 10 Mbit/s of 1200 bytes; older ones are unknown.
pub const HISTORY: usize = 2048;
const IDLE_US: i64 = 2_000_000; // without feedback for this long, delay and rate start anew
const REMB_US: i64 = 5_000_000; // a REMB is good for this long
const CLOCK_JUMP_US: i64 = 10_000_000;
const LOSS_PACKETS: i64 = 20; // a verdict on loss needs so many packets
const LOSS_US: i64 = 200_000; // and so much time
const HEADROOM: i64 = 10_000; // bit/s beyond 1.5 × what arrived, so that a trickle can grow
const NO_LIMIT: i64 = 1 << 62;
const UNSENT: i64 = -1;
const STATE_ACKED: i64 = 1;
const STATE_LOST: i64 = 2;

/// One per viewer session; its transport-wide sequence numbers are consecutive over all SSRCs.
#[derive(Debug)]
pub struct BandwidthEstimator {
    /// The estimate, bit/s.
    pub bitrate: i64,
    /// Of the last verdict.
    pub loss_permil: i64,
    /// Bit/s that the last finished probe showed, 0 when none or inconclusive.
    pub probe_result: i64,
    min_bps: i64,
    max_bps: i64,
    sent: Vec<(i64, i64)>, // time; size << 18 | sequence number << 2 | state. Made at the first packet
    last_seq: Option<u16>,
    sent_bytes: i64, // since the last receiver report
    trend: DelayTrend,
    acked: AckedRate,
    delay_bps: i64,
    loss_bps: i64,
    remb_bps: i64,
    capacity: i64, // bit/s at which the path was last seen full, 0 unknown
    rtt_us: i64,
    feedback_us: i64,
    remb_us: i64,
    report_us: i64,
    loss_since_us: i64,
    increased_us: i64,
    decreased_us: i64,
    loss_changed_us: i64,
    reference: i64,
    reference_raw: i64,
    lost: i64,
    received: i64,
    probe: Option<Box<Probe>>,
    probe_next_us: i64,
    backoff_us: i64,
}

impl BandwidthEstimator {
    pub fn new(start_bps: i64, max_bps: i64, min_bps: i64) -> Self {
        Self {
            bitrate: start_bps,
            loss_permil: 0,
            probe_result: 0,
            min_bps,
            max_bps,
            sent: Vec::new(),
            last_seq: None,
            sent_bytes: 0,
            trend: DelayTrend::default(),
            acked: AckedRate::default(),
            delay_bps: start_bps,
            loss_bps: NO_LIMIT,
            remb_bps: NO_LIMIT,
            capacity: 0,
            rtt_us: 100_000,
            feedback_us: -1,
            remb_us: -1,
            report_us: -1,
            loss_since_us: -1,
            increased_us: -1,
            decreased_us: -1,
            loss_changed_us: -1,
            reference: -1,
            reference_raw: -1,
            lost: 0,
            received: 0,
            probe: None,
            probe_next_us: 0,
            backoff_us: 0,
        }
    }

    /// Change the ceiling, e.g. to what the viewer's layers can use at most.
    pub fn set_max(&mut self, bps: i64) {
        self.max_bps = bps;
        self.settle();
    }

    /// A packet left, `size_bytes` below 65536 including its overhead.
    pub fn on_sent(&mut self, seq16: u16, size_bytes: usize, now: i64) {
        if self.sent.is_empty() {
            self.sent = vec![(UNSENT, UNSENT); HISTORY];
        }
        let size = size_bytes as i64;
        self.sent[usize::from(seq16) % HISTORY] = (now, size << 18 | i64::from(seq16) << 2);
        self.last_seq = Some(seq16);
        self.sent_bytes += size;
    }

    /// A round trip measured from RTCP or STUN.
    pub fn on_rtt(&mut self, us: i64) {
        self.rtt_us = us.clamp(1_000, 2_000_000);
    }

    /// Take one parsed transport-cc packet. What is unknown or was known already has no effect.
    pub fn on_feedback(&mut self, feedback: &Feedback, now: i64) {
        if self.feedback_us < 0 || now - self.feedback_us > IDLE_US {
            self.restart(now);
        }
        let offset = self.unwrap(feedback.reference_us);
        let (received, lost) = self.acknowledge(feedback, offset);
        if received == 0 && lost == 0 {
            return;
        }
        self.feedback_us = now;
        self.expire_remb(now);
        self.received += received;
        self.lost = (self.lost + lost).max(0);
        if received != 0 {
            self.adjust(now);
        }
        self.weigh_loss(now);
        self.finish_probe(feedback, now);
        self.settle();
    }

    /// Mark what arrived and what did not; feed those to the filters. Returns how many of each are news.
    fn acknowledge(&mut self, feedback: &Feedback, offset: i64) -> (i64, i64) {
        let (mut received, mut lost) = (0, 0);
        for &(seq16, arrival) in &feedback.packets {
            let Some((sent_us, key)) = self.sent.get_mut(usize::from(seq16) % HISTORY) else { continue };
            let known = *key;
            if known < 0 || (known >> 2) as u16 != seq16 || known & STATE_ACKED != 0 {
                continue;
            }
            let Some(arrival) = arrival else {
                if known & STATE_LOST == 0 {
                    *key |= STATE_LOST;
                    lost += 1;
                }
                continue;
            };
            *key |= STATE_ACKED;
            received += 1;
            if known & STATE_LOST != 0 {
                lost -= 1; // reported lost before, it was only late
            }
            let arrival = arrival + offset;
            self.acked.add(arrival, known >> 18);
            self.trend.add(*sent_us, arrival);
            if let Some(probe) = &mut self.probe {
                probe.add(seq16, *sent_us, arrival, known >> 18);
            }
        }
        (received, lost)
    }

    /// First feedback, or the first after idling: keep the rate, measure delay and throughput anew.
    fn restart(&mut self, now: i64) {
        self.trend.reset();
        self.acked = AckedRate::default();
        self.increased_us = now;
        (self.lost, self.received) = (0, 0);
        self.loss_since_us = now;
    }

    /// Reference time without its wrap; a jump of the receiver's clock restarts the delay filter.
    fn unwrap(&mut self, raw_us: i64) -> i64 {
        if self.reference_raw < 0 {
            self.reference = raw_us;
        } else {
            let mut step = (raw_us - self.reference_raw).rem_euclid(REFERENCE_WRAP_US);
            if step >= REFERENCE_WRAP_US / 2 {
                step -= REFERENCE_WRAP_US;
            }
            if !(-CLOCK_JUMP_US < step && step < CLOCK_JUMP_US) {
                self.trend.reset();
                self.acked = AckedRate::default();
            }
            self.reference += step;
        }
        self.reference_raw = raw_us;
        self.reference
    }

    /// Additive increase, multiplicative decrease (section 6 of the draft).
    fn adjust(&mut self, now: i64) {
        let acked = self.acked.bitrate();
        match self.trend.usage {
            Usage::Overuse => {
                let pause = self.rtt_us.clamp(10_000, 200_000);
                if acked != 0 && (now - self.decreased_us >= pause || acked * 2 < self.delay_bps) {
                    self.capacity = if self.capacity == 0 { acked } else { (self.capacity * 7 + acked) >> 3 };
                    self.delay_bps = (acked * 85 / 100).min(self.delay_bps).max(self.min_bps);
                    self.decreased_us = now;
                    self.probe_next_us = self.probe_next_us.max(now + 1_000_000);
                }
            }
            Usage::Normal if acked != 0 => self.increase(acked, (now - self.increased_us).min(1_000_000)),
            _ => {}
        }
        self.increased_us = now;
    }

    /// 8 % a second while the limit is unknown, about one packet a response time near a known limit.
    fn increase(&mut self, acked: i64, elapsed_us: i64) {
        let ceiling = acked * 3 / 2 + HEADROOM;
        if self.delay_bps >= ceiling {
            return;
        }
        if self.capacity != 0 && acked * 4 > self.capacity * 5 {
            self.capacity = 0; // far above the old limit: it is gone
        }
        let share = self.delay_bps * 8 / 100;
        let per_second = if self.capacity != 0 && acked * 4 > self.capacity * 3 {
            (1200 * 8 * 1_000_000 / (self.rtt_us + 100_000)).max(4_000).min(share + 4_000)
        } else {
            share + 1_000
        };
        self.delay_bps = (self.delay_bps + mul_div(per_second, elapsed_us, 1_000_000)).min(ceiling);
    }

    fn weigh_loss(&mut self, now: i64) {
        let total = self.received + self.lost;
        if total >= LOSS_PACKETS && now - self.loss_since_us >= LOSS_US {
            self.apply_loss(self.lost * 1000 / total, now, now - self.loss_since_us);
            (self.received, self.lost) = (0, 0);
            self.loss_since_us = now;
        }
    }

    /// Above 10 %: shrink by half the loss; below 2 %: 8 % a second; between: leave it (section 6 of the draft).
    fn apply_loss(&mut self, permil: i64, now: i64, elapsed_us: i64) {
        self.loss_permil = permil;
        if permil > 100 {
            if now - self.loss_changed_us >= 300_000 + self.rtt_us || self.loss_changed_us < 0 {
                self.loss_bps = mul_div(self.bitrate, 2000 - permil, 2000).max(self.min_bps);
                self.loss_changed_us = now;
            }
        } else if permil < 20 && self.loss_bps < NO_LIMIT {
            let per_second = self.loss_bps * 8 / 100 + 1_000;
            self.loss_bps += mul_div(per_second, elapsed_us.min(1_000_000), 1_000_000);
            if self.loss_bps > self.max_bps {
                self.loss_bps = NO_LIMIT;
            }
        }
    }

    /// Loss from a report block, in 1/256. Only for clients without transport-cc, which knows better.
    pub fn on_receiver_report(&mut self, fraction_lost: u8, now: i64) {
        let elapsed = if self.report_us < 0 { 1_000_000 } else { (now - self.report_us).clamp(0, 5_000_000) };
        let sent = if elapsed != 0 { mul_div(self.sent_bytes, 8_000_000, elapsed) } else { 0 };
        self.report_us = now;
        self.sent_bytes = 0;
        if self.hears_feedback(now) || elapsed == 0 {
            return;
        }
        let permil = (i64::from(fraction_lost) * 1000) >> 8;
        self.apply_loss(permil, now, elapsed);
        let ceiling = sent * 3 / 2 + HEADROOM;
        if permil < 20 && self.delay_bps < ceiling {
            let per_second = self.delay_bps * 8 / 100 + 1_000;
            let step = mul_div(per_second, elapsed.min(1_000_000), 1_000_000);
            self.delay_bps = (self.delay_bps + step).min(ceiling);
        }
        self.expire_remb(now);
        self.settle();
    }

    /// The receiver's own estimate: a ceiling for 5 s; without transport-cc it is the estimate.
    pub fn on_remb(&mut self, bps: i64, now: i64) {
        (self.remb_bps, self.remb_us) = (bps, now);
        if !self.hears_feedback(now) {
            self.delay_bps = bps.max(self.min_bps).min(self.max_bps);
        }
        self.settle();
    }

    fn hears_feedback(&self, now: i64) -> bool {
        self.feedback_us >= 0 && now - self.feedback_us <= IDLE_US
    }

    fn expire_remb(&mut self, now: i64) {
        if self.remb_us >= 0 && now - self.remb_us > REMB_US {
            (self.remb_bps, self.remb_us) = (NO_LIMIT, -1);
        }
    }

    /// Bit/s at which to send a probe train now, 0 for none. `wanted_bps` is what there would be use for.
    ///
    /// 0 before the first packet was sent. The first trains go at three times the estimate, later ones at twice; a train that showed nothing new doubles
    /// the pause (1 s … 16 s).
    pub fn probe_wanted(&mut self, wanted_bps: i64, now: i64) -> i64 {
        if self.probe.as_ref().is_some_and(|probe| now - probe.started_us > 2_000_000) {
            self.probe = None; // its feedback never came
        }
        if self.last_seq.is_none() || self.probe.is_some() || now < self.probe_next_us || wanted_bps <= self.bitrate {
            return 0;
        }
        if self.trend.usage == Usage::Overuse || self.loss_permil > 100 {
            return 0;
        }
        let factor = if self.capacity != 0 || self.backoff_us != 0 { 2 } else { 3 };
        (self.bitrate * factor).min(wanted_bps.max(self.bitrate * 5 / 4)).min(self.max_bps)
    }

    /// All packets sent from now until `on_probe_ended` are one train at `cluster_bps`.
    pub fn on_probe_started(&mut self, cluster_bps: i64, now: i64) {
        let first = self.last_seq.map_or(0, |last| last.wrapping_add(1));
        self.probe =
            Some(Box::new(Probe { first, last: None, bitrate: cluster_bps, started_us: now, packets: Vec::new() }));
    }

    /// The train is sent; its verdict comes with the feedback.
    pub fn on_probe_ended(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.last = self.last_seq;
        }
    }

    fn finish_probe(&mut self, feedback: &Feedback, now: i64) {
        let newest = feedback.packets.last().map_or(0, |packet| packet.0);
        let Some(probe) = self.probe.take() else { return };
        let last = match probe.last {
            Some(last) if newest.wrapping_sub(last) < 0x8000 => last,
            _ => {
                self.probe = Some(probe);
                return;
            }
        };
        let result = probe.result(last);
        self.probe_result = result;
        if result * 10 > self.bitrate * 11 {
            self.delay_bps = result.min(self.max_bps).max(self.delay_bps);
            self.loss_bps = self.loss_bps.max(result);
            self.capacity = 0;
            let saturated = i128::from(result) * 10 < i128::from(probe.bitrate) * 8;
            self.backoff_us = if saturated { 1_000_000 } else { 0 };
            self.probe_next_us = now + if saturated { 1_000_000 } else { 100_000 };
        } else {
            self.backoff_us = (self.backoff_us * 2).clamp(1_000_000, 16_000_000);
            self.probe_next_us = now + self.backoff_us;
        }
    }

    fn settle(&mut self) {
        let lowest = self.delay_bps.min(self.loss_bps).min(self.remb_bps).min(self.max_bps);
        self.bitrate = lowest.max(self.min_bps);
    }
}
