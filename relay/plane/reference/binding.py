"""Which layer a slot shows, which it waits for, and the splice from one to the other.

A slot has a wish (`track`, `target`). It shows `playing` and waits for the layers in `waiting`: the target, and, while
nothing of the track plays and the target is silent, the nearest live layer. A waiting slot goes over at the first
packet of a decodable frame; for audio every packet is one.
"""

from __future__ import annotations

from relay.plane.contract import Kind, PayloadType, SlotSwitched
from relay.plane.reference.descriptors import Descriptor
from relay.plane.reference.egress import forward
from relay.plane.reference.keyframes import request_keyframe
from relay.plane.reference.rtcp import wall_us_from_ntp
from relay.plane.reference.rtp import Packet, timestamp_delta
from relay.plane.reference.serialise import Forwarding, Serialiser
from relay.plane.reference.state import PASSED_ON, Core, Layer, Slot, Track
from relay.plane.reference.timers import Timer

RECENT_PACKETS = 192  # half a second of 4 Mbit/s; a stream with more begins with a fresh keyframe instead
FIRST_REPORT_US = 20_000  # a sender report this soon after a splice lets the viewer synchronise lips at once
MAX_ALIGNMENT_S = 5  # sender reports that disagree with arrival by more than this are not believed


def bind(core: Core, slot: Slot, track: Track | None, layer: int, payload_type: int | None, now: int) -> None:
    """Wish for a track and layer. None silences the slot at once."""
    if slot.track is not None and slot.track is not track:
        slot.track.slots.pop(slot.handle, None)
    slot.track = track
    slot.target = layer
    slot.wished_type = payload_type
    if track is None:
        stop_playing(slot)
    else:
        track.slots[slot.handle] = slot
        playing = slot.playing
        if playing is not None and playing.track is track and _output_type(slot, playing) != slot.out_type:
            stop_playing(slot)
        if track.muted and track.kind is Kind.AUDIO:
            stop_playing(slot)  # nobody may be heard in the place of a muted host
    plan(core, slot, now)


def plan(core: Core, slot: Slot, now: int, ask: bool = True) -> None:
    """Choose anew what the slot waits for and, when told to, ask for the keyframes that it needs.

    A viewer that cannot be reached yet waits for nothing: the keyframe would be spent before it is connected.
    """
    stop_waiting(slot)
    track, session = slot.track, slot.session
    if track is None or slot.paused or track.muted or session.srtp is None or session.selected is None:
        return
    target = track.layers[min(slot.target, len(track.layers) - 1)]
    playing = slot.playing
    if playing is target:
        return
    _wait(slot, target)
    if playing is None and start_from_recent(core, slot, target, now):
        return
    if not target.active and (playing is None or playing.track is not track):
        fallback = _nearest_live(track, target.index)
        if fallback is not None:
            _wait(slot, fallback)
    for layer in slot.waiting if ask else ():
        if layer.active:
            request_keyframe(core, layer, now)


def replan_waiting(core: Core, track: Track, now: int, ask: bool) -> None:
    """A layer of the track started or stopped: slots that show nothing of the track may fall back differently."""
    for slot in list(track.slots.values()):
        if slot.playing is None or slot.playing.track is not track:
            plan(core, slot, now, ask)


def _nearest_live(track: Track, index: int) -> Layer | None:
    """The nearest live layer below, else above."""
    below = [layer for layer in track.layers[:index] if layer.active]
    above = [layer for layer in track.layers[index + 1 :] if layer.active]
    return below[-1] if below else above[0] if above else None


def _wait(slot: Slot, layer: Layer) -> None:
    slot.waiting.append(layer)
    layer.waiters[slot.handle] = slot


def stop_waiting(slot: Slot) -> None:
    """Wait for nothing."""
    for layer in slot.waiting:
        layer.waiters.pop(slot.handle, None)
    slot.waiting.clear()


def stop_playing(slot: Slot) -> None:
    """Fall silent; sequence numbers and timestamps stay where they are."""
    layer = slot.playing
    if layer is not None:
        layer.players.pop(slot.handle, None)
        slot.playing = None
        slot.stats.track = slot.stats.layer = -1


def restart_players(core: Core, layer: Layer, now: int) -> None:
    """The layer's stream broke off (another SSRC, codec or a reset): those who show it wait for a fresh start."""
    layer.recent = []
    for slot in list(layer.players.values()):
        stop_playing(slot)
        plan(core, slot, now)


def splice_waiters(core: Core, layer: Layer, packet: Packet, descriptor: Descriptor, now: int) -> None:
    """`packet` starts a decodable frame: take over every waiting slot that can carry its codec."""
    for slot in list(layer.waiters.values()):
        out_type = _output_type(slot, layer)
        if out_type is not None:
            _splice(core, slot, layer, out_type, packet, descriptor, now)
        else:  # waiting on would ask the publisher for keyframes for ever
            slot.waiting.remove(layer)
            del layer.waiters[slot.handle]


def note_recent(layer: Layer, packet: Packet, descriptor: Descriptor, starts: bool) -> None:
    """Remember the video since the latest decodable start, for slots that begin a moment later."""
    if packet.place is None:
        layer.recent = []
    elif starts:
        layer.recent = [(packet, descriptor)]
    elif layer.recent:
        layer.recent.append((packet, descriptor))
        if len(layer.recent) > RECENT_PACKETS:
            layer.recent = []


