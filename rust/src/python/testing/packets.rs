//! RTP packets: read, rewritten, written, sealed, remembered.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::usage;
use crate::descriptors::{self, Codec, Descriptor, OPAQUE};
use crate::history::{self, Sent};
use crate::rewrite;
use crate::rtp;
use crate::serialise::{Block, Fields, Forwarding};
use crate::srtp::{self, MAX_SEALED, MAX_TRAILER, Profile};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(parse_rtp, module)?)?;
    module.add_function(wrap_pyfunction!(build_extensions, module)?)?;
    module.add_function(wrap_pyfunction!(decapsulate_rtx, module)?)?;
    module.add_function(wrap_pyfunction!(inspect, module)?)?;
    module.add_class::<Serialiser>()?;
    module.add_class::<Rewriter>()?;
    module.add_class::<PictureIds>()?;
    module.add_class::<SentLog>()?;
    module.add_class::<Srtp>()?;
    Ok(())
}

type Parts = (u32, u16, u32, bool, u8, u32, u32);

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
