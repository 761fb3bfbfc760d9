"""Settings from files, the environment and the command line, or for `costream dev`."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from relay.errors import SettingsError
from relay.settings.node import NodeSettings, SignalingSettings
from relay.settings.source import read_settings

DEV_KEY_ID = "devkey"
DEV_SECRET = "devsecret-change-me-0123456789abcdef"  # published on purpose: `costream dev` works without a file


def load_node_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> NodeSettings:
    """Read the settings of `costream relay`. Raises SettingsError for a fault, for no key and for the known key."""
    settings = read_settings(NodeSettings, path, environ, overrides)
    require_own_key(settings)
    return settings


def load_signaling_settings(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> SignalingSettings:
    """Read the settings of `costream signaling`. Raises SettingsError like `load_node_settings`."""
    settings = read_settings(SignalingSettings, path, environ, overrides, also_known=(NodeSettings,))
    require_own_key(settings)
    return settings


def require_own_key(settings: SignalingSettings) -> None:
    """Raise SettingsError when there is no key, or when anybody could sign with the published one."""
    if not settings.auth.keys:
        raise SettingsError(
            'auth.keys is empty, so no token could be checked: put `name = "secret of 32 bytes or more"` under '
            '[auth.keys], or set COSTREAM_AUTH__KEYS=\'{"name": "secret"}\' (`openssl rand -hex 32` makes a secret)'
        )
    if DEV_KEY_ID in settings.auth.keys or DEV_SECRET in settings.auth.keys.values():
        raise SettingsError(
            f"auth.keys has {DEV_KEY_ID!r} or its secret, which is published: only `costream dev` may use it"
        )


def dev_settings(
    lan: bool = False,
    environ: Mapping[str, str] = os.environ,
    overrides: Mapping[str, object] | None = None,
) -> NodeSettings:
    """Settings of `costream dev`: loopback and the known key, or with `lan` all interfaces and a key made now.

    Rooms are made by the first who comes. Variables and `overrides` win, except that the known key never leaves
    loopback: that raises SettingsError.
    """
    host = "0.0.0.0" if lan else "127.0.0.1"
    key = {f"dev-{secrets.token_hex(4)}": secrets.token_hex(32)} if lan else {DEV_KEY_ID: DEV_SECRET}
    base: dict[str, object] = {
        "http.host": host,
        "media.host": host,
        "media.advertise": [] if lan else ["127.0.0.1"],
        "room.auto_create": True,
        "auth.keys": key,
        "log.format": "console",
        "node.drain_timeout_s": 1.0,  # who tries out does not want to wait for his own browser
        "room.empty_room_ttl_s": 86_400.0,  # the printed links stay good
        "webhooks.allow_private_targets": not lan,  # who tries out listens on loopback
        "webhooks.allow_plain_http": not lan,
    }
    asked = read_settings(NodeSettings, None, environ, overrides)
    wanted = asked.model_dump(exclude_unset=True)
    for name in base:
        section, leaf = name.split(".")
        if leaf in wanted.get(section, {}):
            base[name] = wanted[section][leaf]
    settings = read_settings(NodeSettings, None, environ, {**base, **(overrides or {})})
    exposed = [h for h in (settings.http.host, settings.http.plain_host, settings.media.host) if not is_loopback(h)]
    if exposed and DEV_KEY_ID in settings.auth.keys:
        raise SettingsError(
            f"the known key {DEV_KEY_ID!r} would be open to {exposed[0]}: use --lan, which makes a new key"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Return whether a bind address reaches this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
