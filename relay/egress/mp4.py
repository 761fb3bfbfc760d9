"""Fragmented MP4 (ISO/IEC 14496-12): an init segment, then fragments that can be written one by one. Sans-IO.

Ours and not FFmpeg's muxer because that one ends a fragment with the first sample of the next: one picture later.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from mmap import mmap
from typing import NamedTuple

from relay.egress.h264 import Parameters
from relay.egress.media import AUDIO_RATE, VIDEO_RATE, AudioConfig, Format
from relay.egress.vp8 import Vp8Parameters

VIDEO_TRACK, AUDIO_TRACK = 1, 2
_MATRIX = struct.pack("!9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_VP_LEVELS = (
    (36_864, 10), (73_728, 11), (122_880, 20), (245_760, 21), (552_960, 30), (983_040, 31), (2_228_224, 40),
    (8_912_896, 50), (35_651_584, 60),
)  # fmt: skip
"""Pixels that a level allows, and its number (VP9 Bitstream Specification, annex A)."""
_SYNC, _NOT_SYNC = 0x02000000, 0x01010000


class Sample(NamedTuple):
    """`duration` and `offset` (presentation less decoding time) in units of the track's rate."""

    data: bytes
    duration: int
    sync: bool = True
    offset: int = 0


class Run(NamedTuple):
    """Samples of a track; `time` is the first one's decoding time."""

    track: int
    time: int
    samples: Sequence[Sample]


def box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack("!I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack("!I", version << 24 | flags), *parts)


def init_segment(video: Format | None, audio: AudioConfig | None) -> bytes:
    """`ftyp` and `moov` for the tracks that there are."""
    tracks, extends = b"", b""
    for track, trak in ((VIDEO_TRACK, video and _video_trak(video)), (AUDIO_TRACK, audio and _audio_trak(audio))):
        if trak:
            tracks += trak
            extends += _full(b"trex", 0, 0, struct.pack("!5I", track, 1, 0, 0, 0))
    head = struct.pack("!4I", 0, 0, 1000, 0) + struct.pack("!IHxx8x", 0x10000, 0x100) + _MATRIX + bytes(24)
    movie = _full(b"mvhd", 0, 0, head, struct.pack("!I", AUDIO_TRACK + 1))
    return box(b"ftyp", b"iso6", struct.pack("!I", 0), b"iso6cmfcmp41") + box(
        b"moov", movie, tracks, box(b"mvex", extends)
    )


def fragment(sequence: int, runs: Iterable[Run]) -> bytes:
    """`moof` and `mdat` of one fragment."""
    runs = [run for run in runs if run.samples]
    size = len(_moof(sequence, runs, 0))
    moof = _moof(sequence, runs, size + 8)
    return moof + box(b"mdat", *(sample.data for run in runs for sample in run.samples))


def whole_boxes(data: bytes | memoryview | mmap, size: int, offset: int = 0) -> list[tuple[bytes, int, int]]:
    """Top-level boxes (kind, offset, size) of a file of `size` bytes that lie whole in it; stops at what is none.

    `data` needs to have only what `offset` points to on: pass an mmap of the file.
    """
    found: list[tuple[bytes, int, int]] = []
    while offset + 8 <= size:
        length, kind = struct.unpack_from("!I4s", data, offset)
        if length < 8 or offset + length > size:
            break
        found.append((kind, offset, length))
        offset += length
    return found


def _moof(sequence: int, runs: Sequence[Run], offset: int) -> bytes:
    trafs = []
    for run in runs:
        head = _full(b"tfhd", 0, 0x020000, struct.pack("!I", run.track))
        time = _full(b"tfdt", 1, 0, struct.pack("!Q", run.time))
        table = b"".join(
            struct.pack("!3Ii", s.duration, len(s.data), _SYNC if s.sync else _NOT_SYNC, s.offset) for s in run.samples
        )
        trun = _full(b"trun", 1, 0xF01, struct.pack("!Ii", len(run.samples), offset), table)
        trafs.append(box(b"traf", head, time, trun))
        offset += sum(len(sample.data) for sample in run.samples)
    return box(b"moof", _full(b"mfhd", 0, 0, struct.pack("!I", sequence)), *trafs)


def _trak(track: int, rate: int, handler: bytes, name: bytes, header: bytes, entry: bytes, shape: bytes) -> bytes:
    volume = 0x100 if handler == b"soun" else 0
    tkhd = _full(b"tkhd", 0, 3, struct.pack("!5I8x4H", 0, 0, track, 0, 0, 0, 0, volume, 0), _MATRIX, shape)
    mdhd = _full(b"mdhd", 0, 0, struct.pack("!4IHH", 0, 0, rate, 0, 0x55C4, 0))
    hdlr = _full(b"hdlr", 0, 0, struct.pack("!I4s12x", 0, handler), name + b"\0")
    tables = _full(b"stsd", 0, 0, struct.pack("!I", 1), entry)
    tables += _full(b"stts", 0, 0, bytes(4)) + _full(b"stsc", 0, 0, bytes(4))
    tables += _full(b"stsz", 0, 0, bytes(8)) + _full(b"stco", 0, 0, bytes(4))
    dinf = box(b"dinf", _full(b"dref", 0, 0, struct.pack("!I", 1), _full(b"url ", 0, 1)))
    return box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, box(b"minf", header, dinf, box(b"stbl", tables))))


