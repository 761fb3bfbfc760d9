//! `_native.testing`: the leaves as Python sees them, so that a test can hold each against its reference.

use std::net::{IpAddr, SocketAddr};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::audio_level;
use crate::descriptors::{self, Codec, Descriptor, OPAQUE};
use crate::error::UsageError;
use crate::estimate;
use crate::history::{self, Sent};
use crate::nack;
use crate::rate;
use crate::rewrite;
use crate::rtcp::{self, Packet};
use crate::rtp;
use crate::serialise::{Block, Fields, Forwarding};
use crate::srtp::{self, MAX_SEALED, MAX_TRAILER, Profile};
use crate::stun::{self, Parsed};
use crate::transport_cc;

fn usage(error: UsageError) -> PyErr {
    PyValueError::new_err(error.0)
}

/// Add the submodule `testing`.
pub fn register(parent: &Bound<'_, PyModule>) -> PyResult<()> {
    let module = PyModule::new(parent.py(), "testing")?;
    module.add_function(wrap_pyfunction!(parse_rtp, &module)?)?;
    module.add_function(wrap_pyfunction!(build_extensions, &module)?)?;
    module.add_function(wrap_pyfunction!(decapsulate_rtx, &module)?)?;
    module.add_function(wrap_pyfunction!(inspect, &module)?)?;
    module.add_function(wrap_pyfunction!(parse_stun, &module)?)?;
    module.add_function(wrap_pyfunction!(verify_stun, &module)?)?;
    module.add_function(wrap_pyfunction!(stun_success, &module)?)?;
    module.add_function(wrap_pyfunction!(stun_error, &module)?)?;
    module.add_function(wrap_pyfunction!(break_shard, &module)?)?;
    module.add_function(wrap_pyfunction!(parse_rtcp, &module)?)?;
    module.add_function(wrap_pyfunction!(build_report, &module)?)?;
    module.add_function(wrap_pyfunction!(build_feedback, &module)?)?;
    module.add_function(wrap_pyfunction!(ntp, &module)?)?;
    module.add_function(wrap_pyfunction!(rtt_us, &module)?)?;
    module.add_function(wrap_pyfunction!(parse_transport_cc, &module)?)?;
    module.add_class::<super::cluster::Cluster>()?;
    module.add_class::<Serialiser>()?;
    module.add_class::<Rewriter>()?;
    module.add_class::<PictureIds>()?;
    module.add_class::<SentLog>()?;
    module.add_class::<Srtp>()?;
    module.add_class::<Recorder>()?;
    module.add_class::<LossDetector>()?;
    module.add_class::<Loudness>()?;
    module.add_class::<Rate>()?;
    module.add_class::<BandwidthEstimator>()?;
    parent.add_submodule(&module)
}

type Parts = (u32, u16, u32, bool, u8, u32, u32);

/// Have a shard's thread panic.
#[pyfunction]
fn break_shard(plane: PyRef<'_, super::plane::NativePlane>, shard: usize) {
    super::plane::break_shard(&plane, shard);
}

#[pyfunction]
fn parse_rtp<'py>(py: Python<'py>, datagram: &[u8]) -> PyResult<Option<(Parts, Bound<'py, PyDict>)>> {
    let Some(packet) = rtp::parse(datagram, 0) else { return Ok(None) };
    let extensions = PyDict::new(py);
    for (id, offset, length) in packet.extensions.elements(datagram) {
        extensions.set_item(id, (offset, length))?;
    }
    let parts = (
        packet.ssrc,
        packet.seq,
        packet.timestamp,
        packet.marker,
        packet.payload_type,
        packet.payload_offset,
        packet.payload_end,
    );
    Ok(Some((parts, extensions)))
}

#[pyfunction]
fn build_extensions<'py>(py: Python<'py>, elements: Vec<(u8, Vec<u8>)>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = [0; 4096];
    let length = rtp::build_extensions(elements.iter().map(|(id, value)| (*id, &value[..])), &mut out);
    Ok(PyBytes::new(py, &out[..length.map_err(usage)?]))
}

