//! Bounded lock-free queues between threads, each with an eventfd that wakes the reader.
//!
//! The eventfd is written when something is put into a ring whose reader has not been told yet, so a busy ring costs no
//! system calls.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

/// Any number of writers, one reader.
pub struct Ring<T> {
    queue: ArrayQueue<T>,
    told: AtomicBool,
    wake: OwnedFd,
    overflowed: AtomicU64,
}

impl<T> Ring<T> {
    /// A ring of `size` places, at least one.
    pub fn new(size: usize) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (told, overflowed) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Self { queue: ArrayQueue::new(size.max(1)), told, wake, overflowed })
    }

    /// Put without waking. Gives the item back, and counts it, when the ring is full.
    pub fn put(&self, item: T) -> Result<(), T> {
        self.queue.push(item).inspect_err(|_| {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// Wake the reader, unless it was told already and has not looked since.
    pub fn tell(&self) {
        if !self.told.swap(true, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the reader wakes anyway.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Put and wake, unless `limit` items wait already: the places above are for others.
    pub fn push_below(&self, limit: usize, item: T) -> Result<(), T> {
        if self.queue.len() < limit {
            return self.push(item);
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        Err(item)
    }

    /// Put and wake.
    pub fn push(&self, item: T) -> Result<(), T> {
        let done = self.put(item);
        self.tell();
        done
    }

    /// Call when the eventfd is readable, before taking: what is put from now on tells again.
    pub fn begin(&self) {
        let mut count = [0; 8];
        // EAGAIN: nobody told since the last time.
        let _ = rustix::io::read(&self.wake, &mut count);
        self.told.store(false, Ordering::SeqCst);
    }

    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Items that did not fit.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Readable when the reader is told.
    pub fn descriptor(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

impl<T> AsFd for Ring<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::Arc;
    use std::thread;

    fn told<T>(ring: &Ring<T>, seconds: i64) -> bool {
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(ring, PollFlags::IN)], Some(&patience)).expect("a descriptor") == 1
    }

    #[test]
    fn tells_once_until_the_reader_looks() {
        let ring = Ring::new(4).expect("an eventfd");
        assert!(!told(&ring, 0));
        ring.push(1).expect("room");
        ring.push(2).expect("room");
        assert!(told(&ring, 0));
        ring.begin();
        assert!(!told(&ring, 0));
        assert_eq!((ring.take(), ring.take(), ring.take()), (Some(1), Some(2), None));
        ring.put(3).expect("room");
        assert!(!told(&ring, 0));
        ring.tell();
        assert!(told(&ring, 0));
    }

    #[test]
    fn a_full_ring_gives_back_and_counts() {
        let ring = Ring::new(2).expect("an eventfd");
        assert_eq!((ring.push(1), ring.push(2), ring.push(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(ring.overflowed(), 1);
        assert_eq!(ring.take(), Some(1));
        assert_eq!(ring.push(4), Ok(()));
        assert!(!ring.is_empty());
        assert_eq!(ring.take(), Some(2));
        assert_eq!((ring.push_below(1, 5), ring.push_below(2, 5), ring.overflowed()), (Err(5), Ok(()), 2));
    }

    #[test]
    fn nothing_is_lost_or_slept_over_between_threads() {
        const ITEMS: u64 = 200_000;
        let ring = Arc::new(Ring::new(64).expect("an eventfd"));
        let writer = thread::spawn({
            let ring = ring.clone();
            move || {
                for mut item in 0..ITEMS {
                    while let Err(back) = ring.push(item) {
                        item = back;
                        thread::yield_now();
                    }
                }
            }
        });
        let mut next = 0;
        while next < ITEMS {
            assert!(told(&ring, 10), "slept although {next} of {ITEMS} were put");
            ring.begin();
            while let Some(item) = ring.take() {
                assert_eq!(item, next);
                next += 1;
            }
        }
        writer.join().expect("no panic");
    }
}
