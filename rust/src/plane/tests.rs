//! Several real cores with their threads, and what becomes of them when one fails.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::*;
use crate::core::contract::ExtensionIds;
use crate::io::pages::Memory;
use crate::io::probe::Abilities;
use crate::io::socket::SOCKET_BUFFER;

const WAIT: Duration = Duration::from_secs(10); // only a hang takes so long

fn config() -> PlaneConfig {
    PlaneConfig {
        keyframe_interval_us: 500_000,
        layer_silence_us: 1_500_000,
        history_video: 64,
        history_audio: 64,
        estimate_start: 1_000_000,
        estimate_min: 50_000,
        estimate_max: 20_000_000,
        transport_cc_interval_us: 50_000,
        report_interval_us: 1_000_000,
        address_stale_us: 2_000_000,
        max_addresses: 8,
        wall_offset_us: 0,
        seed: 1,
        slab_packets: 1024,
        pad_video: 8,
        slab_memory: Memory::Plain,
    }
}

fn plane(port: u16, shards: usize) -> Result<Plane, NotOpened> {
    let options = Options { abilities: Abilities::probe(), socket_buffer: SOCKET_BUFFER };
    Plane::open(&config(), Ipv4Addr::LOCALHOST.into(), port, shards, options)
}

fn open(session: u32, shard: u32) -> Command {
    let (ufrag, extensions) = (format!("u{session}"), ExtensionIds::default());
    Command::OpenSession { session, ufrag, password: "p".into(), extensions, shard }
}

#[test]
fn each_shard_has_its_port_and_its_sessions() {
    let plane = plane(0, 3).expect("ports");
    plane.start().expect("threads");
    let mut ports: Vec<u16> = plane.addresses().iter().map(SocketAddr::port).collect();
    ports.dedup();
    assert_eq!(ports.len(), 3);
    assert_eq!(plane.submit((0..6).map(|session| open(session, session % 3)).collect()), Ok(()));
    assert_eq!(plane.sessions(), [2, 2, 2]);
    let stats = plane.stats().expect("counts");
    assert_eq!(stats.iter().map(|(stats, _)| stats.sessions.len()).collect::<Vec<_>>(), [2, 2, 2]);
    assert!(plane.pin(0, &[0]).is_ok() && plane.pin(7, &[0]).is_ok());
    let wrong = plane.submit(vec![open(6, 1), open(6, 2), open(7, 0)]);
    assert!(matches!(wrong, Err(Refused::Usage(1, _))));
    assert_eq!(plane.sessions(), [2, 3, 2]);
    let before = Instant::now();
    plane.close();
    plane.close();
    assert!(before.elapsed() < WAIT);
}

#[test]
fn a_taken_port_and_impossible_numbers_of_shards_are_refused() {
    let first = plane(0, 1).expect("a port");
    let port = first.addresses()[0].port();
    assert!(matches!(plane(port, 2), Err(NotOpened::Port(0, _))));
    assert!(matches!(plane(65_535, 2), Err(NotOpened::Port(0 | 1, _))));
    assert!(matches!(plane(0, 0), Err(NotOpened::Usage(_))));
    assert!(matches!(plane(0, MAX_SHARDS + 1), Err(NotOpened::Usage(_))));
}

#[test]
fn one_that_panics_fails_all_and_the_others_are_joined() {
    let plane = plane(0, 3).expect("ports");
    plane.start().expect("threads");
    assert!(plane.is_healthy());
    plane.break_shard(1);
    let until = Instant::now() + WAIT;
    while plane.is_healthy() {
        assert!(Instant::now() < until, "nobody noticed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let failures = plane.failures();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].0 == 1 && failures[0].1.contains("as a test wished"), "{failures:?}");
    assert!(plane.stats().is_err());
    let close = |session| Command::CloseSession { session };
    assert_eq!(plane.submit(vec![open(0, 0), open(1, 1), open(2, 2), close(0), close(1)]), Ok(()));
    assert_eq!(plane.sessions(), [0, 0, 1]);
    let left = plane.shards[2].stats().expect("it lives").0.sessions.len();
    assert_eq!(left, 1);
    assert!(matches!(plane.submit(vec![open(3, 1), open(2, 2)]), Err(Refused::Usage(1, _))));
    let before = Instant::now();
    plane.close();
    assert!(before.elapsed() < WAIT);
}
