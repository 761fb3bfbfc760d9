"""Client-to-mixer audio level (RFC 6464) and a smoothed loudness per publication.

Loudness is an integer: 0 (silence) … 127 * 256 (0 dBov), in 1/256 dB above -127 dBov. Time is cut in windows of
100 ms; the mean of a window's voiced packets moves the value by 1/2 when louder and by 1/8 when quieter, so that a
speaker is heard at once and a pause between words does not make the stage jump.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_US = 100_000
SILENCE = 127  # in -dBov, the quietest level that the extension can say
MAX_LOUDNESS = SILENCE << 8
_ATTACK = 128  # of 256: half of the way per window
_DECAY = 32  # of 256: an eighth of the way per window, half-life about 520 ms
_FORGET_WINDOWS = 64  # after 6.4 s of silence nothing audible is left: (7/8)**64 < 0.0002


@dataclass(frozen=True, slots=True)
class AudioLevel:
    """`level` in -dBov: 0 is the loudest, 127 is silence. `voice` is the sender's own voice detection."""

    level: int
    voice: bool


def parse_audio_level(extension: bytes) -> AudioLevel | None:
    """Read the body of the ssrc-audio-level header extension (RFC 6464 section 3).

    The one-byte header form carries one byte; the two-byte form may carry padding after it, which is ignored.
    Returns None for an empty body.
    """
    if not extension:
        return None
    return AudioLevel(extension[0] & 0x7F, extension[0] >= 0x80)


class Loudness:
    """Smoothed loudness of one publication. `add` per audio packet, `value` whenever the stage wants to compare."""

    __slots__ = ("_count", "_sum", "_value", "_window_end")

    def __init__(self) -> None:
        self._value = 0
        self._sum = 0
        self._count = 0
        self._window_end = -1

    def add(self, level: int, voice: bool, now: int) -> None:
        """Take the level of one packet (-dBov, 0..127). Packets without voice count as quieter by 12 dB.

        The handicap keeps a noisy room from beating a speaker, and still ranks clients that never set the flag.
        """
        if now >= self._window_end:
            self._advance(now)
        loud = SILENCE - (level & 0x7F)
        if not voice:
            loud = loud - 12 if loud > 12 else 0
        self._sum += loud
        self._count += 1

    def value(self, now: int) -> int:
        """Loudness at `now`, 0..127 * 256. Windows without packets are silence (DTX sends none)."""
        if now >= self._window_end:
            self._advance(now)
        return self._value

    def _advance(self, now: int) -> None:
        """Close the windows that ended at or before `now`."""
        if self._window_end < 0:
            self._window_end = now + WINDOW_US
            return
        passed = (now - self._window_end) // WINDOW_US + 1
        self._step((self._sum << 8) // self._count if self._count else 0)
        self._sum = self._count = 0
        if passed > _FORGET_WINDOWS:
            self._value = 0
        else:
            for _ in range(passed - 1):
                self._step(0)
        self._window_end += passed * WINDOW_US

    def _step(self, target: int) -> None:
        """Move towards `target` by the attack or decay share. Decay rounds down, so silence reaches exactly 0."""
        if target > self._value:
            self._value += ((target - self._value) * _ATTACK) >> 8
        else:
            self._value -= ((self._value - target) * _DECAY + 255) >> 8
