//! A shard around a machine that echoes, on loopback.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::io::probe::Abilities;
use crate::io::socket::SOCKET_BUFFER;
use crate::machine::Tapped;
use crate::out::OutBatch;
use crate::rings::Ring;
use crate::watch::{HUNG_US, LATE_US};

const WAIT: Duration = Duration::from_secs(10); // only a hang takes so long
/// Longer than it takes to find out that a thread hangs.
const HANG: Duration = Duration::from_micros(2 * (HUNG_US + LATE_US) as u64);

/// Sends back what it gets, `copies` times; tells of each datagram and each command.
#[derive(Default)]
struct Echo {
    copies: usize,
    out: OutBatch,
    events: Vec<String>,
    taps: Vec<(u32, Vec<u8>, i64)>,
    timeout: Option<i64>,
    received: usize,
}

enum Told {
    Tell(&'static str),
    TellAt(i64),
    Fail,
    Panic,
    Sleep(Duration),
}

impl Machine for Echo {
    type Command = Told;
    type Event = String;
    type Stats = usize;

    fn apply(&mut self, command: Told, _: i64) -> Result<(), UsageError> {
        match command {
            Told::Tell(text) => self.events.push(text.into()),
            Told::TellAt(time) => self.timeout = Some(time),
            Told::Fail => return Err(UsageError::new("as you wish")),
            Told::Panic => panic!("as you wish"),
            Told::Sleep(time) => thread::sleep(time),
        }
        Ok(())
    }

    fn inject(&mut self, track: u32, layer: i64, packet: &[u8], now: i64) -> Result<(), UsageError> {
        self.taps.push((track + layer as u32, packet.to_vec(), now));
        if track == 0 { Err(UsageError::new("no track")) } else { Ok(()) }
    }

    fn receive(&mut self, datagram: &[u8], source: SocketAddr, _: i64) {
        self.received += 1;
        for _ in 0..self.copies {
            assert!(self.out.push(datagram, source));
        }
    }

    fn next_timeout(&self) -> Option<i64> {
        self.timeout
    }

    fn handle_timeout(&mut self, now: i64) {
        assert!(self.timeout.take().is_some_and(|timeout| timeout <= now));
        self.events.push("time".into());
    }

    fn out(&self) -> &OutBatch {
        &self.out
    }

    fn transmit(&mut self) -> &mut OutBatch {
        &mut self.out
    }

    fn events(&mut self, into: &mut Vec<String>) {
        into.append(&mut self.events);
    }

    fn taps(&mut self, mut take: impl FnMut(Tapped<'_>)) {
        for (tap, packet, arrival) in self.taps.drain(..) {
            take(Tapped { tap, ring: None, packet: &packet, arrival });
        }
    }

    fn stats(&self) -> usize {
        self.received
    }
}

fn alone() -> Beside<Echo> {
    Beside::among(1).expect("eventfds").remove(0)
}

fn open(copies: usize) -> Handle<Echo> {
    let options = Options { abilities: Abilities::probe(), socket_buffer: SOCKET_BUFFER };
    let echo = Echo { copies, ..Echo::default() };
    Handle::open(echo, Ipv4Addr::LOCALHOST.into(), 0, options, alone()).expect("a port")
}

fn client(handle: &Handle<Echo>) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    client.connect(handle.address()).expect("a route");
    client.set_read_timeout(Some(WAIT)).expect("an option");
    client
}

/// The next item of a ring, which comes when the round's orders are done.
fn next<T>(ring: &Ring<T>) -> T {
    let until = Instant::now() + WAIT;
    loop {
        if let Some(item) = ring.take() {
            return item;
        }
        assert!(Instant::now() < until, "nothing came");
        thread::sleep(Duration::from_millis(1));
    }
}

fn event(handle: &Handle<Echo>) -> String {
    next(&handle.shared().events)
}

#[test]
fn datagrams_commands_and_times_go_in_and_come_out() {
    let handle = open(2);
    assert_eq!(handle.submit(vec![Told::Tell("parked")]), Ok(()));
    handle.start().expect("a thread");
    handle.start().expect("the same thread");
    let client = client(&handle);
    let mut buffer = [0; 2048];
    for number in 0..200u8 {
        client.send(&[number; 100]).expect("it is sent");
        for _ in 0..2 {
            assert_eq!(client.recv(&mut buffer).expect("an echo"), 100);
            assert_eq!(buffer[0], number);
        }
    }
    let soon = now_us() + 20_000;
    assert_eq!(handle.submit(vec![Told::TellAt(soon), Told::Tell("running")]), Ok(()));
    assert_eq!([event(&handle), event(&handle), event(&handle)], ["parked", "running", "time"]);
    assert!(now_us() >= soon);
    let wrong = handle.submit(vec![Told::Tell("before"), Told::Fail, Told::Tell("after")]);
    assert_eq!(wrong, Err(Refused::Usage(1, UsageError::new("as you wish"))));
    assert_eq!(event(&handle), "before");
    assert_eq!(handle.inject(3, 1, b"packet".to_vec()), Ok(()));
    assert_eq!(handle.inject(0, 0, b"nobody's".to_vec()), Ok(()));
    let (received, counts) = handle.stats().expect("counts");
    assert_eq!((received, counts.datagrams_in, counts.sent.datagrams, counts.injects_refused), (200, 200, 400, 1));
    let tapped = next(&handle.shared().taps);
    assert_eq!((tapped.0, &tapped.1[..]), (4, &b"packet"[..]));
    assert!(handle.is_healthy());
    handle.close();
    handle.close();
    let (received, counts) = handle.stats().expect("counts");
    assert_eq!((received, counts.sent.datagrams), (200, 400));
    assert_eq!(handle.submit(vec![Told::Tell("nobody hears")]), Ok(()));
    assert_eq!(handle.inject(1, 1, Vec::new()), Ok(()));
    assert!(handle.is_healthy() && handle.shared().events.take().is_none());
    let port = handle.address().port();
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
}

#[test]
fn a_burst_comes_back_whole_and_in_order() {
    let handle = open(1);
    let client = client(&handle);
    for number in 0..100u8 {
        client.send(&[number; 700]).expect("it is sent");
    }
    handle.start().expect("a thread");
    let mut buffer = [0; 2048];
    for number in 0..100u8 {
        assert_eq!((client.recv(&mut buffer).expect("an echo"), buffer[0]), (700, number));
    }
    let (_, counts) = handle.stats().expect("counts");
    assert_eq!((counts.datagrams_in, counts.sent.datagrams), (100, 100));
    assert!(counts.calls_in < 10, "{} calls for 100 datagrams that waited", counts.calls_in);
    assert!(counts.sent.calls < 10, "{} calls for 100 datagrams that waited", counts.sent.calls);
}

#[test]
fn a_panic_fails_the_shard_and_nobody_waits_for_ever() {
    let handle = Arc::new(open(1));
    handle.start().expect("a thread");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let handle = handle.clone();
            thread::spawn(move || handle.submit(vec![Told::Sleep(Duration::from_millis(20)), Told::Panic]))
        })
        .collect();
    for one in waiting {
        assert_eq!(one.join().expect("no panic here"), Err(Refused::Failed));
    }
    assert!(!handle.is_healthy());
    let why = handle.shared().failure().expect("a reason");
    assert!(why.contains("as you wish") && why.contains("handle/tests.rs"), "{why}");
    assert!(handle.stats().is_err());
    handle.close();
    assert_eq!(handle.submit(vec![Told::Tell("hello?")]), Err(Refused::Failed));
    assert!(!handle.is_healthy());
}

