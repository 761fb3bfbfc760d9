//! `_native.NativePlane`: the core on a socket, run by a thread of its own. What asyncio needs around it is in
//! `relay/plane/native.py`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
use crate::shard::{IoCounts, Options};

/// Events or packets that one wake-up takes at most, so that the loop's other work is never kept waiting for long.
const BATCH: usize = 1024;

/// The plane and its thread. Every method may be called from any thread; those that wait for the shard let others run.
#[pyclass(frozen)]
pub struct NativePlane {
    handle: Handle<Core>,
    contract: Contract,
    abilities: Abilities,
    slab: Slab,
    /// Layers of each track that takes injected packets, so that a wrong one is told without asking the shard.
    injectable: Mutex<HashMap<u32, i64>>,
}

/// What may be known of the slots for ingress packets without asking the shard.
struct Slab {
    left: Arc<AtomicU32>,
    total: u32,
    memory: &'static str,
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
    /// Bind the port; OSError when that fails, ValueError for a host that is no address. `cpu` is where
    /// the thread is to stay.
    #[new]
    #[pyo3(signature = (config, host, port, socket_buffer, *, cpu=None))]
    fn new(
        config: &Bound<'_, PyAny>,
        host: &str,
        port: u16,
        socket_buffer: usize,
        cpu: Option<usize>,
    ) -> PyResult<Self> {
        let core = Core::new(commands::config(config)?).map_err(usage)?;
        let slab = Slab { left: core.slab_left(), total: core.stats().slab_total, memory: core.slab_memory().name() };
        let host: IpAddr = host.parse().map_err(|_| PyValueError::new_err("not a numeric address"))?;
        let abilities = Abilities::probe();
        let handle = Handle::open(core, host, port, Options { abilities, socket_buffer, cpu })?;
        let contract = Contract::load(config.py())?;
        Ok(Self { handle, contract, abilities, slab, injectable: Mutex::default() })
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

    /// Free and all slots for ingress packets. Does not wait for the shard.
    #[getter]
    fn slab(&self) -> (u32, u32) {
        (self.slab.left.load(Ordering::Relaxed), self.slab.total)
    }

    /// What kind of memory they are in.
    #[getter]
    fn slab_memory(&self) -> &'static str {
        self.slab.memory
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
