//! What other threads hold of a shard: start it, order from it, close it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::thread::CpuSet;

use crate::error::UsageError;
use crate::io::clock::now_us;
use crate::io::life::life_of;
use crate::machine::Machine;
use crate::ring_set::RingSet;
use crate::shard::{self, Beside, INJECTS, IoCounts, Options, Order, Shard, Shared};
use crate::watch::{Dead, Watch};

#[cfg(test)]
mod tests;

/// How often one who waits looks whether the shard is alive.
const LOOK: Duration = Duration::from_millis(50);
/// How often one who closes a shard looks before he leaves a thread that lacks CPU behind: for ten seconds.
const LAST_LOOKS: u32 = 200;

/// Why an order was not carried out.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The command at this place is wrong; those before it are done.
    Usage(usize, UsageError),
    /// Too many orders wait.
    Full,
    /// The shard is lost: it panicked or hung.
    Failed,
}

/// An answer, or where it will come from.
pub enum Wish<T> {
    Is(T),
    Waits(Receiver<T>),
}

type Thread<M> = JoinHandle<Option<Box<Shard<M>>>>;

/// Where the machine is.
enum Place<M: Machine> {
    Parked(Box<Shard<M>>),
    Running(Thread<M>, Receiver<()>),
    /// Without a socket: it still counts, and still knows what it was told.
    Closed(Box<M>, Box<IoCounts>),
    Lost,
}

pub struct Handle<M: Machine> {
    place: Mutex<Place<M>>,
    watch: Mutex<Watch>,
    shared: Arc<Shared<M>>,
    address: SocketAddr,
    index: usize,
}

impl<M: Machine> Handle<M> {
    /// Bind the port. Nothing is received before `start`.
    pub fn open(machine: M, host: IpAddr, port: u16, options: Options, beside: Beside<M>) -> io::Result<Self> {
        let index = beside.lanes.index();
        let shard = Box::new(Shard::open(machine, host, port, options, beside)?);
        let (shared, address) = (shard.shared(), shard.address()?);
        let (place, watch) = (Mutex::new(Place::Parked(shard)), Mutex::new(Watch::default()));
        Ok(Self { place, watch, shared, address, index })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn shared(&self) -> &Shared<M> {
        &self.shared
    }

    /// Run the shard on a thread of its own. Repeatable.
    pub fn start(&self) -> io::Result<()> {
        let mut place = self.place();
        let shard = match std::mem::replace(&mut *place, Place::Lost) {
            Place::Parked(shard) => shard,
            other => {
                *place = other;
                return Ok(());
            }
        };
        self.shared.beat.store(now_us(), Ordering::Relaxed);
        let (ended, end) = sync_channel(1);
        let body = move || {
            let shard = shard.run();
            let _ = ended.send(()); // nobody waits unless the plane is being closed
            shard.map(Box::new)
        };
        let thread = thread::Builder::new().name(format!("plane-{}", self.index)).spawn(body);
        let thread = thread.inspect_err(|error| self.shared.fail(format!("no thread could be started: {error}")))?;
        *place = Place::Running(thread, end);
        Ok(())
    }

    /// Stop, send what waits, free the socket. A thread that hangs, or lacks CPU for ten seconds, is left behind.
    /// Repeatable.
    pub fn close(&self) {
        self.stop();
        let mut place = self.place();
        let shard = match std::mem::replace(&mut *place, Place::Lost) {
            Place::Parked(shard) => Some(shard),
            Place::Running(thread, end) => self.join(thread, &end),
            closed @ (Place::Closed(..) | Place::Lost) => {
                *place = closed;
                None
            }
        };
        if let Some(shard) = shard {
            let (machine, counts) = shard.close();
            *place = Place::Closed(Box::new(machine), Box::new(counts));
        }
    }

    /// Have the thread stop, without waiting for it: several shards stop at once so.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.orders.tell();
    }

