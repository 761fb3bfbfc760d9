"""Keyframe requests to publishers: one per layer in an interval, the rest coalesced.

A request that comes too soon is remembered and sent when the interval ends, unless a keyframe came meanwhile. While a
slot waits for a keyframe the request is repeated every interval: the first may be lost. Encoders that never answer
(ffmpeg, OBS) lose nothing by being asked; their next regular keyframe ends the wait.
"""

from __future__ import annotations

from relay.plane.contract import KeyframeRequested, Kind
from relay.plane.reference.rtcp import build_fir, build_pli
from relay.plane.reference.state import Core, Layer
from relay.plane.reference.timers import Timer


def request_keyframe(core: Core, layer: Layer, now: int) -> None:
    """Ask the layer's publisher for a keyframe, now or when the interval ends."""
    track = layer.track
    if track.kind is not Kind.VIDEO:
        return
    if now < layer.keyframe_next:
        layer.keyframe_wanted = True
        core.timers.set((Timer.KEYFRAME, track.handle, layer.index), layer.keyframe_next)
        return
    _ask(core, layer, now)


def keyframe_due(core: Core, layer: Layer, now: int) -> None:
    """The interval ended: send what was remembered, or repeat what slots still wait for."""
    if layer.keyframe_wanted or (layer.waiters and layer.active and not layer.track.muted):
        _ask(core, layer, now)


def keyframe_came(core: Core, layer: Layer) -> None:
    """A decodable frame began: earlier requests are served."""
    layer.keyframe_wanted = False
    if not layer.waiters:
        core.timers.cancel((Timer.KEYFRAME, layer.track.handle, layer.index))


def _ask(core: Core, layer: Layer, now: int) -> None:
    """Send the request; one that cannot be sent yet stays wanted until the layer starts."""
    track = layer.track
    session = track.session
    if session is None:
        core.events.append(KeyframeRequested(track.handle, layer.index))
    else:
        if layer.source is None or session.srtp is None or session.selected is None:
            layer.keyframe_wanted = True
            return
        ssrc = layer.source.ssrc
        if track.feedback.pli:
            core.send_control(session, build_pli(session.feedback_ssrc, ssrc))
        elif track.feedback.fir:
            layer.fir_number = (layer.fir_number + 1) & 0xFF
            core.send_control(session, build_fir(session.feedback_ssrc, ((ssrc, layer.fir_number),)))
        else:
            layer.keyframe_wanted = False
            return
    layer.stats.keyframe_requests += 1
    layer.keyframe_wanted = False
    layer.keyframe_next = now + core.config.keyframe_interval_us
    core.timers.set((Timer.KEYFRAME, track.handle, layer.index), layer.keyframe_next)
