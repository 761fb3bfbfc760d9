"""Where a push may go."""

from __future__ import annotations

import asyncio

from relay.addresses import in_a_thread, look_up
from relay.egress.address import Target, parse_target

LOOK_UP_S = 5.0


def addresses_of(target: Target, allow_private: bool) -> list[str]:
    """Look a target up, blocking. Raises as `relay.addresses.look_up` does."""
    return look_up(target.host, target.port, allow_private, "egress.allow_private_targets")


async def check_target(url: str, allow_private: bool) -> None:
    """Raise BadRequest for an address that is none or not allowed. A name that cannot be looked up now passes: it is
    looked up and checked again by whoever connects."""
    target = parse_target(url)
    try:
        async with asyncio.timeout(LOOK_UP_S):
            await in_a_thread(addresses_of, target, allow_private)
    except (OSError, TimeoutError):
        return
