"""The addresses of this machine that clients can be sent to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import ifaddr


def detect_addresses(bind: str, found: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return what a socket bound to `bind` can be reached at, IPv4 first: itself, or for a wildcard all interfaces.

    `bind` is an IP address. `found` stands in for the interfaces' addresses. Link-local ones are left out (a candidate
    cannot name the interface they need), and loopback too while there is anything else.
    """
    bound = ipaddress.ip_address(bind)
    if not bound.is_unspecified:
        return (str(bound),)
    texts = interface_addresses() if found is None else found
    usable = {address for address in map(ipaddress.ip_address, texts) if not address.is_link_local}
    if bound.version == 4:
        usable = {address for address in usable if address.version == 4}
    outside = {address for address in usable if not address.is_loopback}
    ordered = sorted(outside or usable, key=lambda address: (address.version, int(address)))
    return tuple(map(str, ordered)) or ("127.0.0.1",)


def interface_addresses() -> list[str]:
    """Return all addresses of all interfaces, as the kernel lists them."""
    found = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips]
    return [ip if isinstance(ip, str) else ip[0] for ip in found]
