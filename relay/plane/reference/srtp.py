"""SRTP and SRTCP of one session (RFC 3711, RFC 7714) over pylibsrtp's binding of libsrtp.

The binding is called directly, with one buffer and one length per session, because `pylibsrtp.Session` allocates a C
integer per packet. `_binding` is a private name: look here before allowing a new major version of pylibsrtp.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pylibsrtp  # noqa: F401  importing it initialises libsrtp
from pylibsrtp._binding import ffi, lib

from relay.errors import UsageError
from relay.plane.contract import SrtpProfile

MAX_PLAIN = 1484  # bytes: MAX_SEALED less the longest tag. GStreamer fills packets of 1400 bytes before SRTP
MAX_SEALED = 1500  # bytes: nothing longer arrives in one Ethernet frame
REPLAY_WINDOW = 1024  # packets: half a second at 2,000 packets/s, so that a retransmission is not taken for a replay
MAX_STREAMS = 256  # SSRCs that one peer can make us remember; a browser uses two per layer
_TRAILER = 4 + 16 + 128


_LIBSRTP_PROFILE = {
    SrtpProfile.AES_128_GCM: lib.srtp_profile_aead_aes_128_gcm,
    SrtpProfile.AES_256_GCM: lib.srtp_profile_aead_aes_256_gcm,
    SrtpProfile.AES_CM_128_HMAC_SHA1_80: lib.srtp_profile_aes128_cm_sha1_80,
}


class Refusal(Enum):
    """Why a packet was not let through."""

    AUTH = "authentication failed"
    REPLAY = "seen before or too old to tell"
    OVERSIZE = "longer than a datagram may be"
    MALFORMED = "not an RTP or RTCP packet, or not decodable"
    CLOSED = "the session is closed"
    STREAMS = "of one SSRC more than is remembered"


# srtp_err_status_t: 7 auth_fail, 8 cipher_fail, 9 replay_fail, 10 replay_old, 26 pkt_idx_old
_REASONS = {7: Refusal.AUTH, 8: Refusal.AUTH, 9: Refusal.REPLAY, 10: Refusal.REPLAY, 26: Refusal.REPLAY}


def _create(profile: SrtpProfile, key: bytes | bytearray, outbound: bool) -> Any:
    """Return a libsrtp context for every SSRC in one direction. The key's C copy is wiped before the return."""
    if len(key) != profile.key_length + profile.salt_length:
        raise UsageError(f"{profile.name} needs {profile.key_length + profile.salt_length} key bytes, not {len(key)}")
    policy = ffi.new("srtp_policy_t *")
    number = _LIBSRTP_PROFILE[profile]
    for part, setter in (
        (policy.rtp, lib.srtp_crypto_policy_set_from_profile_for_rtp),
        (policy.rtcp, lib.srtp_crypto_policy_set_from_profile_for_rtcp),
    ):
        if setter(ffi.addressof(part), number) != lib.srtp_err_status_ok:
            raise UsageError(f"libsrtp was built without {profile.name}")
    secret = ffi.new("unsigned char[]", len(key))
    ffi.memmove(secret, key, len(key))
    policy.key = secret
    policy.ssrc.type = lib.ssrc_any_outbound if outbound else lib.ssrc_any_inbound
    policy.window_size = REPLAY_WINDOW
    # A repeat that is identical to the first sending is safe; history.SentLog keeps what that takes.
    policy.allow_repeat_tx = 1 if outbound else 0
    context = ffi.new("srtp_t *")
    status = lib.srtp_create(context, policy)
    ffi.memmove(secret, bytes(len(key)), len(key))
    if status != lib.srtp_err_status_ok:
        raise UsageError(f"libsrtp refused the key of {profile.name}: status {status}")
    return ffi.gc(context, _dealloc)


def _dealloc(context: Any) -> None:
    lib.srtp_dealloc(context[0])  # libsrtp zeroes the derived keys itself