#[pyfunction]
fn decapsulate_rtx<'py>(py: Python<'py>, mut datagram: Vec<u8>, ssrc: u32, kind: u8) -> Option<Bound<'py, PyBytes>> {
    let packet = rtp::parse(&datagram, 0)?;
    let original = rtp::decapsulate_rtx(&mut datagram, &packet, ssrc, kind)?;
    Some(PyBytes::new(py, &datagram[..original.payload_end as usize]))
}

fn codec(name: &str) -> PyResult<Codec> {
    Codec::by_name(&name.to_lowercase()).ok_or_else(|| PyValueError::new_err("unknown codec"))
}

#[pyfunction]
fn inspect<'py>(py: Python<'py>, name: &str, data: &[u8], start: usize, end: usize) -> PyResult<Bound<'py, PyTuple>> {
    let found = descriptors::inspect(codec(name)?, data, start, end);
    let flags = (found.is_keyframe_start, found.is_frame_start, found.temporal_id, found.spatial_id);
    let ids = (found.is_layer_sync, found.picture_id, found.picture_id_bits, found.tl0_pic_idx, found.layer_octet);
    let rest = (found.patch_offset, found.width, found.height, found.has_parameters, found.is_dtx);
    let parts = PyList::new(py, flags.into_pyobject(py)?.iter())?;
    for part in ids.into_pyobject(py)?.iter().chain(rest.into_pyobject(py)?.iter()) {
        parts.append(part)?;
    }
    Ok(parts.to_tuple())
}

#[pyclass]
struct Serialiser(crate::serialise::Serialiser);

#[pymethods]
impl Serialiser {
    #[new]
    fn new(
        ssrc: u32,
        fixed: Vec<(u8, Vec<u8>)>,
        transport_cc_id: u8,
        abs_send_time_id: u8,
        ids: Vec<(u8, u8)>,
        allow_mixed: bool,
    ) -> PyResult<Self> {
        let fixed: Vec<(u8, &[u8])> = fixed.iter().map(|(id, value)| (*id, &value[..])).collect();
        let forwarding = Forwarding::new(&ids, allow_mixed).map_err(usage)?;
        crate::serialise::Serialiser::new(ssrc, &fixed, transport_cc_id, abs_send_time_id, Some(forwarding))
            .map(Self)
            .map_err(usage)
    }

    #[allow(clippy::too_many_arguments)]
    fn write<'py>(
        &self,
        py: Python<'py>,
        datagram: &[u8],
        type_and_marker: u8,
        seq: u16,
        timestamp: u32,
        patch_offset: usize,
        patch: &[u8],
        transport_seq: u16,
        send_time: u32,
        prefix: &[u8],
    ) -> Option<Bound<'py, PyBytes>> {
        let packet = rtp::parse(datagram, 0)?;
        let mut block = Block::default();
        self.0.forwarding().block(datagram, &packet, &mut block);
        let fields = Fields { type_and_marker, seq, timestamp, patch_offset, patch, transport_seq, send_time };
        let mut out = [0; 8192];
        let length = self.0.write(datagram, &packet, &block, &fields, prefix, &mut out)?;
        Some(PyBytes::new(py, &out[..length]))
    }
}

#[pyclass]
struct Rewriter(rewrite::Rewriter);

#[pymethods]
impl Rewriter {
    #[new]
    fn new(first_seq: u16, first_timestamp: u32) -> Self {
        Self(rewrite::Rewriter::new(first_seq, first_timestamp))
    }

    #[pyo3(signature = (first_seq, first_timestamp, now, clock, alignment=None))]
    fn splice(&mut self, first_seq: u16, first_timestamp: u32, now: i64, clock: u32, alignment: Option<i64>) {
        self.0.splice(first_seq, first_timestamp, now, clock, alignment);
    }

