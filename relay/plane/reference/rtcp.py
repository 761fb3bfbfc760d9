"""RTCP: a tolerant reader of decrypted compound packets, and the builders a relay needs.

RFC 3550 (SR, RR, SDES, BYE), RFC 4585 (generic NACK, PLI), RFC 5104 (FIR), RFC 5506 (reduced size: any packet may
come first), draft-alvestrand-rmcat-remb-03, transport-cc handed on as bytes. `parse` never raises; a malformed
packet ends the reading, and what was read before it stays good. Builders return whole RTCP packets of whole words;
concatenate them to a compound. Wrong values given to a builder are our own bug and surface as struct.error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

SR, RR, SDES, BYE, APP, RTPFB, PSFB = 200, 201, 202, 203, 204, 205, 206
RTPFB_NACK, RTPFB_TRANSPORT_CC = 1, 15
PSFB_PLI, PSFB_FIR, PSFB_REMB = 1, 4, 15

MAX_PACKETS = 64  # per compound; a client sends fewer than ten
MAX_NACKED = 1024  # sequence numbers per NACK packet; a history holds about as many
MAX_FIR_ENTRIES = 64
MAX_BITRATE = (1 << 63) - 1  # REMB can say 2**81; saturate to what a signed 64-bit number holds

_NTP_UNIX = 2_208_988_800  # seconds from 1900 to 1970
_RTT_LIMIT = 60 << 16  # in 1/65536 s; more is a lie or a stale LSR

_HEAD = Struct("!BBHI")
_SR_INFO = Struct("!QIII")
_BLOCK = Struct("!IIIIII")
_TWO = Struct("!II")
_PID_BLP = Struct("!HH")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """RFC 3550 6.4.1. `fraction_lost` in 1/256; `cumulative_lost` signed 24 bits; `jitter` in clock units;
    `lsr` middle 32 bits of NTP; `dlsr` in 1/65536 s."""

    ssrc: int
    fraction_lost: int
    cumulative_lost: int
    highest_sequence: int
    jitter: int
    lsr: int
    dlsr: int


@dataclass(frozen=True, slots=True)
class SenderReport:
    """`ntp` is the 64-bit NTP timestamp that belongs to `rtp_timestamp`."""

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceDescription:
    """(ssrc, CNAME) of each chunk that has a CNAME; undecodable bytes are replaced."""

    cnames: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Bye:
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """`lost`: 16-bit sequence numbers in the order of the PID/BLP pairs."""

    sender_ssrc: int
    media_ssrc: int
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pli:
    sender_ssrc: int
    media_ssrc: int


@dataclass(frozen=True, slots=True)
class Fir:
    """`entries`: (ssrc, 8-bit command number); a repeated number is the same request (RFC 5104 4.3.1.1)."""

    sender_ssrc: int
    entries: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Remb:
    """`bitrate` in bit/s for all of `ssrcs` together."""

    sender_ssrc: int
    bitrate: int
    ssrcs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TransportFeedback:
    """`fci` goes to `transport_cc.parse_feedback`."""

    sender_ssrc: int
    media_ssrc: int
    fci: bytes


Packet = SenderReport | ReceiverReport | SourceDescription | Bye | Nack | Pli | Fir | Remb | TransportFeedback


@dataclass(frozen=True, slots=True)
class Compound:
    """`error` is empty, or says why reading stopped. `skipped` counts well-formed packets of unknown kinds."""

    packets: tuple[Packet, ...]
    skipped: int
    error: str


def is_rtcp(datagram: bytes) -> bool:
    """RFC 5761 section 4: RTCP when version 2 and the second byte is 192..223."""
    return len(datagram) >= 8 and 128 <= datagram[0] < 192 and 192 <= datagram[1] <= 223


def parse(data: bytes) -> Compound:
    """Read a decrypted compound packet of any content."""
    packets: list[Packet] = []
    offset, size, skipped, error = 0, len(data), 0, ""
    while offset < size:
        if len(packets) + skipped >= MAX_PACKETS:
            error = "too many packets"
            break
        if size - offset < 4:
            error = "truncated header"
            break
        first, kind = data[offset], data[offset + 1]
        end = offset + 4 + 4 * (data[offset + 2] << 8 | data[offset + 3])
        if first >> 6 != 2:
            error = "wrong version"
            break
        if end > size:
            error = "length past the end"
            break
        body_end = end
        if first & 0x20:
            padding = data[end - 1]
            if not 0 < padding <= end - offset - 4:
                error = "wrong padding"
                break
            body_end -= padding
        read = _READERS.get(kind)
        packet = read(data[offset + 4 : body_end], first & 0x1F) if read else None
        if isinstance(packet, str):
            error = packet
            break
        if packet is None:
            skipped += 1
        else:
            packets.append(packet)
        offset = end
    return Compound(tuple(packets), skipped, error)


# Readers: the body after the first word and the count/format field; a str says what is wrong, None is unknown.


def _blocks(body: bytes, offset: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for at in range(offset, offset + 24 * count, 24):
        ssrc, loss, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(body, at)
        cumulative = loss & 0xFFFFFF
        if cumulative & 0x800000:
            cumulative -= 0x1000000
        blocks.append(ReportBlock(ssrc, loss >> 24, cumulative, highest, jitter, lsr, dlsr))
    return tuple(blocks)


def _read_sr(body: bytes, count: int) -> Packet | str | None:
    if len(body) < 24 + 24 * count:
        return "short sender report"
    ntp, rtp, packets, octets = _SR_INFO.unpack_from(body, 4)
    return SenderReport(int.from_bytes(body[:4], "big"), ntp, rtp, packets, octets, _blocks(body, 24, count))


def _read_rr(body: bytes, count: int) -> Packet | str | None:
    if len(body) < 4 + 24 * count:
        return "short receiver report"
    return ReceiverReport(int.from_bytes(body[:4], "big"), _blocks(body, 4, count))


def _read_sdes(body: bytes, count: int) -> Packet | str | None:
    cnames = []
    offset, size = 0, len(body)
    for _ in range(count):
        if offset + 4 > size:
            return "short source description"
        ssrc = int.from_bytes(body[offset : offset + 4], "big")
        offset += 4
        while offset < size and body[offset]:
            if offset + 2 > size or offset + 2 + body[offset + 1] > size:
                return "short source description item"
            end = offset + 2 + body[offset + 1]
            if body[offset] == 1:
                cnames.append((ssrc, body[offset + 2 : end].decode("utf-8", "replace")))
            offset = end
        offset = (offset + 4) & ~3  # at least one zero ends the items, then up to the next word
    return SourceDescription(tuple(cnames))


def _read_bye(body: bytes, count: int) -> Packet | str | None:
    if len(body) < 4 * count:
        return "short bye"
    return Bye(tuple(int.from_bytes(body[at : at + 4], "big") for at in range(0, 4 * count, 4)))


def _read_rtpfb(body: bytes, fmt: int) -> Packet | str | None:
    if len(body) < 8:
        return "short transport feedback"
    sender, media = _TWO.unpack_from(body)
    if fmt == RTPFB_TRANSPORT_CC:
        return TransportFeedback(sender, media, body[8:])
    if fmt != RTPFB_NACK:
        return None
    if len(body) & 3:
        return "ragged nack"
    lost: list[int] = []
    for pid, blp in _PID_BLP.iter_unpack(body[8:]):
        lost.append(pid)
        while blp:
            low = blp & -blp
            lost.append((pid + low.bit_length()) & 0xFFFF)
            blp ^= low
        if len(lost) > MAX_NACKED:
            return "too many sequence numbers in a nack"
    return Nack(sender, media, tuple(lost))


def _read_psfb(body: bytes, fmt: int) -> Packet | str | None:
    if len(body) < 8:
        return "short payload feedback"
    sender, media = _TWO.unpack_from(body)
    if fmt == PSFB_PLI:
        return Pli(sender, media)
    if fmt == PSFB_FIR:
        if (len(body) & 7) or len(body) > 8 + 8 * MAX_FIR_ENTRIES:
            return "wrong size of fir"
        pairs = (_TWO.unpack_from(body, at) for at in range(8, len(body), 8))
        return Fir(sender, tuple((ssrc, word >> 24) for ssrc, word in pairs))
    if fmt == PSFB_REMB and body[8:12] == b"REMB":
        if len(body) < 16 or len(body) < 16 + 4 * body[12]:
            return "short remb"
        word = int.from_bytes(body[13:16], "big")
        bitrate = min((word & 0x3FFFF) << (word >> 18), MAX_BITRATE)
        ends = range(16, 16 + 4 * body[12], 4)
        return Remb(sender, bitrate, tuple(int.from_bytes(body[at : at + 4], "big") for at in ends))
    return None


_READERS: dict[int, Callable[[bytes, int], Packet | str | None]] = {
    SR: _read_sr,
    RR: _read_rr,
    SDES: _read_sdes,
    BYE: _read_bye,
    RTPFB: _read_rtpfb,
    PSFB: _read_psfb,
}


def _packet(kind: int, count: int, ssrc: int, rest: bytes) -> bytes:
    """`rest` is what follows the first SSRC, in whole words."""
    return _HEAD.pack(0x80 | count, kind, 1 + len(rest) // 4, ssrc) + rest


def _pack_blocks(reports: Sequence[ReportBlock]) -> bytes:
    out = bytearray()
    for r in reports:
        cumulative = max(-0x800000, min(r.cumulative_lost, 0x7FFFFF)) & 0xFFFFFF
        out += _BLOCK.pack(r.ssrc, r.fraction_lost << 24 | cumulative, r.highest_sequence, r.jitter, r.lsr, r.dlsr)
    return bytes(out)


def build_sr(report: SenderReport) -> bytes:
    """Sender report with at most 31 blocks. Packet and octet counts wrap at 32 bits."""
    info = _SR_INFO.pack(report.ntp, report.rtp_timestamp, report.packets & 0xFFFFFFFF, report.octets & 0xFFFFFFFF)
    return _packet(SR, len(report.reports), report.ssrc, info + _pack_blocks(report.reports))


def build_rr(ssrc: int, reports: Sequence[ReportBlock] = ()) -> bytes:
    """Receiver report with at most 31 blocks."""
    return _packet(RR, len(reports), ssrc, _pack_blocks(reports))


def build_sdes(ssrc: int, cname: str) -> bytes:
    """Source description with a CNAME of at most 255 bytes of UTF-8."""
    name = cname.encode()
    item = bytes((1, len(name))) + name
    return _packet(SDES, 1, ssrc, item + bytes(4 - len(item) % 4))


def build_bye(ssrcs: Sequence[int]) -> bytes:
    """Goodbye of 1..31 sources."""
    return _packet(BYE, len(ssrcs), ssrcs[0], b"".join(ssrc.to_bytes(4, "big") for ssrc in ssrcs[1:]))


def build_nack(sender_ssrc: int, media_ssrc: int, lost: Iterable[int]) -> bytes:
    """Generic NACK; `lost` are 16-bit sequence numbers in ascending order (across a wrap: before, then after).

    Unordered input is still right, only less tightly packed. Keep it to 256 numbers for a packet within an MTU.
    """
    out = bytearray(media_ssrc.to_bytes(4, "big"))
    pid, blp = -1, 0
    for seq in lost:
        ahead = (seq - pid) & 0xFFFF
        if pid >= 0 and 1 <= ahead <= 16:
            blp |= 1 << (ahead - 1)
        elif seq != pid:
            if pid >= 0:
                out += _PID_BLP.pack(pid, blp)
            pid, blp = seq, 0
    if pid >= 0:
        out += _PID_BLP.pack(pid, blp)
    return _packet(RTPFB, RTPFB_NACK, sender_ssrc, bytes(out))


def build_pli(sender_ssrc: int, media_ssrc: int) -> bytes:
    return _packet(PSFB, PSFB_PLI, sender_ssrc, media_ssrc.to_bytes(4, "big"))


def build_fir(sender_ssrc: int, entries: Sequence[tuple[int, int]]) -> bytes:
    """FIR for (ssrc, 8-bit command number) pairs; the media source field is 0 (RFC 5104 4.3.1.2)."""
    return _packet(PSFB, PSFB_FIR, sender_ssrc, bytes(4) + b"".join(_TWO.pack(s, n << 24) for s, n in entries))


def build_remb(sender_ssrc: int, bitrate: int, ssrcs: Sequence[int]) -> bytes:
    """REMB; `bitrate` in bit/s is rounded down to 18 significant bits."""
    exponent = max(0, bitrate.bit_length() - 18)
    word = exponent << 18 | bitrate >> exponent
    tail = b"".join(ssrc.to_bytes(4, "big") for ssrc in ssrcs)
    head = bytes(4) + b"REMB" + bytes((len(ssrcs),)) + word.to_bytes(3, "big")
    return _packet(PSFB, PSFB_REMB, sender_ssrc, head + tail)


def build_transport_cc(sender_ssrc: int, media_ssrc: int, fci: bytes) -> bytes:
    """Transport-cc feedback; `fci` is padded to whole words, with the padding bit (RFC 3550 6.4.1)."""
    pad = -len(fci) & 3
    if pad:
        fci += bytes(pad - 1) + bytes((pad,))
    head = _HEAD.pack(
        0xA0 | RTPFB_TRANSPORT_CC if pad else 0x80 | RTPFB_TRANSPORT_CC, RTPFB, 2 + len(fci) // 4, sender_ssrc
    )
    return head + media_ssrc.to_bytes(4, "big") + fci


def ntp_from_wall_us(us: int) -> int:
    """64-bit NTP timestamp of `us` microseconds since 1970 UTC, modulo 2**64."""
    seconds, micros = divmod(us, 1_000_000)
    return ((seconds + _NTP_UNIX) << 32 | (micros << 32) // 1_000_000) & 0xFFFFFFFFFFFFFFFF


def wall_us_from_ntp(ntp: int) -> int:
    """Microseconds since 1970 UTC of a 64-bit NTP timestamp of era 0 (until 2036), rounded to the nearest."""
    return ((ntp >> 32) - _NTP_UNIX) * 1_000_000 + (((ntp & 0xFFFFFFFF) * 1_000_000 + 0x80000000) >> 32)


def ntp_middle(ntp: int) -> int:
    """The middle 32 bits: unit 1/65536 s (RFC 3550 section 4)."""
    return (ntp >> 16) & 0xFFFFFFFF


def rtt_us(now_ntp: int, lsr: int, dlsr: int) -> int | None:
    """Round trip in microseconds from a report block (RFC 3550 6.4.1), None when it says nothing or nonsense.

    Rounding can make a tiny round trip negative; it counts as 0.
    """
    if not lsr:
        return None
    delta = (ntp_middle(now_ntp) - lsr - dlsr) & 0xFFFFFFFF
    if delta >= 0x80000000:
        return 0 if delta >= 0x100000000 - 0x100 else None  # within 4 ms below zero
    return delta * 1_000_000 >> 16 if delta <= _RTT_LIMIT else None
