//! What goes to viewers: forwarding, repeats for NACKs, sender reports and bandwidth probes. The twin of
//! `relay/plane/reference/egress.py`.

use indexmap::IndexMap;

use super::contract::Kind;
use super::keyed::Keyed;
use super::packets::{Packets, SPARE};
use super::sessions::{Session, Slot};
use super::state::State;
use super::timers::Timer;
use super::tracks::LayerKey;
use crate::arithmetic::mul_div;
use crate::descriptors::Descriptor;
use crate::history::Sent;
use crate::out::OutBatch;
use crate::rewrite::Patch;
use crate::rtcp::{SenderInfo, build_sdes, build_sr, ntp_from_wall_us, wall_us_from_ntp};
use crate::serialise::{Block, Fields, Forwarding};

mod probes;

pub use probes::{probe_due, start_probe};

/// Between repeats to a viewer that has not yet reported.
const DEFAULT_RTT_US: i64 = 50_000;

/// Bytes to a multiple of which packets can be padded.
pub const MAX_PAD: usize = 64;
/// Bytes: longer packets are not padded, for some path may carry little more.
const PADDED_TO: usize = 1400;

/// A frame's packets are of nearly one size, most encoders' of two that are a byte apart; those of one size leave in one
/// message. The last one may be shorter than the others and stays as it is.
fn padding_step(pad_video: usize, kind: Kind, type_and_marker: u8) -> usize {
    if kind == Kind::Video && type_and_marker & 0x80 == 0 { pad_video } else { 1 }
}

/// Add RTP padding (RFC 3550 5.1) up to a multiple of `step`; returns the new length.
fn pad(packet: &mut [u8], length: usize, step: usize) -> usize {
    let end = length.next_multiple_of(step);
    if end == length || end > PADDED_TO {
        return length;
    }
    packet[0] |= 0x20;
    packet[length..end].fill(0);
    packet[end - 1] = (end - length) as u8;
    end
}

/// Absolute send time: 6.18 fixed point seconds, 24 bits.
pub fn send_time(now: i64) -> u32 {
    mul_div(now, 1 << 18, 1_000_000) as u32 & 0xFF_FFFF
}

/// A packet on its way to viewers, with what is the same for several of them.
pub struct Outgoing {
    pub packet: u32,
    descriptor: Descriptor,
    patched: bool,
    now: i64,
    send_time: u32,
    block: Block,
    renumbered: Option<Forwarding>, // what `block` was made with
}

impl Outgoing {
    /// `patched`: its layer has picture ids to keep continuous.
    pub fn new(packet: u32, descriptor: &Descriptor, patched: bool, now: i64) -> Self {
        let (descriptor, send_time) = (*descriptor, send_time(now));
        Self { packet, descriptor, patched, now, send_time, block: Block::default(), renumbered: None }
    }
}

/// What it takes to write packets to slots.
pub struct Writer<'a> {
    pub slots: &'a mut Keyed<Slot>,
    pub sessions: &'a mut Keyed<Session>,
    pub packets: &'a mut Packets,
    pub out: &'a mut OutBatch,
    pub drops: &'a mut IndexMap<&'static str, u64>,
    pub pad_video: usize,
}

