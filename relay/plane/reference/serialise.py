"""Outgoing RTP packets of one slot: a header template that is filled in per packet.

The fixed extensions (mid) and the stamped ones (transport-wide sequence number, send time) sit in the template. Those
passed on from the publisher (audio level, orientation, ...) are re-numbered once per ingress packet and `Forwarding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from relay.errors import UsageError
from relay.plane.reference.rtp import (
    HEADER_LENGTH,
    ONE_BYTE_MAX_ID,
    ONE_BYTE_MAX_LENGTH,
    Packet,
    build_extensions,
    build_header,
)

_FIRST_FIELDS = Struct("!BBHI")
_U16 = Struct("!H")
_STAMP = Struct("!BH")  # low 24 bits of the send time: the top octet, then the rest


def _fits_one_byte(element_id: int, value: bytes) -> bool:
    return element_id <= ONE_BYTE_MAX_ID and 1 <= len(value) <= ONE_BYTE_MAX_LENGTH


class Forwarding:
    """Which extension elements of an ingress packet are passed on, and under which id.

    Share one instance among all slots with equal arguments: it remembers the block of the latest packet.
    """

    __slots__ = ("_block", "_fits", "_latest", "allow_mixed", "ids")

    def __init__(self, ids: Sequence[tuple[int, int]] = (), allow_mixed: bool = False) -> None:
        """`ids` are (id in, id out) pairs, written in this order. Out ids are 1..255.

        Elements that need the two-byte form are left out unless the viewer agreed to `a=extmap-allow-mixed`.
        """
        self.ids = tuple(ids)
        self.allow_mixed = allow_mixed
        self._latest: object = None
        self._block = b""
        self._fits = True

    def elements(self, packet: Packet) -> list[tuple[int, bytes]]:
        """Return the (id out, value) pairs of the elements of `packet` that are passed on."""
        found = []
        for id_in, id_out in self.ids:
            value = packet.extension(id_in)
            if value is not None and (self.allow_mixed or _fits_one_byte(id_out, value)):
                found.append((id_out, value))
        return found

    def block(self, packet: Packet) -> bytes | None:
        """Return the elements in one-byte form, padded to 32 bits. None when they need the two-byte form."""
        # The elements of one packet and of what was unpacked from it, which are the same bytes. To hold the packet
        # itself would keep its place in the slab.
        if packet.extensions is not self._latest:
            self._latest = packet.extensions
            elements = self.elements(packet) if packet.extensions else []
            self._fits = all(_fits_one_byte(i, value) for i, value in elements)
            self._block = build_extensions(elements)[4:] if self._fits else b""
        return self._block if self._fits else None


class Serialiser:
    """Writes the packets of one output stream (one SSRC)."""

    __slots__ = (
        "_fixed",
        "_forwarding",
        "_send_time_at",
        "_send_time_id",
        "_template",
        "_transport_at",
        "_transport_id",
        "_words",
        "ssrc",
    )

    def __init__(
        self,
        ssrc: int,
        fixed: Sequence[tuple[int, bytes]] = (),
        transport_cc_id: int = 0,
        abs_send_time_id: int = 0,
        forwarding: Forwarding | None = None,
    ) -> None:
        """`fixed` are (id, value) pairs of every packet. An id of 0 means that the extension was not agreed on.

        Fixed and stamped ids are 1..14 with values of 1..16 bytes; UsageError otherwise.
        """
        self.ssrc = ssrc
        self._fixed = tuple(fixed)
        self._transport_id = transport_cc_id
        self._send_time_id = abs_send_time_id
        self._forwarding = forwarding if forwarding is not None and forwarding.ids else None
        elements = self._own_elements(0, 0)
        if not all(_fits_one_byte(i, value) for i, value in elements):
            raise UsageError("the relay's own header extensions must fit the one-byte form")
        if not elements and self._forwarding is not None:
            block = bytes.fromhex("bede0000")
        else:
            block = build_extensions(elements)
        self._template = bytearray(build_header(0, False, 0, 0, ssrc) + block)
        self._words = len(block) // 4 - 1
        position = HEADER_LENGTH + 4 + sum(1 + len(value) for _, value in self._fixed)
        self._transport_at = position + 1 if transport_cc_id else 0
        if transport_cc_id:
            position += 3
        self._send_time_at = position + 1 if abs_send_time_id else 0

    def _own_elements(self, transport_seq: int, send_time: int) -> list[tuple[int, bytes]]:
        elements = list(self._fixed)
        if self._transport_id:
            elements.append((self._transport_id, _U16.pack(transport_seq)))
        if self._send_time_id:
            elements.append((self._send_time_id, send_time.to_bytes(3, "big")))
        return elements

    def write(
        self,
        packet: Packet,
        type_and_marker: int,
        seq: int,
        timestamp: int,
        patch_offset: int = 0,
        patch: bytes = b"",
        transport_seq: int = 0,
        send_time: int = 0,
        prefix: bytes = b"",
    ) -> bytes:
        """Return the outgoing plaintext packet.

        `type_and_marker` is the second octet: marker bit and payload type. `patch` replaces payload bytes from
        `patch_offset` on. `transport_seq` is 16 bits, `send_time` 24 bits (6.18 fixed point seconds). `prefix` goes
        before the payload: the original sequence number of a retransmission (RFC 4588).

        Sealing two packets that differ under one SSRC and sequence number breaks AES-GCM (RFC 7714 8.1), so a repeat
        outside RTX must be written with the very values of the first time.
        """
        template = self._template
        block = b""
        if self._forwarding is not None:
            maybe = self._forwarding.block(packet)
            if maybe is None:
                return self._write_two_byte(
                    packet, type_and_marker, seq, timestamp, patch_offset, patch, transport_seq, send_time, prefix
                )
            block = maybe
            words = self._words + (len(block) >> 2)
            _U16.pack_into(template, 14, words)
            _FIRST_FIELDS.pack_into(template, 0, 0x90, type_and_marker, seq, timestamp)
        else:
            _FIRST_FIELDS.pack_into(template, 0, 0x90 if self._words >= 0 else 0x80, type_and_marker, seq, timestamp)
        if self._transport_at:
            _U16.pack_into(template, self._transport_at, transport_seq)
        if self._send_time_at:
            _STAMP.pack_into(template, self._send_time_at, send_time >> 16, send_time & 0xFFFF)
        data = packet.data
        start = packet.payload_offset
        if patch:
            at = start + patch_offset
            after = at + len(patch)
            return b"".join((template, block, prefix, data[start:at], patch, data[after : packet.payload_end]))
        return b"".join((template, block, prefix, data[start : packet.payload_end]))

    def _write_two_byte(
        self,
        packet: Packet,
        type_and_marker: int,
        seq: int,
        timestamp: int,
        patch_offset: int,
        patch: bytes,
        transport_seq: int,
        send_time: int,
        prefix: bytes,
    ) -> bytes:
        elements = self._own_elements(transport_seq, send_time)
        if self._forwarding is not None:
            elements += self._forwarding.elements(packet)
        header = build_header(type_and_marker & 0x7F, type_and_marker > 0x7F, seq, timestamp, self.ssrc, elements)
        payload = bytearray(packet.payload)
        payload[patch_offset : patch_offset + len(patch)] = patch
        return b"".join((header, prefix, payload))
