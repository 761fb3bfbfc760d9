//! One machine on one socket, run by one thread that never takes the GIL.
//!
//! A round of the thread: take other shards' notes, carry out orders, take what the socket has, do what is due, send all
//! of it together. A packet that comes alone is forwarded at once; while one batch is forwarded the next one gathers in
//! the kernel, so batches grow with the load, and no output is held longer than HOLD_US.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::sched_setaffinity;

use crate::io::clock::now_us;
use crate::io::probe::Abilities;
use crate::io::{KernelWire, Receiver, Sender, count_error, set_joined, socket};
use crate::lanes::{Lanes, NOTES, each};
use crate::machine::Machine;
use crate::panics;
use crate::ring_set::RingSet;
use crate::watch::LATE_US;

mod counts;
mod orders;

pub use counts::IoCounts;
pub use orders::{Beside, Copied, EVENTS, INJECTS, ORDERS, Order, Shared, Submitted, TAPS};

/// Output is sent after this long, although more of the batch is to come.
const HOLD_US: i64 = 1_000;
/// Output is sent when it is, or would be, this long: some 10 ms of work.
const HOLD_BYTES: usize = 16 << 20;
/// Rounds are at most this far apart, so that a thread that hangs shows.
const BEAT_US: i64 = 1_000_000;

/// How a shard is set up.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub abilities: Abilities,
    /// Bytes of the socket's buffers, each way.
    pub socket_buffer: usize,
}

/// Carry out commands in order; the first wrong one ends it.
pub fn submit<M: Machine>(machine: &mut M, commands: Vec<M::Command>) -> Submitted {
    let now = now_us();
    for (index, command) in commands.into_iter().enumerate() {
        machine.apply(command, now).map_err(|error| (index, error))?;
    }
    Ok(())
}

/// The machine with its socket: what the thread works on.
pub struct Shard<M: Machine> {
    pub machine: M,
    pub rings: RingSet,
    shared: Arc<Shared<M>>,
    socket: Arc<UdpSocket>,
    sender: Sender<KernelWire>,
    receiver: Receiver,
    counts: IoCounts,
    more: bool,
    lanes: Lanes,
    events: Vec<M::Event>,
}

impl<M: Machine> Shard<M> {
    /// Bind the port.
    pub fn open(mut machine: M, host: IpAddr, port: u16, mut options: Options, beside: Beside<M>) -> io::Result<Self> {
        machine.joins(beside.lanes.index());
        let socket = Arc::new(socket::bind(host, port, options.socket_buffer)?);
        options.abilities.gro &= set_joined(&socket).is_ok();
        let Abilities { gso, gro, sendmmsg } = options.abilities;
        Ok(Self {
            machine,
            rings: RingSet::new()?,
            shared: Arc::new(Shared::new(&beside)?),
            sender: Sender::new(KernelWire::new(socket.clone(), sendmmsg)?, gso),
            receiver: Receiver::new(gro)?,
            socket,
            counts: IoCounts::default(),
            more: false,
            lanes: beside.lanes,
            events: Vec::new(),
        })
    }

