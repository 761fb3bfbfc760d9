//! Rings in shared memory between threads, and with memory that the other side spoils.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

use _native::io::shared_ring::{Memory, Reader, Slot, Writer};
use proptest::prelude::*;

/// Both ends, and the memory.
fn pair(slots: u64, slot_size: u64) -> (Writer, Reader, OwnedFd) {
    let memory = Memory::create(slots, slot_size).expect("memory");
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let map = || Memory::map(memory.try_clone().expect("a descriptor")).expect("a ring");
    (Writer::new(map(), ours.into()), Reader::new(map(), theirs.into()), memory)
}

#[test]
fn nothing_is_lost_torn_or_slept_over_between_threads() {
    const PACKETS: u32 = 200_000;
    let (mut writer, mut reader, _) = pair(64, 256);
    let producer = thread::spawn(move || {
        for number in 0..PACKETS {
            let packet = [number as u8; 224];
            while !writer.put(number, -i64::from(number), &packet[..number as usize % 225]) {
                thread::yield_now();
            }
            writer.flush();
        }
        writer // it says that it is gone when it is dropped
    });
    let (mut buffer, mut next) = ([0; 224], 0);
    while next < PACKETS {
        if reader.sleep().expect("sound memory") {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            let woken = poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&patience)).expect("a descriptor");
            assert_eq!(woken, 1, "slept although {next} of {PACKETS} came");
            assert!(reader.woken());
        }
        while let Some(slot) = reader.take(&mut buffer).expect("sound memory") {
            let length = next as usize % 225;
            assert_eq!(slot, Slot { stream: next, arrival: -i64::from(next), length });
            assert!(buffer[..length].iter().all(|&byte| byte == next as u8));
            next += 1;
        }
    }
    drop(producer.join().expect("no panic"));
    assert!(!reader.woken());
}

#[test]
fn what_is_not_a_sealed_ring_is_refused() {
    let unsealed = std::fs::File::open("/dev/null").expect("a device");
    assert!(Memory::map(unsealed.into()).is_err());
    for (word, value) in [(0, 1u64), (1, 2), (2, 1 << 20), (2, 60), (2, 0), (3, 0), (3, 1 << 30), (3, 5), (3, u64::MAX)]
    {
        let memory = std::fs::File::from(Memory::create(4, 64).expect("memory"));
        memory.write_all_at(&value.to_ne_bytes(), 8 * word).expect("room");
        assert!(Memory::map(memory.into()).is_err(), "word {word} is {value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_is_a_bounded_queue(slots in 1..6u64, steps in prop::collection::vec((any::<bool>(), 0..40usize), 0..80)) {
        let (mut writer, mut reader, _) = pair(slots, 64);
        let (mut model, mut dropped) = (VecDeque::new(), 0);
        let mut buffer = [0; 32];
        for (number, (puts, length)) in steps.into_iter().enumerate() {
            if puts {
                let fits = length <= 32 && model.len() < slots as usize;
                prop_assert_eq!(writer.put(number as u32, number as i64, &vec![number as u8; length]), fits);
                if fits { model.push_back((number, length)) } else { dropped += 1 }
            } else {
                let slot = reader.take(&mut buffer).expect("sound memory");
                let expected = model.pop_front();
                prop_assert_eq!(slot.map(|slot| (slot.stream as usize, slot.length)), expected);
            }
        }
        prop_assert_eq!(writer.dropped, dropped);
    }

    #[test]
    fn spoilt_memory_costs_packets_and_nothing_else(
        spoils in prop::collection::vec((0..4352u64, prop::collection::vec(any::<u8>(), 1..9)), 1..20),
        words in prop::collection::vec((prop::sample::select(vec![2u64, 3, 8, 9, 16, 17]), any::<u64>()), 0..8),
    ) {
        let (mut writer, mut reader, memory) = pair(4, 64);
        let memory = std::fs::File::from(memory);
        let mut buffer = [0; 32];
        let words = words.into_iter().map(|(word, value)| (8 * word, value.to_ne_bytes().to_vec()));
        for (place, bytes) in spoils.into_iter().chain(words) {
            let room = bytes.len().min((4352 - place) as usize);
            memory.write_all_at(&bytes[..room], place).expect("room");
            writer.put(1, 1, b"packet");
            writer.flush();
            let _ = reader.sleep();
            while let Ok(Some(slot)) = reader.take(&mut buffer) {
                prop_assert!(slot.length <= 32);
            }
        }
    }
}
