"""The settings of a test cluster's members, as TOML files in the cluster's own directory.

Every member has a host of the fabric to itself, so all of a kind use the same ports. A relay has two paths: clients,
the control API and the primary path of links use path 1, the backup path of links path 2.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drills.fabric import FabricError
from drills.fabric.base import ROOT
from relay.settings import NodeSettings, SignalingSettings

HTTPS_PORT, HTTP_PORT, MEDIA_PORT, LINK_PORT, STORE_PORT = 7443, 7080, 7443, 7444, 6379
_CLI_S = 60.0

Role = Literal["store", "signaling", "relay"]
Sections = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member is. `addresses` is where others reach it, `bound` what it binds; path 1 (primary) comes first."""

    name: str
    role: Role
    addresses: tuple[str, ...]
    bound: tuple[str, ...]
    region: str = "local"

    @property
    def http(self) -> str:
        return f"http://{self.addresses[0]}:{HTTP_PORT}"

    @property
    def https(self) -> str:
        return f"https://{self.addresses[0]}:{HTTPS_PORT}"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all members of one cluster know."""

    store_url: str
    key_id: str
    secret: str
    authority: Path | None
    """Directory of `costream ca`, with a certificate for every relay; None: no links."""
    in_namespaces: bool


Extra = Callable[[Place], Mapping[str, Mapping[str, Any]]]
"""More settings for a member, section by section; they win over those made here."""


def settings_of(place: Place, shared: Shared, directory: Path, extra: Extra | None) -> Sections:
    """All settings of a relay or a signaling service."""
    sections: Sections = {
        "node": {"id": place.name, "region": place.region, "state_dir": str(directory / place.name),
                 "drain_timeout_s": 1.0},
        "http": {"host": place.bound[0], "port": HTTPS_PORT, "plain_host": place.bound[0], "plain_port": HTTP_PORT},
        "store": {"url": shared.store_url},
        "cluster": {},
        "rate": {"api_per_minute": 100_000, "joins_per_minute": 100_000},
        "log": {"format": "json"},
        "auth": {"keys": {shared.key_id: shared.secret}},
    }  # fmt: skip
    if place.role == "relay":
        sections["cluster"] = {"control_url": place.https, "public_url": place.https}
        sections["media"] = {"host": place.bound[0], "port": MEDIA_PORT, "advertise": [place.addresses[0]]}
        sections["link"] = link_settings(place, shared)
    for section, values in (extra(place) if extra else {}).items():
        sections.setdefault(section, {}).update(values)
    return sections


def link_settings(place: Place, shared: Shared) -> dict[str, Any]:
    """A relay's `[link]`: who it is, and where it is reached on the primary path (`addresses[0]`) and the backup path
    (`addresses[1]`). In namespaces it binds both; on loopback, where all relays share a machine, the first only.
    """
    if shared.authority is None:
        return {}
    files = {"certificate": f"{place.name}.pem", "key": f"{place.name}.key", "ca": "ca.pem"}
    own: dict[str, Any] = {key: str(shared.authority / file) for key, file in files.items()}
    paths = 2 if shared.in_namespaces else 1
    return {
        **own,
        "host": "0.0.0.0" if shared.in_namespaces else place.bound[0],
        "port": LINK_PORT,
        "advertise": [f"{address}:{LINK_PORT}" for address in place.addresses[:paths]],
        "primary_host": place.bound[0],
        "backup_host": place.bound[paths - 1],
    }


def make_authority(directory: Path, relays: Sequence[Place]) -> None:
    """A CA and a certificate for each relay, by costream's own command."""
    _costream("ca", "init", str(directory))
    with ThreadPoolExecutor() as pool:
        commands = [
            ("ca", "issue", str(directory), relay.name, *(f"--address={address}" for address in relay.addresses))
            for relay in relays
        ]
        for _ in pool.map(lambda words: _costream(*words), commands):
            pass


def write_settings(path: Path, place: Place, sections: Sections) -> None:
    """Write a member's file (mode 0600: it has the key), checked against what the member will read."""
    model = NodeSettings if place.role == "relay" else SignalingSettings
    unknown = sections.keys() - model.model_fields.keys()
    if unknown:
        raise FabricError(f"{place.name} has no settings {', '.join(sorted(unknown))}")
    path.touch(mode=0o600)
    path.write_text("\n".join(_lines("", sections)) + "\n")


def _lines(prefix: str, table: Mapping[str, Any]) -> list[str]:
    """A table as TOML. Its strings, numbers and lists are those of JSON (TOML 1.0, basic strings)."""
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{prefix}.{json.dumps(key)}" if prefix else json.dumps(key)
            lines += [f"[{name}]", *_lines(name, value)]
    return lines


def _costream(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "costream.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_CLI_S,
        check=False,
    )
    if done.returncode:
        raise FabricError(f"costream {' '.join(words[:2])}: {(done.stderr or done.stdout).strip()}")