/// A round that takes longer than any, and yet ends, as where the thread has to wait for a CPU.
#[test]
fn who_waits_for_a_shard_that_is_late_gets_his_answer() {
    let handle = open(1);
    handle.start().expect("a thread");
    let late = Duration::from_micros(LATE_US.unsigned_abs() + 500_000);
    assert_eq!(handle.submit(vec![Told::Sleep(late), Told::Tell("at last")]), Ok(()));
    assert_eq!(event(&handle), "at last");
    handle.stats().expect("counts, of the round after");
    assert!(handle.is_healthy());
    assert!(handle.shared().late_us.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_shard_that_hangs_is_given_up_and_ends_when_it_comes_back() {
    let handle = Arc::new(open(1));
    handle.start().expect("a thread");
    let asking = thread::spawn({
        let handle = handle.clone();
        move || handle.submit(vec![Told::Sleep(HANG), Told::Tell("too late")])
    });
    assert!(handle.is_healthy());
    assert_eq!(asking.join().expect("no panic here"), Err(Refused::Failed));
    assert!(handle.shared().failure().is_some_and(|why| why.contains("hangs")));
    assert!(!handle.is_healthy());
    assert!(handle.stats().is_err());
    let thread = handle.shared().thread().expect("it runs");
    let until = Instant::now() + HANG;
    while life_of(thread).is_some() {
        assert!(Instant::now() < until, "the thread goes on");
        thread::sleep(Duration::from_millis(20));
    }
    handle.close();
    assert!(!handle.is_healthy());
}

#[test]
fn closing_a_shard_that_hangs_takes_bounded_time() {
    let handle = open(1);
    handle.start().expect("a thread");
    let (reply, _answer) = sync_channel(1);
    handle.shared().orders.push(Order::Submit(vec![Told::Sleep(2 * HANG)], reply)).ok().expect("room");
    let before = Instant::now();
    handle.close();
    assert!(before.elapsed() < 2 * HANG);
    assert!(!handle.is_healthy());
}

#[test]
fn what_does_not_fit_is_refused_and_counted() {
    let handle = open(1);
    handle.start().expect("a thread");
    handle.shared().orders.push(Order::Inject { track: 1, layer: 0, packet: vec![1] }).ok().expect("room");
    let asleep = sync_channel(1);
    handle.shared().orders.push(Order::Submit(vec![Told::Sleep(Duration::from_millis(300))], asleep.0)).ok();
    let mut refused = 0;
    for _ in 0..2 * shard::ORDERS {
        refused += usize::from(handle.inject(1, 0, Vec::new()) == Err(Refused::Full));
    }
    assert!(refused > 0);
    handle.shared().orders.put(Order::Pin(CpuSet::new())).ok().expect("a place that no packet may take");
    asleep.1.recv_timeout(WAIT).expect("it wakes up").expect("it did as told");
    // What was injected was tapped; nobody reads the taps, which are told after the orders.
    let lost = (1 + 2 * shard::ORDERS - refused).saturating_sub(shard::TAPS) as u64;
    let until = Instant::now() + WAIT;
    loop {
        let (_, counts) = handle.stats().expect("counts");
        assert_eq!(counts.orders_refused, refused as u64);
        if counts.taps_lost == lost {
            break;
        }
        assert!(Instant::now() < until, "{} of {lost} counted", counts.taps_lost);
    }
}
