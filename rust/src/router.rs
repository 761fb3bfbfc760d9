//! Which shard each session, track, slot and tap lives on, and what a command means for each shard.
//!
//! A session stays on the shard it was opened on, with its tracks and slots. A slot that is bound to a track of another
//! shard is given a mirror of it (`core::mirrors`). Without I/O: commands in, steps for the shards out. What is wrong
//! with a command is for a shard to say, so a step that was refused is undone here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::core::contract::{Command, INJECT_EXTENSIONS, Kind, Media, NewSlot};
use crate::error::UsageError;
use crate::lanes::each;

mod journal;

use journal::{Session, Slot, Tap, Track, Undo};

/// A command for one shard. Steps are carried out in order; `index` is that of the command they come from.
pub struct Step {
    pub shard: usize,
    pub index: usize,
    pub command: Command,
}

/// The tables, and what has to be undone when a command is refused.
pub struct Router {
    shards: usize,
    sessions: HashMap<u32, Session>,
    tracks: HashMap<u32, Track>,
    slots: HashMap<u32, Slot>,
    taps: HashMap<u32, Tap>,
    journal: Vec<(usize, Undo)>,
    index: usize,
    steps: Vec<Step>,
}

impl Router {
    pub fn new(shards: usize) -> Self {
        Self {
            shards: shards.max(1),
            sessions: HashMap::new(),
            tracks: HashMap::new(),
            slots: HashMap::new(),
            taps: HashMap::new(),
            journal: Vec::new(),
            index: 0,
            steps: Vec::new(),
        }
    }

    /// The steps of a list of commands. With an error, the steps are those of the commands before the wrong one.
    pub fn plan(&mut self, commands: Vec<Command>) -> (Vec<Step>, Result<(), (usize, UsageError)>) {
        self.journal.clear();
        let mut done = Ok(());
        for (index, command) in commands.into_iter().enumerate() {
            self.index = index;
            if let Err(error) = self.route(command) {
                done = Err((index, error));
                break;
            }
        }
        (std::mem::take(&mut self.steps), done)
    }

    /// Where a track that takes injected packets lives, and how many layers it has.
    pub fn injected(&self, track: u32) -> Option<(usize, usize)> {
        let track = self.tracks.get(&track).filter(|track| track.session.is_none())?;
        Some((track.shard, track.media.layers.len()))
    }

    /// Sessions on each shard.
    pub fn sessions(&self) -> Vec<usize> {
        let mut counts = vec![0; self.shards];
        for session in self.sessions.values() {
            counts[session.shard] += 1;
        }
        counts
    }

    fn route(&mut self, command: Command) -> Result<(), UsageError> {
        match command {
            Command::OpenSession { session, ufrag, password, extensions, shard } => {
                let place = shard as usize;
                if place >= self.shards {
                    return Err(UsageError::new(format!("no shard {shard}")));
                }
                let known = self.sessions.get(&session).map(|session| session.shard);
                self.step(
                    known.unwrap_or(place),
                    Command::OpenSession { session, ufrag, password, extensions, shard: 0 },
                );
                if known.is_none() {
                    let opened = Session { shard: place, extensions, tracks: Vec::new(), slots: Vec::new() };
                    self.set_session(session, Some(opened));
                }
            }
            Command::CloseSession { session } => self.close_session(session),
            Command::AddTrack { track, session, kind, media } => self.add_track(track, session, kind, media),
            Command::RemoveTrack { track } => {
                self.step(self.of_track(track), Command::RemoveTrack { track });
                self.forget_track(track);
            }
            Command::MoveTrack { track, session, media } => self.move_track(track, session, media),
            Command::MuteTrack { track, muted } => self.mute_track(track, muted),
            Command::AddSlot(new) => self.add_slot(new),
            Command::BindSlot { slot, track, layer, payload_type } => {
                self.bind_slot(slot, track, Command::BindSlot { slot, track, layer, payload_type });
            }
            Command::RemoveSlot { slot } => {
                self.step(self.of_slot(slot), Command::RemoveSlot { slot });
                self.forget_slot(slot);
            }
            Command::RemoveTap { tap } => {
                let known = self.taps.get(&tap).copied();
                self.step(known.map_or(0, |tap| tap.shard), Command::RemoveTap { tap });
                if let Some(Tap { track, shard, .. }) = known {
                    self.set_tap(tap, None);
                    self.change_track(track, |track| track.taps.retain(|other| *other != tap));
                    self.detach(track, shard);
                }
            }
            Command::AddTap { tap, track, ring, .. } => {
                let known = self.taps.get(&tap).map(|tap| tap.shard);
                let wanted = ring.map_or_else(|| self.of_track(track), |ring| shard_of_ring(ring, self.shards));
                let shard = known.unwrap_or(wanted);
                if known.is_none() {
                    self.attach(track, shard); // its ring is another shard's: a mirror of the track is tapped there
                }
                self.step(shard, command);
                if known.is_none() && self.tracks.contains_key(&track) {
                    self.set_tap(tap, Some(Tap { track, shard, ring }));
                    self.change_track(track, |track| track.taps.push(tap));
                }
            }
            Command::RemoveRingTaps { ring } => {
                self.step(shard_of_ring(ring, self.shards), Command::RemoveRingTaps { ring });
                let of_ring = |(&tap, route): (&u32, &Tap)| (route.ring == Some(ring)).then_some((tap, *route));
                for (tap, Tap { track, shard, .. }) in self.taps.iter().filter_map(of_ring).collect::<Vec<_>>() {
                    self.set_tap(tap, None);
                    self.change_track(track, |track| track.taps.retain(|other| *other != tap));
                    self.detach(track, shard);
                }
            }
            command => {
                let shard = self.place_of(&command);
                self.step(shard, command);
            }
        }
        Ok(())
    }