def avc_configuration(video: Parameters) -> bytes:
    """AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1), with four bytes of length before each NAL unit."""
    facts = video.facts
    head = struct.pack("!5B", 1, facts.profile, facts.compatibility, facts.level, 0xFF)
    sets = struct.pack("!BH", 0xE1, len(video.sps)) + video.sps + bytes([len(video.pps)])
    return head + sets + b"".join(struct.pack("!H", len(pps)) + pps for pps in video.pps)


def vp_configuration(video: Vp8Parameters) -> bytes:
    """Body of the full box `vpcC` (VP Codec ISO Media File Format Binding 1.0). VP8 has no levels of its own, so it is
    VP9's by the size; colours are as RFC 6386 9.2 has them: BT.601's matrix, the rest is not told."""
    size = video.width * video.height
    level = next((level for most, level in _VP_LEVELS if size <= most), 62)
    depth, colocated, unspecified, bt601 = 8, 1, 2, 6
    shape = depth << 4 | colocated << 1
    return struct.pack("!I6BH", 1 << 24, video.profile, level, shape, unspecified, unspecified, bt601, 0)


def _video_trak(video: Format) -> bytes:
    width, height = video.width, video.height
    name = b"\x0aVPC Coding" if isinstance(video, Vp8Parameters) else b""
    entry = struct.pack("!6xH16x2HIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, name, 24, -1)
    if isinstance(video, Vp8Parameters):
        coding = box(b"vp08", entry, box(b"vpcC", vp_configuration(video)))
    else:
        coding = box(b"avc1", entry, box(b"avcC", avc_configuration(video)))
    header = _full(b"vmhd", 0, 1, bytes(8))
    shape = struct.pack("!2I", width << 16, height << 16)
    return _trak(VIDEO_TRACK, VIDEO_RATE, b"vide", b"video", header, coding, shape)


def _audio_trak(audio: AudioConfig) -> bytes:
    decoder = _descriptor(5, audio.config)
    config = _descriptor(4, struct.pack("!BBBHII", 0x40, 0x15, 0, 0, 0, 0), decoder)
    esds = _full(b"esds", 0, 0, _descriptor(3, struct.pack("!HB", AUDIO_TRACK, 0), config, _descriptor(6, b"\x02")))
    entry = struct.pack("!6xH8xHHIHH", 1, audio.channels, 16, 0, AUDIO_RATE, 0)
    header = _full(b"smhd", 0, 0, bytes(4))
    return _trak(AUDIO_TRACK, AUDIO_RATE, b"soun", b"audio", header, box(b"mp4a", entry, esds), bytes(8))


def _descriptor(tag: int, *parts: bytes) -> bytes:
    """ISO/IEC 14496-1, 7.2.2; all of ours are shorter than 128 bytes."""
    return struct.pack("!BB", tag, sum(map(len, parts))) + b"".join(parts)
