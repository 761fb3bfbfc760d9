//! RTCP.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::rtcp::{self, Packet};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse_rtcp, module)?)?;
    module.add_function(wrap_pyfunction!(build_report, module)?)?;
    module.add_function(wrap_pyfunction!(build_feedback, module)?)?;
    module.add_function(wrap_pyfunction!(ntp, module)?)?;
    module.add_function(wrap_pyfunction!(rtt_us, module)?)?;
    Ok(())
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