class Srtp:
    """Protection of both directions of one session. Not for use by two threads at once.

    Every method returns the processed packet, or None; then `last_refusal` says why and `refused` has counted it.
    """

    __slots__ = ("_buffer", "_cdata", "_length", "_rx", "_streams", "_tx", "last_refusal", "profile", "refused")

    def __init__(self, profile: SrtpProfile, tx_key: bytes | bytearray, rx_key: bytes | bytearray) -> None:
        """Keys are master key + master salt. A bytearray is the caller's to wipe. UsageError for wrong lengths."""
        self.profile = profile
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self.last_refusal: Refusal | None = None
        self._tx: Any = _create(profile, tx_key, outbound=True)
        self._rx: Any = _create(profile, rx_key, outbound=False)
        self._streams: set[bytes] = set()  # SSRCs that libsrtp remembers: those of authentic packets
        self._cdata = ffi.new("char[]", MAX_SEALED + _TRAILER)
        self._buffer = ffi.buffer(self._cdata)
        self._length = ffi.new("int *")

    def protect_rtp(self, packet: bytes) -> bytes | None:
        """Seal an RTP packet of at most MAX_PLAIN bytes."""
        size = len(packet)
        tx = self._tx
        if size > MAX_PLAIN or tx is None:
            return self._refuse(Refusal.CLOSED if tx is None else Refusal.OVERSIZE)
        buffer = self._buffer
        length = self._length
        buffer[0:size] = packet
        length[0] = size
        status = _protect(tx[0], self._cdata, length)
        if status:
            return self._refuse(_REASONS.get(status, Refusal.MALFORMED))
        sealed: bytes = buffer[0 : length[0]]
        return sealed

    def unprotect_rtp(self, packet: bytes) -> bytes | None:
        """Open an SRTP packet. A packet opened before, or older than REPLAY_WINDOW, is refused."""
        size = len(packet)
        rx = self._rx
        if size > MAX_SEALED or rx is None:
            return self._refuse(Refusal.CLOSED if rx is None else Refusal.OVERSIZE)
        ssrc, streams = packet[8:12], self._streams
        if len(streams) >= MAX_STREAMS and size >= 12 and ssrc not in streams:
            # To forget one would forget which of its packets were seen.
            return self._refuse(Refusal.STREAMS)
        buffer = self._buffer
        length = self._length
        buffer[0:size] = packet
        length[0] = size
        status = _unprotect(rx[0], self._cdata, length)
        if status:
            return self._refuse(_REASONS.get(status, Refusal.MALFORMED))
        streams.add(ssrc)
        opened: bytes = buffer[0 : length[0]]
        return opened

    def protect_rtcp(self, packet: bytes) -> bytes | None:
        """Seal a compound RTCP packet of at most MAX_PLAIN bytes."""
        return self._control(_protect_rtcp, self._tx, packet, MAX_PLAIN)

    def unprotect_rtcp(self, packet: bytes) -> bytes | None:
        """Open an SRTCP packet."""
        ssrc, streams = packet[4:8], self._streams
        if (
            len(streams) >= MAX_STREAMS
            and 8 <= len(packet) <= MAX_SEALED
            and self._rx is not None
            and ssrc not in streams
        ):
            return self._refuse(Refusal.STREAMS)
        opened = self._control(_unprotect_rtcp, self._rx, packet, MAX_SEALED)
        if opened is not None:
            streams.add(ssrc)
        return opened

    def close(self) -> None:
        """Free both contexts, which zeroes the derived keys, and wipe the packet buffer. Repeatable."""
        for context in (self._tx, self._rx):
            if context is not None:
                ffi.release(context)
        self._tx = self._rx = None
        self._buffer[0 : len(self._buffer)] = bytes(len(self._buffer))

    def _control(self, call: Callable[..., int], context: Any, packet: bytes, limit: int) -> bytes | None:
        size = len(packet)
        if size > limit or context is None:
            return self._refuse(Refusal.CLOSED if context is None else Refusal.OVERSIZE)
        self._buffer[0:size] = packet
        self._length[0] = size
        status = call(context[0], self._cdata, self._length)
        if status:
            return self._refuse(_REASONS.get(status, Refusal.MALFORMED))
        processed: bytes = self._buffer[0 : self._length[0]]
        return processed

    def _refuse(self, reason: Refusal) -> bytes | None:
        self.refused[reason] += 1
        self.last_refusal = reason
        return None


_protect = lib.srtp_protect
_unprotect = lib.srtp_unprotect
_protect_rtcp = lib.srtp_protect_rtcp
_unprotect_rtcp = lib.srtp_unprotect_rtcp