def start_from_recent(core: Core, slot: Slot, layer: Layer, now: int) -> bool:
    """Start a slot that shows nothing with the packets since a keyframe that is younger than the publisher may be asked
    for another one. Of many viewers who come at once only the first waits for a keyframe. Returns whether it started.
    """
    recent = layer.recent
    if not layer.active or not recent or now - recent[0][0].arrival >= core.config.keyframe_interval_us:
        return False
    out_type = _output_type(slot, layer)
    if out_type is None:
        return False
    _splice(core, slot, layer, out_type, *recent[0], now)
    for packet, descriptor in recent:
        forward(core, (slot,), layer, packet, descriptor, now)
    return True


def _splice(
    core: Core, slot: Slot, layer: Layer, out_type: int, packet: Packet, descriptor: Descriptor, now: int
) -> None:
    codec = layer.codec
    assert codec is not None  # set by the packet that leads here
    alignment = _alignment(slot, layer, packet, codec.clock_hz)
    stop_playing(slot)
    track = layer.track
    slot.playing = layer
    layer.players[slot.handle] = slot
    if slot.track is track and layer.index == min(slot.target, len(track.layers) - 1):
        stop_waiting(slot)
    else:
        slot.waiting.remove(layer)
        del layer.waiters[slot.handle]
    slot.out_type = out_type
    slot.marker = 0x80 if slot.kind is Kind.AUDIO else 0
    slot.rewriter.splice(packet.seq, packet.timestamp, now, codec.clock_hz, alignment)
    slot.pictures.splice(descriptor)
    use_extensions_of(slot, track)
    mapped = slot.rewriter.rewrite(packet.seq, packet.timestamp, now)
    assert mapped is not None  # the first packet after a splice always maps
    slot.stats.track, slot.stats.layer = track.handle, layer.index
    slot.stats.switches += 1
    core.events.append(SlotSwitched(slot.handle, track.handle, layer.index, *mapped))
    core.timers.set((Timer.SENDER_REPORT, slot.handle, 0), now + FIRST_REPORT_US)


def _alignment(slot: Slot, layer: Layer, packet: Packet, clock: int) -> int | None:
    """What to add to the new layer's timestamps to have those of the old layer of the same track, from sender reports.

    None when there is nothing to align with, or when the publisher's reports contradict what arrives.
    """
    old = slot.playing
    if old is None or old.track is not layer.track or old is layer or old.source is None or layer.source is None:
        return None
    if not old.source.report_ntp or not layer.source.report_ntp:
        return None
    apart = wall_us_from_ntp(layer.source.report_ntp) - wall_us_from_ntp(old.source.report_ntp)
    alignment = old.source.report_rtp - layer.source.report_rtp + apart * clock // 1_000_000
    ahead = timestamp_delta(
        slot.rewriter.timestamp_out(packet.timestamp + alignment) & 0xFFFFFFFF, slot.rewriter.last_timestamp
    )
    return alignment if -MAX_ALIGNMENT_S * clock < ahead < MAX_ALIGNMENT_S * clock else None


def use_extensions_of(slot: Slot, track: Track) -> None:
    """Pass on the track's header extensions that the viewer has agreed on too."""
    ids_in, ids_out = track.extension_ids(), slot.session.extensions
    pairs = tuple((ids_in[name], ids_out[name]) for name in PASSED_ON if name in ids_in and name in ids_out)
    forwarding = track.forwardings.get(pairs)
    if forwarding is None:
        forwarding = track.forwardings[pairs] = Forwarding(pairs)
    if slot.forwarding is forwarding:
        return
    same_ids = slot.forwarding is not None and slot.forwarding.ids == pairs
    make_serialisers(slot, forwarding)
    if not same_ids and any(kind.number not in slot.rtx_types for kind in slot.payload_types):
        # A repeat under the same SSRC must be byte for byte the first sending (RFC 7714 8.1); what was written with
        # the old serialiser no longer can be.
        slot.log.clear()


def make_serialisers(slot: Slot, forwarding: Forwarding | None) -> None:
    """Write the slot's headers from now on with these extensions passed on. UsageError for what cannot be written."""
    ids = slot.session.extensions
    fixed = ((ids["mid"], slot.mid.encode()),) if "mid" in ids else ()
    transport_id = ids["transport_cc"] if slot.transport_cc else 0
    send_time_id = ids.get("abs_send_time", 0)
    slot.forwarding = forwarding
    slot.serialiser = Serialiser(slot.ssrc, fixed, transport_id, send_time_id, forwarding)
    if slot.rtx_ssrc is not None:
        slot.rtx_serialiser = Serialiser(slot.rtx_ssrc, fixed, transport_id, send_time_id, forwarding)


def _output_type(slot: Slot, layer: Layer) -> int | None:
    """The slot's payload type for what the layer sends now; None when the slot has not negotiated that codec."""
    codec = layer.codec
    if codec is None:
        return None
    same = [p for p in slot.payload_types if p.codec == codec.codec]
    if slot.wished_type is not None and layer.track is slot.track:
        return next((p.number for p in same if p.number == slot.wished_type), None)
    return _closest(same, codec)


def _closest(candidates: list[PayloadType], codec: PayloadType) -> int | None:
    for candidate in candidates:
        if candidate.profile == codec.profile:
            return candidate.number
    return candidates[0].number if candidates else None
