//! Several shards as one plane: each with its thread, port and tables; commands find theirs through the router.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::thread::CpuSet;

use crate::core::Core;
use crate::core::contract::{Command, Event, PlaneConfig, PlaneStats};
use crate::error::UsageError;
use crate::handle::{Handle, Refused};
use crate::io::pages::Got;
use crate::lanes::MAX_SHARDS;
use crate::ring_set::RingSet;
use crate::rings::Ring;
use crate::router::{Router, Step, shard_of_ring};
use crate::shard::{Beside, Copied, IoCounts, Options};

pub struct Plane {
    shards: Vec<Handle<Core>>,
    slabs: Vec<Slab>,
    router: Mutex<Router>,
}

/// What may be known of a shard's slots for ingress packets without asking its thread.
struct Slab {
    left: Arc<AtomicU32>,
    total: u32,
    memory: Got,
}

/// Why there is no plane.
#[derive(Debug)]
pub enum NotOpened {
    /// The shard in this place has no port.
    Port(usize, io::Error),
    Usage(UsageError),
}

impl Plane {
    /// Bind `shards` ports from `port` on, or any when that is 0. Nothing is received before `start`.
    pub fn open(
        config: &PlaneConfig,
        host: IpAddr,
        port: u16,
        shards: usize,
        options: Options,
    ) -> Result<Self, NotOpened> {
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(NotOpened::Usage(UsageError::new(format!("{shards} shards: not 1 to {MAX_SHARDS}"))));
        }
        let configs = config.among(shards).map_err(NotOpened::Usage)?;
        let beside = Beside::among(shards).map_err(|error| NotOpened::Port(0, error))?;
        let (mut opened, mut slabs) = (Vec::with_capacity(shards), Vec::with_capacity(shards));
        for ((index, beside), config) in beside.into_iter().enumerate().zip(configs) {
            let core = Core::new(config).map_err(NotOpened::Usage)?;
            slabs.push(Slab { left: core.slab_left(), total: core.slab_total(), memory: core.slab_memory() });
            let port = match port {
                0 => Some(0),
                first => u16::try_from(usize::from(first) + index).ok(),
            };
            let Some(port) = port else {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "there is no port above 65535");
                return Err(NotOpened::Port(index, error));
            };
            let shard = Handle::open(core, host, port, options, beside);
            opened.push(shard.map_err(|error| NotOpened::Port(index, error))?);
        }
        Ok(Self { shards: opened, slabs, router: Mutex::new(Router::new(shards)) })
    }

    /// Where each shard receives.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shards.iter().map(Handle::address).collect()
    }

    pub fn events(&self) -> &Ring<Event> {
        &self.shards[0].shared().events
    }

    pub fn taps(&self) -> &Ring<Copied> {
        &self.shards[0].shared().taps
    }

    /// Free and all slots for ingress packets of each shard, without asking the threads.
    pub fn slabs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slabs.iter().map(|slab| (slab.left.load(Ordering::Relaxed), slab.total))
    }

    /// The plainest memory that a shard's slots are in.
    pub fn slab_memory(&self) -> Got {
        self.slabs.iter().map(|slab| slab.memory).min().unwrap_or(Got::Plain)
    }

    /// No shard is lost. Look once a second, so that a thread that hangs is found out.
    pub fn is_healthy(&self) -> bool {
        self.shards.iter().filter(|shard| !shard.is_healthy()).count() == 0
    }

    /// The shards that are lost, and why.
    pub fn failures(&self) -> Vec<(usize, &str)> {
        let failures = self.shards.iter().map(|shard| shard.shared().failure());
        failures.enumerate().filter_map(|(index, why)| Some((index, why?))).collect()
    }

    /// By how much each shard's rounds began too late, altogether and in microseconds: its thread lacked CPU.
    pub fn late_us(&self) -> Vec<u64> {
        self.shards.iter().map(|shard| shard.shared().late_us.load(Ordering::Relaxed)).collect()
    }

    /// Repeatable.
    pub fn start(&self) -> io::Result<()> {
        self.shards.iter().try_for_each(Handle::start)
    }

    /// Stop all threads and wait for them, ten seconds for each that hangs or lacks CPU. Repeatable.
    pub fn close(&self) {
        self.shards.iter().for_each(Handle::stop);
        self.shards.iter().for_each(Handle::close);
    }

    /// Carry out commands in order, and wait until they are done. The first wrong one ends it. What is for a shard that is
    /// lost is passed over: the others can still be told what follows, and nothing there is left to be wrong.
    pub fn submit(&self, commands: Vec<Command>) -> Result<(), Refused> {
        let mut router = self.router();
        let (steps, wrong) = router.plan(commands);
        if let Err((index, why)) = self.carry_out(steps) {
            for step in router.undo(index) {
                // What is to be cleaned up may never have been made.
                let _ = self.shards[step.shard].submit(vec![step.command]);
            }
            return Err(match why {
                Refused::Usage(_, error) => Refused::Usage(index, error),
                other => other,
            });
        }
        wrong.map_err(|(index, error)| Refused::Usage(index, error))
    }

    /// Steps in order, those that follow each other to one shard at once. An error comes with the index of its command.
    fn carry_out(&self, steps: Vec<Step>) -> Result<(), (usize, Refused)> {
        let mut steps = steps.into_iter().peekable();
        while let Some(first) = steps.next() {
            let (shard, mut indices, mut commands) = (first.shard, vec![first.index], vec![first.command]);
            while let Some(step) = steps.next_if(|step| step.shard == shard) {
                indices.push(step.index);
                commands.push(step.command);
            }
            match self.shards[shard].submit(commands) {
                Ok(()) | Err(Refused::Failed) => {}
                Err(why) => {
                    let place = if let Refused::Usage(place, _) = &why { *place } else { 0 };
                    return Err((indices[place], why));
                }
            }
        }
        Ok(())
    }

    /// Feed a packet, without waiting. UsageError for a wrong track or layer.
    pub fn inject(&self, track: u32, layer: i64, packet: Vec<u8>) -> Result<(), Refused> {
        let found = self.router().injected(track);
        match found.filter(|(_, layers)| usize::try_from(layer).is_ok_and(|layer| layer < *layers)) {
            Some((shard, _)) => self.shards[shard].inject(track, layer, packet),
            None => {
                let text = format!("layer {layer} of track {track} does not take injected packets");
                Err(Refused::Usage(0, UsageError::new(text)))
            }
        }
    }

    /// Count everything. All shards count at the same time.
    pub fn stats(&self) -> Result<Vec<(PlaneStats, IoCounts)>, Refused> {
        let asked: Vec<_> = self.shards.iter().map(Handle::ask_stats).collect();
        self.shards.iter().zip(asked).map(|(shard, wish)| shard.wait(wish?)).collect()
    }

    /// Change the shared-memory rings of the shard that a ring belongs to, or ask about them; None once it is closed. Rings
    /// that inject belong to the first shard, as injected tracks do.
    pub fn rings<T: Send + 'static>(
        &self,
        ring: Option<u32>,
        change: impl FnOnce(&mut RingSet) -> T + Send + 'static,
    ) -> Result<Option<T>, Refused> {
        let shard = ring.map_or(0, |ring| shard_of_ring(ring, self.shards.len()));
        self.shards[shard].rings(change)
    }

    /// Sessions on each shard.
    pub fn sessions(&self) -> Vec<usize> {
        self.router().sessions()
    }

    /// Have a shard's thread stay on these CPUs.
    pub fn pin(&self, shard: usize, cpus: &[usize]) -> Result<(), Refused> {
        let mut set = CpuSet::new();
        for &cpu in cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU) {
            set.set(cpu);
        }
        self.shards.get(shard).map_or(Ok(()), |shard| shard.pin(set))
    }

    /// Have a shard's thread panic, for tests of what follows.
    pub fn break_shard(&self, shard: usize) {
        if let Some(shard) = self.shards.get(shard) {
            shard.panic();
        }
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts of all shards as one.
pub fn sum(counts: &[IoCounts]) -> IoCounts {
    let mut sum = counts.first().cloned().unwrap_or_default();
    for one in counts.iter().skip(1) {
        sum.add(one);
    }
    sum
}

#[cfg(test)]
mod tests;
