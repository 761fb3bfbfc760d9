//! Batches over loopback, as the kernel takes them and as it refuses them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::probe::Abilities;
use super::*;
use crate::out::OutBatch;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.set_nonblocking(true).expect("an option");
    socket
}

fn name(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket")
}

/// The datagrams of the latest `fill`, two at a time.
fn drain(receiver: &mut Receiver) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut came = Vec::new();
    while !receiver.each(|datagram, source| {
        came.push((datagram.to_vec(), source));
        came.len() % 2 == 1
    }) {}
    came
}

/// All that comes until there are `count` datagrams.
fn receive(socket: &UdpSocket, receiver: &mut Receiver, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut came = Vec::new();
    let until = Instant::now() + Duration::from_secs(10);
    while came.len() < count && Instant::now() < until {
        if receiver.fill(socket).is_ok() {
            came.extend(drain(receiver));
        }
    }
    came
}

/// A frame's packets: all of one size but the last.
fn frame(number: u8, packets: u8) -> Vec<Vec<u8>> {
    let length = |packet| if packet + 1 == packets { 700 } else { 1100 };
    (0..packets).map(|packet| [vec![number, packet], vec![7; length(packet)]].concat()).collect()
}

fn round_trip(joined: bool, many: bool, received_joined: bool) -> SendCounts {
    let (from, viewers) = (Arc::new(socket()), [socket(), socket(), socket()]);
    let mut sender = Sender::new(KernelWire::new(from.clone(), many).expect("a socket"), joined);
    let mut receiver = Receiver::new(received_joined).expect("memory");
    let mut out = OutBatch::default();
    let mut expected = Vec::new();
    for number in 0..3 {
        for datagram in frame(number, 10) {
            for viewer in &viewers {
                assert!(out.push(&datagram, name(viewer)));
            }
            expected.push((datagram, name(&from)));
        }
    }
    for viewer in &viewers {
        if received_joined {
            set_joined(viewer).expect("an option");
        }
    }
    sender.flush(&mut out);
    assert!(out.is_empty() && !sender.is_blocked());
    for viewer in &viewers {
        assert_eq!(receive(viewer, &mut receiver, expected.len()), expected);
    }
    assert_eq!(sender.counts.datagrams, 90);
    assert_eq!(sender.counts.bytes, 3 * 3 * (9 * 1102 + 702));
    assert_eq!(sender.counts.errors, []);
    sender.counts
}

#[test]
fn every_way_of_sending_keeps_the_order_of_each_destination() {
    let abilities = Abilities::probe();
    let counts = round_trip(false, false, false);
    assert_eq!((counts.messages, counts.calls), (90, 90));
    let counts = round_trip(false, true, false);
    assert_eq!((counts.messages, counts.calls), (90, 2));
    if abilities.gso {
        let counts = round_trip(true, true, false);
        assert_eq!((counts.messages, counts.calls), (9, 1));
        let counts = round_trip(true, false, false);
        assert_eq!((counts.messages, counts.calls), (9, 9));
    }
    if abilities.gso && abilities.gro {
        round_trip(true, true, true);
    }
}

#[test]
fn messages_put_together_by_the_kernel_are_taken_apart() {
    let abilities = Abilities::probe();
    if !(abilities.gso && abilities.gro) {
        eprintln!("this kernel has no UDP_GRO: nothing to test");
        return;
    }
    let (from, to) = (Arc::new(socket()), socket());
    set_joined(&to).expect("an option");
    let mut sender = Sender::new(KernelWire::new(from, true).expect("a socket"), true);
    let mut out = OutBatch::default();
    for datagram in frame(1, 12) {
        out.push(&datagram, name(&to));
    }
    out.push(b"", name(&to));
    sender.flush(&mut out);
    let mut receiver = Receiver::new(true).expect("memory");
    let (messages, more) = receiver.fill(&to).expect("datagrams");
    assert_eq!((messages, more), (2, false));
    let came: Vec<_> = drain(&mut receiver).into_iter().map(|(datagram, _)| datagram).collect();
    assert_eq!(came.split_last(), Some((&vec![], &frame(1, 12)[..])));
}

#[test]
fn a_full_batch_says_that_more_may_wait() {
    let (from, to) = (socket(), socket());
    for number in 0..70u8 {
        from.send_to(&[number], name(&to)).expect("it is sent");
    }
    from.send_to(&[1; 3000], name(&to)).expect("it is sent");
    let mut receiver = Receiver::new(false).expect("memory");
    assert_eq!(receiver.fill(&to).expect("datagrams"), (64, true));
    assert_eq!(receiver.fill(&to).expect("datagrams"), (7, false));
    let lengths: Vec<_> = drain(&mut receiver).iter().map(|(datagram, _)| datagram.len()).collect();
    assert_eq!(lengths, [1, 1, 1, 1, 1, 1, 2048]);
    assert_eq!(receiver.fill(&to).expect_err("nothing waits").kind(), io::ErrorKind::WouldBlock);
    assert_eq!(drain(&mut receiver), []);
}

#[test]
fn a_dual_stack_socket_speaks_both() {
    let Ok(from) = socket::bind("::".parse().expect("an address"), 0, socket::SOCKET_BUFFER) else { return };
    if name(&from).is_ipv4() {
        eprintln!("no IPv6 here: nothing to test");
        return;
    }
    let port = name(&from).port();
    let mut sender = Sender::new(KernelWire::new(Arc::new(from), true).expect("a socket"), true);
    let mut receiver = Receiver::new(false).expect("memory");
    for host in ["127.0.0.1", "::1"] {
        let to = UdpSocket::bind((host, 0)).expect("a port");
        to.set_nonblocking(true).expect("an option");
        let mut out = OutBatch::default();
        out.push(b"hello", name(&to));
        sender.flush(&mut out);
        let came = receive(&to, &mut receiver, 1);
        assert_eq!(came, [(b"hello".to_vec(), SocketAddr::new(host.parse().expect("an address"), port))]);
    }
}

