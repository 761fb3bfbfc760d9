//! From events and statistics to the contract's dataclasses.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyTuple};

use super::forwarder::address_tuple;
use crate::core::contract::{Event, LayerStats, PlaneStats, SessionStats, SlotStats};

/// The classes of `relay.plane.contract`.
pub struct Contract {
    module: Py<PyModule>,
    session: Py<PyAny>,
    layer: Py<PyAny>,
    slot: Py<PyAny>,
}

impl Contract {
    pub fn load(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("relay.plane.contract")?;
        let class = |name: &str| Ok::<_, PyErr>(module.getattr(name)?.unbind());
        let (session, layer, slot) = (class("SessionStats")?, class("LayerStats")?, class("SlotStats")?);
        Ok(Self { module: module.unbind(), session, layer, slot })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            module: self.module.clone_ref(py),
            session: self.session.clone_ref(py),
            layer: self.layer.clone_ref(py),
            slot: self.slot.clone_ref(py),
        }
    }

    fn class<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.module.bind(py).getattr(name)
    }

    pub fn event<'py>(&self, py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyAny>> {
        match event {
            Event::DtlsReceived { session, datagram } => {
                self.class(py, "DtlsReceived")?.call1((session, PyBytes::new(py, &datagram)))
            }
            Event::AddressSelected { session, address } => {
                self.class(py, "AddressSelected")?.call1((session, address_tuple(py, address)?))
            }
            Event::IceRestarted { session } => self.class(py, "IceRestarted")?.call1((session,)),
            Event::LayerStarted { track, layer, ssrc, payload_type } => {
                self.class(py, "LayerStarted")?.call1((track, layer, ssrc, payload_type))
            }
            Event::LayerStopped { track, layer } => self.class(py, "LayerStopped")?.call1((track, layer)),
            Event::SlotSwitched { slot, track, layer, sequence, timestamp, source_timestamp } => {
                let fields = (slot, track, layer, sequence, timestamp, source_timestamp);
                self.class(py, "SlotSwitched")?.call1(fields)
            }
            Event::EstimateChanged { session, bitrate } => self.class(py, "EstimateChanged")?.call1((session, bitrate)),
            Event::LoudnessMeasured { levels } => {
                self.class(py, "LoudnessMeasured")?.call1((PyTuple::new(py, levels)?,))
            }
            Event::KeyframeRequested { track, layer } => self.class(py, "KeyframeRequested")?.call1((track, layer)),
        }
    }

    // By position, in the order of the dataclasses' fields: that is half the price of names.

    fn session<'py>(&self, py: Python<'py>, stats: &SessionStats) -> PyResult<Bound<'py, PyAny>> {
        self.session.bind(py).call1((
            stats.packets_in,
            stats.bytes_in,
            stats.packets_out,
            stats.bytes_out,
            stats.last_consent,
            stats.last_media,
            stats.round_trip_us,
            stats.loss_256,
            stats.estimate,
            stats.address.map(|address| address_tuple(py, address)).transpose()?,
        ))
    }

    fn layer<'py>(&self, py: Python<'py>, stats: &LayerStats) -> PyResult<Bound<'py, PyAny>> {
        // PyO3 makes tuples of up to 12.
        let fields = PyTuple::new(
            py,
            [
                (&stats.rid).into_bound_py_any(py)?,
                stats.active.into_bound_py_any(py)?,
                stats.packets.into_bound_py_any(py)?,
                stats.bytes.into_bound_py_any(py)?,
                stats.lost.into_bound_py_any(py)?,
                stats.recovered.into_bound_py_any(py)?,
                stats.nacks_sent.into_bound_py_any(py)?,
                stats.keyframes.into_bound_py_any(py)?,
                stats.keyframe_requests.into_bound_py_any(py)?,
                stats.jitter_us.into_bound_py_any(py)?,
                stats.bitrate.into_bound_py_any(py)?,
                stats.width.into_bound_py_any(py)?,
                stats.height.into_bound_py_any(py)?,
                stats.payload_type.into_bound_py_any(py)?,
                stats.ssrc.into_bound_py_any(py)?,
                stats.timestamp.into_bound_py_any(py)?,
                stats.arrival_us.into_bound_py_any(py)?,
                stats.report_ssrc.into_bound_py_any(py)?,
                stats.report_ntp.into_bound_py_any(py)?,
                stats.report_timestamp.into_bound_py_any(py)?,
                stats.report_arrival_us.into_bound_py_any(py)?,
            ],
        )?;
        self.layer.bind(py).call1(fields)
    }

    fn slot<'py>(&self, py: Python<'py>, stats: &SlotStats) -> PyResult<Bound<'py, PyAny>> {
        self.slot.bind(py).call1((
            stats.track,
            stats.layer,
            stats.packets,
            stats.bytes,
            stats.nacks,
            stats.resent,
            stats.not_resent,
            stats.keyframe_requests,
            stats.switches,
            stats.bitrate,
        ))
    }

    pub fn sessions<'py>(&self, py: Python<'py>, shards: &[PlaneStats]) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (handle, one) in shards.iter().flat_map(|stats| &stats.sessions) {
            all.set_item(handle, self.session(py, one)?)?;
        }
        Ok(all)
    }

    pub fn tracks<'py>(&self, py: Python<'py>, shards: &[PlaneStats]) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (handle, layers) in shards.iter().flat_map(|stats| &stats.tracks) {
            let of_track = PyList::empty(py);
            for layer in layers {
                of_track.append(self.layer(py, layer)?)?;
            }
            all.set_item(handle, of_track)?;
        }
        Ok(all)
    }

    pub fn slots<'py>(&self, py: Python<'py>, shards: &[PlaneStats]) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        for (handle, one) in shards.iter().flat_map(|stats| &stats.slots) {
            all.set_item(handle, self.slot(py, one)?)?;
        }
        Ok(all)
    }

    pub fn stats<'py>(&self, py: Python<'py>, stats: PlaneStats) -> PyResult<Bound<'py, PyAny>> {
        let drops = PyDict::new(py);
        for (reason, count) in &stats.drops {
            drops.set_item(reason, count)?;
        }
        let one = [stats];
        let (sessions, tracks, slots) = (self.sessions(py, &one)?, self.tracks(py, &one)?, self.slots(py, &one)?);
        let [stats] = one;
        let fields = PyDict::new(py);
        fields.set_item("datagrams_in", stats.datagrams_in)?;
        fields.set_item("datagrams_out", stats.datagrams_out)?;
        fields.set_item("bytes_in", stats.bytes_in)?;
        fields.set_item("bytes_out", stats.bytes_out)?;
        fields.set_item("slab_free", stats.slab_free)?;
        fields.set_item("slab_total", stats.slab_total)?;
        fields.set_item("unkept", stats.unkept)?;
        self.class(py, "PlaneStats")?.call((sessions, tracks, slots, drops), Some(&fields))
    }
}
