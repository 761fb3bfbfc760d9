"""Commands: what Python may ask of the plane. Each is checked first, so that a wrong one changes nothing."""

from __future__ import annotations

from typing import assert_never

from relay.errors import UsageError
from relay.plane import contract
from relay.plane.contract import Command, Feedback, Kind, LayerSpec, PayloadType
from relay.plane.reference import transport
from relay.plane.reference.binding import bind, make_serialisers, plan, stop_playing, stop_waiting
from relay.plane.reference.egress import start_probe
from relay.plane.reference.estimate import BandwidthEstimator
from relay.plane.reference.handles import find_layer, find_session, find_slot, find_track, require_unused
from relay.plane.reference.history import ResendBudget, SentLog
from relay.plane.reference.keyframes import request_keyframe
from relay.plane.reference.nack import LossDetector
from relay.plane.reference.rewrite import PictureIds, Rewriter
from relay.plane.reference.rtcp import build_bye, build_rr
from relay.plane.reference.srtp import Srtp
from relay.plane.reference.state import CODECS, Core, Layer, Session, Slot, Source, Tap, Track, derive
from relay.plane.reference.timers import Timer

_FEEDBACK_SSRC, _SEQUENCE, _TIMESTAMP, _RTX_SEQUENCE = range(4)  # purposes of `derive`
REPAIR_BYTES_PER_SECOND = 1_000_000  # repeats per slot: 8 Mbit/s, beyond which a NACK storm feeds itself
REPAIR_BURST = 250_000  # bytes: a lost keyframe of 200 packets can be repeated at once


def apply(core: Core, command: Command, now: int) -> None:
    """Carry out one command. UsageError for a handle that is unknown or in use, and for contradictions."""
    match command:
        case contract.OpenSession():
            _open_session(core, command)
        case contract.RestartIce():
            _restart_ice(core, command)
        case contract.SetKeys():
            _set_keys(core, command, now)
        case contract.SendDtls():
            transport.send_dtls(core, find_session(core, command.session), command.datagram)
        case contract.CloseSession():
            _close_session(core, find_session(core, command.session))
        case contract.AddTrack():
            _add_track(core, command)
        case contract.RemoveTrack():
            _remove_track(core, find_track(core, command.track))
        case contract.MoveTrack():
            _move_track(core, command, now)
        case contract.MuteTrack():
            _mute_track(core, find_track(core, command.track), command.muted, now)
        case contract.RequestKeyframe():
            request_keyframe(core, find_layer(core, command.track, command.layer), now)
        case contract.AddSlot():
            _add_slot(core, command)
        case contract.BindSlot():
            _bind_slot(core, command, now)
        case contract.SetLayer():
            _set_layer(core, command, now)
        case contract.PauseSlot():
            _pause_slot(core, find_slot(core, command.slot), command.paused, now)
        case contract.RemoveSlot():
            _remove_slot(core, find_slot(core, command.slot))
        case contract.ProbeBandwidth():
            start_probe(core, find_session(core, command.session), command.bitrate, command.duration_us, now)
        case contract.AddTap():
            _add_tap(core, command)
        case contract.RemoveTap():
            _remove_tap(core, command.tap)
        case contract.RemoveRingTaps():
            for tap in [tap for tap, found in core.taps.items() if found.ring == command.ring]:
                _remove_tap(core, tap)
        case _:
            assert_never(command)


# --- sessions -------------------------------------------------------------------------------------------------------


def _open_session(core: Core, command: contract.OpenSession) -> None:
    if command.shard:
        raise UsageError(f"no shard {command.shard}")
    require_unused(core.sessions, command.session)
    _free_ufrag(core, command.ufrag)
    session = Session(command.session, command.ufrag, command.password.encode(), dict(command.extensions))
    session.feedback_ssrc = derive(core.config.seed, _FEEDBACK_SSRC, command.session) & 0xFFFFFFFF
    core.sessions[command.session] = session
    core.by_ufrag[command.ufrag] = session


def _free_ufrag(core: Core, ufrag: str) -> None:
    if not ufrag or ufrag in core.by_ufrag:
        raise UsageError(f"ufrag {ufrag!r} is empty or in use")