    fn rewrite(&mut self, seq: u16, timestamp: u32, now: i64) -> Option<(u16, u32)> {
        self.0.rewrite(seq, timestamp, now)
    }

    fn drop(&mut self, seq: u16) {
        self.0.drop(seq);
    }

    fn state(&self, timestamp: i64) -> (u16, u32, u32) {
        (self.0.last_seq(), self.0.last_timestamp(), self.0.timestamp_out(timestamp))
    }
}

#[pyclass]
struct PictureIds(rewrite::PictureIds);

fn descriptor(picture_id: i32, picture_id_bits: u8, tl0_pic_idx: i16, layer_octet: i16) -> Descriptor {
    Descriptor { picture_id, picture_id_bits, tl0_pic_idx, layer_octet, ..OPAQUE }
}

#[pymethods]
impl PictureIds {
    #[new]
    fn new() -> Self {
        Self(rewrite::PictureIds::default())
    }

    fn splice(&mut self, picture_id: i32, bits: u8, tl0: i16, layer_octet: i16) {
        self.0.splice(&descriptor(picture_id, bits, tl0, layer_octet));
    }

    fn patch<'py>(&mut self, py: Python<'py>, id: i32, bits: u8, tl0: i16, layer_octet: i16) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.patch(&descriptor(id, bits, tl0, layer_octet)).as_slice())
    }
}

/// A log with a budget; every ingress packet is its number, and as long as `sizes` says.
#[pyclass]
struct SentLog(history::SentLog, history::ResendBudget, Vec<usize>);

#[pymethods]
impl SentLog {
    #[new]
    fn new(packets: u32, bytes_per_second: u32, burst: u32) -> PyResult<Self> {
        let log = history::SentLog::new(packets).map_err(usage)?;
        Ok(Self(log, history::ResendBudget::new(bytes_per_second, burst), Vec::new()))
    }

    fn put(&mut self, size: usize, seq: u16) -> Option<u32> {
        self.2.push(size);
        self.0.put(Sent { packet: (self.2.len() - 1) as u32, seq, ..Sent::default() })
    }

    fn resend(&mut self, seq: u16, now: i64, rtt: i64) -> Option<u32> {
        let Self(log, budget, sizes) = self;
        log.resend(seq, now, rtt, Some(budget), |packet| sizes[packet as usize]).map(|sent| sent.packet)
    }

    fn get(&self, seq: u16) -> Option<u32> {
        self.0.get(seq).map(|sent| sent.packet)
    }

    fn clear(&mut self) -> Vec<u32> {
        let mut released = Vec::new();
        self.0.clear(|packet| released.push(packet));
        released
    }
}

#[pyclass]
struct Srtp(srtp::Srtp);

#[pymethods]
impl Srtp {
    #[new]
    fn new(profile: &str, tx_key: &[u8], rx_key: &[u8]) -> PyResult<Self> {
        let profile = Profile::by_name(profile).ok_or_else(|| PyValueError::new_err("unknown profile"))?;
        srtp::Srtp::new(profile, tx_key, rx_key).map(Self).map_err(usage)
    }

    /// `call` is one of the four methods' names. Returns the packet, or why it was refused.
    fn process<'py>(&mut self, py: Python<'py>, call: &str, packet: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut buffer = vec![0; packet.len().max(MAX_SEALED) + MAX_TRAILER];
        buffer[..packet.len()].copy_from_slice(packet);
        let length = packet.len();
        let done = match call {
            "protect_rtp" => self.0.protect_rtp(&mut buffer, length),
            "unprotect_rtp" => self.0.unprotect_rtp(&mut buffer, length),
            "protect_rtcp" => self.0.protect_rtcp(&mut buffer, length),
            "unprotect_rtcp" => self.0.unprotect_rtcp(&mut buffer, length),
            _ => return Err(PyValueError::new_err("unknown call")),
        };
        Ok(match done {
            Ok(length) => PyBytes::new(py, &buffer[..length]).into_any(),
            Err(reason) => format!("{reason:?}").to_uppercase().into_pyobject(py)?.into_any(),
        })
    }

    fn close(&mut self) {
        self.0.close();
    }
}

