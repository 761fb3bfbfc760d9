"""Where a push may go: addresses are looked up once, checked, and those very ones are connected to.

A name may be answered differently the next time (DNS rebinding), so nothing is looked up again after the check.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from relay.egress.address import Target, parse_target
from relay.errors import BadRequest

LOOK_UP_S = 5.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, also when it hides in an IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            return _is_global(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip.ipv4_mapped is not None:
            return _is_global(ip.ipv4_mapped)
        if not all(_is_global(each) for each in (ip.sixtofour, *(ip.teredo or ())) if each is not None):
            return False
    return _is_global(ip)


def addresses_of(target: Target, allow_private: bool) -> list[str]:
    """Look a target up, blocking. Raises BadRequest when any address is private, OSError when there is none.

    One private address among public ones is refused too: nobody who means well has such a name.
    """
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private and not all(map(is_public, addresses)):
        raise BadRequest(
            "the target's address is private (see egress.allow_private_targets)", code="target-not-allowed"
        )
    return addresses


async def check_target(url: str, allow_private: bool) -> None:
    """Raise BadRequest for an address that is none or not allowed. A name that cannot be looked up now passes: it is
    looked up and checked again by whoever connects."""
    target = parse_target(url)
    try:
        async with asyncio.timeout(LOOK_UP_S):
            await asyncio.to_thread(addresses_of, target, allow_private)
    except (OSError, TimeoutError):
        return


def _is_global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
