//! `_native.testing.Cluster`: several cores as one, with the methods of `_native.Forwarder`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::commands::{self, usage};
use super::events::Contract;
use super::forwarder::{address, address_tuple};
use crate::cluster;
use crate::core::contract::PlaneStats;

/// Several shards without I/O. Not for use by two threads at once.
#[pyclass]
pub struct Cluster {
    cluster: cluster::Cluster,
    contract: Contract,
}

#[pymethods]
impl Cluster {
    #[new]
    fn new(config: &Bound<'_, PyAny>, shards: usize) -> PyResult<Self> {
        let cluster = cluster::Cluster::new(&commands::config(config)?, shards).map_err(usage)?;
        Ok(Self { cluster, contract: Contract::load(config.py())? })
    }

    fn apply(&mut self, command: &Bound<'_, PyAny>, now: i64) -> PyResult<()> {
        self.cluster.apply(commands::command(command)?, now).map_err(usage)
    }

    fn receive(&mut self, datagram: &[u8], source: (String, u16), now: i64) -> PyResult<()> {
        self.cluster.receive(datagram, address(source)?, now);
        Ok(())
    }

    fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> PyResult<()> {
        self.cluster.inject(track, layer, packet, now).map_err(usage)
    }

    fn next_timeout(&self) -> Option<i64> {
        self.cluster.next_timeout()
    }

    fn handle_timeout(&mut self, now: i64) {
        self.cluster.handle_timeout(now);
    }

    fn transmit<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut sent = Vec::new();
        self.cluster.transmit(|datagram, address| sent.push((PyBytes::new(py, datagram), address)));
        let sent = sent
            .into_iter()
            .map(|(datagram, to)| PyTuple::new(py, [datagram.into_any(), address_tuple(py, to)?.into_any()]));
        PyList::new(py, sent.collect::<PyResult<Vec<_>>>()?)
    }

    fn events<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.cluster.events().into_iter().map(|event| self.contract.event(py, event)).collect()
    }

    fn taps<'py>(&mut self, py: Python<'py>) -> Vec<(u32, Bound<'py, PyBytes>, i64)> {
        let mut tapped = Vec::new();
        for core in &mut self.cluster.cores {
            core.taps(|one| tapped.push((one.tap, PyBytes::new(py, one.packet), one.arrival)));
        }
        tapped
    }

    /// The tables of all shards, their drops, and the totals.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let all = self.cluster.stats();
        let drops = PyDict::new(py);
        for (reason, count) in all.iter().flat_map(|stats| &stats.drops) {
            let before: u64 = drops.get_item(reason)?.map_or(Ok(0), |count| count.extract())?;
            drops.set_item(reason, before + count)?;
        }
        let (sessions, tracks) = (self.contract.sessions(py, &all)?, self.contract.tracks(py, &all)?);
        let totals: [u64; 2] =
            [all.iter().map(|one| one.datagrams_in).sum(), all.iter().map(|one| one.datagrams_out).sum()];
        let slots = self.contract.slots(py, &all)?;
        (sessions, tracks, slots, drops, totals).into_pyobject(py)
    }

    /// Free and all slots for ingress packets of each shard, and the packets that found none there.
    fn slabs(&self) -> Vec<(u32, u32, u64)> {
        let of = |one: PlaneStats| (one.slab_free, one.slab_total, one.unkept);
        self.cluster.stats().into_iter().map(of).collect()
    }

    fn table_sizes(&self) -> std::collections::BTreeMap<&'static str, usize> {
        let mut sums = std::collections::BTreeMap::new();
        for (name, size) in self.cluster.cores.iter().flat_map(|core| core.table_sizes()) {
            *sums.entry(name).or_insert(0) += size;
        }
        sums
    }

    #[getter]
    fn taps_dropped(&self) -> u64 {
        self.cluster.cores.iter().map(|core| core.taps_dropped()).sum()
    }

    #[getter]
    fn handled(&self) -> u64 {
        self.cluster.cores.iter().map(|core| core.handled()).sum()
    }
}
