"""Mixing: CPU of a program's picture beside ffmpeg and GStreamer, and how soon an input is seen in it."""

from __future__ import annotations

from bench import mix_first, mix_video
from bench.plan import Plan
from bench.report import Figure


async def measure(plan: Plan) -> list[Figure]:
    """All figures of mixing."""
    return [*await mix_video.measure(plan), *await mix_first.measure(plan)]
