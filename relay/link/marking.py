"""What the origin does to a tapped packet before it crosses a link: canonical header extensions, and the sync id.

A publisher's extension ids are its session's own; across a link they are `INJECT_EXTENSIONS`, and only those that mean
something at a viewer travel. The first packet of each frame carries the frame's sync id in a header extension of 8
bytes (big endian). Its id is beyond those of one byte, so such a packet uses the two-byte form (RFC 8285 section 4.3).
A packet is marked once, whatever the number of links that carry it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from struct import Struct

from relay.ids import HybridClock
from relay.plane.reference import rtp
from relay.plane.reference.state import INJECT_EXTENSIONS, PASSED_ON
from relay.stage.timeline import Timeline

SYNC_ID_URI = "urn:costream:rtp-hdrext:sync-id"
SYNC_ID_EXTENSION = len(INJECT_EXTENSIONS) + 1
SYNC_ID_LENGTH = 8
REMEMBERED_FRAMES = 512  # 17 s of 30 frames/s, 10 s of audio: longer than any repair takes

_SYNC_ID = Struct("!Q")


class Marked:
    """One packet as it crosses links. `sync_id` is its frame's; `first` says that it carries it. Treat as frozen."""

    __slots__ = ("data", "first", "seq", "ssrc", "sync_id", "timestamp")

    def __init__(self, data: bytes, ssrc: int, seq: int, timestamp: int, sync_id: int, first: bool) -> None:
        self.data = data
        self.ssrc = ssrc
        self.seq = seq
        self.timestamp = timestamp
        self.sync_id = sync_id
        self.first = first


class FrameMarks:
    """Which frames of one layer were marked, and with which sync id; bounded. `clock` is the node's: its events come
    after the frames that it has marked."""

    def __init__(self, clock: HybridClock, timeline: Timeline) -> None:
        self._clock = clock
        self._timeline = timeline
        self._frames: OrderedDict[int, int] = OrderedDict()
        self._newest: int | None = None

    @property
    def anchor(self) -> tuple[int, int] | None:
        """The newest frame as (RTP timestamp, sync id), None before the first."""
        return None if self._newest is None else (self._newest, self._frames[self._newest])

    def stamp(self, ssrc: int, timestamp: int, wall_us: int) -> tuple[int, bool]:
        """Return the sync id of a frame that arrives now, and whether it was seen for the first time.

        A frame that comes after a newer one gets the id of the time at which it should have come: ids keep the frames'
        order.
        """
        known = self._frames.get(timestamp)
        if known is not None:
            return known, False
        timeline, newest = self._timeline, self._newest
        timeline.note(ssrc, timestamp, wall_us)
        sync_id = timeline.sync_id(timestamp)
        if sync_id is None:  # late by a minute or more: of no stream that plays
            sync_id = 0
        if newest is None or rtp.timestamp_delta(timestamp, newest) > 0:
            if newest is not None:
                sync_id = max(sync_id, self._frames[newest] + 1)
            self._newest = timestamp
            self._clock.observe(sync_id)
        self._frames[timestamp] = sync_id
        if len(self._frames) > REMEMBERED_FRAMES:
            oldest = next(iter(self._frames))
            if oldest == self._newest:  # a stranger's timestamps run backwards: keep the one that orders the others
                self._frames.move_to_end(oldest)
                oldest = next(iter(self._frames))
            del self._frames[oldest]
        return sync_id, True

    def known(self, timestamp: int) -> int:
        """Return the sync id of a frame that was seen, else the newest one's; 0 before the first."""
        if timestamp in self._frames:
            return self._frames[timestamp]
        return 0 if self._newest is None else self._frames[self._newest]

    def restart(self) -> None:
        """Forget the frames: the publisher came back with another SSRC and other timestamps."""
        self._frames.clear()
        self._newest = None


class Marker:
    """Marks the packets of one tapped layer.

    `extensions` maps a name of `rtp.EXTENSIONS` to its id in the publisher's session (`INJECT_EXTENSIONS` for a track
    that is injected). `timeline` is what the node knows of the layer's frames; local viewers are told by it, too.
    """

    def __init__(
        self,
        clock: HybridClock,
        clock_hz: int,
        extensions: Mapping[str, int] = INJECT_EXTENSIONS,
        timeline: Timeline | None = None,
    ) -> None:
        self.frames = FrameMarks(clock, timeline or Timeline(clock_hz))
        self.malformed = 0
        self._ssrc = -1
        self.use_extensions(extensions)

    def use_extensions(self, extensions: Mapping[str, int]) -> None:
        """Read header extensions by these ids from now on (the publisher came back on another session)."""
        self._passed = tuple((extensions[name], INJECT_EXTENSIONS[name]) for name in PASSED_ON if name in extensions)

    def mark(self, packet: bytes, wall_us: int) -> Marked | None:
        """Return a plaintext RTP packet as it crosses links, None (and counted) when it is malformed.

        `wall_us` is the wall clock at which it came, in microseconds since the epoch.
        """
        parsed = rtp.parse(packet, 0)
        if parsed is None:
            self.malformed += 1
            return None
        if parsed.ssrc != self._ssrc:
            self._ssrc = parsed.ssrc
            self.frames.restart()
        if parsed.payload_end > parsed.payload_offset:
            sync_id, first = self.frames.stamp(parsed.ssrc, parsed.timestamp, wall_us)
        else:  # padding is no frame, whatever its timestamp, and says nothing of when one was made
            sync_id, first = self.frames.known(parsed.timestamp), False
        data = packet
        if first or parsed.extensions or packet[0] & 0x10:
            data = self._rebuild(packet, parsed, sync_id if first else None)
        return Marked(data, parsed.ssrc, parsed.seq, parsed.timestamp, sync_id, first)

    def _rebuild(self, packet: bytes, parsed: rtp.Packet, sync_id: int | None) -> bytes:
        elements: list[tuple[int, bytes]] = []
        if sync_id is not None:
            elements.append((SYNC_ID_EXTENSION, _SYNC_ID.pack(sync_id)))
        if parsed.extensions:
            for theirs, ours in self._passed:
                value = parsed.extension(theirs)
                if value is not None:
                    elements.append((ours, value))
        block = rtp.build_extensions(elements)
        first = packet[0] & 0xEF | (0x10 if block else 0)
        fixed = rtp.HEADER_LENGTH + 4 * (packet[0] & 0x0F)
        return b"".join((bytes((first,)), packet[1:fixed], block, packet[parsed.payload_offset :]))


def read_sync_id(packet: bytes) -> int | None:
    """Return the sync id that a packet from a link carries, None for the packets that carry none.

    The packet's fixed header has to be there (12 bytes).
    """
    first = packet[0]
    if not first & 0x10:
        return None
    start = rtp.HEADER_LENGTH + 4 * (first & 0x0F)
    if packet[start : start + 2] != b"\x10\x00":  # the two-byte form; others do not reach our id
        return None
    end = start + 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    if end > len(packet):
        return None
    span = rtp.parse_extensions(packet, rtp.TWO_BYTE_PROFILE, start + 4, end).get(SYNC_ID_EXTENSION)
    if span is None or span[1] != SYNC_ID_LENGTH:
        return None
    found: int = _SYNC_ID.unpack_from(packet, span[0])[0]
    return found
