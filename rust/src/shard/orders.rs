//! What other threads share with a shard's: orders go in, events and tapped packets come out.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use rustix::thread::{CpuSet, Pid};

use super::IoCounts;
use crate::error::UsageError;
use crate::io::clock::now_us;
use crate::lanes::{Lanes, NOTES};
use crate::machine::Machine;
use crate::ring_set::RingSet;
use crate::rings::Ring;

pub const ORDERS: usize = 4096;
/// Of those, injected packets may have so many: they are lost when the shard does not keep up, commands are not.
pub const INJECTS: usize = ORDERS - 256;
pub const EVENTS: usize = 16_384;
/// 4 s of one 1,000 packets/s layer.
pub const TAPS: usize = 4096;

/// A tapped packet that no ring takes: (tap, plaintext RTP, arrival).
pub type Copied = (u32, Vec<u8>, i64);

/// What became of commands; a wrong one comes with the number of those before it, which are done.
pub type Submitted = Result<(), (usize, UsageError)>;

/// What a thread may ask of a shard.
pub enum Order<M: Machine> {
    /// See `Shard::submit`.
    Submit(Vec<M::Command>, SyncSender<Submitted>),
    Inject {
        track: u32,
        layer: i64,
        packet: Vec<u8>,
    },
    Stats(SyncSender<(M::Stats, IoCounts)>),
    /// Something about the shared-memory rings.
    Rings(Box<dyn FnOnce(&mut RingSet) + Send>),
    /// Stay on these CPUs.
    Pin(CpuSet),
    /// Fail as a bug would. Only tests give it.
    Panic,
}

/// What a shard has in common with those beside it.
pub struct Beside<M: Machine> {
    pub lanes: Lanes,
    pub events: Arc<Ring<M::Event>>,
    pub taps: Arc<Ring<Copied>>,
}

impl<M: Machine> Beside<M> {
    /// For each of several shards, at least one.
    pub fn among(shards: usize) -> io::Result<Vec<Self>> {
        let (events, taps) = (Arc::new(Ring::new(EVENTS)?), Arc::new(Ring::new(TAPS)?));
        let lanes = Lanes::among(shards, NOTES)?;
        let one = |lanes| Self { lanes, events: events.clone(), taps: taps.clone() };
        Ok(lanes.into_iter().map(one).collect())
    }
}

/// What both sides hold.
pub struct Shared<M: Machine> {
    pub orders: Ring<Order<M>>,
    pub events: Arc<Ring<M::Event>>,
    pub taps: Arc<Ring<Copied>>,
    pub stop: AtomicBool,
    /// When the latest round began.
    pub beat: AtomicI64,
    /// By how much rounds began too late, altogether and in microseconds.
    pub late_us: AtomicU64,
    failure: OnceLock<String>,
    thread: AtomicI32,
}

impl<M: Machine> Shared<M> {
    pub fn new(beside: &Beside<M>) -> io::Result<Self> {
        Ok(Self {
            orders: Ring::new(ORDERS)?,
            events: beside.events.clone(),
            taps: beside.taps.clone(),
            stop: AtomicBool::new(false),
            beat: AtomicI64::new(now_us()),
            late_us: AtomicU64::new(0),
            failure: OnceLock::new(),
            thread: AtomicI32::new(0),
        })
    }

    /// The shard is lost, for good; the first reason stays. A thread that comes back to life ends.
    pub fn fail(&self, why: String) {
        let _ = self.failure.set(why);
        self.stop.store(true, Ordering::SeqCst);
        // Whoever waits for an answer must not wait for ever.
        while self.orders.take().is_some() {}
        self.events.tell();
    }

    /// Why the shard is lost, if it is.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The calling thread is the shard's.
    pub fn mine(&self) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
    }

    /// The shard's thread, once it runs.
    pub fn thread(&self) -> Option<Pid> {
        Pid::from_raw(self.thread.load(Ordering::Relaxed))
    }
}
