//! What is measured: losses, rates, loudness, feedback and the estimate made of it.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::audio_level;
use crate::estimate;
use crate::nack;
use crate::rate;
use crate::rtcp;
use crate::transport_cc;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse_transport_cc, module)?)?;
    module.add_class::<Recorder>()?;
    module.add_class::<LossDetector>()?;
    module.add_class::<Loudness>()?;
    module.add_class::<Rate>()?;
    module.add_class::<BandwidthEstimator>()?;
    Ok(())
}

type ReadFeedback = (u8, i64, Vec<(u16, Option<i64>)>);

#[pyfunction]
fn parse_transport_cc(fci: &[u8]) -> Option<ReadFeedback> {
    let mut feedback = transport_cc::Feedback::default();
    transport_cc::parse_feedback(fci, &mut feedback)
        .then(|| (feedback.count, feedback.reference_us, std::mem::take(&mut feedback.packets)))
}

#[pyclass]
struct Recorder(transport_cc::Recorder);

#[pymethods]
impl Recorder {
    #[new]
    fn new() -> Self {
        Self(transport_cc::Recorder::default())
    }

    fn record(&mut self, seq16: u16, arrival_us: i64) -> bool {
        self.0.record(seq16, arrival_us);
        self.0.pending()
    }

    fn feedback<'py>(&mut self, py: Python<'py>, sender: u32, media: u32) -> Vec<Bound<'py, PyBytes>> {
        let mut packets = Vec::new();
        self.0.feedback(|fci| {
            let mut packet = Vec::new();
            rtcp::build_transport_cc(sender, media, fci, &mut packet);
            packets.push(PyBytes::new(py, &packet));
        });
        packets
    }
}

#[pyclass]
struct LossDetector(nack::LossDetector);

#[pymethods]
impl LossDetector {
    #[new]
    fn new(clock_rate: u32) -> Self {
        Self(nack::LossDetector::new(clock_rate))
    }

    fn received(&mut self, seq16: u16, now: i64, timestamp: Option<u32>) -> u8 {
        self.0.received(seq16, now, timestamp) as u8
    }

    fn recovered(&mut self, seq16: u16) -> u8 {
        self.0.recovered(seq16) as u8
    }

    fn due(&mut self, now: i64, rtt_us: i64) -> Vec<u16> {
        let mut out = Vec::new();
        self.0.due(now, rtt_us, &mut out);
        out
    }

    fn keyframe(&mut self, seq16: u16) {
        self.0.keyframe(seq16);
    }

    fn report(&mut self) -> (u8, i32, u32, u32) {
        let report = self.0.report();
        (report.fraction_lost, report.cumulative_lost, report.highest_sequence, report.jitter)
    }

    fn state(&self) -> (Option<i64>, usize, i64, i64, i64, i64) {
        let inner = &self.0;
        let counts = (inner.highest, inner.duplicates, inner.recovered_count, inner.given_up);
        (inner.next_timeout(), inner.missing(), counts.0, counts.1, counts.2, counts.3)
    }
}

#[pyclass]
struct Loudness(audio_level::Loudness);

#[pymethods]
impl Loudness {
    #[new]
    fn new() -> Self {
        Self(audio_level::Loudness::default())
    }

    fn add(&mut self, extension: &[u8], now: i64) {
        if let Some((level, voice)) = audio_level::parse_audio_level(extension) {
            self.0.add(level, voice, now);
        }
    }

    fn value(&mut self, now: i64) -> i64 {
        self.0.value(now)
    }
}

#[pyclass]
struct Rate(rate::Rate);

#[pymethods]
impl Rate {
    #[new]
    fn new() -> Self {
        Self(rate::Rate::default())
    }

    fn add(&mut self, size: usize, now: i64) -> i64 {
        self.0.add(size, now);
        self.0.value(now)
    }

    fn value(&self, now: i64) -> i64 {
        self.0.value(now)
    }
}

#[pyclass]
struct BandwidthEstimator(estimate::BandwidthEstimator);

#[pymethods]
impl BandwidthEstimator {
    #[new]
    fn new(start: i64, max: i64, min: i64) -> Self {
        Self(estimate::BandwidthEstimator::new(start, max, min))
    }

    fn on_sent(&mut self, seq16: u16, size: usize, now: i64) {
        self.0.on_sent(seq16, size, now);
    }

    fn on_rtt(&mut self, us: i64) {
        self.0.on_rtt(us);
    }

    fn on_feedback(&mut self, fci: &[u8], now: i64) {
        let mut feedback = transport_cc::Feedback::default();
        if transport_cc::parse_feedback(fci, &mut feedback) {
            self.0.on_feedback(&feedback, now);
        }
    }

    fn on_receiver_report(&mut self, fraction_lost: u8, now: i64) {
        self.0.on_receiver_report(fraction_lost, now);
    }

    fn on_remb(&mut self, bps: i64, now: i64) {
        self.0.on_remb(bps, now);
    }

    fn on_probe_started(&mut self, bps: i64, now: i64) {
        self.0.on_probe_started(bps, now);
    }

    fn on_probe_ended(&mut self) {
        self.0.on_probe_ended();
    }

    fn probe_wanted(&mut self, bps: i64, now: i64) -> i64 {
        self.0.probe_wanted(bps, now)
    }

    fn set_max(&mut self, bps: i64) {
        self.0.set_max(bps);
    }

    fn state(&self) -> (i64, i64, i64) {
        (self.0.bitrate, self.0.loss_permil, self.0.probe_result)
    }
}