    pub fn shared(&self) -> Arc<Shared<M>> {
        self.shared.clone()
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The thread's body: run until told to stop, then hand the shard back. A panic loses the shard and says so.
    pub fn run(mut self) -> Option<Self> {
        let shared = self.shared.clone();
        shared.mine();
        panics::listen();
        let done = catch_unwind(AssertUnwindSafe(move || {
            while !self.shared.stop.load(Ordering::SeqCst) {
                self.round();
            }
            self.take_notes();
            self.orders();
            self.settle();
            self
        }));
        if done.is_err() {
            shared.fail(panics::latest());
        }
        done.ok()
    }

    /// Give up the socket.
    pub fn close(mut self) -> (M, IoCounts) {
        let counts = self.counts();
        (self.machine, counts)
    }

    /// Carry out commands in order; the first wrong one ends it. Other shards have the notes of it before the answer.
    pub fn submit(&mut self, commands: Vec<M::Command>) -> Submitted {
        self.take_notes();
        let done = submit(&mut self.machine, commands);
        self.give_notes();
        done
    }

    pub fn inject(&mut self, track: u32, layer: i64, packet: &[u8]) {
        if self.machine.inject(track, layer, packet, now_us()).is_err() {
            self.counts.injects_refused += 1;
        }
    }

    pub fn stats(&mut self) -> (M::Stats, IoCounts) {
        let counts = self.counts();
        (self.machine.stats(), counts)
    }

    /// What the socket did.
    pub fn counts(&mut self) -> IoCounts {
        let mut counts = self.counts.clone();
        counts.sent = self.sender.counts.clone();
        counts.events_lost = self.shared.events.overflowed();
        counts.taps_lost = self.rings.lost + if self.lanes.index() == 0 { self.shared.taps.overflowed() } else { 0 };
        counts.orders_refused = self.shared.orders.overflowed();
        counts.out_overflowed = self.machine.out().overflowed();
        counts
    }

    /// Do what is due, send and tell.
    pub fn settle(&mut self) {
        self.send();
        let now = now_us();
        if self.machine.next_timeout().is_some_and(|timeout| timeout <= now) {
            self.machine.handle_timeout(now);
            self.send();
        }
        self.tell();
    }

    /// Send part by part: it is still in the cache then, and nobody waits for what is written to others.
    fn send(&mut self) {
        self.give_notes();
        let mut more = true;
        while more {
            more = self.machine.settle(now_us());
            self.sender.flush(self.machine.transmit());
        }
    }

    /// Copy what other shards are to know into their lanes, and wake them once.
    fn give_notes(&mut self) {
        let Self { machine, lanes, .. } = self;
        let mut told = 0;
        machine.notes(|shards, note, data| {
            let mut refused = 0;
            each(shards, |shard| {
                if !lanes.get(shard).is_some_and(|lane| lane.put(note, data)) {
                    refused |= 1 << shard;
                }
            });
            told |= shards;
            refused
        });
        each(told, |shard| {
            if let Some(lane) = lanes.get(shard) {
                lane.tell();
            }
        });
    }

    /// Take what other shards noted, and send part by part what that gives.
    fn take_notes(&mut self) {
        for _ in 0..NOTES {
            let now = now_us();
            let Self { machine, lanes, .. } = self;
            let Some(lane) = lanes.own() else { return };
            if !lane.take(|note, data| machine.take_note(note, data, now)) {
                return;
            }
            if self.machine.held() >= HOLD_BYTES {
                self.send();
            }
        }
        if let Some(lane) = self.lanes.own() {
            lane.tell(); // the rest has its turn in the next round
        }
    }

    fn tell(&mut self) {
        self.machine.events(&mut self.events);
        if !self.events.is_empty() {
            for event in self.events.drain(..) {
                let _ = self.shared.events.put(event); // a full ring counts what it refuses
            }
            self.shared.events.tell();
        }
        let Self { machine, rings, shared, .. } = self;
        let mut copied = false;
        machine.taps(|tapped| match tapped.ring {
            Some(ring) => rings.put(ring, &tapped),
            None => {
                let _ = shared.taps.put((tapped.tap, tapped.packet.to_vec(), tapped.arrival));
                copied = true;
            }
        });
        if copied {
            shared.taps.tell();
        }
        rings.flush();
    }

    fn round(&mut self) {
        self.counts.rounds += 1;
        self.beat();
        // After a full batch there is more to read: the kernel need not be asked.
        let (readable, writable, told) = if self.more { (true, self.sender.is_blocked(), false) } else { self.wait() };
        self.take_notes(); // before orders: who orders may rely on what was noted before
        if writable {
            self.sender.resume();
        }
        if told {
            self.shared.orders.begin();
        }
        self.orders();
        if readable {
            self.receive();
        }
        self.take_injected();
        self.settle();
    }

    /// Say that a round begins, and count what it is late by.
    fn beat(&self) {
        let now = now_us();
        let passed = now - self.shared.beat.swap(now, Ordering::Relaxed);
        if passed >= LATE_US {
            self.shared.late_us.fetch_add((passed - BEAT_US).cast_unsigned(), Ordering::Relaxed);
        }
    }

    fn take_injected(&mut self) {
        let Self { machine, rings, counts, .. } = self;
        let now = now_us();
        rings.take(|track, layer, packet| {
            let taken = machine.inject(track, layer, packet, now).is_ok();
            counts.injects_refused += u64::from(!taken);
            taken
        });
    }

    /// Sleep until there is something to do. Returns what: datagrams came, the socket takes more, orders came.
    fn wait(&mut self) -> (bool, bool, bool) {
        let now = now_us();
        let due = self.machine.next_timeout().map_or(BEAT_US, |timeout| (timeout - now).clamp(0, BEAT_US));
        let due = if self.rings.sleep() { due } else { 0 };
        let patience = Timespec { tv_sec: due / 1_000_000, tv_nsec: due % 1_000_000 * 1_000 };
        let wanted = if self.sender.is_blocked() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let orders = &self.shared.orders;
        let socket = PollFd::new(&*self.socket, wanted);
        let orders = PollFd::new(orders, PollFlags::IN);
        let rings = PollFd::new(&self.rings, PollFlags::IN);
        let lane = self.lanes.own();
        let mut polled = match lane {
            Some(lane) => [socket, orders, rings, PollFd::new(lane, PollFlags::IN)],
            None => [socket.clone(), orders, rings, socket],
        };
        if poll(&mut polled[..3 + usize::from(lane.is_some())], Some(&patience)).is_err() {
            return (true, false, true); // interrupted: look at everything
        }
        let [socket, orders, rings, noted] = polled.map(|one| one.revents());
        if let Some(lane) = lane.filter(|_| !noted.is_empty()) {
            lane.begin();
        }
        if !rings.is_empty() {
            self.rings.woken();
        }
        let readable = socket.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP);
        (readable, socket.contains(PollFlags::OUT), !orders.is_empty())
    }

