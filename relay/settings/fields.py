"""Types of settings: ranges and spellings, and the base of all sections."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: a key for HS256 has at least 256 bits
EMBEDDED_STORE = "embedded"


def is_address(text: str) -> str:
    """Return the text. ValueError when it is no numeric address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address such as 0.0.0.0 or 203.0.113.7") from None
    return text


def _is_endpoint(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise ValueError("must be host:port such as 203.0.113.7:7444, [2001:db8::1]:7444 or relay-a:7444")
    if host.startswith("["):
        is_address(host.removeprefix("[").removesuffix("]"))
    elif re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host) is None:
        raise ValueError("must name a host before the port")
    return text


def _is_store_url(text: str) -> str:
    parts = urlsplit(text)
    kinds = {f"{base}{kind}" for base in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")}
    if text != EMBEDDED_STORE and not (parts.scheme in kinds and parts.netloc):
        raise ValueError(
            'must be "embedded", redis://host:port/db, redis+sentinel://host:port,host:port/service/db or '
            "redis+cluster://host:port,host:port; rediss… over TLS"
        )
    return text


def _are_keys(keys: Mapping[str, str]) -> Mapping[str, str]:
    for key_id, secret in keys.items():
        if not key_id or not key_id.isprintable() or " " in key_id:
            raise ValueError(f"key id {key_id!r} is empty or has spaces")
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the secret of key {key_id!r} is shorter than {MIN_SECRET_BYTES} bytes")
    return keys


def _is_control_url(text: str) -> str:
    parts = urlsplit(text)
    plain = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
    if text and not (plain and parts.path in {"", "/"} and not parts.query and not parts.fragment):
        raise ValueError("must be https://host:port or http://host:port, or empty")
    return text.rstrip("/")


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]
BitsPerSecond = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Address = Annotated[str, AfterValidator(is_address)]
Addresses = Annotated[tuple[Address, ...], Field(strict=False)]
Endpoints = Annotated[tuple[Annotated[str, AfterValidator(_is_endpoint)], ...], Field(strict=False, max_length=2)]
Directory = Annotated[Path, Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
StoreUrl = Annotated[str, AfterValidator(_is_store_url)]
ControlUrl = Annotated[str, AfterValidator(_is_control_url)]
Keys = Annotated[Mapping[str, str], AfterValidator(_are_keys)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