fn source(host: &str, port: u16) -> PyResult<SocketAddr> {
    let ip: IpAddr = host.parse().map_err(|_| PyValueError::new_err("not an address"))?;
    Ok(SocketAddr::new(ip, port))
}

#[pyfunction]
fn parse_stun<'py>(py: Python<'py>, datagram: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match stun::parse(datagram) {
        Parsed::Dropped(reason) => format!("{reason:?}").into_pyobject(py)?.into_any(),
        Parsed::Message { kind, transaction_id } => {
            (kind, PyBytes::new(py, &transaction_id)).into_pyobject(py)?.into_any()
        }
        Parsed::Request(found) => {
            let names = (PyBytes::new(py, found.username), found.local_ufrag, found.remote_ufrag);
            let roles = (found.priority, found.use_candidate, found.controlling, found.controlled);
            let rest = (found.integrity_at, found.fingerprint, found.unknown().to_vec());
            let refusals = (stun::refusal_before_integrity(&found), stun::refusal_after_integrity(&found));
            (PyBytes::new(py, &found.transaction_id), names, roles, rest, refusals).into_pyobject(py)?.into_any()
        }
    })
}

#[pyfunction]
fn verify_stun(datagram: &[u8], password: &[u8]) -> bool {
    match stun::parse(datagram) {
        Parsed::Request(request) => stun::verify_integrity(datagram, &request, password),
        _ => false,
    }
}

#[pyfunction]
fn stun_success<'py>(
    py: Python<'py>,
    id: [u8; 12],
    host: &str,
    port: u16,
    password: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    stun::binding_success(&id, source(host, port)?, password, &mut out);
    Ok(PyBytes::new(py, &out))
}

#[pyfunction]
fn stun_error<'py>(
    py: Python<'py>,
    id: [u8; 12],
    code: u16,
    password: Option<Vec<u8>>,
    unknown: Vec<u16>,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::new();
    stun::binding_error(&id, code, password.as_deref(), &unknown, &mut out);
    PyBytes::new(py, &out)
}

type BlockParts = (u32, u8, i32, u32, u32, u32, u32);

fn block_parts(block: rtcp::ReportBlock) -> BlockParts {
    (
        block.ssrc,
        block.fraction_lost,
        block.cumulative_lost,
        block.highest_sequence,
        block.jitter,
        block.lsr,
        block.dlsr,
    )
}

fn blocks(reports: &[u8]) -> Vec<BlockParts> {
    rtcp::report_blocks(reports).map(block_parts).collect()
}

fn rtcp_parts<'py>(py: Python<'py>, packet: Packet<'_>) -> PyResult<Bound<'py, PyTuple>> {
    match packet {
        Packet::SenderReport { info, reports } => {
            let head = (info.ssrc, info.ntp, info.rtp_timestamp, info.packets, info.octets);
            ("SenderReport", head, blocks(reports)).into_pyobject(py)
        }
        Packet::ReceiverReport { ssrc, reports } => ("ReceiverReport", ssrc, blocks(reports)).into_pyobject(py),
        Packet::SourceDescription { body, count } => {
            let named: Vec<(u32, String)> = rtcp::cnames(body, count)
                .into_iter()
                .map(|(ssrc, name)| (ssrc, String::from_utf8_lossy(name).into_owned()))
                .collect();
            ("SourceDescription", named).into_pyobject(py)
        }
        Packet::Bye { ssrcs } => ("Bye", rtcp::ssrcs(ssrcs).collect::<Vec<_>>()).into_pyobject(py),
        Packet::Nack { sender_ssrc, media_ssrc, pairs } => {
            ("Nack", sender_ssrc, media_ssrc, rtcp::nacked(pairs).collect::<Vec<_>>()).into_pyobject(py)
        }
        Packet::Pli { sender_ssrc, media_ssrc } => ("Pli", sender_ssrc, media_ssrc).into_pyobject(py),
        Packet::Fir { sender_ssrc, entries } => {
            ("Fir", sender_ssrc, rtcp::fir_entries(entries).collect::<Vec<_>>()).into_pyobject(py)
        }
        Packet::Remb { sender_ssrc, bitrate, ssrcs } => {
            ("Remb", sender_ssrc, bitrate, rtcp::ssrcs(ssrcs).collect::<Vec<_>>()).into_pyobject(py)
        }
        Packet::TransportFeedback { sender_ssrc, media_ssrc, fci } => {
            ("TransportFeedback", sender_ssrc, media_ssrc, PyBytes::new(py, fci)).into_pyobject(py)
        }
    }
}

