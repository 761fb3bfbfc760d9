"""`costream token`: sign a token without asking a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from relay.errors import SettingsError
from relay.settings import DEV_KEY_ID, DEV_SECRET, load_node_settings, load_signaling_settings


def signing_keys(
    config: Path | None,
    key_id: str | None,
    secret: str | None,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Return the keys to sign with: the given one, else those of the settings, else the known key of `costream dev`.

    `config` is a relay's or a signaling service's file. Raises SettingsError for a bad file or half a key.
    """
    if secret is not None:
        return {key_id or DEV_KEY_ID: secret}
    if config is None and not any(name.startswith("COSTREAM_AUTH__KEYS") for name in environ):
        if key_id not in (None, DEV_KEY_ID):
            raise SettingsError(f"--key-id {key_id} needs its secret: give --secret or --config")
        return {DEV_KEY_ID: DEV_SECRET}
    try:
        return dict(load_node_settings(config, environ).auth.keys)
    except SettingsError as of_node:
        try:
            return dict(load_signaling_settings(config, environ).auth.keys)
        except SettingsError:
            raise of_node from None
