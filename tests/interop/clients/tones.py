"""Tones out and frequencies back; the code lives beside the synthetic host, which needs it too."""

from costream.tones import RATE, Heard, Samples, Tone, detect, level

__all__ = ["RATE", "Heard", "Samples", "Tone", "detect", "level"]