/// The kernel, when it is not told to refuse.
struct Moody {
    kernel: KernelWire,
    /// Messages that are still taken before the mood comes up.
    takes: usize,
    mood: Option<i32>,
    /// The mood is about messages of several datagrams only.
    joined_only: bool,
}

impl Wire for Moody {
    fn send(&mut self, batch: Batch<'_>) -> io::Result<usize> {
        let Some(errno) = self.mood else { return self.kernel.send(batch) };
        if self.takes == 0 && (batch.runs[0].count > 1 || !self.joined_only) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let takes = if self.joined_only { 1 } else { self.takes.min(batch.runs.len()) };
        self.takes = self.takes.saturating_sub(takes);
        self.kernel.send(Batch { runs: &batch.runs[..takes], ..batch })
    }
}

fn moody(joined: bool, mood: i32) -> Sender<Moody> {
    let kernel = KernelWire::new(Arc::new(socket()), true).expect("a socket");
    Sender::new(Moody { kernel, takes: 0, mood: Some(mood), joined_only: false }, joined)
}

#[test]
fn a_full_socket_keeps_a_frame_and_drops_the_rest() {
    let to = [socket(), socket()];
    let mut sender = moody(false, libc::EAGAIN);
    sender.wire_mut().takes = 3;
    let mut out = OutBatch::default();
    for number in 0..10u8 {
        out.push(&[number, 0], name(&to[0]));
        out.push(&[number, 1], name(&to[1]));
    }
    sender.flush(&mut out);
    assert!(sender.is_blocked());
    assert_eq!(sender.counts.datagrams, 3);
    for number in 10..100u8 {
        out.push(&[number, 0], name(&to[0]));
        sender.flush(&mut out);
    }
    assert_eq!(sender.counts.socket_full, 17 + 90 - BACKLOG as u64);
    sender.wire_mut().takes = 2;
    sender.resume();
    assert!(sender.is_blocked());
    sender.wire_mut().mood = None;
    sender.resume();
    assert!(!sender.is_blocked());
    assert_eq!(sender.counts.datagrams, 3 + BACKLOG as u64);
    let mut receiver = Receiver::new(false).expect("memory");
    let kept = BACKLOG - 17 + 10;
    let came: Vec<_> = receive(&to[0], &mut receiver, kept).into_iter().map(|(datagram, _)| datagram[0]).collect();
    assert_eq!(came, (0..kept as u8).collect::<Vec<_>>());
    let came: Vec<_> = receive(&to[1], &mut receiver, 10).into_iter().map(|(datagram, _)| datagram[0]).collect();
    assert_eq!(came, (0..10).collect::<Vec<_>>());
}

#[test]
fn an_error_costs_its_datagram_only() {
    let to = socket();
    let mut sender = moody(false, libc::EHOSTUNREACH);
    let mut out = OutBatch::default();
    out.push(b"lost", name(&to));
    sender.flush(&mut out);
    sender.wire_mut().mood = Some(libc::ECONNREFUSED);
    out.push(b"lost too", name(&to));
    out.push(b"and this", name(&to));
    sender.flush(&mut out);
    assert_eq!(sender.counts.errors, [(libc::EHOSTUNREACH, 1), (libc::ECONNREFUSED, 2)]);
    sender.wire_mut().mood = None;
    out.push(b"back", name(&to));
    sender.flush(&mut out);
    let mut receiver = Receiver::new(false).expect("memory");
    assert_eq!(receive(&to, &mut receiver, 1)[0].0, b"back");
}

#[test]
fn a_refused_message_leaves_as_single_datagrams() {
    for (errno, joins) in [(libc::EINVAL, true), (libc::EIO, false)] {
        let to = socket();
        let mut sender = moody(true, errno);
        sender.wire_mut().joined_only = true;
        let mut out = OutBatch::default();
        for datagram in frame(3, 5) {
            out.push(&datagram, name(&to));
        }
        sender.flush(&mut out);
        let mut receiver = Receiver::new(false).expect("memory");
        let came: Vec<_> = receive(&to, &mut receiver, 5).into_iter().map(|(datagram, _)| datagram).collect();
        assert_eq!(came, frame(3, 5));
        assert_eq!((sender.counts.refused, sender.counts.datagrams, sender.joins()), (1, 5, joins));
    }
}

/// An unreachable port answers with ICMP, which a connected socket reports in its next call.
#[test]
fn icmp_errors_are_counted_and_survived() {
    let (from, to, gone) = (Arc::new(socket()), socket(), socket());
    let nowhere = name(&gone);
    drop(gone);
    from.connect(nowhere).expect("a route");
    let mut sender = Sender::new(KernelWire::new(from.clone(), true).expect("a socket"), true);
    let mut out = OutBatch::default();
    for _ in 0..4 {
        out.push(b"anyone?", nowhere);
        sender.flush(&mut out);
    }
    assert!(sender.counts.errors.iter().all(|&(errno, _)| errno == libc::ECONNREFUSED));
    assert_eq!(sender.counts.datagrams + sender.counts.errors.iter().map(|entry| entry.1).sum::<u64>(), 4);
    assert!(!sender.counts.errors.is_empty());
    from.take_error().expect("an option");
    out.push(b"hello", name(&to));
    sender.flush(&mut out);
    let mut receiver = Receiver::new(false).expect("memory");
    assert_eq!(receive(&to, &mut receiver, 1)[0].0, b"hello");
}