    /// Where a command goes that changes no table.
    fn place_of(&self, command: &Command) -> usize {
        match command {
            Command::RestartIce { session, .. }
            | Command::SetKeys { session, .. }
            | Command::SendDtls { session, .. }
            | Command::ProbeBandwidth { session, .. } => self.of_session(*session),
            Command::RequestKeyframe { track, .. } => self.of_track(*track),
            Command::SetLayer { slot, .. } | Command::PauseSlot { slot, .. } => self.of_slot(*slot),
            _ => 0,
        }
    }

    // --- what does not exist is refused by the first shard

    /// Where a session lives.
    pub fn of_session(&self, session: u32) -> usize {
        self.sessions.get(&session).map_or(0, |session| session.shard)
    }

    fn of_track(&self, track: u32) -> usize {
        self.tracks.get(&track).map_or(0, |track| track.shard)
    }

    fn of_slot(&self, slot: u32) -> usize {
        self.slots.get(&slot).map_or(0, |slot| slot.shard)
    }

    // --- sessions

    fn close_session(&mut self, session: u32) {
        self.step(self.of_session(session), Command::CloseSession { session });
        let Some(closed) = self.sessions.get(&session).cloned() else { return };
        for slot in closed.slots {
            self.forget_slot(slot);
        }
        for track in closed.tracks {
            self.forget_track(track);
        }
        self.set_session(session, None);
    }

    // --- tracks

    fn add_track(&mut self, track: u32, session: Option<u32>, kind: Kind, media: Media) {
        let known = self.tracks.contains_key(&track);
        let shard = match session {
            _ if known => self.of_track(track),
            Some(session) => self.of_session(session),
            None => 0, // where the rings are by which workers inject
        };
        let kept = Arc::new(media.clone());
        self.step(shard, Command::AddTrack { track, session, kind, media });
        if known || session.is_some_and(|session| !self.sessions.contains_key(&session)) {
            return;
        }
        let users = BTreeMap::new();
        let taps = Vec::new();
        let added = Track { shard, session, kind, media: kept, muted: false, generation: 0, users, mirrors: 0, taps };
        self.set_track(track, Some(added));
        if let Some(session) = session {
            self.change_session(session, |session| session.tracks.push(track));
        }
    }

    fn move_track(&mut self, handle: u32, session: u32, media: Media) {
        let (Some(track), Some(owner)) = (self.tracks.get(&handle), self.sessions.get(&session)) else {
            self.step(self.of_track(handle), Command::MoveTrack { track: handle, session, media });
            return;
        };
        let (from, to, kind, muted, before) = (track.shard, owner.shard, track.kind, track.muted, track.session);
        let mirrored = track.mirrors & 1 << to != 0;
        let moved = Track {
            shard: to,
            session: Some(session),
            media: Arc::new(media.clone()),
            generation: track.generation.wrapping_add(1),
            mirrors: track.mirrors & !(1 << to) | if from == to { 0 } else { 1 << from },
            ..track.clone()
        };
        if from == to {
            self.step(to, Command::MoveTrack { track: handle, session, media });
        } else {
            // What may be left of a mirror does not take part: it has to begin anew in any case.
            if mirrored && !moved.users.contains_key(&to) {
                self.step(to, Command::DropMirror { track: handle, at_once: true });
            }
            if moved.users.contains_key(&to) {
                self.step(to, Command::MoveTrack { track: handle, session, media });
            } else {
                self.step(to, Command::AddTrack { track: handle, session: Some(session), kind, media });
                if muted {
                    self.step(to, Command::MuteTrack { track: handle, muted });
                }
            }
            self.step(from, Command::HandOverTrack { track: handle, shard: to as u32 });
            if !moved.users.contains_key(&from) {
                self.step(from, Command::RemoveTrack { track: handle });
            }
        }
        let (users, mirrors) = (moved.users.clone(), moved.mirrors);
        self.set_track(handle, Some(moved));
        if let Some(before) = before {
            self.change_session(before, |session| session.tracks.retain(|track| *track != handle));
        }
        self.change_session(session, |session| session.tracks.push(handle));
        each(mirrors, |shard| {
            if users.contains_key(&shard) {
                self.mirror(handle, shard);
            } else if shard != from {
                self.step(shard, Command::DropMirror { track: handle, at_once: true });
            }
        });
    }

