//! Packets that wait to be written to the viewers of their layers: viewer by viewer, not packet by packet.
//!
//! What came in one batch lies next to each other for each viewer then, so that it leaves in one message, and a viewer's
//! keys and tables are looked at once. Each session gets its packets in the order in which they came, as if each had
//! been written at once: whoever changes what a packet is written with (`splice`, `stop_playing`, addresses, commands,
//! timers) calls `flush` first, whoever writes something else to one session `flush_session`.

use super::egress::{Outgoing, Writer};
use super::sessions::Session;
use super::state::State;
use super::tracks::LayerKey;
use crate::descriptors::Descriptor;

/// Bytes written before they are to be sent: they stay in the cache.
const CHUNK: usize = 256 << 10;
const NONE: u32 = u32::MAX;

struct Pending {
    outgoing: Outgoing,
    next: u32, // the next one of its layer
}

/// A layer with packets: the first and the last of them.
struct Queued {
    key: LayerKey,
    first: u32,
    last: u32,
}

/// A slot that is to get the packets of a layer, and the next one of its session.
#[derive(Clone, Copy)]
struct Share {
    slot: usize,
    layer: u32,
    next: u32,
}

/// Where a slot stands while its session is written: the next packet, and its place among those who show the layer.
#[derive(Clone, Copy)]
struct Cursor {
    packet: u32,
    place: usize,
    slot: usize,
}

/// Buffers, reused.
#[derive(Default)]
pub struct Fanout {
    pending: Vec<Pending>,
    base: u64, // number of the first of them since the beginning
    layers: Vec<Queued>,
    bytes: usize,
    shares: Vec<Share>,
    sessions: Vec<u32>,      // each one's first share, while they are written one after the other
    latest: Vec<(u32, u32)>, // by session: the turn in which it was written, its latest share
    turn: u32,
    done: usize, // of `sessions`
    cursors: Vec<Cursor>,
}

impl Fanout {
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes that it will write, more or less.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many of the packets that wait have been written to a session.
    fn written(&self, session: &Session) -> u32 {
        session.written.saturating_sub(self.base) as u32
    }

    fn end(&self) -> u64 {
        self.base + self.pending.len() as u64
    }
}

/// Have a packet written to every slot that shows its layer now.
pub fn queue(core: &mut State, key: LayerKey, id: u32, descriptor: &Descriptor, now: i64) {
    if !core.fanout.sessions.is_empty() {
        flush(core);
    }
    let State { tracks, fanout, packets, .. } = core;
    let layer = &mut tracks[key.track].layers[key.index];
    let index = fanout.pending.len() as u32;
    match fanout.layers.get_mut(layer.queued as usize).filter(|queued| queued.key == key) {
        Some(queued) => {
            fanout.pending[queued.last as usize].next = index;
            queued.last = index;
        }
        None => {
            layer.queued = fanout.layers.len() as u32;
            fanout.layers.push(Queued { key, first: index, last: index });
        }
    }
    packets.counts.retain(id);
    fanout.bytes += packets.store.length(id) * layer.players.len();
    fanout.pending.push(Pending { outgoing: Outgoing::new(id, descriptor, layer.patched, now), next: NONE });
}

/// Write all that waits.
pub fn flush(core: &mut State) {
    while write_some(core, usize::MAX) {}
}

/// Write a part of what waits, for whole sessions. Returns whether more does.
pub fn write_chunk(core: &mut State) -> bool {
    write_some(core, CHUNK)
}

