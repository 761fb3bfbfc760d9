//! Which datagrams leave together: those to one destination, in order, as runs of equal size.

use std::net::{IpAddr, SocketAddr};

use crate::out::Waiting;

/// Segments that every kernel with UDP_SEGMENT takes in one message.
pub const MAX_SEGMENTS: usize = 64;
/// Bytes of a message: what one IP packet can say of its length, less the headers.
const MAX_MESSAGE: usize = 65_000;
const NONE: u32 = u32::MAX;

/// `count` datagrams from `order[first]` on, to one destination; all of `size` bytes, the last perhaps shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: u32,
    pub count: u16,
    pub size: u16,
}

struct Group {
    address: SocketAddr,
    first: u32,
    last: u32,
}

/// Buffers of a plan, reused.
#[derive(Default)]
pub struct Plan {
    /// Indices of datagrams, destination by destination.
    pub order: Vec<u32>,
    pub runs: Vec<Run>,
    groups: Vec<Group>,
    next: Vec<u32>,         // by datagram: the next one of its group
    table: Vec<(u32, u32)>, // hash → turn in which it was written, group
    turn: u32,
}

impl Plan {
    /// Destinations keep the order in which they first appear, and each its datagrams. Runs have at most `segments`.
    pub fn make(&mut self, waiting: Waiting<'_>, segments: usize) {
        self.group(waiting.ends);
        self.order.clear();
        self.runs.clear();
        for group in &self.groups {
            let (mut index, mut open) = (group.first, false);
            let mut total = 0;
            while index != NONE {
                let length = waiting.length(index as usize);
                let place = self.order.len() as u32;
                self.order.push(index);
                index = self.next[index as usize];
                if open && let Some(run) = self.runs.last_mut() {
                    let size = usize::from(run.size);
                    let fits = usize::from(run.count) < segments && total + length <= MAX_MESSAGE;
                    if length <= size && length > 0 && fits {
                        run.count += 1;
                        total += length;
                        open = length == size;
                        continue;
                    }
                }
                self.runs.push(Run { first: place, count: 1, size: length.min(65_535) as u16 });
                total = length;
                open = length > 0;
            }
        }
    }

    /// A message that was refused as one: send its datagrams one by one.
    pub fn split(&mut self, run: usize) {
        let Run { first, count, size } = self.runs[run];
        self.runs.splice(run..=run, (first..first + u32::from(count)).map(|first| Run { first, count: 1, size }));
    }

    fn group(&mut self, ends: &[(usize, SocketAddr)]) {
        self.groups.clear();
        self.next.clear();
        self.next.resize(ends.len(), NONE);
        self.begin(ends.len());
        let mut latest = None;
        for (index, (_, address)) in ends.iter().enumerate() {
            let group = match latest {
                Some(group) if self.groups[group as usize].address == *address => group,
                _ => self.find(address, index as u32),
            };
            latest = Some(group);
            let group = &mut self.groups[group as usize];
            if group.last != index as u32 {
                self.next[group.last as usize] = index as u32;
                group.last = index as u32;
            }
        }
    }

    fn begin(&mut self, datagrams: usize) {
        let size = (2 * datagrams).next_power_of_two().max(16);
        self.turn = self.turn.wrapping_add(1);
        if self.table.len() < size || self.turn == 0 {
            self.table.clear();
            self.table.resize(size.max(self.table.len()), (0, 0));
            self.turn = 1;
        }
    }

    /// The group of an address; a new one begins with datagram `index`.
    fn find(&mut self, address: &SocketAddr, index: u32) -> u32 {
        let mask = self.table.len() - 1;
        let mut place = hash(address) & mask;
        loop {
            let (turn, group) = self.table[place];
            if turn != self.turn {
                let group = self.groups.len() as u32;
                self.groups.push(Group { address: *address, first: index, last: index });
                self.table[place] = (self.turn, group);
                return group;
            }
            if self.groups[group as usize].address == *address {
                return group;
            }
            place = (place + 1) & mask;
        }
    }
}