def _restart_ice(core: Core, command: contract.RestartIce) -> None:
    session = find_session(core, command.session)
    _free_ufrag(core, command.ufrag)
    if session.restart is not None:
        del core.by_ufrag[session.restart[0]]
    session.restart = (command.ufrag, command.password.encode())
    core.by_ufrag[command.ufrag] = session


def _set_keys(core: Core, command: contract.SetKeys, now: int) -> None:
    session = find_session(core, command.session)
    if session.srtp is not None:
        raise UsageError(f"session {command.session} has keys already")
    session.srtp = Srtp(command.profile, command.tx_key, command.rx_key)
    for slot in session.slots.values():
        plan(core, slot, now)


def _close_session(core: Core, session: Session) -> None:
    ssrcs = [slot.ssrc for slot in session.slots.values() if slot.stats.packets]
    for at in range(0, len(ssrcs), 31):
        some = ssrcs[at : at + 31]
        core.send_control(session, build_rr(some[0]) + build_bye(some))
    for slot in list(session.slots.values()):
        _remove_slot(core, slot)
    for track in list(session.tracks.values()):
        _remove_track(core, track)
    transport.forget_all(core, session)
    for timer in (Timer.TRANSPORT_FEEDBACK, Timer.RECEIVER_REPORT, Timer.PROBE, Timer.ESTIMATE):
        core.timers.cancel((timer, session.handle, 0))
    if session.srtp is not None:
        session.srtp.close()
    del core.sessions[session.handle]


# --- tracks ---------------------------------------------------------------------------------------------------------


def _add_track(core: Core, command: contract.AddTrack) -> None:
    require_unused(core.tracks, command.track)
    session = None if command.session is None else find_session(core, command.session)
    _check_media(session, command.mid, command.payload_types, command.layers)
    track = core.tracks[command.track] = Track(command.track, command.kind)
    _receive_at(track, session, command.mid, command.payload_types, command.layers, command.feedback)


def _check_media(
    session: Session | None,
    mid: str,
    payload_types: tuple[PayloadType, ...],
    layers: tuple[LayerSpec, ...],
    moving: Track | None = None,
) -> None:
    """Refuse what cannot be received; `moving` is a track whose own mid and SSRCs may be used again."""
    if not layers:
        raise UsageError("a track without layers")
    for kind in payload_types:
        if kind.codec not in CODECS and kind.codec != "rtx":
            raise UsageError(f"codec {kind.codec!r} cannot be forwarded")
        if not 0 <= kind.number < 128 or kind.clock_hz <= 0:
            raise UsageError(f"payload type {kind.number} with a clock of {kind.clock_hz} Hz")
    signalled = _signalled(layers)
    if len(set(signalled)) != len(signalled):
        raise UsageError("one ssrc for two streams")
    if session is not None:
        if session.tracks.get(mid, moving) is not moving:
            raise UsageError(f"mid {mid!r} is in use")
        for ssrc in signalled:
            source = session.sources.get(ssrc)
            if source is not None and not source.learned and source.layer.track is not moving:
                raise UsageError(f"ssrc {ssrc} is in use")


def _signalled(layers: tuple[LayerSpec, ...]) -> list[int]:
    return [ssrc for layer in layers for ssrc in (layer.ssrc, layer.rtx_ssrc) if ssrc is not None]


