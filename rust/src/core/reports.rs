//! RTCP that peers send us: reports, feedback and goodbyes. The twin of `relay/plane/reference/reports.py`.

use super::contract::Event;
use super::egress::send_repair;
use super::fanout::flush_session;
use super::ingress::{srtp_reason, stop_layer};
use super::keyframes::request_keyframe;
use super::mirrors::reported;
use super::state::State;
use super::timers::Timer;
use crate::rtcp::{self, Packet, SenderInfo};
use crate::transport_cc::parse_feedback;

/// Between two EstimateChanged of one session.
const ESTIMATE_INTERVAL_US: i64 = 200_000;

/// Take one SRTCP packet from a proved address. Returns why it was dropped, or "" when it was handled.
pub fn receive_rtcp(core: &mut State, key: usize, datagram: &[u8], now: i64) -> &'static str {
    let session = &mut core.sessions[key];
    let Some(srtp) = &mut session.srtp else { return "srtp_no_keys" };
    let mut plain = std::mem::take(&mut core.scratch.received);
    plain.clear();
    plain.extend_from_slice(datagram);
    let reason = match srtp.unprotect_rtcp(&mut plain, datagram.len()) {
        Err(refusal) => srtp_reason(refusal),
        Ok(length) => {
            session.stats.packets_in += 1;
            session.stats.bytes_in += datagram.len() as u64;
            flush_session(core, key);
            let mut compound = rtcp::Compound::new(&plain[..length]);
            let mut taken = false;
            for packet in compound.by_ref() {
                taken = true;
                act(core, key, packet, now);
            }
            if compound.error.is_empty() || taken { "" } else { "rtcp_malformed" }
        }
    };
    core.scratch.received = plain;
    reason
}

fn act(core: &mut State, key: usize, packet: Packet<'_>, now: i64) {
    match packet {
        Packet::SenderReport { info, reports } => {
            sender_report(core, key, &info, now);
            report_blocks(core, key, reports, now);
        }
        Packet::ReceiverReport { reports, .. } => report_blocks(core, key, reports, now),
        Packet::Nack { media_ssrc, pairs, .. } => {
            if let Some(&slot) = core.sessions[key].slots_by_ssrc.get(&media_ssrc)
                && core.slots[slot].feedback.nack
            {
                send_repair(core, slot, rtcp::nacked(pairs), now);
            }
        }
        Packet::Pli { media_ssrc, .. } => {
            if let Some(&slot) = core.sessions[key].slots_by_ssrc.get(&media_ssrc) {
                wants_keyframe(core, slot, now);
            }
        }
        Packet::Fir { entries, .. } => {
            for (ssrc, number) in rtcp::fir_entries(entries) {
                // a repeated number is the same request
                if let Some(&slot) = core.sessions[key].slots_by_ssrc.get(&ssrc)
                    && core.slots[slot].fir_number.replace(number) != Some(number)
                {
                    wants_keyframe(core, slot, now);
                }
            }
        }
        Packet::TransportFeedback { fci, .. } => transport_feedback(core, key, fci, now),
        Packet::Remb { bitrate, .. } => remb(core, key, bitrate, now),
        Packet::Bye { ssrcs } => {
            for ssrc in rtcp::ssrcs(ssrcs) {
                if let Some(&source) = core.sessions[key].sources.get(&ssrc) {
                    let layer = core.sources[source].layer;
                    if core.layer(layer).source == Some(source) {
                        stop_layer(core, layer, now);
                    }
                }
            }
        }
        Packet::SourceDescription { .. } => {}
    }
}