impl Writer<'_> {
    /// Send a packet to one slot: the path that everything else stays out of.
    pub fn write(&mut self, slot: usize, outgoing: &mut Outgoing) {
        let Outgoing { packet: id, ref descriptor, now, send_time, .. } = *outgoing;
        let (packet, data) = (self.packets.store.packet(id), self.packets.store.data(id));
        let slot = &mut self.slots[slot];
        let session = &mut self.sessions[slot.session];
        let (Some(address), Some(srtp)) = (session.selected, &mut session.srtp) else {
            slot.rewriter.drop(packet.seq);
            return;
        };
        let Some((seq, timestamp)) = slot.rewriter.rewrite(packet.seq, packet.timestamp, now) else { return };
        let marker = if packet.marker { 0x80 } else { 0 };
        let type_and_marker = slot.out_type | marker | slot.marker;
        slot.marker = 0;
        let patch = if outgoing.patched { slot.pictures.patch(descriptor) } else { Patch::default() };
        let mut transport_seq = 0;
        if slot.measured {
            session.transport_seq = session.transport_seq.wrapping_add(1);
            transport_seq = session.transport_seq;
        }
        if outgoing.renumbered.as_ref() != Some(slot.serialiser.forwarding()) {
            slot.serialiser.forwarding().block(data, packet, &mut outgoing.block);
            outgoing.renumbered = Some(*slot.serialiser.forwarding());
        }
        let patch_offset = usize::from(descriptor.patch_offset);
        let fields =
            Fields { type_and_marker, seq, timestamp, patch_offset, patch: patch.as_slice(), transport_seq, send_time };
        let room = self.out.room();
        let written = slot.serialiser.write(data, packet, &outgoing.block, &fields, &[], room);
        let step = padding_step(self.pad_video, slot.kind, type_and_marker);
        let padded = written.map(|length| pad(room, length, step));
        let Some(size) = padded.and_then(|length| srtp.protect_rtp(room, length).ok()) else {
            *self.drops.entry("out_refused").or_insert(0) += 1;
            return;
        };
        self.out.commit(size, address);
        let payload = packet.payload_size() as u64;
        let patch_offset = descriptor.patch_offset;
        let sent = Sent { packet: id, timestamp, send_time, seq, transport_seq, type_and_marker, patch_offset, patch };
        let old = if id == SPARE {
            slot.log.forget(seq)
        } else {
            self.packets.counts.retain(id);
            slot.log.put(sent)
        };
        if let Some(old) = old {
            self.packets.counts.release(old);
        }
        if slot.measured
            && let Some(estimator) = &mut session.estimator
        {
            estimator.on_sent(transport_seq, size, now);
        }
        slot.octets += payload;
        slot.rate.add(size, now);
        slot.stats.packets += 1;
        slot.stats.bytes += size as u64;
        session.stats.packets_out += 1;
        session.stats.bytes_out += size as u64;
    }
}

/// Send one packet of a layer to one slot at once. Nothing may wait for its session.
pub fn forward(core: &mut State, key: LayerKey, slot: usize, id: u32, descriptor: &Descriptor, now: i64) {
    let mut outgoing = Outgoing::new(id, descriptor, core.layer(key).patched, now);
    let State { slots, sessions, packets, out, drops, config, .. } = core;
    let pad_video = config.pad_video;
    Writer { slots, sessions, packets, out, drops, pad_video }.write(slot, &mut outgoing);
}

/// Answer a NACK from the log, by RTX where it was agreed on, else byte for byte as first sent.
pub fn send_repair(core: &mut State, key: usize, sequences: impl Iterator<Item = u16>, now: i64) {
    let owner = core.slots[key].session;
    for seq in sequences {
        let State { slots, sessions, packets, .. } = &mut *core;
        let slot = &mut slots[key];
        let session = &sessions[owner];
        slot.stats.nacks += 1;
        let rtt = if session.stats.round_trip_us != 0 { session.stats.round_trip_us } else { DEFAULT_RTT_US };
        let sent = slot.log.resend(seq, now, rtt, Some(&mut slot.budget), |packet| packets.store.length(packet));
        let done = match sent {
            Some(sent) if session.srtp.is_some() && session.selected.is_some() => {
                if slot.rtx_serialiser.is_some() && slot.rtx_type(sent.type_and_marker & 0x7F).is_some() {
                    send_rtx(core, key, &sent, now)
                } else {
                    send_again(core, key, &sent, now)
                }
            }
            _ => false,
        };
        let stats = &mut core.slots[key].stats;
        if done {
            stats.resent += 1;
        } else {
            stats.not_resent += 1;
        }
    }
}

/// Send a logged packet once more, byte for byte.
fn send_again(core: &mut State, key: usize, sent: &Sent, now: i64) -> bool {
    let State { slots, packets, out, config, .. } = &mut *core;
    let serialiser = &slots[key].serialiser;
    let (packet, data) = (packets.store.packet(sent.packet), packets.store.data(sent.packet));
    let mut block = Block::default();
    serialiser.forwarding().block(data, packet, &mut block);
    let fields = Fields {
        type_and_marker: sent.type_and_marker,
        seq: sent.seq,
        timestamp: sent.timestamp,
        patch_offset: usize::from(sent.patch_offset),
        patch: sent.patch.as_slice(),
        transport_seq: sent.transport_seq,
        send_time: sent.send_time,
    };
    let step = padding_step(config.pad_video, slots[key].kind, sent.type_and_marker);
    let room = out.room();
    let written = serialiser.write(data, packet, &block, &fields, &[], room).map(|length| pad(room, length, step));
    seal_and_send(core, key, written, None, now)
}

