"""What commands and events speak of: addresses, keys, formats, layers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Address = tuple[str, int]
"""Numeric host and port, as the socket reports them (IPv4-mapped addresses are written as IPv4)."""


class Kind(Enum):
    """What a track or slot carries."""

    AUDIO = "audio"
    VIDEO = "video"


class SrtpProfile(Enum):
    """SRTP protection profiles by their names in DTLS, as OpenSSL spells them (RFC 7714 14.2, RFC 5764 4.1.2), in the
    order in which they are preferred."""

    AES_128_GCM = "SRTP_AEAD_AES_128_GCM"
    AES_256_GCM = "SRTP_AEAD_AES_256_GCM"
    AES_CM_128_HMAC_SHA1_80 = "SRTP_AES128_CM_SHA1_80"

    @property
    def key_length(self) -> int:
        """Bytes of the master key."""
        return 32 if self is SrtpProfile.AES_256_GCM else 16

    @property
    def salt_length(self) -> int:
        """Bytes of the master salt."""
        return 14 if self is SrtpProfile.AES_CM_128_HMAC_SHA1_80 else 12

    @property
    def tag_length(self) -> int:
        """Bytes that protection adds to an RTP packet."""
        return 10 if self is SrtpProfile.AES_CM_128_HMAC_SHA1_80 else 16


@dataclass(frozen=True, slots=True)
class PayloadType:
    """One negotiated RTP payload type of an m-line.

    `codec` is lower case: opus, vp8, vp9, h264, av1 or rtx. `apt` is the payload type that an rtx one repairs
    (RFC 4588). `profile` tells formats of one codec apart, e.g. `42e01f/1` for H264 (profile-level-id and
    packetization-mode) or `0` for a VP9 profile; empty when the codec has one format only.
    """

    number: int
    codec: str
    clock_hz: int
    apt: int | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One simulcast encoding of a track, lowest first. `ssrc` is known only when the offer signalled it."""

    rid: str = ""
    ssrc: int | None = None
    rtx_ssrc: int | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """RTCP feedback that was negotiated for an m-line (RFC 4585, RFC 5104, REMB, transport-cc)."""

    nack: bool = False
    pli: bool = False
    fir: bool = False
    remb: bool = False
    transport_cc: bool = False


NO_FEEDBACK = Feedback()
