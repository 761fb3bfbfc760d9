"""Settings of a node and of the signaling service, parsed once into frozen objects.

`configs/relay.toml` and `configs/signaling.toml` are the manual: every key with its default, unit and reason. Names end
in their unit: `_s`, `_ms`, `_bytes`, `_bps`; the others are counts, names or addresses.
"""

from __future__ import annotations

from relay.settings.fields import EMBEDDED_STORE
from relay.settings.link import BreakerSettings, LinkFlowSettings, LinkSettings
from relay.settings.loading import (
    DEV_KEY_ID,
    DEV_SECRET,
    dev_settings,
    is_loopback,
    load_node_settings,
    load_signaling_settings,
)
from relay.settings.mix import MixAudioSettings, MixRaySettings, MixSettings, MixVideoSettings
from relay.settings.node import (
    PINNED_BY_DIRECTORY,
    ClusterSettings,
    HttpSettings,
    LimitSettings,
    LogSettings,
    NodeSettings,
    SignalingSettings,
)
from relay.settings.outputs import EgressSettings, EventPattern, WebhookSettings

__all__ = [
    "DEV_KEY_ID",
    "DEV_SECRET",
    "EMBEDDED_STORE",
    "PINNED_BY_DIRECTORY",
    "BreakerSettings",
    "ClusterSettings",
    "EgressSettings",
    "EventPattern",
    "HttpSettings",
    "LimitSettings",
    "LinkFlowSettings",
    "LinkSettings",
    "LogSettings",
    "MixAudioSettings",
    "MixRaySettings",
    "MixSettings",
    "MixVideoSettings",
    "NodeSettings",
    "SignalingSettings",
    "WebhookSettings",
    "dev_settings",
    "is_loopback",
    "load_node_settings",
    "load_signaling_settings",
]
