//! From events and statistics to the contract's dataclasses.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyTuple};

use super::forwarder::address_tuple;
use crate::core::contract::{Event, LayerStats, PlaneStats, SessionStats, SlotStats};

/// The module `relay.plane.contract`.
pub struct Contract(Py<PyModule>);

impl Contract {
    pub fn load(py: Python<'_>) -> PyResult<Self> {
        Ok(Self(py.import("relay.plane.contract")?.unbind()))
    }

    fn class<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).getattr(name)
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
            Event::SlotSwitched { slot, track, layer, sequence, timestamp } => {
                self.class(py, "SlotSwitched")?.call1((slot, track, layer, sequence, timestamp))
            }
            Event::EstimateChanged { session, bitrate } => self.class(py, "EstimateChanged")?.call1((session, bitrate)),
            Event::LoudnessMeasured { levels } => {
                self.class(py, "LoudnessMeasured")?.call1((PyTuple::new(py, levels)?,))
            }
            Event::KeyframeRequested { track, layer } => self.class(py, "KeyframeRequested")?.call1((track, layer)),
        }
    }

    fn session<'py>(&self, py: Python<'py>, stats: &SessionStats) -> PyResult<Bound<'py, PyAny>> {
        let fields = PyDict::new(py);
        fields.set_item("packets_in", stats.packets_in)?;
        fields.set_item("bytes_in", stats.bytes_in)?;
        fields.set_item("packets_out", stats.packets_out)?;
        fields.set_item("bytes_out", stats.bytes_out)?;
        fields.set_item("last_consent", stats.last_consent)?;
        fields.set_item("last_media", stats.last_media)?;
        fields.set_item("round_trip_us", stats.round_trip_us)?;
        fields.set_item("loss_256", stats.loss_256)?;
        fields.set_item("estimate", stats.estimate)?;
        fields.set_item("address", stats.address.map(|address| address_tuple(py, address)).transpose()?)?;
        self.class(py, "SessionStats")?.call((), Some(&fields))
    }

    fn layer<'py>(&self, py: Python<'py>, stats: &LayerStats) -> PyResult<Bound<'py, PyAny>> {
        let fields = PyDict::new(py);
        fields.set_item("rid", &stats.rid)?;
        fields.set_item("active", stats.active)?;
        fields.set_item("packets", stats.packets)?;
        fields.set_item("bytes", stats.bytes)?;
        fields.set_item("lost", stats.lost)?;
        fields.set_item("recovered", stats.recovered)?;
        fields.set_item("nacks_sent", stats.nacks_sent)?;
        fields.set_item("keyframes", stats.keyframes)?;
        fields.set_item("keyframe_requests", stats.keyframe_requests)?;
        fields.set_item("jitter_us", stats.jitter_us)?;
        fields.set_item("bitrate", stats.bitrate)?;
        fields.set_item("width", stats.width)?;
        fields.set_item("height", stats.height)?;
        fields.set_item("payload_type", stats.payload_type)?;
        self.class(py, "LayerStats")?.call((), Some(&fields))
    }

    fn slot<'py>(&self, py: Python<'py>, stats: &SlotStats) -> PyResult<Bound<'py, PyAny>> {
        let fields = PyDict::new(py);
        fields.set_item("track", stats.track)?;
        fields.set_item("layer", stats.layer)?;
        fields.set_item("packets", stats.packets)?;
        fields.set_item("bytes", stats.bytes)?;
        fields.set_item("nacks", stats.nacks)?;
        fields.set_item("resent", stats.resent)?;
        fields.set_item("not_resent", stats.not_resent)?;
        fields.set_item("keyframe_requests", stats.keyframe_requests)?;
        fields.set_item("switches", stats.switches)?;
        fields.set_item("bitrate", stats.bitrate)?;
        self.class(py, "SlotStats")?.call((), Some(&fields))
    }

    pub fn stats<'py>(&self, py: Python<'py>, stats: PlaneStats) -> PyResult<Bound<'py, PyAny>> {
        let (sessions, tracks) = (PyDict::new(py), PyDict::new(py));
        let (slots, drops) = (PyDict::new(py), PyDict::new(py));
        for (handle, one) in &stats.sessions {
            sessions.set_item(handle, self.session(py, one)?)?;
        }
        for (handle, layers) in &stats.tracks {
            let all = PyList::empty(py);
            for layer in layers {
                all.append(self.layer(py, layer)?)?;
            }
            tracks.set_item(handle, all)?;
        }
        for (handle, one) in &stats.slots {
            slots.set_item(handle, self.slot(py, one)?)?;
        }
        for (reason, count) in &stats.drops {
            drops.set_item(reason, count)?;
        }
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
