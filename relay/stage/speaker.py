"""Who speaks: the active speaker and everybody who is being heard, from measured loudness. Time in seconds.

Levels run from 0 (silence) to 127 (full scale), one step being 1 dB (RFC 6464 turned around). A level counts as speech
when its smoothed value is above a threshold and well above that microphone's own noise floor, so that a fan or a
hissing room does not hold the stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class SpeakerSettings:
    """Levels in dB (0..127), times in seconds."""

    threshold: float = 75.0
    """-52 dBov: quiet speech into a laptop is around -45, a quiet room around -65."""
    above_floor: float = 8.0
    smoothing: float = 0.5
    """Weight of a new level; levels come every 100 ms, so a syllable counts and a click does not."""
    floor_rise_per_s: float = 2.0
    attack: float = 0.3
    """How long somebody must speak to take over from silence."""
    challenge: float = 0.6
    """How long somebody must be louder than a speaker who goes on speaking."""
    challenge_margin: float = 6.0
    hold: float = 1.0
    """The least time between two changes."""
    stale: float = 0.5
    """Without any measurement for this long nobody is being heard."""


@dataclass(slots=True)
class _Voice:
    level: float = 0.0
    floor: float = 127.0
    speaks_since: float | None = None
    last_spoke: float = NEVER
    challenges_since: float | None = None


class SpeakerDetector:
    """Follows the voices of one room."""

    def __init__(self, settings: SpeakerSettings | None = None) -> None:
        self._settings = settings or SpeakerSettings()
        self._voices: dict[str, _Voice] = {}
        self._measured = NEVER
        self._changed = NEVER
        self.speaker: str | None = None
        """The active speaker; who spoke last stays it until somebody else speaks or he leaves."""

    @property
    def speaking(self) -> frozenset[str]:
        """Who is being heard now."""
        return frozenset(name for name, voice in self._voices.items() if voice.speaks_since is not None)

    def last_spoke(self, identity: str) -> float:
        """Return when somebody was last heard; `NEVER` for one who never was."""
        voice = self._voices.get(identity)
        return voice.last_spoke if voice else NEVER

    def forget(self, identity: str) -> None:
        """Somebody left, was muted or went off air."""
        self._voices.pop(identity, None)
        if self.speaker == identity:
            self.speaker = None
            self._changed = NEVER

    def keep(self, identities: Iterable[str]) -> None:
        """Forget everybody else."""
        for gone in set(self._voices) - set(identities):
            self.forget(gone)

    def heard(self, levels: Mapping[str, float], now: float) -> bool:
        """Take the levels of the last 100 ms; who is not in them was silent. Whether the active speaker changed."""
        elapsed = min(max(now - self._measured, 0.0), 1.0)
        self._measured = now
        for identity in levels:
            self._voices.setdefault(identity, _Voice())
        for identity, voice in self._voices.items():
            self._measure(voice, min(max(levels.get(identity, 0.0), 0.0), 127.0), elapsed, now)
        return self._elect(now)

    def tick(self, now: float) -> None:
        """Let the voices end when measurements stop coming."""
        if now - self._measured > self._settings.stale:
            for voice in self._voices.values():
                voice.level = 0.0
                voice.speaks_since = voice.challenges_since = None

    def _measure(self, voice: _Voice, level: float, elapsed: float, now: float) -> None:
        limits = self._settings
        voice.level += limits.smoothing * (level - voice.level)
        # Digital silence (DTX, a muted microphone) says nothing about the noise of the room.
        if level > 0:
            voice.floor = min(level, voice.floor + limits.floor_rise_per_s * elapsed)
        floor = min(voice.floor, limits.threshold) if voice.floor < 127.0 else 0.0
        if voice.level >= max(limits.threshold, floor + limits.above_floor):
            voice.speaks_since = now if voice.speaks_since is None else voice.speaks_since
            voice.last_spoke = now
        else:
            voice.speaks_since = None

    def _elect(self, now: float) -> bool:
        limits = self._settings
        present = self._voices.get(self.speaker) if self.speaker is not None else None
        present_speaks = present is not None and present.speaks_since is not None
        best: str | None = None
        for identity, voice in self._voices.items():
            voice.challenges_since = self._challenge(identity, voice, present if present_speaks else None, now)
            needed = limits.challenge if present_speaks else limits.attack
            ready = voice.challenges_since is not None and now - voice.challenges_since >= needed - 1e-9
            if ready and (best is None or voice.level > self._voices[best].level):
                best = identity
        if best is None or now - self._changed < limits.hold:
            return False
        self.speaker = best
        self._changed = now
        return True

    def _challenge(self, identity: str, voice: _Voice, present: _Voice | None, now: float) -> float | None:
        """Return since when this voice has had a claim; None when it has none."""
        if identity == self.speaker or voice.speaks_since is None:
            return None
        if present is None:
            return voice.speaks_since
        if voice.level < present.level + self._settings.challenge_margin:
            return None
        return voice.challenges_since if voice.challenges_since is not None else now
