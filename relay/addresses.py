"""Where this process may connect to for others: addresses are looked up once, checked, and those very ones are used.

A name may be answered differently the next time (DNS rebinding), so nothing is looked up again after the check.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from relay.errors import BadRequest

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "fec0::/10")))
"""Which `is_global` takes for public, the first before Python 3.12.4 only: protocol assignments (RFC 6890), where a
cloud has its metadata service, and site-local addresses (RFC 3879)."""

_LOOK_UPS = ThreadPoolExecutor(16, "look-up")
"""Of their own: a resolver that does not answer holds a thread for as long as it tries, whoever still waits for it, and
the event loop's are few and needed."""


async def in_a_thread(look_up: Callable[..., list[str]], *arguments: object) -> list[str]:
    """Do what `look_up` does without blocking the event loop. Whoever bounds the time leaves the thread behind."""
    return await asyncio.get_running_loop().run_in_executor(_LOOK_UPS, look_up, *arguments)


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


def look_up(host: str, port: int, allow_private: bool, setting: str) -> list[str]:
    """Look a host up, blocking. Raises BadRequest when any address is private or the name cannot be one, OSError when
    there is none.

    One private address among public ones is refused too: nobody who means well has such a name. `setting` is the one
    that allows them.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except UnicodeError:  # a label that is empty or longer than 63 (RFC 1035)
        raise BadRequest("the target's name is none that can be looked up", code="bad-target") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private and not all(map(is_public, addresses)):
        raise BadRequest(f"the target's address is private (see {setting})", code="target-not-allowed")
    return addresses


def _is_global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    known = any(ip in network for network in _NOT_PUBLIC if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not known
