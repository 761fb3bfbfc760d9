"""Publishers and viewers for the virtual-time world: what they send, answer, receive and check."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from relay.plane.contract import (
    AddSlot,
    AddTrack,
    BindSlot,
    Feedback,
    Kind,
    LayerSpec,
    PayloadType,
)
from relay.plane.reference import rtcp, rtp
from relay.plane.reference.srtp import Srtp
from relay.plane.reference.transport_cc import Recorder
from tests.plane.world import (
    ALL_FEEDBACK,
    H264,
    H264_RTX,
    MARK,
    MS,
    OPUS,
    PUBLISHER_EXTENSIONS,
    SECOND,
    VIEWER_EXTENSIONS,
    VP8,
    VP8_RTX,
    WALL,
    Peer,
    World,
)


class Stream:
    """One encoding that a publisher sends: frames of a codec, with a history for NACKs."""

    def __init__(self, peer: Publisher, track: int, mid: str, codec: PayloadType, rid: str, bitrate: int) -> None:
        world = peer.world
        self.peer, self.track, self.mid, self.codec, self.rid = peer, track, mid, codec, rid
        self.ssrc, self.rtx_ssrc = world.ssrc(), world.ssrc()
        self.rtx_type = {96: 97, 102: 103}.get(codec.number)
        self.seq = world.random.randrange(0x8000)
        self.rtx_seq = world.random.randrange(0x8000)
        self.timestamp_base = world.random.randrange(1 << 32)
        self.picture_id = world.random.randrange(1 << 15)
        self.tl0 = world.random.randrange(256)
        self.interval = 20 * MS if codec.codec == "opus" else 33_333
        self.frame_bytes = bitrate * self.interval // 8_000_000
        self.frame = 0
        self.packets = self.octets = 0
        self.history: dict[int, bytes] = {}
        self.want_keyframe = True
        self.answers_pli = True
        self.keyframe_every = 10_000
        self.named = True  # mid and rid in the packets
        self.level = 30
        self.paused = False
        self.losing: set[int] = set()  # frames whose first packet is withheld
        self.plis = 0
        self.captured: dict[int, int] = {}  # frame → timestamp

    def timestamp(self, now: int) -> int:
        return (self.timestamp_base + now * self.codec.clock_hz // SECOND) & 0xFFFFFFFF

    def start(self) -> Stream:
        self.tick()
        return self

    def tick(self) -> None:
        if not self.paused:
            self.send_frame()
        self.peer.world.after(self.interval, self.tick)

    def send_frame(self) -> None:
        key = self.codec.codec != "opus" and (self.want_keyframe or self.frame % self.keyframe_every == 0)
        if key:
            self.want_keyframe = False
        size = self.frame_bytes * (3 if key else 1)
        count = max(1, -(-size // 1000))
        timestamp = self.timestamp(self.peer.world.now)
        self.captured[self.frame] = timestamp
        self.picture_id = (self.picture_id + 1) & 0x7FFF
        self.tl0 = (self.tl0 + 1) & 0xFF
        for index in range(count):
            body = MARK.pack(self.ssrc, self.frame, index, count)
            body += bytes(max(0, min(1000, size - 1000 * index) - len(body)))
            payload = self.payload_head(key, index, len(body)) + body
            self.send_packet(payload, index == count - 1, timestamp, withhold=index == 0 and self.frame in self.losing)
        self.frame += 1

    def payload_head(self, key: bool, index: int, size: int) -> bytes:
        if self.codec.codec == "vp8":
            first = 0x90 if index == 0 else 0x80
            head = bytes((first, 0xE0)) + (0x8000 | self.picture_id).to_bytes(2, "big") + bytes((self.tl0, 0x20))
            if index:
                return head
            return head + (bytes((0x10, 0, 0)) + b"\x9d\x01\x2a\x80\x02\x68\x01" if key else bytes((0x11, 0, 0)))
        if self.codec.codec == "h264":
            if key and index == 0:
                parameters = bytes((24, 0, 4, 0x67, 0x42, 0xE0, 0x1F, 0, 2, 0x68, 0xCE))
                return parameters + (size + 2).to_bytes(2, "big") + b"\x65\x88"
            return bytes((0x7C, (0x80 if index == 0 else 0) | (5 if key else 1), 0x9A))
        return b"\x78"

    def elements(self, extra: tuple[tuple[int, bytes], ...] = ()) -> list[tuple[int, bytes]]:
        ids, peer = self.peer.extensions, self.peer
        out = list(extra)
        if "transport_cc" in ids:
            peer.transport_seq = (peer.transport_seq + 1) & 0xFFFF
            out.append((ids["transport_cc"], peer.transport_seq.to_bytes(2, "big")))
        if self.codec.codec == "opus" and "audio_level" in ids:
            out.append((ids["audio_level"], bytes((0x80 | self.level,))))
        return out

    def names(self, repair: bool = False) -> tuple[tuple[int, bytes], ...]:
        ids = self.peer.extensions
        if not self.named:
            return ()
        out = [(ids["mid"], self.mid.encode())]
        if self.rid:
            out.append((ids["rrid" if repair else "rid"], self.rid.encode()))
        return tuple(out)

    def send_packet(self, payload: bytes, marker: bool, timestamp: int, withhold: bool = False) -> None:
        header = rtp.build_header(
            self.codec.number, marker, self.seq, timestamp, self.ssrc, self.elements(self.names())
        )
        self.history[self.seq] = (marker, timestamp, payload)
        self.history.pop((self.seq - 2000) & 0xFFFF, None)
        self.seq = (self.seq + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        if not withhold:
            self.peer.send_rtp(header + payload)

    def send_padding(self) -> None:
        """A packet of nothing but padding on the media SSRC."""
        header = rtp.build_header(self.codec.number, False, self.seq, self.timestamp(self.peer.world.now), self.ssrc)
        self.seq = (self.seq + 1) & 0xFFFF
        self.peer.send_rtp(bytes((header[0] | 0x20,)) + header[1:] + bytes(199) + b"\xc8")

    def resend(self, seq: int) -> None:
        if seq not in self.history or self.rtx_type is None:
            return
        marker, timestamp, payload = self.history[seq]
        header = rtp.build_header(
            self.rtx_type, marker, self.rtx_seq, timestamp, self.rtx_ssrc, self.elements(self.names(repair=True))
        )
        self.rtx_seq = (self.rtx_seq + 1) & 0xFFFF
        self.peer.send_rtp(header + rtp.encapsulate_rtx(payload, seq))

    def send_report(self, clock_offset: int = 0) -> None:
        now = self.peer.world.now
        ntp = rtcp.ntp_from_wall_us(now + WALL + clock_offset)
        report = rtcp.SenderReport(self.ssrc, ntp, self.timestamp(now), self.packets, self.octets)
        self.peer.send_rtcp(rtcp.build_sr(report) + rtcp.build_sdes(self.ssrc, "pub"))


class Publisher(Peer):
    """Sends streams; answers NACK by RTX and PLI/FIR by a keyframe."""

    def __init__(
        self, world: World, extensions: tuple[tuple[str, int], ...] = PUBLISHER_EXTENSIONS, connect: bool = True
    ) -> None:
        super().__init__(world, extensions, connect)
        self.streams: dict[int, Stream] = {}
        self.transport_seq = 0

    def video(
        self,
        codec: PayloadType = VP8,
        rids: tuple[str, ...] = ("",),
        feedback: Feedback = ALL_FEEDBACK,
        mid: str = "1",
        track: int | None = None,
    ) -> list[Stream]:
        track = track or self.world.handle()
        kinds = (VP8, VP8_RTX) if codec is VP8 else (H264, H264_RTX)
        layers = tuple(LayerSpec(rid) for rid in rids)
        self.world.apply(AddTrack(track, self.session, Kind.VIDEO, mid, kinds, layers, feedback))
        return self.add_streams(track, mid, codec, rids)

    def add_streams(self, track: int, mid: str, codec: PayloadType, rids: tuple[str, ...]) -> list[Stream]:
        streams = [
            Stream(self, track, mid, codec, rid, 64_000 if codec is OPUS else 250_000 << (2 * index))
            for index, rid in enumerate(rids)
        ]
        for stream in streams:
            self.streams[stream.ssrc] = stream
        return streams

    def audio(self, mid: str = "0") -> Stream:
        track = self.world.handle()
        self.world.apply(AddTrack(track, self.session, Kind.AUDIO, mid, (OPUS,), (LayerSpec(),), Feedback()))
        return self.add_streams(track, mid, OPUS, ("",))[0]

    def on_control(self, packet: rtcp.Packet) -> None:
        match packet:
            case rtcp.Nack():
                stream = self.streams.get(packet.media_ssrc)
                for seq in packet.lost if stream is not None else ():
                    stream.resend(seq)
            case rtcp.Pli():
                self.asked(packet.media_ssrc)
            case rtcp.Fir():
                for ssrc, _ in packet.entries:
                    self.asked(ssrc)
            case _:
                pass

    def asked(self, ssrc: int) -> None:
        stream = self.streams.get(ssrc)
        if stream is not None:
            stream.plis += 1
            stream.want_keyframe = stream.want_keyframe or stream.answers_pli


@dataclass
class Got:
    """One media packet as a viewer has it, `seq` unwrapped; `mark` is what the publisher put into the payload."""

    at: int
    seq: int
    timestamp: int
    marker: bool
    payload_type: int
    payload: bytes
    mark: tuple[int, int, int, int]
    extensions: dict[int, bytes]
    repaired: bool
    picture_id: int = -1


class Viewer(Peer):
    """Receives slots; asks for what it misses and reports what arrives once told to start."""

    def __init__(
        self, world: World, extensions: tuple[tuple[str, int], ...] = VIEWER_EXTENSIONS, connect: bool = True
    ) -> None:
        super().__init__(world, extensions, connect)
        self.media: dict[int, list[Got]] = defaultdict(list)  # by media SSRC
        self.rtx_of: dict[int, int] = {}
        self.ssrc_of: dict[int, int] = {}  # slot → SSRC
        self.highest: dict[int, int] = {}
        self.missing: dict[int, dict[int, int]] = defaultdict(dict)
        self.seen: dict[int, dict[int, bytes]] = defaultdict(dict)
        self.duplicates = 0
        self.padding = 0
        self.ssrc = world.ssrc()
        keys = self.set_keys
        self.witness_srtp = Srtp(keys.profile, keys.rx_key, keys.tx_key)
        self.wire: dict[tuple[bytes, bytes], bytes] = {}
        self.sent: dict[int, list[rtp.Packet]] = defaultdict(list)  # by SSRC, before the network
        self.recorder: Recorder | None = None

    def slot(
        self,
        kind: Kind = Kind.VIDEO,
        mid: str = "",
        rtx: bool = True,
        feedback: Feedback = ALL_FEEDBACK,
        kinds: tuple[PayloadType, ...] | None = None,
    ) -> int:
        slot, ssrc = self.world.handle(), self.world.ssrc()
        rtx_ssrc = self.world.ssrc() if rtx and kind is Kind.VIDEO else None
        if rtx_ssrc is not None:
            self.rtx_of[rtx_ssrc] = ssrc
        self.ssrc_of[slot] = ssrc
        if kinds is None:
            kinds = (
                (PayloadType(109, "opus", 48_000),)
                if kind is Kind.AUDIO
                else (
                    PayloadType(120, "vp8", 90_000),
                    PayloadType(121, "rtx", 90_000, apt=120),
                    PayloadType(122, "h264", 90_000, profile="42e01f/1"),
                    PayloadType(123, "rtx", 90_000, apt=122),
                )
            )
        self.world.apply(
            AddSlot(
                slot, self.session, kind, mid or str(slot), ssrc, rtx_ssrc, kinds, feedback, f"cname-{self.session}"
            )
        )
        return slot

    def watch(self, stream: Stream, slot: int | None = None, layer: int = 0) -> int:
        kind = Kind.AUDIO if stream.codec.codec == "opus" else Kind.VIDEO
        slot = self.slot(kind) if slot is None else slot
        self.world.apply(BindSlot(slot, stream.track, layer))
        return slot

    def witness(self, datagram: bytes) -> None:
        if 128 <= datagram[0] < 192 and not rtcp.is_rtcp(datagram):
            # Two packets that differ under one SSRC and number would break AES-GCM (RFC 7714 8.1).
            assert self.wire.setdefault((datagram[8:12], datagram[2:4]), datagram) == datagram
            plain = self.witness_srtp.unprotect_rtp(datagram)
            packet = rtp.parse(plain, self.world.now) if plain is not None else None
            if packet is not None:
                self.sent[packet.ssrc].append(packet)

    def got(self, slot: int) -> list[Got]:
        return self.media[self.ssrc_of[slot]]

    def on_media(self, packet: rtp.Packet) -> None:
        if self.recorder is not None:
            stamp = packet.extension(self.extensions["transport_cc"])
            if stamp is not None:
                self.recorder.record(int.from_bytes(stamp, "big"), self.world.now)
        ssrc, seq, payload, repaired = packet.ssrc, packet.seq, packet.payload, False
        if not payload:
            self.padding += 1
            return
        payload_type = packet.payload_type
        if ssrc in self.rtx_of:
            ssrc, seq, payload, repaired = self.rtx_of[ssrc], int.from_bytes(payload[:2], "big"), payload[2:], True
            payload_type -= 1
        self.note(ssrc, seq, payload_type, payload, packet, repaired)

    def note(
        self, ssrc: int, seq16: int, payload_type: int, payload: bytes, packet: rtp.Packet, repaired: bool
    ) -> None:
        high = self.highest.get(ssrc, -1)
        if high < 0:
            self.highest[ssrc] = high = seq = seq16 + 0x10000
        else:
            seq = high + rtp.seq_delta(seq16, high & 0xFFFF)
        if seq in self.seen[ssrc]:
            assert self.seen[ssrc][seq] == payload  # one number never stands for two packets
            self.duplicates += 1
            return
        self.seen[ssrc][seq] = payload
        self.missing[ssrc].pop(seq, None)
        if seq > high:
            for lost in range(high + 1, seq):
                self.missing[ssrc][lost] = self.world.now
            self.highest[ssrc] = seq
        head = {120: 6, 122: 3, 109: 1}[payload_type]
        picture_id = int.from_bytes(payload[2:4], "big") & 0x7FFF if payload_type == 120 else -1
        if payload_type == 120 and payload[0] & 0x10:
            head += 10 if not payload[6] & 1 else 3
        if payload_type == 122 and payload[0] == 24:
            head = 15
        elements = {name: packet.extension(number) for name, number in self.extensions.items()}
        self.media[ssrc].append(
            Got(
                self.world.now,
                seq,
                packet.timestamp,
                packet.marker,
                payload_type,
                payload,
                MARK.unpack_from(payload.ljust(head + MARK.size, b"\0"), head),  # fuzz is shorter
                {name: value for name, value in elements.items() if value is not None},
                repaired,
                picture_id,
            )
        )

    def start_nacks(self, every: int = 20 * MS) -> None:
        """Ask again and again for everything that is missing."""
        for ssrc, missing in self.missing.items():
            for seq in [seq for seq, since in missing.items() if self.world.now - since > SECOND]:
                del missing[seq]
            lost = sorted(missing)[:200]
            if lost:
                self.send_rtcp(rtcp.build_nack(self.ssrc, ssrc, [seq & 0xFFFF for seq in lost]))
        self.world.after(every, lambda: self.start_nacks(every))

    def start_reports(self, every: int = 50 * MS) -> None:
        """Send transport-cc feedback."""
        if self.recorder is None:
            self.recorder = Recorder()
        for feedback in self.recorder.feedback(self.world.now, self.ssrc, 1):
            self.send_rtcp(feedback)
        self.world.after(every, lambda: self.start_reports(every))

    def pli(self, slot: int) -> None:
        self.send_rtcp(rtcp.build_pli(self.ssrc, self.ssrc_of[slot]))


def check_stream(got: list[Got], holes: bool = False) -> None:
    """What must hold for any stream a slot ever sends: see the comments."""
    by_seq = sorted(got, key=lambda packet: packet.seq)
    numbers = [packet.seq for packet in by_seq]
    assert len(set(numbers)) == len(numbers)
    if not holes and numbers:
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    for before, after in pairwise(by_seq):
        # In sequence order timestamps never go back, and stay equal only within one frame of one input.
        step = rtp.timestamp_delta(after.timestamp, before.timestamp)
        same = before.mark[:2] == after.mark[:2]
        assert step == 0 if same else step > 0, (before, after)
    frames: dict[tuple[int, int], int] = {}
    for packet in by_seq:
        if packet.picture_id >= 0:
            # One picture id per frame, and one frame per picture id.
            assert frames.setdefault(packet.mark[:2], packet.picture_id) == packet.picture_id
    ids = list(frames.values())
    for earlier, later in pairwise(ids):
        # Ids only go up, and by no more than the frames that were lost, also where one input takes over from another.
        assert 0 < (later - earlier) & 0x7FFF < 60
