"""Why a connection ended, in words, and whether that was for somebody's identity."""

from __future__ import annotations

from aioquic.quic import events

from relay.link.quic.adapter import Quic

CERTIFICATE_ALERTS = frozenset(range(0x100 + 42, 0x100 + 49)) | {0x100 + 116}  # RFC 8446 section 6 in RFC 9001 4.8


def reason_of(quic: Quic, ending: events.ConnectionTerminated, peer: str) -> str:
    """Return why `quic` ended."""
    if quic.refused is not None:
        return quic.refused
    text = ending.reason_phrase or f"error 0x{ending.error_code:x}"
    if ending.error_code in CERTIFICATE_ALERTS:
        return f"{peer or 'the peer'} refused our certificate: {text}"
    return text


def is_refusal(quic: Quic) -> bool:
    """Whether one end did not take the other for who it says it is."""
    ending = quic.ending
    return quic.refused is not None or (ending is not None and ending.error_code in CERTIFICATE_ALERTS)
