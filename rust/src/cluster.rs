//! Several cores in one thread, with the router before them and their notes handed on at once: `Plane` without I/O, for
//! tests of what shards do together.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::core::Core;
use crate::core::contract::{Command, Event, PlaneConfig, PlaneStats};
use crate::error::UsageError;
use crate::lanes::{Lane, NOTES, each};
use crate::machine::Machine;
use crate::router::Router;

pub struct Cluster {
    pub cores: Vec<Core>,
    router: Router,
    lanes: Vec<Lane>,
    ufrags: HashMap<String, usize>,
    sources: HashMap<SocketAddr, usize>,
}

impl Cluster {
    pub fn new(config: &PlaneConfig, shards: usize) -> Result<Self, UsageError> {
        let lane = |_| Lane::new(NOTES).map_err(|error| UsageError::new(error.to_string()));
        let mut cores = config.among(shards)?.into_iter().map(Core::new).collect::<Result<Vec<_>, _>>()?;
        cores.iter_mut().enumerate().for_each(|(shard, core)| core.joins(shard));
        let lanes = (0..shards).map(lane).collect::<Result<_, _>>()?;
        Ok(Self { cores, router: Router::new(shards), lanes, ufrags: HashMap::new(), sources: HashMap::new() })
    }

    pub fn apply(&mut self, command: Command, now: i64) -> Result<(), UsageError> {
        let named = match &command {
            Command::OpenSession { ufrag, shard, .. } => Some((ufrag.clone(), *shard as usize)),
            Command::RestartIce { ufrag, session, .. } => Some((ufrag.clone(), self.router.of_session(*session))),
            _ => None,
        };
        let (steps, wrong) = self.router.plan(vec![command]);
        for step in steps {
            if let Err(error) = self.apply_to(step.shard, step.command, now) {
                for step in self.router.undo(0) {
                    let _ = self.apply_to(step.shard, step.command, now);
                }
                return Err(error);
            }
        }
        if let Some((ufrag, shard)) = named {
            self.ufrags.insert(ufrag, shard);
        }
        wrong.map_err(|(_, error)| error)
    }

    fn apply_to(&mut self, shard: usize, command: Command, now: i64) -> Result<(), UsageError> {
        let done = self.cores[shard].apply(command, now);
        self.pass(now);
        done
    }

    /// Take a datagram at the shard of the session that it names, or that its source was heard for.
    pub fn receive(&mut self, datagram: &[u8], source: SocketAddr, now: i64) {
        if datagram.first().is_some_and(|&first| first < 4) {
            let named = |ufrag: &str| {
                let name = format!("{ufrag}:");
                datagram.windows(name.len()).any(|part| part == name.as_bytes())
            };
            if let Some((_, &shard)) = self.ufrags.iter().find(|(ufrag, _)| named(ufrag)) {
                self.sources.insert(source, shard);
            }
        }
        let shard = self.sources.get(&source).copied().unwrap_or(0);
        self.cores[shard].receive(datagram, source, now);
        self.pass(now);
    }

    pub fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> Result<(), UsageError> {
        let shard = self.router.injected(track).map_or(0, |(shard, _)| shard);
        self.cores[shard].inject(track, layer, packet, now)?;
        self.pass(now);
        Ok(())
    }

    pub fn next_timeout(&self) -> Option<i64> {
        self.cores.iter().filter_map(Core::next_timeout).min()
    }

    pub fn handle_timeout(&mut self, now: i64) {
        for shard in 0..self.cores.len() {
            self.cores[shard].handle_timeout(now);
            self.pass(now);
        }
    }

    /// Hand notes on until there are none.
    pub fn pass(&mut self, now: i64) {
        let Self { cores, lanes, .. } = self;
        let mut noted = true;
        while noted {
            noted = false;
            for core in cores.iter_mut() {
                core.notes(|shards, note, data| {
                    let mut refused = 0;
                    each(shards, |shard| {
                        if !lanes.get(shard).is_some_and(|lane| lane.put(note, data)) {
                            refused |= 1 << shard;
                        }
                    });
                    refused
                });
            }
            for (core, lane) in cores.iter_mut().zip(lanes.iter()) {
                while lane.take(|note, data| core.take_note(note, data, now)) {
                    noted = true;
                }
            }
        }
    }

    /// Write what was put off, and hand on what is to be sent.
    pub fn transmit(&mut self, mut send: impl FnMut(&[u8], SocketAddr)) {
        for core in &mut self.cores {
            core.transmit(&mut send);
        }
    }

    /// Write what was put off, and forget it: for measurements. Returns how many datagrams it was.
    pub fn flush(&mut self) -> usize {
        let mut sent = 0;
        for core in &mut self.cores {
            let mut more = true;
            while more {
                more = Machine::settle(core, 0); // part by part, as a shard does
                let out = Machine::transmit(core);
                sent += out.len();
                out.clear();
            }
        }
        sent
    }

    pub fn events(&mut self) -> Vec<Event> {
        self.cores.iter_mut().flat_map(|core| core.events().collect::<Vec<_>>()).collect()
    }

    pub fn stats(&self) -> Vec<PlaneStats> {
        self.cores.iter().map(Core::stats).collect()
    }
}
