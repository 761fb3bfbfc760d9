//! Bandwidth probes: padding that shows whether the path to a viewer carries more.

use super::{next_transport_seq, seal_and_send, send_rtx, send_time};
use crate::arithmetic::mul_div;
use crate::core::contract::Kind;
use crate::core::sessions::Probe;
use crate::core::state::State;
use crate::core::timers::Timer;
use crate::rtp::Packet;
use crate::serialise::{Block, Fields};

/// Padding is spread in slices of this, so that it measures the path and not our burst.
const PROBE_SLICE_US: i64 = 5_000;
/// At most in one slice, whatever rate was asked for.
const PROBE_PACKETS: u16 = 64;
/// One octet says how much (RFC 3550 5.1).
const MAX_PADDING: usize = 255;
/// The latest packets, in turns, serve as padding that may even repair something.
const REPEATED_IN_PROBE: u16 = 16;
/// Begin to send padding; a later probe replaces one that runs. Ignored when nobody could carry or measure it.
pub fn start_probe(core: &mut State, key: usize, bitrate: i64, duration_us: i64, now: i64) {
    if probe_slot(core, key).is_none() || bitrate <= 0 || duration_us <= 0 {
        return;
    }
    let session = &mut core.sessions[key];
    if let Some(estimator) = &mut session.estimator {
        estimator.on_probe_started(bitrate, now);
    }
    session.probe = Some(Probe {
        bitrate,
        start: now,
        end: now.saturating_add(duration_us),
        bytes_before: session.stats.bytes_out,
    });
    core.timers.set((Timer::Probe, session.handle, 0), now + PROBE_SLICE_US);
}

/// Send the padding that one slice lacks.
pub fn probe_due(core: &mut State, key: usize, now: i64) {
    let (Some(probe), Some(slot)) = (core.sessions[key].probe, probe_slot(core, key)) else {
        core.sessions[key].probe = None;
        return;
    };
    let elapsed = now.min(probe.end) - probe.start;
    let padded = core.sessions[key].stats.bytes_out - probe.bytes_before;
    let mut missing = mul_div(probe.bitrate, elapsed, 8_000_000) - padded as i64;
    for turn in 0..PROBE_PACKETS {
        if missing <= 0 {
            break;
        }
        let before = core.sessions[key].stats.bytes_out;
        let latest = &core.slots[slot];
        let sent = latest.log.get(latest.rewriter.last_seq().wrapping_sub(turn % REPEATED_IN_PROBE));
        match sent.filter(|sent| latest.rtx_type(sent.type_and_marker & 0x7F).is_some()) {
            Some(sent) => {
                send_rtx(core, slot, &sent, now);
            }
            None => send_padding(core, slot, now),
        }
        missing -= (core.sessions[key].stats.bytes_out - before).max(1) as i64;
    }
    let session = &mut core.sessions[key];
    if now >= probe.end {
        session.probe = None;
        if let Some(estimator) = &mut session.estimator {
            estimator.on_probe_ended();
        }
    } else {
        core.timers.set((Timer::Probe, session.handle, 0), (now + PROBE_SLICE_US).min(probe.end));
    }
}

/// The first video slot with a repair stream and transport-cc, while there is a way to the peer.
fn probe_slot(core: &State, key: usize) -> Option<usize> {
    let session = &core.sessions[key];
    if session.srtp.is_none() || session.selected.is_none() {
        return None;
    }
    session.slots.values().copied().find(|&slot| {
        let slot = &core.slots[slot];
        slot.kind == Kind::Video && slot.transport_cc && slot.rtx_serialiser.is_some() && !slot.rtx_types.is_empty()
    })
}

/// A packet of the repair stream with nothing but padding (RFC 4588 allows no empty original).
fn send_padding(core: &mut State, key: usize, now: i64) {
    let transport_seq = next_transport_seq(core, key);
    let State { slots, out, .. } = &mut *core;
    let slot = &mut slots[key];
    let rtx_type = slot.rtx_type(slot.out_type).or_else(|| slot.rtx_types.first().map(|pair| pair.1));
    let (Some(serialiser), Some(rtx_type)) = (&slot.rtx_serialiser, rtx_type) else { return };
    let mut padding = [0; MAX_PADDING];
    padding[MAX_PADDING - 1] = MAX_PADDING as u8;
    let fields = Fields {
        type_and_marker: rtx_type,
        seq: slot.rtx_seq,
        timestamp: slot.rewriter.last_timestamp(),
        transport_seq,
        send_time: send_time(now),
        ..Fields::default()
    };
    let room = out.room();
    let written = serialiser.write(&[], &Packet::default(), &Block::default(), &fields, &padding, room);
    room[0] |= 0x20;
    slot.rtx_seq = slot.rtx_seq.wrapping_add(1);
    seal_and_send(core, key, written, Some(transport_seq), now);
}