/// Send a logged packet again on the repair stream (RFC 4588 4).
fn send_rtx(core: &mut State, key: usize, sent: &Sent, now: i64) -> bool {
    let transport_seq = next_transport_seq(core, key);
    let State { slots, packets, out, .. } = &mut *core;
    let slot = &mut slots[key];
    let (Some(serialiser), Some(rtx_type)) = (&slot.rtx_serialiser, slot.rtx_type(sent.type_and_marker & 0x7F)) else {
        return false;
    };
    let (packet, data) = (packets.store.packet(sent.packet), packets.store.data(sent.packet));
    let mut block = Block::default();
    serialiser.forwarding().block(data, packet, &mut block);
    let fields = Fields {
        type_and_marker: sent.type_and_marker & 0x80 | rtx_type,
        seq: slot.rtx_seq,
        timestamp: sent.timestamp,
        patch_offset: usize::from(sent.patch_offset),
        patch: sent.patch.as_slice(),
        transport_seq,
        send_time: send_time(now),
    };
    let written = serialiser.write(data, packet, &block, &fields, &sent.seq.to_be_bytes(), out.room());
    slot.rtx_seq = slot.rtx_seq.wrapping_add(1);
    seal_and_send(core, key, written, Some(transport_seq), now)
}

fn next_transport_seq(core: &mut State, key: usize) -> u16 {
    let slot = &core.slots[key];
    let session = &mut core.sessions[slot.session];
    if slot.measured {
        session.transport_seq = session.transport_seq.wrapping_add(1);
    }
    session.transport_seq
}

/// Send what was written to the front of `out.room()` and is not a first sending. `transport_seq` is None when it has
/// no number of its own.
fn seal_and_send(core: &mut State, key: usize, written: Option<usize>, transport_seq: Option<u16>, now: i64) -> bool {
    let slot = &core.slots[key];
    let session = &mut core.sessions[slot.session];
    let (Some(srtp), Some(address)) = (&mut session.srtp, session.selected) else { return false };
    let Some(size) = written.and_then(|length| srtp.protect_rtp(core.out.room(), length).ok()) else {
        core.drop("out_refused");
        return false;
    };
    core.out.commit(size, address);
    if slot.measured
        && let (Some(transport_seq), Some(estimator)) = (transport_seq, &mut session.estimator)
    {
        estimator.on_sent(transport_seq, size, now);
    }
    session.stats.packets_out += 1;
    session.stats.bytes_out += size as u64;
    true
}

/// Send SR and SDES while packets go out, and come back in an interval. One who has fallen silent keeps no packets: what
/// was lost of the last ones has been asked for by now.
pub fn sender_report_due(core: &mut State, key: usize, now: i64) {
    let State { slots, packets, timers, config, .. } = &mut *core;
    let slot = &mut slots[key];
    let Some(playing) = slot.playing else {
        slot.log.clear(|packet| packets.counts.release(packet));
        return;
    };
    timers.set((Timer::SenderReport, slot.handle, 0), now + config.report_interval_us);
    if slot.stats.packets == slot.reported {
        return;
    }
    slot.reported = slot.stats.packets;
    let wall = now + core.config.wall_offset_us;
    let rtp_timestamp = timestamp_at(core, key, playing, wall, now);
    let slot = &core.slots[key];
    let info = SenderInfo {
        ssrc: slot.ssrc,
        ntp: ntp_from_wall_us(wall),
        rtp_timestamp,
        packets: slot.stats.packets as u32,
        octets: slot.octets as u32,
    };
    let owner = slot.session;
    let mut compound = std::mem::take(&mut core.scratch.control);
    compound.clear();
    build_sr(&info, &[], &mut compound);
    build_sdes(slot.ssrc, &slot.cname, &mut compound);
    core.send_control(owner, &compound);
    core.scratch.control = compound;
}

/// The output timestamp of the instant `wall`.
///
/// The publisher's own reports tie its audio and video to one clock of its own. All its streams are moved to our wall
/// clock by one common offset (`Session::ntp_offset`), so what it captured together is shown together. Before its
/// first report, arrival has to do.
fn timestamp_at(core: &State, key: usize, playing: LayerKey, wall: i64, now: i64) -> u32 {
    let slot = &core.slots[key];
    let layer = core.layer(playing);
    let clock = layer.codec.as_ref().map_or(90_000, |codec| i64::from(codec.clock_hz));
    let source = layer.source.map(|source| &core.sources[source]);
    let offset = core.ntp_offset(playing.track);
    if let (Some(source), Some(offset)) = (source, offset)
        && source.report_ntp != 0
    {
        let reported = wall_us_from_ntp(source.report_ntp) + offset;
        let ticks = mul_div(wall - reported, clock, 1_000_000);
        return slot.rewriter.timestamp_out(i64::from(source.report_rtp) + ticks);
    }
    slot.rewriter.last_timestamp().wrapping_add(mul_div(now - layer.last_packet, clock, 1_000_000) as u32)
}