/// Note how the SSRC's timestamps map to the publisher's clock, and its clock to ours.
///
/// The offset of the clocks is the least of (our wall clock at arrival - its NTP time): the report that travelled
/// fastest. It may creep up by 1/4096 of the time that passes, more than any quartz drifts, so that a publisher whose
/// clock runs slow is followed. One offset for the whole session keeps its audio and video together.
fn sender_report(core: &mut State, key: usize, report: &SenderInfo, now: i64) {
    let session = &mut core.sessions[key];
    let Some(&place) = session.sources.get(&report.ssrc).filter(|_| report.ntp != 0) else { return };
    let source = &mut core.sources[place];
    source.report_ntp = report.ntp;
    source.report_rtp = report.rtp_timestamp;
    source.report_arrival = now;
    let mut sample = now + core.config.wall_offset_us - rtcp::wall_us_from_ntp(report.ntp);
    if let Some(offset) = session.ntp_offset {
        sample = sample.min(offset + ((now - session.ntp_offset_at) >> 12));
    }
    session.ntp_offset = Some(sample);
    session.ntp_offset_at = now;
    let layer = core.layer_mut(core.sources[place].layer);
    if layer.source == Some(place) {
        let stats = &mut layer.stats;
        (stats.report_ssrc, stats.report_ntp) = (report.ssrc, report.ntp);
        (stats.report_timestamp, stats.report_arrival_us) = (report.rtp_timestamp, now);
    }
    reported(core, key);
}

/// What the peer received of our slots: loss and round trip.
fn report_blocks(core: &mut State, key: usize, reports: &[u8], now: i64) {
    let now_ntp = rtcp::ntp_from_wall_us(now + core.config.wall_offset_us);
    let session = &mut core.sessions[key];
    let mut worst = None;
    for block in rtcp::report_blocks(reports) {
        match session.slots_by_ssrc.get(&block.ssrc) {
            Some(&slot) if core.slots[slot].ssrc == block.ssrc => {}
            _ => continue,
        }
        worst = worst.max(Some(block.fraction_lost));
        if let Some(rtt) = rtcp::rtt_us(now_ntp, block.lsr, block.dlsr) {
            session.stats.round_trip_us = rtt.max(1);
            if let Some(estimator) = &mut session.estimator {
                estimator.on_rtt(rtt);
            }
        }
    }
    if let Some(worst) = worst {
        session.stats.loss_256 = worst;
        if let Some(estimator) = &mut session.estimator {
            estimator.on_receiver_report(worst, now);
            let bitrate = estimator.bitrate;
            tell_estimate(core, key, bitrate, now);
        }
    }
}

/// The viewer cannot decode what it shows; what it waits for is asked for too.
fn wants_keyframe(core: &mut State, key: usize, now: i64) {
    let slot = &mut core.slots[key];
    slot.stats.keyframe_requests += 1;
    if let Some(playing) = slot.playing {
        request_keyframe(core, playing, now);
    }
    for index in 0..core.slots[key].waiting.len() {
        let layer = core.slots[key].waiting[index];
        if core.layer(layer).active {
            request_keyframe(core, layer, now);
        }
    }
}

fn transport_feedback(core: &mut State, key: usize, fci: &[u8], now: i64) {
    let Some(estimator) = &mut core.sessions[key].estimator else { return };
    if parse_feedback(fci, &mut core.scratch.feedback) {
        estimator.on_feedback(&core.scratch.feedback, now);
        let bitrate = estimator.bitrate;
        tell_estimate(core, key, bitrate, now);
    }
}

/// The viewer's own estimate: a ceiling, or all there is where transport-cc was not agreed on.
fn remb(core: &mut State, key: usize, bitrate: i64, now: i64) {
    let session = &mut core.sessions[key];
    let agreed = session.slots.values().any(|&slot| core.slots[slot].feedback.remb);
    let Some(estimator) = session.estimator.as_mut().filter(|_| agreed) else { return };
    estimator.on_remb(bitrate, now);
    let bitrate = estimator.bitrate;
    tell_estimate(core, key, bitrate, now);
}

/// Raise EstimateChanged for a move by more than a tenth, at most every 200 ms; a move held back is told later.
pub fn tell_estimate(core: &mut State, key: usize, bitrate: i64, now: i64) {
    let session = &mut core.sessions[key];
    let timer = (Timer::Estimate, session.handle, 0);
    session.stats.estimate = bitrate;
    let told = session.estimate_reported;
    if (bitrate - told).saturating_abs().saturating_mul(10) <= told {
        core.timers.cancel(timer);
        return;
    }
    if told != 0 && now - session.estimate_reported_at < ESTIMATE_INTERVAL_US {
        core.timers.set(timer, session.estimate_reported_at + ESTIMATE_INTERVAL_US);
        return;
    }
    session.estimate_reported = bitrate;
    session.estimate_reported_at = now;
    core.events.push(Event::EstimateChanged { session: session.handle, bitrate });
}