    fn orders(&mut self) {
        // What is put while these are carried out waits for the next round, whose turn it is to send and tell.
        for _ in 0..ORDERS {
            let Some(order) = self.shared.orders.take() else { return };
            match order {
                // Whoever asked may have given up waiting.
                Order::Submit(commands, reply) => {
                    let _ = reply.send(self.submit(commands));
                }
                Order::Inject { track, layer, packet } => self.inject(track, layer, &packet),
                Order::Stats(reply) => {
                    let _ = reply.send(self.stats());
                }
                Order::Rings(change) => change(&mut self.rings),
                // CPUs that are not there, or not ours: the scheduler chooses, as without the wish.
                Order::Pin(cpus) => drop(sched_setaffinity(None, &cpus)),
                Order::Panic => panic!("as a test wished"),
            }
        }
        self.shared.orders.tell();
    }

    fn receive(&mut self) {
        self.counts.calls_in += 1;
        match self.receiver.fill(&self.socket) {
            Ok((messages, more)) => {
                self.counts.messages_in += messages as u64;
                self.more = more;
            }
            Err(error) => {
                self.more = false;
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    // An ICMP error of some earlier datagram; it says nothing about the next.
                    count_error(&mut self.counts.errors_in, &error, 1);
                }
                return;
            }
        }
        loop {
            let Self { machine, receiver, counts, .. } = self;
            let since = now_us();
            let finished = receiver.each(|datagram, source| {
                let now = now_us();
                counts.datagrams_in += 1;
                machine.receive(datagram, source, now);
                now - since < HOLD_US && machine.held() < HOLD_BYTES
            });
            if finished {
                return;
            }
            self.send();
            self.orders();
            self.settle();
        }
    }
}
