//! The limit that the plane is measured beside: seal and send, and nothing else. AES-128-GCM over 1100-byte payloads for
//! 100 viewers with keys of their own, on loopback. Prints JSON: nanoseconds of this thread's CPU time per packet for
//! each way to send, least and median of the rounds; what the receivers do is not in them. With a READER, that CPU reads as
//! packets come, as real receivers would: the sender then wakes it, and frees no memory of its own. Without, the sender reads
//! between rounds.
//!
//! `cargo run --release --example limit [-- ROUNDS [READER]]`

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use _native::io::probe::Abilities;
use _native::io::{KernelWire, Receiver, Sender, socket};
use _native::out::OutBatch;
use _native::srtp::{Profile, Srtp};

const VIEWERS: usize = 100;
const PAYLOAD: usize = 1100;
/// Packets to each viewer in a round: they fit a receiver's buffer, which is emptied between rounds.
const PACKETS: usize = 32;
/// Bytes sealed before they are sent: they stay in the cache.
const SCRATCH: usize = 128 << 10;

fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

enum Way {
    Nothing,
    SendTo,
    Batches { gso: bool },
}

struct Viewer {
    srtp: Srtp,
    socket: UdpSocket,
    address: SocketAddr,
}

/// A thread that reads all sockets and counts.
struct Reader {
    came: Arc<Vec<AtomicUsize>>,
    wanted: usize,
}

impl Reader {
    fn start(viewers: &[Viewer], cpu: usize) -> io::Result<Self> {
        let sockets = viewers.iter().map(|viewer| viewer.socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
        let came: Arc<Vec<_>> = Arc::new(sockets.iter().map(|_| AtomicUsize::new(0)).collect());
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll::add(&poll, socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        }
        let counts = came.clone();
        std::thread::spawn(move || {
            let mut set = CpuSet::new();
            set.set(cpu);
            let _ = sched_setaffinity(None, &set); // elsewhere than told it reads as well
            let (mut ready, mut datagram) = (Vec::with_capacity(VIEWERS), [0; 2048]);
            while epoll::wait(&poll, rustix::buffer::spare_capacity(&mut ready), None).is_ok() {
                for event in ready.drain(..) {
                    let index = event.data.u64() as usize;
                    while sockets[index].recv(&mut datagram).is_ok() {
                        counts[index].fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self { came, wanted: 0 })
    }

    fn check(&mut self, expected: usize) -> io::Result<()> {
        self.wanted += expected;
        let until = Instant::now() + Duration::from_secs(1);
        while self.came.iter().any(|came| came.load(Ordering::Relaxed) < self.wanted) {
            if Instant::now() > until {
                return Err(io::Error::other("not every packet came"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

struct Bench {
    reader: Option<Reader>,
    viewers: Vec<Viewer>,
    socket: Arc<UdpSocket>,
    out: OutBatch,
    receiver: Receiver,
    seq: u16,
}

impl Bench {
    fn new(reader: Option<usize>) -> io::Result<Self> {
        let viewer = |number: usize| {
            let key = vec![number as u8; 28];
            let socket = socket::bind(Ipv4Addr::LOCALHOST.into(), 0, 1 << 20)?;
            let srtp = Srtp::new(Profile::Aes128Gcm, &key, &key).map_err(io::Error::other)?;
            Ok(Viewer { srtp, address: socket.local_addr()?, socket })
        };
        let viewers: Vec<Viewer> = (0..VIEWERS).map(viewer).collect::<io::Result<_>>()?;
        Ok(Self {
            reader: reader.map(|cpu| Reader::start(&viewers, cpu)).transpose()?,
            viewers,
            socket: Arc::new(socket::bind(Ipv4Addr::LOCALHOST.into(), 0, socket::SOCKET_BUFFER)?),
            out: OutBatch::default(),
            receiver: Receiver::new(false)?,
            seq: 0,
        })
    }

    /// Nanoseconds per packet of one round; `burst` packets go to one viewer before the next one's turn.
    fn round(&mut self, way: &Way, burst: usize) -> io::Result<f64> {
        let gso = matches!(way, Way::Batches { gso: true });
        let mut sender = Sender::new(KernelWire::new(self.socket.clone(), true)?, gso);
        let start = cpu_ns();
        for _ in 0..PACKETS / burst {
            for viewer in 0..VIEWERS {
                self.seal(viewer, burst);
                if self.out.bytes() >= SCRATCH {
                    self.send(way, &mut sender)?;
                }
            }
            self.seq = self.seq.wrapping_add(burst as u16);
        }
        self.send(way, &mut sender)?;
        let elapsed = (cpu_ns() - start) as f64 / (PACKETS * VIEWERS) as f64;
        self.check(if matches!(way, Way::Nothing) { 0 } else { PACKETS })?;
        Ok(elapsed)
    }

    fn seal(&mut self, viewer: usize, burst: usize) {
        let viewer = &mut self.viewers[viewer];
        for index in 0..burst as u16 {
            let room = self.out.room();
            room[..12].copy_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
            room[2..4].copy_from_slice(&self.seq.wrapping_add(index).to_be_bytes());
            let length = viewer.srtp.protect_rtp(room, 12 + PAYLOAD).expect("a new packet");
            self.out.commit(length, viewer.address);
        }
    }

    fn send(&mut self, way: &Way, sender: &mut Sender<KernelWire>) -> io::Result<()> {
        match way {
            Way::Nothing => self.out.clear(),
            Way::SendTo => {
                let waiting = self.out.waiting();
                for index in 0..waiting.ends.len() {
                    self.socket.send_to(waiting.datagram(index), waiting.ends[index].1)?;
                }
                self.out.clear();
            }
            Way::Batches { .. } => sender.flush(&mut self.out),
        }
        Ok(())
    }

    /// Every viewer got every packet.
    fn check(&mut self, expected: usize) -> io::Result<()> {
        if let Some(reader) = &mut self.reader {
            return reader.check(expected);
        }
        for viewer in &self.viewers {
            let mut came = 0;
            while let Ok((_, more)) = self.receiver.fill(&viewer.socket) {
                self.receiver.each(|_, _| {
                    came += 1;
                    true
                });
                if !more {
                    break;
                }
            }
            if came != expected {
                return Err(io::Error::other(format!("a viewer got {came} of {expected} packets")));
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let rounds: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    let abilities = Abilities::probe();
    let mut ways = vec![("seal only", 1, Way::Nothing), ("sendto", 1, Way::SendTo)];
    ways.push(("sendmmsg", 1, Way::Batches { gso: false }));
    if abilities.gso {
        ways.extend([2, 4, 8, 16].map(|burst| ("gso", burst, Way::Batches { gso: true })));
    }
    let reader = std::env::args().nth(2).and_then(|text| text.parse().ok());
    let mut bench = Bench::new(reader)?;
    let mut times = vec![Vec::new(); ways.len()];
    // Turn by turn, so that what else the machine does falls on all alike.
    for _ in 0..rounds.max(1) {
        for ((_, burst, way), times) in ways.iter().zip(&mut times) {
            times.push(bench.round(way, *burst)?);
        }
    }
    let rows = ways.iter().zip(&mut times).map(|((name, burst, _), times)| {
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        format!(r#"  {{"way": "{name}", "burst": {burst}, "ns": {least:.0}, "ns_median": {median:.0}}}"#)
    });
    println!("[\n{}\n]", rows.collect::<Vec<_>>().join(",\n"));
    Ok(())
}