    fn mute_track(&mut self, handle: u32, muted: bool) {
        self.step(self.of_track(handle), Command::MuteTrack { track: handle, muted });
        let Some(track) = self.tracks.get(&handle) else { return };
        let (mirrors, users) = (track.mirrors, track.users.clone());
        each(mirrors, |shard| {
            if users.contains_key(&shard) {
                self.step(shard, Command::MuteTrack { track: handle, muted });
            } else if muted {
                self.step(shard, Command::DropMirror { track: handle, at_once: true });
            }
        });
        self.change_track(handle, |track| track.muted = muted);
    }

    /// A track is gone from where it lives: its mirrors go too, and its slots and taps are bound to nothing.
    fn forget_track(&mut self, handle: u32) {
        let Some(track) = self.tracks.get(&handle) else { return };
        let (mirrors, taps, session) = (track.mirrors, track.taps.clone(), track.session);
        each(mirrors, |shard| self.step(shard, Command::DropMirror { track: handle, at_once: true }));
        for tap in taps {
            self.set_tap(tap, None);
        }
        self.set_track(handle, None);
        if let Some(session) = session {
            self.change_session(session, |session| session.tracks.retain(|track| *track != handle));
        }
    }

    // --- slots

    fn add_slot(&mut self, new: NewSlot) {
        let (handle, session) = (new.slot, new.session);
        let known = self.slots.get(&handle).map(|slot| slot.shard);
        let shard = known.unwrap_or_else(|| self.of_session(session));
        self.step(shard, Command::AddSlot(new));
        if known.is_none() && self.sessions.contains_key(&session) {
            self.set_slot(handle, Some(Slot { session, shard, track: None }));
            self.change_session(session, |session| session.slots.push(handle));
        }
    }

    fn bind_slot(&mut self, handle: u32, track: Option<u32>, command: Command) {
        let Some(&slot) = self.slots.get(&handle) else { return self.step(0, command) };
        let wrong = track.is_some_and(|track| !self.tracks.contains_key(&track));
        if wrong || track == slot.track {
            return self.step(slot.shard, command);
        }
        if let Some(track) = track {
            self.attach(track, slot.shard);
        }
        self.step(slot.shard, command);
        self.set_slot(handle, Some(Slot { track, ..slot }));
        if let Some(before) = slot.track {
            self.detach(before, slot.shard);
        }
    }

    fn forget_slot(&mut self, handle: u32) {
        let Some(&slot) = self.slots.get(&handle) else { return };
        self.set_slot(handle, None);
        self.change_session(slot.session, |session| session.slots.retain(|slot| *slot != handle));
        if let Some(track) = slot.track {
            self.detach(track, slot.shard);
        }
    }

    // --- mirrors

    /// One more slot or tap of a shard uses a track.
    fn attach(&mut self, handle: u32, shard: usize) {
        self.change_track(handle, |track| *track.users.entry(shard).or_insert(0) += 1);
        let Some(track) = self.tracks.get(&handle) else { return };
        if track.shard != shard && track.users.get(&shard) == Some(&1) {
            self.change_track(handle, |track| track.mirrors |= 1 << shard);
            self.mirror(handle, shard);
        }
    }

    /// One less does. What it shows of a track it may show on until the next one begins: the mirror knows.
    fn detach(&mut self, handle: u32, shard: usize) {
        let mut last = false;
        self.change_track(handle, |track| {
            if let Some(users) = track.users.get_mut(&shard) {
                *users -= 1;
                last = *users == 0;
            }
            track.users.retain(|_, users| *users > 0);
        });
        if last && self.of_track(handle) != shard {
            self.step(shard, Command::DropMirror { track: handle, at_once: false });
        }
    }

    fn mirror(&mut self, handle: u32, shard: usize) {
        let Some(track) = self.tracks.get(&handle) else { return };
        let extensions = track.session.and_then(|session| self.sessions.get(&session));
        let mirror = Command::MirrorTrack {
            track: handle,
            kind: track.kind,
            media: (*track.media).clone(),
            origin: track.shard as u8,
            generation: track.generation,
            extensions: extensions.map_or(INJECT_EXTENSIONS, |session| session.extensions),
        };
        let share = Command::ShareTrack { track: handle, shard: shard as u32, generation: track.generation };
        let (origin, muted) = (track.shard, track.muted);
        self.step(shard, mirror);
        self.step(shard, Command::MuteTrack { track: handle, muted });
        self.step(origin, share);
    }
}

/// Where a ring's taps are: a ring has one writer.
pub fn shard_of_ring(ring: u32, shards: usize) -> usize {
    ring as usize % shards.max(1)
}

#[cfg(test)]
mod tests;