    fn join(&self, thread: Thread<M>, end: &Receiver<()>) -> Option<Box<Shard<M>>> {
        for _ in 0..LAST_LOOKS {
            if end.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                return thread.join().ok().flatten();
            }
            if !self.look() {
                return None;
            }
        }
        self.shared.fail("it did not end when it was told to".into());
        None
    }

    /// Carry out commands in order, and wait until they are done, however long the thread lacks CPU: who gives up knows
    /// no more what was done.
    pub fn submit(&self, commands: Vec<M::Command>) -> Result<(), Refused> {
        let done = match &mut *self.place() {
            Place::Running(..) => self.ask(|reply| Order::Submit(commands, reply))?,
            Place::Parked(shard) => {
                let done = shard.submit(commands);
                shard.settle();
                done
            }
            Place::Closed(machine, _) => {
                let done = shard::submit(&mut **machine, commands);
                machine.transmit().clear();
                machine.events(&mut Vec::new());
                machine.notes(|_, _, _| 0);
                done
            }
            Place::Lost => return Err(Refused::Failed),
        };
        done.map_err(|(index, error)| Refused::Usage(index, error))
    }

    /// Feed a packet, without waiting.
    pub fn inject(&self, track: u32, layer: i64, packet: Vec<u8>) -> Result<(), Refused> {
        match &mut *self.place() {
            Place::Running(..) => {
                let order = Order::Inject { track, layer, packet };
                self.shared.orders.push_below(INJECTS, order).map_err(|_| Refused::Full)
            }
            Place::Parked(shard) => {
                shard.inject(track, layer, &packet);
                shard.settle();
                Ok(())
            }
            Place::Closed(..) => Ok(()),
            Place::Lost => Err(Refused::Failed),
        }
    }

    /// Count everything. The answer to `wish` comes later, so that several shards count at the same time.
    pub fn ask_stats(&self) -> Result<Wish<(M::Stats, IoCounts)>, Refused> {
        match &mut *self.place() {
            Place::Running(..) => self.order(Order::Stats).map(Wish::Waits),
            Place::Parked(shard) => Ok(Wish::Is(shard.stats())),
            Place::Closed(machine, counts) => Ok(Wish::Is((machine.stats(), (**counts).clone()))),
            Place::Lost => Err(Refused::Failed),
        }
    }

    /// Count everything.
    pub fn stats(&self) -> Result<(M::Stats, IoCounts), Refused> {
        self.wait(self.ask_stats()?)
    }

    /// Have the thread stay on these CPUs.
    pub fn pin(&self, cpus: CpuSet) -> Result<(), Refused> {
        self.shared.orders.push(Order::Pin(cpus)).map_err(|_| Refused::Full)
    }

    /// Have the thread panic, for tests of what follows.
    pub fn panic(&self) {
        let _ = self.shared.orders.push(Order::Panic);
    }

    /// Change the shared-memory rings, or ask about them. None once the plane is closed.
    pub fn rings<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut RingSet) -> T + Send + 'static,
    ) -> Result<Option<T>, Refused> {
        match &mut *self.place() {
            Place::Running(..) => self.ask(|reply| {
                // Whoever asked may have given up waiting.
                Order::Rings(Box::new(move |rings| _ = reply.send(Some(change(rings)))))
            }),
            Place::Parked(shard) => Ok(Some(change(&mut shard.rings))),
            Place::Closed(..) => Ok(None),
            Place::Lost => Err(Refused::Failed),
        }
    }

    /// Not lost. Look once a second, so that a thread that hangs is found out.
    pub fn is_healthy(&self) -> bool {
        match self.place.try_lock() {
            Ok(place) if matches!(*place, Place::Running(..)) => self.look(),
            // Who has the place and waits for an answer looks himself.
            Ok(_) | Err(TryLockError::WouldBlock) => self.shared.failure().is_none(),
            Err(TryLockError::Poisoned(_)) => {
                drop(self.place());
                false
            }
        }
    }

    /// Whether the thread lives; one that hangs is given up.
    fn look(&self) -> bool {
        let (shared, now) = (&self.shared, now_us());
        let beat = shared.beat.load(Ordering::Relaxed);
        let life = || shared.thread().and_then(life_of);
        let dead = self.watch.lock().unwrap_or_else(PoisonError::into_inner).look(beat, now, life);
        let why = match dead {
            None => return shared.failure().is_none(),
            Some(Dead::Hung(us)) => format!("it hangs: no round for {} ms in which it could have gone on", us / 1000),
            Some(Dead::Lost(us)) => format!("it got no CPU for {} ms, while other threads did", us / 1000),
        };
        shared.fail(why);
        false
    }

    fn place(&self) -> MutexGuard<'_, Place<M>> {
        self.place.lock().unwrap_or_else(|poisoned| {
            // A machine panicked in the hands of its caller: what it knows is not to be trusted any more.
            let mut place = poisoned.into_inner();
            *place = Place::Lost;
            self.shared.fail("it panicked while it had no thread".into());
            place
        })
    }

    /// Give an order and wait for the answer.
    fn ask<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order<M>) -> Result<T, Refused> {
        self.wait(Wish::Waits(self.order(order)?))
    }

    fn order<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order<M>) -> Result<Receiver<T>, Refused> {
        let (reply, answer) = sync_channel(1);
        if self.shared.failure().is_some() {
            return Err(Refused::Failed);
        }
        self.shared.orders.push(order(reply)).map_err(|_| Refused::Full)?;
        Ok(answer)
    }

    /// Wait for an answer.
    pub fn wait<T>(&self, wish: Wish<T>) -> Result<T, Refused> {
        let answer = match wish {
            Wish::Is(answer) => return Ok(answer),
            Wish::Waits(answer) => answer,
        };
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) if self.look() => {}
                Err(_) => return Err(Refused::Failed),
            }
        }
    }
}

impl<M: Machine> Drop for Handle<M> {
    fn drop(&mut self) {
        self.close();
    }
}
