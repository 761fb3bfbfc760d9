"""Random stories, each from its seed: whatever happens, what a viewer is sent stays one unbroken stream."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from relay.plane.contract import (
    AddTap,
    BindSlot,
    CloseSession,
    Command,
    Kind,
    LayerSpec,
    MoveTrack,
    MuteTrack,
    PauseSlot,
    ProbeBandwidth,
    RequestKeyframe,
    RestartIce,
    SetLayer,
)
from relay.plane.reference import rtp
from tests.plane.peers import Publisher, Stream, Viewer, check_stream
from tests.plane.world import ALL_FEEDBACK, H264, H264_RTX, MS, OPUS, SECOND, VP8, VP8_RTX, World

STORMS, PER_TEST = 100, 10


class Storm:
    """Two or three publishers, two viewers with three slots each, and a new mishap every 50 ms or so."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        # every fourth has too little room to keep what it forwards
        self.world = World(seed, slab_packets=self.dice.choice((1, 50, 300)) if seed % 4 == 3 else 65_536)
        self.calm = seed % 2 == 0  # publishers lose nothing: then not one number may be missing at the viewer's side
        self.publishers = [Publisher(self.world) for _ in range(self.dice.choice((2, 3)))]
        self.tracks: list[list[Stream]] = []
        for publisher in self.publishers:
            rids = self.dice.choice((("",), ("q", "h"), ("q", "h", "f")))
            self.tracks.append(publisher.video(self.dice.choice((VP8, H264)), rids))
            self.tracks.append([publisher.audio()])
            if not self.calm:
                publisher.up.loss, publisher.up.jitter = self.dice.random() * 0.2, self.dice.randrange(1, 30 * MS)
                publisher.up.duplicate = self.dice.random() * 0.1
        for layers in self.tracks:
            for stream in layers:
                stream.keyframe_every = self.dice.choice((15, 40, 1000))
                stream.answers_pli = self.dice.random() < 0.8
                self.world.after(self.dice.randrange(300 * MS), stream.start)
        self.viewers = [Viewer(self.world) for _ in range(2)]
        self.slots: dict[int, tuple[Viewer, Kind]] = {}
        for viewer in self.viewers:
            viewer.down.loss, viewer.down.jitter = self.dice.random() * 0.2, self.dice.randrange(1, 30 * MS)
            for kind, rtx in ((Kind.VIDEO, True), (Kind.VIDEO, False), (Kind.AUDIO, False)):
                self.slots[viewer.slot(kind, rtx=rtx)] = viewer, kind
            viewer.start_nacks()
            viewer.start_reports()

    def run(self) -> None:
        for slot in self.slots:
            self.bind(slot)
        mishaps = [self.rebind, self.rebind, self.layer, self.pause, self.mute, self.garbage, self.roam, self.feedback]
        mishaps += [self.silence, self.probe, self.move, self.restart]
        for _ in range(20):
            self.world.run(self.dice.randrange(1, 100 * MS))
            self.dice.choice(mishaps)()
        self.world.run(SECOND)

    def bind(self, slot: int) -> None:
        _, kind = self.slots[slot]
        layers = self.dice.choice([t for t in self.tracks if (t[0].codec is OPUS) == (kind is Kind.AUDIO)])
        self.world.apply(BindSlot(slot, layers[0].track, self.dice.randrange(len(layers))))

    def any_slot(self) -> int:
        return self.dice.choice(list(self.slots))

    def rebind(self) -> None:
        slot = self.any_slot()
        if self.dice.random() < 0.1:
            self.world.apply(BindSlot(slot, None))
        else:
            self.bind(slot)

    def layer(self) -> None:
        slot = self.world.plane._core.slots[self.any_slot()]
        if slot.track is not None:
            self.world.apply(SetLayer(slot.handle, self.dice.randrange(len(slot.track.layers))))

    def pause(self) -> None:
        self.world.apply(PauseSlot(self.any_slot(), self.dice.random() < 0.4))

    def mute(self) -> None:
        self.world.apply(MuteTrack(self.dice.choice(self.tracks)[0].track, self.dice.random() < 0.4))

    def silence(self) -> None:
        stream = self.dice.choice(self.dice.choice(self.tracks))
        stream.paused = not stream.paused

    def probe(self) -> None:
        self.world.apply(ProbeBandwidth(self.dice.choice(self.viewers).session, 2_000_000, 60 * MS))

    def feedback(self) -> None:
        viewer = self.dice.choice(self.viewers)
        viewer.pli(self.dice.choice([slot for slot, (owner, _) in self.slots.items() if owner is viewer]))
        layers = self.dice.choice(self.tracks)
        command: Command = RequestKeyframe(layers[0].track, len(layers) - 1)
        self.world.apply(command)
        for stream in layers:
            stream.send_report(self.dice.randrange(-SECOND, SECOND))

    def garbage(self) -> None:
        """Nonsense from strangers and members, and true packets with a bit or two flipped."""
        peer = self.dice.choice([*self.publishers, *self.viewers])
        source = self.dice.choice((peer.address, ("192.0.2.1", 9)))
        for _ in range(5):
            data = bytearray(self.dice.randbytes(self.dice.choice((0, 1, 11, 12, 40, 200, 1600))))
            if data:
                data[0] = self.dice.choice((0, 22, 128, 144, 191, data[0]))
            self.world.receive(bytes(data), source)
        plain = bytearray(rtp.build_header(self.dice.choice((96, 97, 102, 111)), True, 1, 2, 3, ((4, b"1"),)))
        plain += self.dice.randbytes(self.dice.randrange(40))
        plain[self.dice.randrange(1, len(plain))] ^= 1 << self.dice.randrange(8)
        sealed = peer.srtp.protect_rtp(bytes(plain))
        if sealed is not None and plain[8:12] == b"\0\0\0\3":
            self.world.receive(sealed, peer.address)
        compound = bytearray(
            b"\x81\xc9\x00\x07" + self.dice.randbytes(28) + self.dice.randbytes(self.dice.randrange(60))
        )
        compound[1] = self.dice.randrange(200, 207)
        sealed = peer.srtp.protect_rtcp(bytes(compound))
        if sealed is not None:
            self.world.receive(sealed, peer.address)

    def roam(self) -> None:
        peer = self.dice.choice([*self.publishers, *self.viewers])
        if self.calm and isinstance(peer, Publisher):
            return
        peer.move_to(("198.51.100.9", self.dice.randrange(1024, 65536)))
        peer.check(nominate=True)

    def restart(self) -> None:
        peer = self.dice.choice([*self.publishers, *self.viewers])
        peer.ufrag, peer.password = f"r{self.world.handle()}", "password-after-the-restart"
        self.world.apply(RestartIce(peer.session, peer.ufrag, peer.password))
        peer.check()

    def move(self) -> None:
        """A publisher's track comes back on a new session."""
        layers = self.dice.choice(self.tracks)
        if self.calm or layers[0].codec is OPUS:
            return
        publisher, old = Publisher(self.world), layers[0]
        self.publishers.append(publisher)
        for stream in layers:
            stream.paused = True
        kinds = (VP8, VP8_RTX, H264, H264_RTX)
        rids = tuple(stream.rid for stream in layers)
        specs = tuple(LayerSpec(rid) for rid in rids)
        self.world.apply(MoveTrack(old.track, publisher.session, "7", kinds, specs, ALL_FEEDBACK))
        layers[:] = publisher.add_streams(old.track, "7", self.dice.choice((VP8, H264)), rids)
        for stream in layers:
            stream.start()

    def check(self) -> None:
        world = self.world
        world.check_conservation()
        for slot, (viewer, _) in self.slots.items():
            check_stream(viewer.got(slot), holes=True)
            sent = viewer.sent[viewer.ssrc_of[slot]]
            numbers = [0x10000]
            for before, after in pairwise(sent):
                numbers.append(numbers[-1] + rtp.seq_delta(after.seq, before.seq))
            if self.calm and sent:
                assert numbers == list(range(0x10000, 0x10000 + len(sent)))
            assert len({packet.seq for packet in sent}) == len(sent)
        peers = [*self.publishers, *self.viewers]
        world.apply(AddTap(world.handle(), self.tracks[0][0].track, 0))
        world.apply(*(CloseSession(peer.session) for peer in peers))
        assert set(world.plane.table_sizes().values()) == {0}


@pytest.mark.parametrize("first", range(0, STORMS, PER_TEST))
def test_storms(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        storm = Storm(seed)
        storm.run()
        storm.check()


def test_everything_follows_from_the_seed() -> None:
    def story() -> tuple[list[bytes], list[object]]:
        storm = Storm(11)
        sent: list[bytes] = []
        pump = storm.world.plane.transmit

        def transmit() -> list[tuple[bytes, tuple[str, int]]]:
            out = pump()
            sent.extend(datagram for datagram, _ in out)
            return out

        storm.world.plane.transmit = transmit  # type: ignore[method-assign]
        storm.run()
        return sent, list(storm.world.events)

    first, second = story(), story()
    assert len(first[0]) > 500
    assert first == second
