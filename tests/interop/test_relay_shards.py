"""libwebrtc publishes and watches through a relay of two shards: hosts and viewers on both, everyone sees everyone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.plane import native_missing
from tests.interop.clients.wrtc_client import Watcher
from tests.interop.relays import Relay, on_stage
from tests.interop.test_relay_wrtc import READABLE, check_in_order, hears

pytestmark = pytest.mark.skipif(bool(native_missing()), reason="the native plane is not built: see rust/README.md")


async def test_hosts_and_viewers_on_both_shards(
    relay_with: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTREAM_MEDIA__SHARDS", "2")
    relay = relay_with(media__plane="native")
    assert '"plane_shards": 2' in relay.log.read_text()
    room = await relay.room()
    # A publisher goes to the shard with the fewest publishers, a viewer to the one with the fewest sessions.
    async with (
        on_stage(room.host(1), room.host(2)),
        room.watcher("v1", videos=2, audios=2) as first,
        room.watcher("v2", videos=2, audios=2) as second,
    ):
        for watcher in (first, second):
            await watcher.until(lambda seen=watcher: all(len(slot.seen) >= 40 for slot in seen.videos), 30)
            await watcher.until(
                lambda seen=watcher: all(any(hears(slot, host) for slot in seen.audios) for host in (1, 2)), 20
            )
            check_in_order(watcher, {1, 2}, READABLE["VP8"])
        ports = {identity: port_of(client) for identity, client in {"v1": first, "v2": second}.items()}
        assert len(set(ports.values())) == 2, ports


def port_of(watcher: Watcher) -> int:
    """The port that the relay named to a viewer."""
    assert watcher.resource is not None
    answer = watcher.resource.answer
    ports = {int(line.split()[5]) for line in answer.splitlines() if line.startswith("a=candidate:")}
    assert len(ports) == 1
    return ports.pop()
