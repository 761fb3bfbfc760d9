"""The native core without a free slot for one more packet. The reference has no such limit."""

from __future__ import annotations

import pytest

from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, RemoveTap
from relay.plane.reference import rtp
from tests.plane import world as world_module
from tests.plane.peers import Publisher
from tests.plane.world import MS, OPUS, World

native = pytest.importorskip("relay.plane._native", reason="the native plane is not built: see rust/README.md")

SLOTS = 4


def test_packets_without_a_slot_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "Forwarder", lambda config: native.Forwarder(config, max_packets=SLOTS))
    world = World()
    publisher = Publisher(world)
    voice = publisher.audio()
    world.apply(AddTrack(50, None, Kind.AUDIO, "", (OPUS,), (LayerSpec(),)), AddTap(1, 50, 0))
    for seq in range(SLOTS + 2):  # an undrained tap holds its packets
        world.plane.inject(50, 0, rtp.build_header(111, False, seq, 960 * seq, 9) + b"sound", world.now)
    assert world.plane.stats().drops == {"inject_no_packets_left": 2}
    # Not pumped, so that the tap stays as it is.
    sealed = publisher.srtp.protect_rtp(rtp.build_header(111, False, 1, 1, voice.ssrc) + b"sound")
    assert sealed is not None
    world.plane.receive(sealed, publisher.address, world.now)
    assert world.plane.stats().drops == {"inject_no_packets_left": 2, "no_packets_left": 1}
    assert len(world.plane.taps()) == SLOTS
    world.plane.receive(sealed, publisher.address, world.now)
    world.apply(RemoveTap(1))
    world.run(20 * MS)
    stats = world.plane.stats()
    assert stats.tracks[voice.track][0].packets == 1
    assert stats.drops == {"inject_no_packets_left": 2, "no_packets_left": 1}
    world.check_conservation()