def _receive_at(
    track: Track,
    session: Session | None,
    mid: str,
    payload_types: tuple[PayloadType, ...],
    layers: tuple[LayerSpec, ...],
    feedback: Feedback,
) -> None:
    """Receive a track at an m-line of `session`, or by injection. Layers keep the counters of those before them."""
    track.session = session
    track.mid = mid
    track.payload_types = {kind.number: kind for kind in payload_types}
    track.feedback = feedback
    old = track.layers
    track.layers = [Layer(track, index, spec.rid) for index, spec in enumerate(layers)]
    for before, layer in zip(old, track.layers, strict=False):
        before.stats.rid = layer.stats.rid
        layer.stats = before.stats
        layer.stats.active = False
        layer.lost_before = before.lost_before
    for tap in track.taps.values():
        if tap.index < len(track.layers):
            track.layers[tap.index].taps[tap.handle] = tap
    track.forwardings.clear()
    track.audio_level_id = track.extension_ids().get("audio_level", 0) if track.kind is Kind.AUDIO else 0
    if session is None:
        return
    session.tracks[mid] = track
    clock = next((kind.clock_hz for kind in payload_types if kind.codec != "rtx"), 90_000)
    for layer, spec in zip(track.layers, layers, strict=True):
        if spec.ssrc is not None:
            session.sources[spec.ssrc] = Source(spec.ssrc, layer, LossDetector(clock), learned=False)
        if spec.rtx_ssrc is not None:
            session.sources[spec.rtx_ssrc] = Source(spec.rtx_ssrc, layer, None, learned=False)
    _choose_feedback(session)


def _choose_feedback(session: Session) -> None:
    wanted = any(track.feedback.transport_cc for track in session.tracks.values())
    session.transport_in_id = session.extensions.get("transport_cc", 0) if wanted else 0


def _leave_session(core: Core, track: Track) -> None:
    """Stop receiving a track where it is received now."""
    for layer in track.layers:
        layer.recent = []
        for slot in list(layer.players.values()):
            stop_playing(slot)
        for slot in list(layer.waiters.values()):
            stop_waiting(slot)
        for timer in (Timer.NACK, Timer.KEYFRAME, Timer.SILENCE):
            core.timers.cancel((timer, track.handle, layer.index))
        if layer.source is not None and layer.source.detector is not None:
            layer.lost_before += layer.source.detector.given_up
    session = track.session
    if session is not None:
        del session.tracks[track.mid]
        for ssrc in [ssrc for ssrc, source in session.sources.items() if source.layer.track is track]:
            del session.sources[ssrc]
        _choose_feedback(session)
        if not session.tracks:
            core.timers.cancel((Timer.RECEIVER_REPORT, session.handle, 0))


def _remove_track(core: Core, track: Track) -> None:
    _leave_session(core, track)
    for slot in track.slots.values():
        slot.track = None
        stop_playing(slot)
    for handle in track.taps:
        del core.taps[handle]
    core.heard.discard(track.handle)
    if not core.heard:
        core.timers.cancel((Timer.LOUDNESS, 0, 0))
    del core.tracks[track.handle]


def _move_track(core: Core, command: contract.MoveTrack, now: int) -> None:
    track = find_track(core, command.track)
    session = find_session(core, command.session)
    _check_media(session, command.mid, command.payload_types, command.layers, track)
    _leave_session(core, track)
    _receive_at(track, session, command.mid, command.payload_types, command.layers, command.feedback)
    for slot in list(track.slots.values()):
        plan(core, slot, now)


def _mute_track(core: Core, track: Track, muted: bool, now: int) -> None:
    if track.muted == muted:
        return
    track.muted = muted
    for layer in track.layers:
        layer.recent = []
        for slot in list(layer.players.values()) if muted else ():
            stop_playing(slot)
    for slot in list(track.slots.values()):
        if muted and track.kind is Kind.AUDIO:
            stop_playing(slot)
        plan(core, slot, now)


# --- slots ----------------------------------------------------------------------------------------------------------