fn write_some(core: &mut State, limit: usize) -> bool {
    if core.fanout.is_empty() {
        return false;
    }
    if core.fanout.sessions.is_empty() {
        share_out(core);
    }
    while let Some(&first) = core.fanout.sessions.get(core.fanout.done) {
        if core.out.bytes() >= limit {
            return true;
        }
        core.fanout.done += 1;
        let State { fanout, slots, sessions, .. } = core;
        let session = slots[fanout.shares[first as usize].slot].session;
        // A packet alone goes to a session's slots one by one: what was written before was left out of the shares.
        let alone = fanout.pending.len() == 1;
        let written = if alone { 0 } else { fanout.written(&sessions[session]) };
        fanout.cursors.clear();
        let mut next = first;
        while next != NONE {
            let share = fanout.shares[next as usize];
            let packet = fanout.layers[share.layer as usize].first;
            fanout.cursors.push(Cursor { packet, place: fanout.cursors.len(), slot: share.slot });
            next = share.next;
        }
        write_session(core, session, written);
    }
    let State { fanout, packets, .. } = core;
    for pending in &fanout.pending {
        packets.counts.release(pending.outgoing.packet);
    }
    fanout.base = fanout.end();
    fanout.pending.clear();
    fanout.layers.clear();
    fanout.shares.clear();
    fanout.sessions.clear();
    (fanout.bytes, fanout.done) = (0, 0);
    false
}

/// Note who gets what, session by session. Those who show one layer keep their order within a session; those who get a
/// packet that is alone keep it altogether.
fn share_out(core: &mut State) {
    let State { tracks, slots, sessions, fanout, .. } = core;
    let alone = fanout.pending.len() == 1;
    fanout.turn = fanout.turn.wrapping_add(1);
    if fanout.turn == 0 {
        fanout.latest.clear();
        fanout.turn = 1;
    }
    fanout.latest.resize(fanout.latest.len().max(sessions.keys()), (0, 0));
    for (index, queued) in fanout.layers.iter().enumerate() {
        for &slot in tracks[queued.key.track].layers[queued.key.index].players.values() {
            let share = fanout.shares.len() as u32;
            let session = slots[slot].session;
            if sessions[session].written >= fanout.base + fanout.pending.len() as u64 {
                continue;
            }
            let (turn, latest) = &mut fanout.latest[session];
            if *turn == fanout.turn && !alone {
                fanout.shares[*latest as usize].next = share;
            } else {
                *turn = fanout.turn;
                fanout.sessions.push(share);
            }
            *latest = share;
            fanout.shares.push(Share { slot, layer: index as u32, next: NONE });
        }
    }
}

/// Write what waits for one session, before something else is written to it.
pub fn flush_session(core: &mut State, session: usize) {
    if !core.fanout.sessions.is_empty() {
        return flush(core);
    }
    let State { fanout, slots, sessions, tracks, .. } = core;
    if fanout.is_empty() || sessions[session].written >= fanout.end() {
        return;
    }
    fanout.cursors.clear();
    for &slot in sessions[session].slots.values() {
        let Some(key) = slots[slot].playing else { continue };
        let layer = &tracks[key.track].layers[key.index];
        if let Some(queued) = fanout.layers.get(layer.queued as usize).filter(|queued| queued.key == key) {
            let place = layer.players.get_index_of(&slots[slot].handle).unwrap_or(0);
            fanout.cursors.push(Cursor { packet: queued.first, place, slot });
        }
    }
    let written = fanout.written(&sessions[session]);
    write_session(core, session, written);
}

/// Merge what `cursors` stand at, from packet `written` on, in the order in which it came.
fn write_session(core: &mut State, session: usize, written: u32) {
    let State { fanout, slots, sessions, packets, out, drops, config, .. } = core;
    let pad_video = config.pad_video;
    let Fanout { pending, cursors, .. } = fanout;
    sessions[session].written = fanout.base + pending.len() as u64;
    let mut writer = Writer { slots, sessions, packets, out, drops, pad_video };
    if let [cursor] = cursors[..] {
        let mut at = cursor.packet;
        while let Some(one) = pending.get_mut(at as usize) {
            if at >= written {
                writer.write(cursor.slot, &mut one.outgoing);
            }
            at = one.next;
        }
        return;
    }
    while let Some(cursor) = cursors.iter_mut().min_by_key(|cursor| (cursor.packet, cursor.place)) {
        let Some(one) = pending.get_mut(cursor.packet as usize) else { return };
        if cursor.packet >= written {
            writer.write(cursor.slot, &mut one.outgoing);
        }
        cursor.packet = one.next;
    }
}
