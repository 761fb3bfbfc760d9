"""How flow ids are numbered: one publication layer has four, so that its feedback and its parity need no table.

RTP over QUIC leaves the numbering to the application (draft-ietf-avtcore-rtp-over-quic-14, section 5). A layer's media
has a multiple of four, its RTCP the next number, its parity the one after. Number 0 to 3 belong to the path itself.
"""

from __future__ import annotations

STEP = 4
FIRST = STEP
MEDIA = 0
FEEDBACK = 1
PARITY = 2
MAX_FLOW = (1 << 30) - 1  # four bytes as a varint (RFC 9000 section 16)


def feedback_of(flow: int) -> int:
    """Return the id of the RTCP that belongs to a media flow."""
    return flow + FEEDBACK


def parity_of(flow: int) -> int:
    """Return the id of the parity that belongs to a media flow."""
    return flow + PARITY


def split(flow: int) -> tuple[int, int]:
    """Return the media flow that an id belongs to, and what the id carries: MEDIA, FEEDBACK or PARITY."""
    return flow & ~3, flow & 3


def is_media(flow: int) -> bool:
    """Say whether an id can be a layer's media flow."""
    return FIRST <= flow <= MAX_FLOW - STEP and flow & 3 == 0