/// Addresses are ours to send to only once they were proved, so nobody picks them to collide.
fn hash(address: &SocketAddr) -> usize {
    let ip = match address.ip() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            (bits >> 64) as u64 ^ (bits as u64).rotate_left(32)
        }
    };
    let mixed = (ip << 16 ^ ip >> 48 ^ u64::from(address.port())).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::OutBatch;
    use proptest::prelude::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn planned(datagrams: &[(u16, usize)], segments: usize) -> Vec<(u16, Vec<usize>)> {
        let mut out = OutBatch::default();
        for &(port, length) in datagrams {
            out.push(&vec![0; length], address(port));
        }
        let mut plan = Plan::default();
        for _ in 0..2 {
            plan.make(out.waiting(), segments);
        }
        let waiting = out.waiting();
        let run = |run: &Run| {
            let indices = &plan.order[run.first as usize..][..usize::from(run.count)];
            let port = waiting.ends[indices[0] as usize].1.port();
            (port, indices.iter().map(|&index| waiting.length(index as usize)).collect())
        };
        plan.runs.iter().map(run).collect()
    }

    #[test]
    fn equal_sizes_to_one_destination_leave_together() {
        let runs = planned(&[(1, 9), (2, 9), (1, 9), (2, 9), (1, 5), (1, 9), (2, 11), (2, 0), (2, 3)], 64);
        let expected = [(1, vec![9, 9, 5]), (1, vec![9]), (2, vec![9, 9]), (2, vec![11]), (2, vec![0]), (2, vec![3])];
        assert_eq!(runs, expected);
    }

    #[test]
    fn messages_stay_within_what_the_kernel_takes() {
        let counts = |runs: Vec<(u16, Vec<usize>)>| runs.iter().map(|run| run.1.len()).collect::<Vec<_>>();
        assert_eq!(counts(planned(&[(1, 100); 10], 4)), [4, 4, 2]);
        assert_eq!(counts(planned(&[(1, 100); 3], 1)), [1, 1, 1]);
        assert_eq!(counts(planned(&[(1, 1400); 50], 64)), [46, 4]);
    }

    #[test]
    fn a_refused_message_is_split() {
        let mut out = OutBatch::default();
        for _ in 0..3 {
            out.push(b"abc", address(1));
        }
        let mut plan = Plan::default();
        plan.make(out.waiting(), 64);
        plan.split(0);
        assert_eq!(plan.runs, [0, 1, 2].map(|first| Run { first, count: 1, size: 3 }));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_each_destination_keeps_its_order(
            datagrams in prop::collection::vec((1u16..6, 0usize..4), 0..200), segments in 1usize..9,
        ) {
            let mut out = OutBatch::default();
            for &(port, length) in &datagrams {
                out.push(&vec![0; length], address(port));
            }
            let mut plan = Plan::default();
            plan.make(out.waiting(), segments);
            let mut seen = vec![false; datagrams.len()];
            let mut latest = [None; 6];
            for &index in &plan.order {
                prop_assert!(!std::mem::replace(&mut seen[index as usize], true));
                let last = &mut latest[usize::from(datagrams[index as usize].0)];
                prop_assert!(last.is_none_or(|last| last < index));
                *last = Some(index);
            }
            prop_assert!(seen.iter().all(|&seen| seen));
            let mut expected = 0;
            for run in &plan.runs {
                prop_assert_eq!(run.first, expected);
                prop_assert!(usize::from(run.count) <= segments && run.count > 0);
                let lengths: Vec<_> = plan.order[expected as usize..][..usize::from(run.count)]
                    .iter().map(|&index| datagrams[index as usize].1).collect();
                prop_assert!(lengths[..lengths.len() - 1].iter().all(|&length| length == usize::from(run.size)));
                prop_assert!(lengths[lengths.len() - 1] <= usize::from(run.size));
                expected += u32::from(run.count);
            }
            prop_assert_eq!(expected as usize, datagrams.len());
        }
    }
}
