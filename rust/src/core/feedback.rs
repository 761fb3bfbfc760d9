//! RTCP that we send to publishers: NACK, transport-cc, receiver reports and REMB. The twin of
//! `relay/plane/reference/feedback.py`.

use super::state::State;
use super::timers::Timer;
use super::tracks::LayerKey;
use crate::arithmetic::mul_div;
use crate::rtcp::{
    MAX_BLOCKS, ReportBlock, build_nack, build_remb, build_rr, build_sdes, build_transport_cc, ntp_middle,
};

/// RFC 3550 6.1 wants one in every compound packet; publishers have no use for it.
const CNAME: &str = "costream";
/// Between repeated NACKs while the round trip to a publisher is not known.
const DEFAULT_RTT_US: i64 = 100_000;
const NACKED_AT_ONCE: usize = 256;

// REMB for publishers without transport-cc: additive growth while the loss is small, and room above what is sent.
const LOSS_LOW: u8 = 5; // of 256, 2 %
const LOSS_HIGH: u8 = 26; // of 256, 10 %

/// Record a packet's transport-wide sequence number and see that it is reported soon.
pub fn note_transport_seq(core: &mut State, key: usize, transport_seq: u16, now: i64) {
    let session = &mut core.sessions[key];
    let recorder = session.recorder.get_or_insert_default();
    if !recorder.pending() {
        let when = now + core.config.transport_cc_interval_us;
        core.timers.set_if_none((Timer::TransportFeedback, session.handle, 0), when);
    }
    recorder.record(transport_seq, now);
}

/// Tell the publisher what arrived when. The next report is set by the next packet.
pub fn transport_feedback_due(core: &mut State, key: usize) {
    let session = &mut core.sessions[key];
    let Some(mut recorder) = session.recorder.take() else { return };
    let sender = session.feedback_ssrc;
    let media = session.sources.keys().next().copied().unwrap_or(0);
    let mut compound = std::mem::take(&mut core.scratch.control);
    recorder.feedback(|fci| {
        compound.clear();
        build_transport_cc(sender, media, fci, &mut compound);
        core.send_control(key, &compound);
    });
    core.scratch.control = compound;
    core.sessions[key].recorder = Some(recorder);
}

/// Ask for what is missing and due, and look again when more will be.
pub fn check_losses(core: &mut State, layer: LayerKey, now: i64) {
    let track = &core.tracks[layer.track];
    let (handle, owner, wanted) = (track.handle, track.session, track.feedback.nack);
    let Some(source) = track.layers[layer.index].source else { return };
    let source = &mut core.sources[source];
    let ssrc = source.ssrc;
    let Some(detector) = &mut source.detector else { return };
    let measured = owner.map_or(0, |session| core.sessions[session].stats.round_trip_us);
    let rtt = if measured != 0 { measured } else { DEFAULT_RTT_US };
    let mut lost = std::mem::take(&mut core.scratch.lost);
    lost.clear();
    detector.due(now, rtt, &mut lost);
    let again = detector.next_timeout();
    if let Some(owner) = owner.filter(|_| wanted && !lost.is_empty()) {
        let sender = core.sessions[owner].feedback_ssrc;
        let mut compound = std::mem::take(&mut core.scratch.control);
        for some in lost.chunks(NACKED_AT_ONCE) {
            compound.clear();
            build_nack(sender, ssrc, some, &mut compound);
            core.send_control(owner, &compound);
        }
        core.scratch.control = compound;
        core.layer_mut(layer).stats.nacks_sent += lost.len() as u64;
    }
    core.scratch.lost = lost;
    if let Some(again) = again {
        core.timers.set((Timer::Nack, handle, layer.index as u32), again.max(now + 1_000));
    }
}

/// Report on every SSRC that was heard lately, with REMB where that is all the publisher understands.
pub fn receiver_report_due(core: &mut State, key: usize, now: i64) {
    let heard_since = now - 2 * core.config.report_interval_us;
    let mut blocks = Vec::new();
    let mut worst = 0;
    for &source in core.sessions[key].sources.values() {
        let source = &mut core.sources[source];
        let Some(detector) = &mut source.detector else { continue };
        if detector.highest < 0 || source.last_packet < heard_since {
            continue;
        }
        let reception = detector.report();
        worst = worst.max(reception.fraction_lost);
        let layer = &mut core.tracks[source.layer.track].layers[source.layer.index];
        let clock = layer.codec.as_ref().map_or(90_000, |codec| i64::from(codec.clock_hz));
        layer.stats.jitter_us = i64::from(reception.jitter) * 1_000_000 / clock;
        let known = source.report_ntp != 0;
        blocks.push(ReportBlock {
            ssrc: source.ssrc,
            fraction_lost: reception.fraction_lost,
            cumulative_lost: reception.cumulative_lost,
            highest_sequence: reception.highest_sequence,
            jitter: reception.jitter,
            lsr: if known { ntp_middle(source.report_ntp) } else { 0 },
            dlsr: if known { mul_div(now - source.report_arrival, 65_536, 1_000_000) as u32 } else { 0 },
        });
    }
    if blocks.is_empty() {
        return; // the next layer that starts sets the timer again
    }
    let (handle, sender) = (core.sessions[key].handle, core.sessions[key].feedback_ssrc);
    core.timers.set((Timer::ReceiverReport, handle, 0), now + core.config.report_interval_us);
    let mut compound = std::mem::take(&mut core.scratch.control);
    for (turn, some) in blocks.chunks(MAX_BLOCKS).enumerate() {
        compound.clear();
        build_rr(sender, some, &mut compound);
        build_sdes(sender, CNAME, &mut compound);
        if turn == 0 {
            put_remb(core, key, worst, now, &mut compound);
        }
        core.send_control(key, &compound);
    }
    core.scratch.control = compound;
}

/// A receiver-side limit for publishers that negotiated only REMB.
///
/// It starts at `estimate_start`, grows by an eighth per report while less than 2 % is lost (never below one and a half
/// times what arrives), and shrinks by half the loss above 10 %.
fn put_remb(core: &mut State, key: usize, loss_256: u8, now: i64, out: &mut Vec<u8>) {
    let session = &core.sessions[key];
    let tracks = || session.tracks.values().map(|&track| &core.tracks[track]);
    if tracks().any(|track| track.feedback.transport_cc) || !tracks().any(|track| track.feedback.remb) {
        return;
    }
    let mut arriving = 0;
    let mut ssrcs = Vec::new();
    for layer in tracks().flat_map(|track| &track.layers) {
        if let Some(source) = layer.source {
            arriving += layer.rate.value(now);
            ssrcs.push(core.sources[source].ssrc);
        }
    }
    let mut rate = if session.remb != 0 { session.remb } else { core.config.estimate_start };
    if loss_256 > LOSS_HIGH {
        rate -= (rate * i64::from(loss_256)) >> 9;
    } else if loss_256 < LOSS_LOW {
        rate = (rate + (rate >> 3)).max(arriving + (arriving >> 1));
    }
    rate = rate.min(core.config.estimate_max).max(core.config.estimate_min);
    ssrcs.truncate(255);
    build_remb(session.feedback_ssrc, rate, &ssrcs, out);
    core.sessions[key].remb = rate;
}
