//! `_native.NativePlane`: the core on a socket, run by a thread of its own. What asyncio needs around it is in
//! `relay/plane/native.py`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::commands::{self, usage, usage_text};
use super::events::Contract;
use super::forwarder::address_tuple;
use crate::core::Core;
use crate::core::contract::Command;
use crate::handle::{Handle, Refused};
use crate::io::probe::Abilities;
use crate::io::shared_ring::duplicate;
use crate::ring_set::RingSet;
use crate::shard::{IoCounts, Options};

/// Events or packets that one wake-up takes at most, so that the loop's other work is never kept waiting for long.
const BATCH: usize = 1024;

/// The plane and its thread. Every method may be called from any thread; those that wait for the shard let others run.
#[pyclass(frozen)]
pub struct NativePlane {
    handle: Handle<Core>,
    contract: Contract,
    abilities: Abilities,
    /// Layers of each track that takes injected packets, so that a wrong one is told without asking the shard.
    injectable: Mutex<HashMap<u32, i64>>,
}

/// What a command changes in `injectable`.
enum Change {
    Add(u32, i64),
    Remove(u32),
}

fn change(command: &Command) -> Option<Change> {
    match command {
        Command::AddTrack { track, session: None, media, .. } => Some(Change::Add(*track, media.layers.len() as i64)),
        Command::RemoveTrack { track } | Command::MoveTrack { track, .. } => Some(Change::Remove(*track)),
        _ => None,
    }
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

impl NativePlane {
    fn note(&self, changes: Vec<(usize, Change)>, done: usize) {
        if changes.is_empty() {
            return;
        }
        let mut injectable = self.injectable.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, change) in changes.into_iter().filter(|(index, _)| *index < done) {
            match change {
                Change::Add(track, layers) => injectable.insert(track, layers),
                Change::Remove(track) => injectable.remove(&track),
            };
        }
    }
}

#[pymethods]
impl NativePlane {
    /// Bind the port; OSError when that fails, ValueError for a host that is no address. `max_packets` are the slots for
    /// ingress packets, 1.5 KiB each; `cpu` is where the thread is to stay.
    #[new]
    #[pyo3(signature = (config, host, port, socket_buffer, *, cpu=None, max_packets=65_536))]
    fn new(
        config: &Bound<'_, PyAny>,
        host: &str,
        port: u16,
        socket_buffer: usize,
        cpu: Option<usize>,
        max_packets: u32,
    ) -> PyResult<Self> {
        let core = Core::new(commands::config(config, max_packets)?).map_err(usage)?;
        let host: IpAddr = host.parse().map_err(|_| PyValueError::new_err("not a numeric address"))?;
        let abilities = Abilities::probe();
        let handle = Handle::open(core, host, port, Options { abilities, socket_buffer, cpu })?;
        let contract = Contract::load(config.py())?;
        Ok(Self { handle, contract, abilities, injectable: Mutex::default() })
    }

    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        address_tuple(py, self.handle.address())
    }

    /// The ways to save system calls that were seen to work here.
    #[getter]
    fn ways(&self) -> Vec<&'static str> {
        self.abilities.names()
    }

    /// Readable when there are events to take, or the shard has failed.
    #[getter]
    fn event_descriptor(&self) -> i32 {
        self.handle.shared().events.descriptor()
    }

    /// Readable when there are tapped packets to take.
    #[getter]
    fn tap_descriptor(&self) -> i32 {
        self.handle.shared().taps.descriptor()
    }

    /// Neither failed nor hung.
    #[getter]
    fn healthy(&self, py: Python<'_>) -> bool {
        py.detach(|| self.handle.is_healthy())
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.handle.start())?)
    }

    /// Takes at most two seconds.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.handle.close());
    }

    /// Carry out commands in order, and wait until they are done: UsageError for a wrong one, those before it are done.
    #[pyo3(signature = (*commands))]
    fn submit(&self, py: Python<'_>, commands: &Bound<'_, PyTuple>) -> PyResult<()> {
        let (mut ready, mut changes) = (Vec::with_capacity(commands.len()), Vec::new());
        let mut wrong = None;
        for one in commands {
            match commands::command(&one) {
                Ok(command) => {
                    changes.extend(change(&command).map(|change| (ready.len(), change)));
                    ready.push(command);
                }
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        let count = ready.len();
        let done = py.detach(|| self.handle.submit(ready));
        self.note(changes, if let Err(Refused::Usage(index, _)) = &done { *index } else { count });
        done.map_err(|why| refused(py, why))?;
        wrong.map_or(Ok(()), Err)
    }

    /// Feed a plaintext RTP packet, without waiting: UsageError for a wrong track or layer.
    fn inject(&self, py: Python<'_>, track: u32, layer: i64, packet: &[u8]) -> PyResult<()> {
        let layers = self.injectable.lock().unwrap_or_else(PoisonError::into_inner).get(&track).copied();
        if !(0..layers.unwrap_or(0)).contains(&layer) {
            return Err(usage_text(&format!("layer {layer} of track {track} does not take injected packets")));
        }
        let packet = packet.to_vec();
        match py.detach(|| self.handle.inject(track, layer, packet)) {
            Err(Refused::Full) | Ok(()) => Ok(()), // the ring counts what it refuses
            Err(why) => Err(refused(py, why)),
        }
    }

    /// What happened, in order. Call it when the descriptor is readable, and again while it is.
    fn take_events<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ring = &self.handle.shared().events;
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
        let ring = &self.handle.shared().taps;
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
        let done = py.detach(|| self.handle.rings(open)).map_err(|why| refused(py, why))?;
        Ok(done.unwrap_or(Ok(()))?)
    }

    /// Packets of a stream of an inject ring are those of `layer`, a track and its layer; of nothing with None.
    fn bind_ring(&self, py: Python<'_>, ring: u32, stream: u32, layer: Option<(u32, i64)>) -> PyResult<()> {
        let bound = py.detach(|| self.handle.rings(move |rings| rings.bind(ring, stream, layer)));
        bound.map(|_| ()).map_err(|why| refused(py, why))
    }

    fn close_ring(&self, py: Python<'_>, ring: u32) -> PyResult<()> {
        let closed = py.detach(|| self.handle.rings(move |rings| rings.remove(ring)));
        closed.map(|_| ()).map_err(|why| refused(py, why))
    }

    /// Packets, drops, and whether the worker wrote what cannot be; None for a ring that is not open.
    fn ring_counts(&self, py: Python<'_>, ring: u32) -> PyResult<Option<(u64, u64, bool)>> {
        let counts = py.detach(|| self.handle.rings(move |rings| rings.counts(ring)));
        let counts = counts.map_err(|why| refused(py, why))?.flatten();
        Ok(counts.map(|counts| (counts.packets, counts.dropped, counts.corrupt)))
    }

    /// The contract's statistics, and what the socket did: counters by name, `in_errors` and `out_errors` by errno.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let (stats, counts) = py.detach(|| self.handle.stats()).map_err(|why| refused(py, why))?;
        Ok((self.contract.stats(py, stats)?, counters(py, &counts)?))
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
