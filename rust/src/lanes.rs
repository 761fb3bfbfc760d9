//! Bounded queues of notes between shards: one per shard, written by all the others.
//!
//! A note's bytes lie in a place that was made beforehand and that goes back to the lane when the note was read, so
//! nothing is allocated per packet. A full lane refuses, and counts what it refuses.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::rings::Ring;

/// Notes of one lane: 4 s of one 1,000 packets/s layer, or 80 ms of 50 of them.
pub const NOTES: usize = 4096;
/// More shards than this have no place in a set of shards.
pub const MAX_SHARDS: usize = 64;
/// Bytes of a note: one ingress packet.
const ROOM: usize = 1536;

/// What a note says of a layer of a track. Times are the sender's `now`, which is one clock for all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A packet that was accepted, whose bytes are the note's. `recovered`: late, or by retransmission.
    Packet {
        arrival: i64,
        recovered: bool,
    },
    /// Packets come, with this SSRC and format; what else a reader who begins in the middle has to know.
    Started {
        ssrc: u32,
        payload_type: u8,
        last_packet: i64,
        keyframe_timestamp: Option<u32>,
        parameters_seen: bool,
    },
    Stopped,
    /// The latest sender report of an SSRC, and the offset of its publisher's clock to ours.
    Reported {
        ssrc: u32,
        ntp: u64,
        rtp: u32,
        arrival: i64,
        offset: Option<i64>,
    },
    /// A keyframe is wanted, to where the track lives; or still waited for, which matters once one may be asked for again.
    Wanted {
        still: bool,
    },
    /// What was counted before a track moved, to where it lives now: packets, bytes, lost, recovered, NACKs, keyframes,
    /// keyframe requests, width, height, jitter.
    Counted([u64; 10]),
    /// How loud a track has been lately, to the first shard, which tells of all.
    Level(i64),
    /// Nobody shows the track here any more, to where it lives.
    Left,
}

/// `generation` tells apart what was received at one m-line and, after a move, at the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    pub from: u8,
    pub track: u32,
    pub layer: u32,
    pub generation: u32,
    pub what: What,
}

struct Place {
    note: Note,
    length: usize,
    bytes: [u8; ROOM],
}

/// What comes in for one shard.
pub struct Lane {
    ring: Ring<Box<Place>>,
    free: ArrayQueue<Box<Place>>,
}

impl Lane {
    pub fn new(size: usize) -> io::Result<Self> {
        let size = size.max(1);
        let free = ArrayQueue::new(size);
        let note = Note { from: 0, track: 0, layer: 0, generation: 0, what: What::Stopped };
        for _ in 0..size {
            let _ = free.push(Box::new(Place { note, length: 0, bytes: [0; ROOM] })); // there is a place for each
        }
        Ok(Self { ring: Ring::new(size)?, free })
    }

    /// Copy a note into the lane without waking its reader. Says no when it is full, or the note too long.
    pub fn put(&self, note: &Note, data: &[u8]) -> bool {
        if data.len() > ROOM {
            return false;
        }
        let Some(mut place) = self.free.pop() else { return false };
        place.note = *note;
        place.length = data.len();
        place.bytes[..data.len()].copy_from_slice(data);
        self.ring.put(place).is_ok()
    }

    /// Wake the reader, unless it was told already and has not looked since.
    pub fn tell(&self) {
        self.ring.tell();
    }

    /// See `Ring::begin`.
    pub fn begin(&self) {
        self.ring.begin();
    }

    /// Read the next note. Says no when there is none.
    pub fn take(&self, read: impl FnOnce(&Note, &[u8])) -> bool {
        let Some(place) = self.ring.take() else { return false };
        read(&place.note, &place.bytes[..place.length]);
        let _ = self.free.push(place); // it came from there
        true
    }
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// The lanes of all shards, and which of them is one's own.
#[derive(Clone)]
pub struct Lanes {
    lanes: Arc<[Lane]>,
    own: usize,
}

impl Lanes {
    /// For a shard that has no other beside it.
    pub fn alone() -> Self {
        Self { lanes: Arc::new([]), own: 0 }
    }

    /// For each of several shards. One alone needs none.
    pub fn among(shards: usize, notes: usize) -> io::Result<Vec<Self>> {
        if shards < 2 {
            return Ok(vec![Self::alone()]);
        }
        let lanes: Arc<[Lane]> = (0..shards).map(|_| Lane::new(notes)).collect::<io::Result<_>>()?;
        Ok((0..shards).map(|own| Self { lanes: lanes.clone(), own }).collect())
    }

    /// The place of the shard that holds these.
    pub fn index(&self) -> usize {
        self.own
    }

    /// What comes in here.
    pub fn own(&self) -> Option<&Lane> {
        self.lanes.get(self.own)
    }

    pub fn get(&self, shard: usize) -> Option<&Lane> {
        self.lanes.get(shard)
    }
}

/// The shards in a set.
pub fn each(mut shards: u64, mut act: impl FnMut(usize)) {
    while shards != 0 {
        act(shards.trailing_zeros() as usize);
        shards &= shards - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn note(track: u32) -> Note {
        Note { from: 1, track, layer: 2, generation: 3, what: What::Packet { arrival: 4, recovered: false } }
    }

    #[test]
    fn keeps_order_and_bytes_and_refuses_when_full() {
        let lane = Lane::new(2).expect("an eventfd");
        assert!(lane.put(&note(1), b"one") && lane.put(&note(2), b""));
        assert!(!lane.put(&note(3), b"no room"));
        assert!(lane.take(|read, data| assert_eq!((*read, data), (note(1), &b"one"[..]))));
        assert!(!lane.put(&note(3), &[0; ROOM + 1]));
        assert!(lane.put(&note(4), &[4; ROOM]));
        assert!(lane.take(|read, data| assert_eq!((*read, data.len()), (note(2), 0))));
        assert!(lane.take(|read, data| assert_eq!((*read, data), (note(4), &[4; ROOM][..]))));
        assert!(!lane.take(|_, _| panic!("nothing is there")));
    }

    #[test]
    fn several_writers_lose_nothing_but_what_they_are_told() {
        const EACH: u32 = 20_000;
        let lanes = Lanes::among(3, 64).expect("eventfds");
        let writers: Vec<_> = [1, 2]
            .map(|from| {
                let lanes = lanes[from].clone();
                thread::spawn(move || {
                    let lane = lanes.get(0).expect("the first one's");
                    let mut refused = 0;
                    for track in 0..EACH {
                        let sent = Note { from: from as u8, ..note(track) };
                        refused += u32::from(!lane.put(&sent, &track.to_be_bytes()));
                    }
                    refused
                })
            })
            .into();
        let lane = lanes[0].own().expect("its own");
        let (mut taken, mut last) = (0, [0, 0, 0]);
        let mut read = || {
            while lane.take(|read, data| {
                assert_eq!(data, read.track.to_be_bytes());
                let before = &mut last[usize::from(read.from)];
                assert!(*before <= read.track);
                *before = read.track;
            }) {
                taken += 1;
            }
        };
        while !writers.iter().all(thread::JoinHandle::is_finished) {
            read();
        }
        read();
        let refused: u32 = writers.into_iter().map(|writer| writer.join().expect("no panic")).sum();
        assert_eq!(taken + refused, 2 * EACH);
    }

    #[test]
    fn one_shard_has_no_lane_and_sets_are_walked() {
        assert!(Lanes::among(1, 8).expect("nothing to make")[0].own().is_none());
        let mut walked = Vec::new();
        each(0b1000_0101, |shard| walked.push(shard));
        assert_eq!(walked, [0, 2, 7]);
    }
}
