"""How far apart what is bright and what is loud at one instant are in a file, by the times in it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from bench.clapping import RATE, apart_ms, beeps, flashes

SECOND = 1_000_000


def apart(path: Path) -> list[float]:
    """How long after its beep each flash is in a file, ms."""
    with av.open(str(path)) as file:
        base = file.streams.video[0].time_base
        assert base is not None
        pictures = [(round(f.pts * base * SECOND), f.to_ndarray(format="gray")) for f in file.decode(video=0)]
    with av.open(str(path)) as file:
        mono = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        decoded = list(file.decode(audio=0))
        first = decoded[0]
        assert first.pts is not None
        assert first.time_base is not None
        start = round(first.pts * first.time_base * RATE)
        sound = np.concatenate([each.to_ndarray().reshape(-1) for f in decoded for each in mono.resample(f)])
    heard = [at * SECOND / RATE for at in beeps(sound.astype(np.float64), start + len(sound))]
    found = apart_ms(flashes(pictures), heard)
    assert len(found) >= 3
    return found
