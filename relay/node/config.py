"""What the settings and a room's document mean for the parts of a node."""

from __future__ import annotations

from relay.edge.plan import NegotiationPolicy
from relay.edge.session_state import SessionTimeouts
from relay.plane.contract import PlaneConfig
from relay.settings import NodeSettings
from relay.stage.document import RoomState

AUDIO_CODECS = ("opus",)


def plane_config(settings: NodeSettings) -> PlaneConfig:
    """The plane's part of the settings."""
    wanted = settings.plane
    return PlaneConfig(
        keyframe_interval_us=wanted.keyframe_interval_ms * 1000,
        layer_silence_us=wanted.layer_silence_ms * 1000,
        history_video=wanted.history_packets_video,
        history_audio=wanted.history_packets_audio,
        estimate_start=wanted.estimate_start_bps,
        estimate_min=wanted.estimate_min_bps,
        estimate_max=wanted.estimate_max_bps,
        transport_cc_interval_us=wanted.transport_cc_interval_ms * 1000,
        report_interval_us=wanted.report_interval_ms * 1000,
        pad_video=wanted.pad_video_bytes,
        slab_packets=settings.media.slab_packets,
        slab_memory=settings.media.slab_memory,
    )


def timeouts_of(settings: NodeSettings) -> SessionTimeouts:
    """The sessions' part of the settings."""
    wanted = settings.session
    return SessionTimeouts(
        connect=wanted.connect_timeout_s,
        media_silence=wanted.media_silence_s,
        seat_hold=wanted.seat_hold_s,
        consent=wanted.consent_timeout_s,
        max_duration=wanted.max_duration_s,
    )


def policy_of(state: RoomState) -> NegotiationPolicy:
    """What a room's codecs mean for an answer."""
    return NegotiationPolicy(
        audio_codecs=tuple(codec for codec in state.codecs if codec in AUDIO_CODECS),
        video_codecs=tuple(codec for codec in state.codecs if codec not in AUDIO_CODECS),
    )
