"""What is offered and taken on a worker's links, and what is said there in another machine's time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import PeerError
from relay.link import messages as m
from relay.mix.video.messages import AnchorInput, LagMeasured, OpenStage, SendKeyframe, StageSpec
from relay.plane.reference import rtp
from relay.workers.stand_in import MadeProgram, from_host, to_host
from relay.workers.streams import WAITING, Offers, Takes
from relay.workers.trust import PairAuthority

SPEC = StageSpec(
    stage="s", place=0, stream=7, width=640, height=360, fps=30, codec="vp8", bitrate=1, keyframe_ms=2000,
    payload_type=96, ssrc=1, epoch=5_000_000, timestamp=9, wall_offset=1_000, sequence=1, picture_id=1, delay=0,
    silence=1, hold=0, cores=8, layouts=(), overlays=(),
)  # fmt: skip


class Server:
    """What `Offers` asks of a LinkServer."""

    def __init__(self) -> None:
        self.catalog: list[m.Publication] = []
        self.fed: list[tuple[int, bytes]] = []

    def set_catalog(self, publications: Any) -> None:
        self.catalog = list(publications)

    def feed(self, packets: Any) -> None:
        self.fed += packets


def offers(asked: list[int]) -> tuple[Offers, Server]:
    made, server = Offers(asked.append), Server()
    made.serve(server)  # type: ignore[arg-type]
    return made, server


def test_moments_and_lags_are_said_in_the_other_clock_and_back() -> None:
    there = to_host(OpenStage(SPEC), 300, 2)
    assert there == OpenStage(replace(SPEC, epoch=5_000_300, wall_offset=700, cores=2))
    assert isinstance(there, OpenStage)
    assert there.spec.epoch + there.spec.wall_offset == SPEC.epoch + SPEC.wall_offset  # the same moment by the wall
    anchor = AnchorInput("s", "ann", 7, 3000, 50)  # the host's time is of no matter to the sender's clock
    assert to_host(anchor, 300, 2) == anchor
    assert from_host(LagMeasured("s", "ann", 350, "report"), 300) == LagMeasured("s", "ann", 50, "report")
    assert to_host(SendKeyframe("s"), 300, 2) == SendKeyframe("s")


async def test_packets_wait_for_the_subscription_and_need_no_second_keyframe() -> None:
    asked: list[int] = []
    made, server = offers(asked)
    made.offer(7, "h264")
    made.feed([(7, b"key"), (8, b"of a stream that is not offered")])
    assert made.dropped == 1
    assert made.tap(4, "7", 0) is not None
    made.request_keyframe("7", 0)
    assert asked == []
    made.feed([(7, b"next")])
    assert server.fed == []  # not before what waits
    await soon()
    made.feed([(7, b"third")])
    assert server.fed == [(4, b"key"), (4, b"next"), (4, b"third")]
    made.request_keyframe("7", 0)
    assert asked == [7]
    made.withdraw(7)
    made.feed([(7, b"late")])
    assert made.dropped == 2
    assert server.catalog == []


async def test_who_subscribes_too_late_for_the_first_packets_gets_a_keyframe() -> None:
    asked: list[int] = []
    made, server = offers(asked)
    made.offer(7, "vp8")
    made.feed([(7, bytes((number % 256,))) for number in range(WAITING + 3)])
    assert made.dropped == 3
    assert made.tap(4, "7", 0) is not None
    made.request_keyframe("7", 0)
    assert asked == [7]
    await soon()
    assert len(server.fed) == WAITING


async def test_what_is_offered_later_keeps_its_packets_until_it_is_published() -> None:
    made, server = offers([])
    made.offer(7, "h264", later=True)
    made.feed([(7, b"key")])
    assert server.catalog == []
    assert made.tap(4, "7", 0) is None
    made.publish([7, 8])
    assert [entry.id for entry in server.catalog] == ["7"]
    assert made.tap(4, "7", 0) is not None
    await soon()
    assert server.fed == [(4, b"key")]


async def test_what_is_offered_before_there_is_a_link_is_offered_then() -> None:
    made, server = Offers(lambda stream: None), Server()
    made.offer(7, "h264")
    made.offer(8, "vp8")
    made.withdraw(8)
    made.feed([(7, b"key")])
    made.serve(server)  # type: ignore[arg-type]
    assert [entry.id for entry in server.catalog] == ["7"]
    assert made.tap(4, "7", 0) is not None
    await soon()
    assert server.fed == [(4, b"key")]


async def soon() -> None:
    await asyncio.sleep(0)


@given(st.text(max_size=20) | st.integers(0, 1 << 60).map(str), st.integers(0, 15))
def test_strange_publications_are_not_there(publication: str, layer: int) -> None:
    made, _ = offers([])
    assert made.tap(4, publication, layer) is None
    made.request_keyframe(publication, layer)
    codecs = (m.Codec(number=96, codec="vp8", clock_hz=90_000),)
    if publication:
        entry = m.Publication(id=publication, epoch=1, room="r", kind="video", codecs=codecs, layers=(m.Layer(),))
        plain = publication.isascii() and publication.isdigit() and len(publication) < 16
        assert Takes(lambda *_: None).admit("worker", entry) == ("" if plain else "a stream has a number")


def test_a_program_goes_on_after_the_newest_packet_that_came() -> None:
    made = MadeProgram("s", 0, "h264")
    for seq in (65_534, 65_535, 1, 0, 65_533):
        made.count(rtp.build_header(102, False, seq, 0, 1) + b"\x41x")
    assert (made.next, made.packets) == (2, 5)
    made.count(b"nonsense")
    assert (made.next, made.packets) == (2, 5)


@given(st.binary(max_size=64), st.sampled_from(["h264", "vp8"]))
def test_whatever_comes_as_a_program_s_packet_is_counted_or_not(data: bytes, codec: Any) -> None:
    made = MadeProgram("s", 0, codec)
    made.count(data)
    assert (made.next is None) == (made.packets == 0)
    assert 0 <= made.picture_id < 1 << 15


@pytest.mark.parametrize("key", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"\xff"])
def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(PeerError, match="cannot be read"):
        PairAuthority().far(key)


def test_a_key_of_another_kind_is_refused() -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    with pytest.raises(PeerError, match="another kind"):
        PairAuthority().far(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