#[pyfunction]
fn parse_rtcp<'py>(py: Python<'py>, data: &[u8]) -> PyResult<(Bound<'py, PyList>, usize, &'static str)> {
    let packets = PyList::empty(py);
    let mut compound = rtcp::Compound::new(data);
    for packet in compound.by_ref() {
        packets.append(rtcp_parts(py, packet)?)?;
    }
    Ok((packets, compound.skipped, compound.error))
}

/// A sender report when there is an `info`, else a receiver report; then SDES and BYE of the same source.
#[pyfunction]
fn build_report<'py>(
    py: Python<'py>,
    ssrc: u32,
    info: Option<(u64, u32, u32, u32)>,
    reports: Vec<BlockParts>,
    cname: &str,
) -> Bound<'py, PyBytes> {
    let reports: Vec<rtcp::ReportBlock> = reports
        .into_iter()
        .map(|(ssrc, fraction_lost, cumulative_lost, highest_sequence, jitter, lsr, dlsr)| rtcp::ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost,
            highest_sequence,
            jitter,
            lsr,
            dlsr,
        })
        .collect();
    let mut out = Vec::new();
    match info {
        Some((ntp, rtp_timestamp, packets, octets)) => {
            rtcp::build_sr(&rtcp::SenderInfo { ssrc, ntp, rtp_timestamp, packets, octets }, &reports, &mut out);
        }
        None => rtcp::build_rr(ssrc, &reports, &mut out),
    }
    rtcp::build_sdes(ssrc, cname, &mut out);
    rtcp::build_bye(&[ssrc, ssrc ^ 1], &mut out);
    PyBytes::new(py, &out)
}

/// NACK, PLI, FIR, REMB and transport-cc, one behind the other.
#[pyfunction]
fn build_feedback<'py>(
    py: Python<'py>,
    sender: u32,
    media: u32,
    lost: Vec<u16>,
    number: u8,
    bitrate: i64,
    fci: &[u8],
) -> Bound<'py, PyBytes> {
    let mut out = Vec::new();
    rtcp::build_nack(sender, media, &lost, &mut out);
    rtcp::build_pli(sender, media, &mut out);
    rtcp::build_fir(sender, media, number, &mut out);
    rtcp::build_remb(sender, bitrate, &[media, sender], &mut out);
    rtcp::build_transport_cc(sender, media, fci, &mut out);
    PyBytes::new(py, &out)
}

#[pyfunction]
fn ntp(wall_us: i64) -> (u64, i64, u32) {
    let ntp = rtcp::ntp_from_wall_us(wall_us);
    (ntp, rtcp::wall_us_from_ntp(ntp), rtcp::ntp_middle(ntp))
}

#[pyfunction]
fn rtt_us(now_ntp: u64, lsr: u32, dlsr: u32) -> Option<i64> {
    rtcp::rtt_us(now_ntp, lsr, dlsr)
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
