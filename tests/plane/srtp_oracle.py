"""SRTP and SRTCP written straight from RFC 3711 and RFC 7714 with `cryptography`: slow, and independent of libsrtp."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.plane.contract import SrtpProfile


def keystream(key: bytes, iv: bytes, length: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(iv)).encryptor().update(bytes(length))


def derive(master_key: bytes, master_salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 4.3.1 with a key derivation rate of 0; RFC 7714 11 pads its 12-octet salt to 14 on the right."""
    x = int.from_bytes(master_salt.ljust(14, b"\0"), "big") ^ (label << 48)
    return keystream(master_key, x.to_bytes(14, "big") + b"\0\0", length)


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def gcm_iv(salt: bytes, ssrc: bytes, index: int) -> bytes:
    """RFC 7714 8.1 and 9.1: 00 00, SSRC, 48-bit index (roll-over counter and sequence number), by salt."""
    return xor(salt, b"\0\0" + ssrc + index.to_bytes(6, "big"))


def counter_iv(salt: bytes, ssrc: bytes, index: int) -> bytes:
    """RFC 3711 4.1.1."""
    return xor(salt + b"\0\0", bytes(4) + ssrc + index.to_bytes(6, "big") + b"\0\0")


def sha1_tag(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha1).digest()[:10]


def protect_rtp(profile: SrtpProfile, key: bytes, packet: bytes, roc: int = 0, header: int = 12) -> bytes:
    master, salt = key[: profile.key_length], key[profile.key_length :]
    ssrc, index = packet[8:12], roc << 16 | int.from_bytes(packet[2:4], "big")
    head, payload = packet[:header], packet[header:]
    session_key = derive(master, salt, 0, profile.key_length)
    session_salt = derive(master, salt, 2, profile.salt_length)
    if profile is SrtpProfile.AES_CM_128_HMAC_SHA1_80:
        stream = keystream(session_key, counter_iv(session_salt, ssrc, index), len(payload))
        sealed = head + xor(payload, stream)
        return sealed + sha1_tag(derive(master, salt, 1, 20), sealed + roc.to_bytes(4, "big"))
    return head + AESGCM(session_key).encrypt(gcm_iv(session_salt, ssrc, index), payload, head)


def protect_rtcp(profile: SrtpProfile, key: bytes, packet: bytes, index: int) -> bytes:
    master, salt = key[: profile.key_length], key[profile.key_length :]
    ssrc, head, body = packet[4:8], packet[:8], packet[8:]
    trailer = (index | 0x80000000).to_bytes(4, "big")
    session_key = derive(master, salt, 3, profile.key_length)
    session_salt = derive(master, salt, 5, profile.salt_length)
    if profile is SrtpProfile.AES_CM_128_HMAC_SHA1_80:
        stream = keystream(session_key, counter_iv(session_salt, ssrc, index), len(body))
        sealed = head + xor(body, stream) + trailer
        return sealed + sha1_tag(derive(master, salt, 4, 20), sealed)
    return head + AESGCM(session_key).encrypt(gcm_iv(session_salt, ssrc, index), body, head + trailer) + trailer