def _add_slot(core: Core, command: contract.AddSlot) -> None:
    require_unused(core.slots, command.slot)
    session = find_session(core, command.session)
    ssrcs = [command.ssrc] if command.rtx_ssrc is None else [command.ssrc, command.rtx_ssrc]
    if any(ssrc in session.slots_by_ssrc for ssrc in ssrcs) or len(set(ssrcs)) != len(ssrcs):
        raise UsageError(f"ssrcs {ssrcs} are in use")
    config, handle = core.config, command.slot
    slot = Slot(handle, session, command.kind, command.ssrc, command.rtx_ssrc)
    slot.mid, slot.cname, slot.feedback = command.mid, command.cname, command.feedback
    slot.payload_types = tuple(kind for kind in command.payload_types if kind.codec != "rtx")
    if command.rtx_ssrc is not None:
        slot.rtx_types = {k.apt: k.number for k in command.payload_types if k.codec == "rtx" and k.apt is not None}
    slot.transport_cc = command.feedback.transport_cc and "transport_cc" in session.extensions
    # Below 2**15, so that a receiver that misses the first packets cannot misjudge the rollover count (RFC 3711 3.3.1).
    slot.rewriter = Rewriter(
        derive(config.seed, _SEQUENCE, handle) & 0x7FFF, derive(config.seed, _TIMESTAMP, handle) & 0xFFFFFFFF
    )
    slot.rtx_seq = derive(config.seed, _RTX_SEQUENCE, handle) & 0x7FFF
    slot.pictures = PictureIds()
    slot.log = SentLog(config.history_video if command.kind is Kind.VIDEO else config.history_audio)
    slot.budget = ResendBudget(REPAIR_BYTES_PER_SECOND, REPAIR_BURST)
    make_serialisers(slot, None)  # refuses what cannot be written, before anything is changed
    if session.estimator is None:
        session.estimator = BandwidthEstimator(config.estimate_start, config.estimate_max, config.estimate_min)
        session.stats.estimate = config.estimate_start
    core.slots[handle] = session.slots[handle] = slot
    numbered = any(other.transport_cc for other in session.slots.values())
    for other in session.slots.values():  # a number that is not sent would be taken for a lost packet
        other.measured = other.transport_cc or not numbered
    for ssrc in ssrcs:
        session.slots_by_ssrc[ssrc] = slot


def _bind_slot(core: Core, command: contract.BindSlot, now: int) -> None:
    slot = find_slot(core, command.slot)
    if command.track is None:
        bind(core, slot, None, 0, None, now)
        return
    track = find_layer(core, command.track, command.layer).track
    if track.kind is not slot.kind:
        raise UsageError(f"slot {slot.handle} cannot play {track.kind.value}")
    if command.payload_type is not None and all(k.number != command.payload_type for k in slot.payload_types):
        raise UsageError(f"slot {slot.handle} has no payload type {command.payload_type}")
    bind(core, slot, track, command.layer, command.payload_type, now)


def _set_layer(core: Core, command: contract.SetLayer, now: int) -> None:
    slot = find_slot(core, command.slot)
    if slot.track is None:
        raise UsageError(f"slot {command.slot} is not bound")
    find_layer(core, slot.track.handle, command.layer)
    slot.target = command.layer
    plan(core, slot, now)


def _pause_slot(core: Core, slot: Slot, paused: bool, now: int) -> None:
    if slot.paused == paused:
        return
    slot.paused = paused
    if paused:
        stop_playing(slot)
        slot.log.clear()
    plan(core, slot, now)


def _remove_slot(core: Core, slot: Slot) -> None:
    stop_playing(slot)
    stop_waiting(slot)
    if slot.track is not None:
        slot.track.slots.pop(slot.handle, None)
    core.timers.cancel((Timer.SENDER_REPORT, slot.handle, 0))
    session = slot.session
    del core.slots[slot.handle], session.slots[slot.handle]
    slot.log.clear()
    for ssrc in [ssrc for ssrc, owner in session.slots_by_ssrc.items() if owner is slot]:
        del session.slots_by_ssrc[ssrc]


# --- taps -----------------------------------------------------------------------------------------------------------


def _add_tap(core: Core, command: contract.AddTap) -> None:
    require_unused(core.taps, command.tap)
    layer = find_layer(core, command.track, command.layer)
    tap = Tap(command.tap, layer.track, command.layer, command.ring, command.canonical)
    core.taps[command.tap] = layer.track.taps[command.tap] = layer.taps[command.tap] = tap


def _remove_tap(core: Core, handle: int) -> None:
    tap = core.taps.pop(handle, None)
    if tap is None:
        raise UsageError(f"no tap {handle}")
    del tap.track.taps[handle]
    if tap.index < len(tap.track.layers):
        tap.track.layers[tap.index].taps.pop(handle, None)
