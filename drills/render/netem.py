"""An impairment in the words of netem. Loss in bursts is a Gilbert–Elliott model: its `loss 8% 25%` loses 0.9 %."""

from __future__ import annotations

from drills.fabric.impairment import GilbertElliott, Impairment
from drills.render.inventory import RenderError

_LIMIT = 100_000  # packets: netem's own 1000 drop at 100 Mbit/s and 150 ms


def netem(impairment: Impairment) -> str:
    """The options after `netem`. Raises RenderError for what netem cannot do."""
    if impairment.black_hole:
        return "loss 100%"
    if impairment.corrupt and impairment.corrupt < 1e-6:
        raise RenderError("netem cannot corrupt less than one in a million")
    words = [f"limit {_LIMIT}"]
    if impairment.delay_us or impairment.jitter_us:
        words.append(f"delay {impairment.delay_us}us")
        if impairment.jitter_us:
            words.append(f"{impairment.jitter_us}us {_percent(impairment.correlation)}")
            if impairment.distribution == "normal":
                words.append("distribution normal")
    if impairment.bursts is not None:
        words.append(gemodel(impairment.bursts))
    elif impairment.loss:
        words.append(f"loss random {_percent(impairment.loss)}")
    for word, share in (
        ("duplicate", impairment.duplicate),
        ("corrupt", impairment.corrupt),
        ("reorder", impairment.reorder),
    ):
        if share:
            words.append(f"{word} {_percent(share)}")
    if impairment.rate_bps:
        words.append(f"rate {impairment.rate_bps}bit")
    return " ".join(words)


def gemodel(chain: GilbertElliott) -> str:
    """`loss gemodel p r 1-h 1-k` (tc-netem(8)); h and k are the shares delivered in the bad and the good state."""
    return f"loss gemodel {_percent(chain.p)} {_percent(chain.r)} {_percent(1 - chain.h)} {_percent(1 - chain.k)}"


def _percent(share: float) -> str:
    return f"{round(100 * share, 6):g}%"
