//! Which layer an SSRC belongs to, and which SSRC plays it.

use crate::core::binding::restart_players;
use crate::core::contract::{ExtensionIds, MID, REPAIRED_RID, RID};
use crate::core::mirrors;
use crate::core::state::State;
use crate::core::tracks::{LayerKey, Source};
use crate::nack::LossDetector;
use crate::rtp::Packet;

/// SSRCs per session that were not signalled; a browser uses two per layer.
const MAX_LEARNED: usize = 64;

/// The source of an SSRC of a track without session: the one that plays the layer, else a new one that does from now on.
pub fn source_of(core: &mut State, key: LayerKey, ssrc: u32, payload_type: u8, now: i64) -> usize {
    if let Some(source) = core.layer(key).source.filter(|&source| core.sources[source].ssrc == ssrc) {
        return source;
    }
    let clock = core.tracks[key.track].payload_type(payload_type).map_or(90_000, |kind| kind.clock_hz);
    let source = core.sources.insert(Source::new(ssrc, key, Some(LossDetector::new(clock)), true));
    take_over(core, key, source, now);
    source
}

/// Find the layer of an SSRC that is heard for the first time: mid and rid, else the payload type (RFC 9143 9.2).
pub fn learn(core: &mut State, key: usize, id: u32, packet: &Packet) -> Option<usize> {
    let session = &core.sessions[key];
    let data = core.packets.store.data(id);
    let ids = session.extensions;
    let track = match extension(data, packet, &ids, MID) {
        Some(mid) => *session.tracks.get(&*String::from_utf8_lossy(mid))?,
        None => {
            let having = |track: &&usize| core.tracks[**track].payload_type(packet.payload_type).is_some();
            let mut having = session.tracks.values().filter(having);
            *having.next().filter(|_| having.next().is_none())?
        }
    };
    let kind = core.tracks[track].payload_type(packet.payload_type)?;
    let repair = kind.codec == "rtx";
    let detector = (!repair).then_some(kind.clock_hz);
    let layer = layer_by_rid(core, track, data, packet, &ids, repair)?;
    let learned = session.sources.values().filter(|&&source| core.sources[source].learned).count();
    if learned >= MAX_LEARNED {
        forget_oldest(core, key);
    }
    let source = Source::new(packet.ssrc, layer, detector.map(LossDetector::new), true);
    Some(core.list_source(key, source))
}

fn extension<'a>(data: &'a [u8], packet: &Packet, ids: &ExtensionIds, place: usize) -> Option<&'a [u8]> {
    let id = ids.0[place];
    if id == 0 { None } else { packet.extension(data, id) }
}

fn layer_by_rid(
    core: &State,
    track: usize,
    data: &[u8],
    packet: &Packet,
    ids: &ExtensionIds,
    repair: bool,
) -> Option<LayerKey> {
    let repaired = if repair { extension(data, packet, ids, REPAIRED_RID) } else { None };
    let layers = &core.tracks[track].layers;
    let index = match repaired.or_else(|| extension(data, packet, ids, RID)) {
        None if layers.len() == 1 => 0,
        None => return None,
        Some(rid) => {
            let name = String::from_utf8_lossy(rid);
            layers.iter().position(|layer| layer.stats.rid == name)?
        }
    };
    Some(LayerKey { track, index })
}

/// Make room among the learned SSRCs; one that plays a layer stays if there is any other.
fn forget_oldest(core: &mut State, key: usize) {
    let session = &core.sessions[key];
    let plays = |source: usize| core.layer(core.sources[source].layer).source == Some(source);
    let learned = session.sources.values().copied().filter(|&source| core.sources[source].learned);
    let oldest = learned.min_by_key(|&source| (plays(source), core.sources[source].last_packet));
    let Some(oldest) = oldest else { return };
    let (played, layer, ssrc) = (plays(oldest), core.sources[oldest].layer, core.sources[oldest].ssrc);
    if played {
        retire(core, layer);
    }
    core.unlist_source(key, ssrc);
}

/// Let another SSRC play the layer: a new one always, a former one only when the present one has gone silent.
pub fn take_over(core: &mut State, key: LayerKey, source: usize, now: i64) -> bool {
    if core.layer(key).source.is_some() {
        let former = core.sources[source].detector.as_ref().is_some_and(|detector| detector.highest >= 0);
        if former && now - core.layer(key).last_packet < core.config.layer_silence_us {
            return false;
        }
        retire(core, key);
        core.layer_mut(key).active = false;
        restart_players(core, key, now);
    }
    core.layer_mut(key).source = Some(source);
    mirrors::taken_over(core, key);
    true
}

/// Take the layer's source away, keeping what it counted.
fn retire(core: &mut State, key: LayerKey) {
    core.forget_recent(key);
    let given_up = core.detector(key).map_or(0, |detector| detector.given_up);
    let layer = core.layer_mut(key);
    layer.lost_before += given_up;
    if let Some(source) = layer.source.take() {
        core.release_source(source);
    }
}
