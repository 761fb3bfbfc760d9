//! `_native.Forwarder`: the core with the methods of `relay.plane.reference.forwarder.Forwarder`.

use std::net::{IpAddr, SocketAddr};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::commands::{self, usage};
use super::events::Contract;
use crate::core::Core;

/// The plane without I/O; see the reference. Not for use by two threads at once.
#[pyclass]
pub struct Forwarder {
    core: Core,
    contract: Contract,
    deferred: bool,
}

pub fn address(source: (String, u16)) -> PyResult<SocketAddr> {
    let (host, port) = source;
    let ip: IpAddr = host.parse().map_err(|_| commands::usage_text("not a numeric address"))?;
    Ok(SocketAddr::new(ip, port))
}

#[pymethods]
impl Forwarder {
    /// `deferred`: as a shard drives it, what is received
    /// is written when something needs it or at `transmit`.
    #[new]
    #[pyo3(signature = (config, deferred=false))]
    fn new(config: &Bound<'_, PyAny>, deferred: bool) -> PyResult<Self> {
        let core = Core::new(commands::config(config)?).map_err(usage)?;
        Ok(Self { core, contract: Contract::load(config.py())?, deferred })
    }

    fn apply(&mut self, command: &Bound<'_, PyAny>, now: i64) -> PyResult<()> {
        self.core.apply(commands::command(command)?, now).map_err(usage)
    }

    fn receive(&mut self, datagram: &[u8], source: (String, u16), now: i64) -> PyResult<()> {
        self.core.receive(datagram, address(source)?, now);
        self.settle();
        Ok(())
    }

    fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> PyResult<()> {
        self.core.inject(track, layer, packet, now).map_err(usage)?;
        self.settle();
        Ok(())
    }

    fn next_timeout(&self) -> Option<i64> {
        self.core.next_timeout()
    }

    fn handle_timeout(&mut self, now: i64) {
        self.core.handle_timeout(now);
    }

    fn transmit<'py>(&mut self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, (String, u16))> {
        let mut out = Vec::new();
        self.core.transmit(|datagram, to| out.push((PyBytes::new(py, datagram), (to.ip().to_string(), to.port()))));
        out
    }

    fn events<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let found = PyList::empty(py);
        for event in self.core.events() {
            found.append(self.contract.event(py, event)?)?;
        }
        Ok(found)
    }

    fn taps<'py>(&mut self, py: Python<'py>) -> Vec<(u32, Bound<'py, PyBytes>, i64)> {
        let mut tapped = Vec::new();
        self.core.taps(|one| tapped.push((one.tap, PyBytes::new(py, one.packet), one.arrival)));
        tapped
    }

    #[getter]
    fn taps_dropped(&self) -> u64 {
        self.core.taps_dropped()
    }

    #[getter]
    fn handled(&self) -> u64 {
        self.core.handled()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.contract.stats(py, self.core.stats())
    }

    fn table_sizes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let sizes = PyDict::new(py);
        for (name, size) in self.core.table_sizes() {
            sizes.set_item(name, size)?;
        }
        Ok(sizes)
    }
}

impl Forwarder {
    fn settle(&mut self) {
        if !self.deferred {
            self.core.settle();
        }
    }
}

/// Python's form of an address.
pub fn address_tuple(py: Python<'_>, address: SocketAddr) -> PyResult<Bound<'_, PyTuple>> {
    (address.ip().to_string(), address.port()).into_pyobject(py)
}
