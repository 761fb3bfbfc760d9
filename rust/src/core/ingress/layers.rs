//! What a packet changes about its layer: it starts, has another format, brings a keyframe. And how it falls silent.

use crate::core::binding::{replan_waiting, restart_players};
use crate::core::contract::Event;
use crate::core::mirrors;
use crate::core::state::State;
use crate::core::timers::Timer;
use crate::core::tracks::LayerKey;
use crate::descriptors::{Codec, Descriptor};
use crate::rtp::Packet;

/// The publisher sends another format from here on: whoever shows the layer starts anew at a decodable frame.
pub fn change_payload_type(core: &mut State, key: LayerKey, number: u8, now: i64) -> bool {
    let Some(kind) = core.tracks[key.track].payload_type(number) else { return false };
    let Some(codec) = Codec::by_name(&kind.codec) else { return false };
    let kind = kind.clone();
    let layer = core.layer_mut(key);
    layer.payload_type = i16::from(number);
    layer.stats.payload_type = layer.payload_type;
    layer.codec = Some(kind);
    layer.inspected = codec;
    layer.patched = codec.is_patched();
    layer.parameters_seen = false;
    layer.keyframe_timestamp = None;
    layer.active = false;
    restart_players(core, key, now);
    true
}

/// Packets come (again).
pub fn start(core: &mut State, key: LayerKey, now: i64) {
    let source = core.layer(key).source;
    let ssrc = source.map_or(0, |source| core.sources[source].ssrc);
    let track = &mut core.tracks[key.track];
    let (handle, session, mirrored) = (track.handle, track.session, track.mirror.is_some());
    let layer = &mut track.layers[key.index];
    layer.active = true;
    layer.stats.active = true;
    let payload_type = layer.payload_type;
    if !mirrored {
        core.events.push(Event::LayerStarted { track: handle, layer: key.index, ssrc, payload_type });
    }
    core.timers.set((Timer::Silence, handle, key.index as u32), now + core.config.layer_silence_us);
    replan_waiting(core, key.track, now, false); // this very packet may begin a keyframe
    if let Some(session) = session {
        let owner = core.sessions[session].handle;
        core.timers.set_if_none((Timer::ReceiverReport, owner, 0), now + core.config.report_interval_us);
    }
}

/// Stop a layer that has been silent for the configured time, or look again when it may have been.
pub fn silence_due(core: &mut State, key: LayerKey, now: i64) {
    let handle = core.tracks[key.track].handle;
    let layer = core.layer(key);
    if !layer.active {
        return;
    }
    let silent_at = layer.last_packet + core.config.layer_silence_us;
    if now < silent_at {
        core.timers.set((Timer::Silence, handle, key.index as u32), silent_at);
    } else {
        stop_layer(core, key, now);
    }
}

/// The layer fell silent or said goodbye.
pub fn stop_layer(core: &mut State, key: LayerKey, now: i64) {
    let track = &mut core.tracks[key.track];
    let (handle, mirrored) = (track.handle, track.mirror.is_some());
    let layer = &mut track.layers[key.index];
    if !layer.active {
        return;
    }
    layer.active = false;
    layer.stats.active = false;
    core.timers.cancel((Timer::Silence, handle, key.index as u32));
    core.timers.cancel((Timer::Nack, handle, key.index as u32));
    if !mirrored {
        core.events.push(Event::LayerStopped { track: handle, layer: key.index });
    }
    mirrors::stopped(core, key);
    replan_waiting(core, key.track, now, true);
}

/// Count a keyframe once. Returns whether a decoder can begin at this very packet.
///
/// An H264 picture may begin with its parameter sets in a packet of their own: where a publisher sends them in band,
/// one begins there and not at the slice that follows. GStreamer repeats them before every slice of a picture: only what
/// comes first of a timestamp begins it.
pub fn note_keyframe(core: &mut State, key: LayerKey, packet: &Packet, descriptor: &Descriptor) -> bool {
    let layer = core.layer_mut(key);
    let first = layer.keyframe_timestamp != Some(packet.timestamp);
    if first {
        layer.keyframe_timestamp = Some(packet.timestamp);
        layer.stats.keyframes += 1;
        if let Some(detector) = core.detector(key)
            && detector.missing() > 0
        {
            detector.keyframe(packet.seq);
        }
    }
    let layer = core.layer_mut(key);
    if descriptor.width != 0 {
        (layer.stats.width, layer.stats.height) = (descriptor.width, descriptor.height);
    }
    layer.parameters_seen |= descriptor.has_parameters;
    first && (descriptor.has_parameters || !layer.parameters_seen)
}
