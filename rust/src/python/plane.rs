//! `_native.NativePlane`: cores on sockets, each run by a thread of its own. What asyncio needs around it is in
//! `relay/plane/native.py`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::commands::{self, usage};
use super::events::Contract;
use super::forwarder::address_tuple;
use crate::core::contract::PlaneStats;
use crate::handle::Refused;
use crate::io::probe::Abilities;
use crate::io::shared_ring::duplicate;
use crate::plane::{NotOpened, Plane, sum};
use crate::ring_set::RingSet;
use crate::shard::{IoCounts, Options};

/// Events or packets that one wake-up takes at most, so that the loop's other work is never kept waiting for long.
const BATCH: usize = 1024;

/// The plane and its threads. Every method may be called from any thread; those that wait for a shard let others run.
#[pyclass(frozen)]
pub struct NativePlane {
    plane: Plane,
    contract: Contract,
    abilities: Abilities,
}

/// `relay.errors.Overloaded`: come back in a second.
fn overloaded(py: Python<'_>, reason: &str) -> PyErr {
    let made = py.import("relay.errors").and_then(|errors| errors.getattr("Overloaded")?.call1((reason, 1)));
    made.map_or_else(|error| error, PyErr::from_value)
}

fn refused(py: Python<'_>, why: Refused) -> PyErr {
    match why {
        Refused::Usage(_, error) => usage(error),
        Refused::Full => overloaded(py, "the packet plane has too much to do"),
        Refused::Failed => overloaded(py, "the packet plane has failed"),
    }
}

/// The rings of a shard that is lost are closed.
fn of_living<T>(answer: Result<Option<T>, Refused>) -> Result<Option<T>, Refused> {
    if matches!(answer, Err(Refused::Failed)) { Ok(None) } else { answer }
}

#[pymethods]
impl NativePlane {
    /// Bind `shards` ports from `port` on, or any when that is 0. OSError when that fails, with the port in its `filename`;
    /// ValueError for a host that is no address.
    #[new]
    #[pyo3(signature = (config, host, port, socket_buffer, *, shards=1))]
    fn new(config: &Bound<'_, PyAny>, host: &str, port: u16, socket_buffer: usize, shards: usize) -> PyResult<Self> {
        let wanted = commands::config(config)?;
        let host: IpAddr = host.parse().map_err(|_| PyValueError::new_err("not a numeric address"))?;
        let abilities = Abilities::probe();
        let plane = Plane::open(&wanted, host, port, shards, Options { abilities, socket_buffer });
        let plane = plane.map_err(|why| match why {
            NotOpened::Usage(error) => usage(error),
            NotOpened::Port(_, error) => error.into(),
        })?;
        Ok(Self { plane, contract: Contract::load(config.py())?, abilities })
    }

