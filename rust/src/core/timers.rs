//! Deadlines by key, fired in an order that does not depend on when they were set: the twin of
//! `relay/plane/reference/timers.py`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// What is due. The order is the order within one microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    TransportFeedback,
    Nack,
    Keyframe,
    Silence,
    ReceiverReport,
    SenderReport,
    Probe,
    Estimate,
    Loudness,
}

/// (Timer, handle, index): the handle of a session, track or slot; a layer's index where there is one, else 0.
pub type Key = (Timer, u32, u32);

/// At most one deadline per key. Times in microseconds.
#[derive(Debug, Default)]
pub struct Timers {
    due: HashMap<Key, i64>,
    heap: BinaryHeap<Reverse<(i64, Key)>>,
}

impl Timers {
    pub fn len(&self) -> usize {
        self.due.len()
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Set or move a deadline.
    pub fn set(&mut self, key: Key, when: i64) {
        if self.due.insert(key, when) == Some(when) {
            return;
        }
        // moved deadlines leave stale entries behind
        if self.heap.len() > 64 + 4 * self.due.len() {
            self.heap.clear();
            self.heap.extend(self.due.iter().map(|(&key, &at)| Reverse((at, key))));
        } else {
            self.heap.push(Reverse((when, key)));
        }
        self.prune();
    }

    /// Set a deadline unless the key has one.
    pub fn set_if_none(&mut self, key: Key, when: i64) {
        if !self.due.contains_key(&key) {
            self.set(key, when);
        }
    }

    /// Forget a deadline; nothing happens when there is none.
    pub fn cancel(&mut self, key: Key) {
        self.due.remove(&key);
        self.prune();
    }

    /// When the first deadline is.
    pub fn first(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }

    /// Take the first deadline that is at or before `now`.
    pub fn pop(&mut self, now: i64) -> Option<Key> {
        if self.first()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.due.remove(&key);
        self.prune();
        Some(key)
    }

    /// Let the top of the heap be a deadline that still holds.
    fn prune(&mut self) {
        while let Some(Reverse((when, key))) = self.heap.peek()
            && self.due.get(key) != Some(when)
        {
            self.heap.pop();
        }
    }
}
