//! The router's tables, whose every change can be taken back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Router, Step};
use crate::core::contract::{Command, ExtensionIds, Kind, Media};

#[derive(Clone)]
pub struct Session {
    pub shard: usize,
    pub extensions: ExtensionIds,
    pub tracks: Vec<u32>,
    pub slots: Vec<u32>,
}

/// `users` are the slots and taps on each shard; `mirrors` the other shards that have, or may have, a mirror.
#[derive(Clone)]
pub struct Track {
    pub shard: usize,
    pub session: Option<u32>,
    pub kind: Kind,
    pub media: Arc<Media>,
    pub muted: bool,
    pub generation: u32,
    pub users: BTreeMap<usize, u32>,
    pub mirrors: u64,
    pub taps: Vec<u32>,
}

#[derive(Clone, Copy)]
pub struct Slot {
    pub session: u32,
    pub shard: usize,
    pub track: Option<u32>,
}

#[derive(Clone, Copy)]
pub struct Tap {
    pub track: u32,
    pub shard: usize,
    pub ring: Option<u32>,
}

/// What an entry was before a command changed it.
pub enum Undo {
    Session(u32, Option<Session>),
    Track(u32, Option<Box<Track>>),
    Slot(u32, Option<Slot>),
    Tap(u32, Option<Tap>),
}

impl Router {
    /// A command was refused: forget it and those behind it. Returns the steps that clean up after it; what they name
    /// may be gone already.
    pub fn undo(&mut self, index: usize) -> Vec<Step> {
        let mut before: BTreeMap<u32, Option<Track>> = BTreeMap::new();
        while let Some((_, undo)) = self.journal.pop_if(|(of, _)| *of >= index) {
            match undo {
                Undo::Session(handle, old) => restore(&mut self.sessions, handle, old),
                Undo::Slot(handle, old) => restore(&mut self.slots, handle, old),
                Undo::Tap(handle, old) => restore(&mut self.taps, handle, old),
                Undo::Track(handle, old) => {
                    let new = self.tracks.get(&handle).cloned();
                    before.entry(handle).or_insert(new);
                    restore(&mut self.tracks, handle, old.map(|old| *old));
                }
            }
        }
        for (handle, tried) in before {
            let (Some(tried), Some(track)) = (tried, self.tracks.get_mut(&handle)) else { continue };
            for &shard in tried.users.keys().filter(|shard| !track.users.contains_key(shard)) {
                if shard != track.shard {
                    track.mirrors |= 1 << shard;
                    let command = Command::DropMirror { track: handle, at_once: false };
                    self.steps.push(Step { shard, index, command });
                }
            }
        }
        std::mem::take(&mut self.steps)
    }

    pub(super) fn step(&mut self, shard: usize, command: Command) {
        self.steps.push(Step { shard, index: self.index, command });
    }

    pub(super) fn set_session(&mut self, handle: u32, session: Option<Session>) {
        let old = replace(&mut self.sessions, handle, session);
        self.journal.push((self.index, Undo::Session(handle, old)));
    }

    pub(super) fn set_track(&mut self, handle: u32, track: Option<Track>) {
        let old = replace(&mut self.tracks, handle, track);
        self.journal.push((self.index, Undo::Track(handle, old.map(Box::new))));
    }

    pub(super) fn set_slot(&mut self, handle: u32, slot: Option<Slot>) {
        let old = replace(&mut self.slots, handle, slot);
        self.journal.push((self.index, Undo::Slot(handle, old)));
    }

    pub(super) fn set_tap(&mut self, handle: u32, tap: Option<Tap>) {
        let old = replace(&mut self.taps, handle, tap);
        self.journal.push((self.index, Undo::Tap(handle, old)));
    }

    pub(super) fn change_session(&mut self, handle: u32, change: impl FnOnce(&mut Session)) {
        if let Some(mut session) = self.sessions.get(&handle).cloned() {
            change(&mut session);
            self.set_session(handle, Some(session));
        }
    }

    pub(super) fn change_track(&mut self, handle: u32, change: impl FnOnce(&mut Track)) {
        if let Some(mut track) = self.tracks.get(&handle).cloned() {
            change(&mut track);
            self.set_track(handle, Some(track));
        }
    }
}

fn replace<T>(table: &mut HashMap<u32, T>, handle: u32, entry: Option<T>) -> Option<T> {
    match entry {
        Some(entry) => table.insert(handle, entry),
        None => table.remove(&handle),
    }
}

fn restore<T>(table: &mut HashMap<u32, T>, handle: u32, old: Option<T>) {
    replace(table, handle, old);
}