    /// Where each shard receives.
    #[getter]
    fn addresses<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.plane.addresses().into_iter().map(|address| address_tuple(py, address)).collect()
    }

    /// The ways to save system calls that were seen to work here.
    #[getter]
    fn ways(&self) -> Vec<&'static str> {
        self.abilities.names()
    }

    /// Free and all slots for ingress packets of each shard. Does not wait for them.
    #[getter]
    fn slabs(&self) -> Vec<(u32, u32)> {
        self.plane.slabs().collect()
    }

    /// What kind of memory they are in; where the kernel gave shards different ones, the plainest.
    #[getter]
    fn slab_memory(&self) -> &'static str {
        self.plane.slab_memory().name()
    }

    /// Readable when there are events to take, or a shard has failed.
    #[getter]
    fn event_descriptor(&self) -> i32 {
        self.plane.events().descriptor()
    }

    /// Readable when there are tapped packets to take.
    #[getter]
    fn tap_descriptor(&self) -> i32 {
        self.plane.taps().descriptor()
    }

    /// No shard is lost. Look once a second, so that a thread that hangs is found out.
    #[getter]
    fn healthy(&self, py: Python<'_>) -> bool {
        py.detach(|| self.plane.is_healthy())
    }

    /// The shards that are lost, and why.
    #[getter]
    fn failures(&self) -> Vec<(usize, &str)> {
        self.plane.failures()
    }

    /// By how much each shard's rounds began too late, altogether and in microseconds.
    #[getter]
    fn late_us(&self) -> Vec<u64> {
        self.plane.late_us()
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.plane.start())?)
    }

    /// Takes at most ten seconds for each thread that hangs or lacks CPU.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.plane.close());
    }

    /// Carry out commands in order, and wait until they are done: UsageError for a wrong one, those before it are done.
    /// What is for a shard that is lost is passed over.
    #[pyo3(signature = (*commands))]
    fn submit(&self, py: Python<'_>, commands: &Bound<'_, PyTuple>) -> PyResult<()> {
        let (mut ready, mut wrong) = (Vec::with_capacity(commands.len()), None);
        for one in commands {
            match commands::command(&one) {
                Ok(command) => ready.push(command),
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        py.detach(|| self.plane.submit(ready)).map_err(|why| refused(py, why))?;
        wrong.map_or(Ok(()), Err)
    }

    /// Feed a plaintext RTP packet, without waiting: UsageError for a wrong track or layer.
    fn inject(&self, py: Python<'_>, track: u32, layer: i64, packet: &[u8]) -> PyResult<()> {
        let packet = packet.to_vec();
        match py.detach(|| self.plane.inject(track, layer, packet)) {
            Ok(()) | Err(Refused::Full | Refused::Failed) => Ok(()), // the ring counts what it refuses
            Err(why) => Err(refused(py, why)),
        }
    }

    /// Sessions on each shard.
    fn sessions(&self, py: Python<'_>) -> Vec<usize> {
        py.detach(|| self.plane.sessions())
    }

    /// Have a shard's thread stay on these CPUs.
    fn pin(&self, py: Python<'_>, shard: usize, cpus: Vec<usize>) -> PyResult<()> {
        self.plane.pin(shard, &cpus).map_err(|why| refused(py, why))
    }

    /// Events that did not fit, since the beginning: what they said is in `stats`.
    #[getter]
    fn events_lost(&self) -> u64 {
        self.plane.events().overflowed()
    }

    /// What happened, in order. Call it when the descriptor is readable, and again while it is.
    fn take_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ring = self.plane.events();
        ring.begin();
        let taken = PyList::empty(py);
        while let Some(event) = ring.take() {
            taken.append(self.contract.event(py, event)?)?;
            if taken.len() == BATCH {
                ring.tell();
                break;
            }
        }
        Ok(taken)
    }

    /// Tapped packets, in order: tap, plaintext RTP, arrival in monotonic microseconds.
    fn take_taps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ring = self.plane.taps();
        ring.begin();
        let taken = PyList::empty(py);
        while let Some((tap, packet, arrival)) = ring.take() {
            taken.append((tap, PyBytes::new(py, &packet), arrival))?;
            if taken.len() == BATCH {
                ring.tell();
                break;
            }
        }
        Ok(taken)
    }

    /// Open a shared-memory ring by its descriptors, which are duplicated: OSError when they are not those of a ring.
    fn open_ring(&self, py: Python<'_>, ring: u32, inject: bool, memory: i32, wake: i32, life: i32) -> PyResult<()> {
        let [memory, wake, life] = [memory, wake, life].map(duplicate);
        let (memory, wake, life) = (memory?, wake?, life?);
        let open = move |rings: &mut RingSet| {
            if inject { rings.add_inject(ring, memory, wake, life) } else { rings.add_tap(ring, memory, wake) }
        };
        let of = (!inject).then_some(ring);
        let done = py.detach(|| self.plane.rings(of, open)).map_err(|why| refused(py, why))?;
        Ok(done.unwrap_or(Ok(()))?)
    }

    /// Packets of a stream of an inject ring are those of `layer`, a track and its layer; of nothing with None.
    fn bind_ring(&self, py: Python<'_>, ring: u32, stream: u32, layer: Option<(u32, i64)>) -> PyResult<()> {
        let bound = py.detach(|| self.plane.rings(None, move |rings| rings.bind(ring, stream, layer)));
        of_living(bound).map(|_| ()).map_err(|why| refused(py, why))
    }

    fn close_ring(&self, py: Python<'_>, ring: u32) -> PyResult<()> {
        for of in [None, Some(ring)] {
            let closed = py.detach(|| self.plane.rings(of, move |rings| rings.remove(ring)));
            of_living(closed).map_err(|why| refused(py, why))?;
        }
        Ok(())
    }

    /// Packets, drops, and whether the worker wrote what cannot be; None for a ring that is not open.
    fn ring_counts(&self, py: Python<'_>, ring: u32) -> PyResult<Option<(u64, u64, bool)>> {
        for of in [Some(ring), None] {
            let counts = py.detach(|| self.plane.rings(of, move |rings| rings.counts(ring)));
            if let Some(counts) = of_living(counts).map_err(|why| refused(py, why))?.flatten() {
                return Ok(Some((counts.packets, counts.dropped, counts.corrupt)));
            }
        }
        Ok(None)
    }

    /// Count everything, now. Only what is read of it is converted.
    fn stats(&self, py: Python<'_>) -> PyResult<Snapshot> {
        let shards = py.detach(|| self.plane.stats()).map_err(|why| refused(py, why))?;
        let (counted, counts): (Vec<_>, Vec<_>) = shards.into_iter().unzip();
        Ok(Snapshot { counted, counts, contract: self.contract.clone_ref(py) })
    }
}

/// What the shards counted at one time.
#[pyclass(frozen)]
pub struct Snapshot {
    counted: Vec<PlaneStats>,
    counts: Vec<IoCounts>,
    contract: Contract,
}

#[pymethods]
impl Snapshot {
    fn sessions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.contract.sessions(py, &self.counted)
    }

    fn tracks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.contract.tracks(py, &self.counted)
    }

    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.contract.slots(py, &self.counted)
    }

    /// Datagrams by the reason why they were dropped.
    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (reason, count) in self.counted.iter().flat_map(|stats| &stats.drops) {
            *sums.entry(*reason).or_insert(0) += count;
        }
        sums
    }

    /// Datagrams in and out, bytes in and out; of all shards, or of one.
    #[pyo3(signature = (shard=None))]
    fn totals(&self, shard: Option<usize>) -> (u64, u64, u64, u64) {
        let of = |one: usize| shard.is_none_or(|shard| shard == one);
        let mine = self.counted.iter().enumerate().filter(|(index, _)| of(*index));
        mine.fold((0, 0, 0, 0), |(came, went, bytes_in, bytes_out), (_, stats)| {
            (
                came + stats.datagrams_in,
                went + stats.datagrams_out,
                bytes_in + stats.bytes_in,
                bytes_out + stats.bytes_out,
            )
        })
    }

    /// Free and all slots for ingress packets, and the packets that found none.
    fn slab(&self) -> (u32, u32, u64) {
        self.counted.iter().fold((0, 0, 0), |(free, total, unkept), stats| {
            (free + stats.slab_free, total + stats.slab_total, unkept + stats.unkept)
        })
    }

    /// What the sockets and rings did: counters by name, `in_errors` and `out_errors` by errno.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counters(py, &sum(&self.counts))
    }
}

fn counters<'py>(py: Python<'py>, counts: &IoCounts) -> PyResult<Bound<'py, PyDict>> {
    let named = PyDict::new(py);
    let sent = &counts.sent;
    for (name, value) in [
        ("datagrams_in", counts.datagrams_in),
        ("messages_in", counts.messages_in),
        ("calls_in", counts.calls_in),
        ("datagrams_out", sent.datagrams),
        ("bytes_out", sent.bytes),
        ("messages_out", sent.messages),
        ("calls_out", sent.calls),
        ("refused_messages", sent.refused),
        ("socket_full", sent.socket_full),
        ("out_overflowed", counts.out_overflowed),
        ("rounds", counts.rounds),
        ("events_lost", counts.events_lost),
        ("taps_lost", counts.taps_lost),
        ("orders_refused", counts.orders_refused),
        ("injects_refused", counts.injects_refused),
    ] {
        named.set_item(name, value)?;
    }
    for (name, errors) in [("in_errors", &counts.errors_in), ("out_errors", &sent.errors)] {
        let by_errno = PyDict::new(py);
        for (errno, count) in errors {
            by_errno.set_item(errno, count)?;
        }
        named.set_item(name, by_errno)?;
    }
    Ok(named)
}

/// Have a shard panic: what a relay makes of it is for tests to see. Nothing but `testing` gives it to Python.
pub fn break_shard(plane: &NativePlane, shard: usize) {
    plane.plane.break_shard(shard);
}
