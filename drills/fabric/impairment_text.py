"""Impairments as people write them (`delay=150ms jitter=20ms loss=12%`) and as JSON, and back."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

from drills.fabric.impairment import GilbertElliott, Impairment

_TIMES = {"us": 1, "ms": 1000, "s": 1_000_000}
_RATES = {"bit": 1, "kbit": 1000, "mbit": 1_000_000, "gbit": 1_000_000_000}
_SIZES = {"b": 1, "kb": 1000, "mb": 1_000_000}
_WORDS = (
    *("delay", "jitter", "correlation", "distribution", "order", "loss", "burst", "p", "r", "h", "k"),
    *("duplicate", "reorder", "corrupt", "rate", "queue", "blackhole"),
)
HELP = (
    "delay=150ms jitter=20ms correlation=25% distribution=normal|uniform order=kept|free loss=12% burst=5 (mean length "
    "of losses) p= r= h= k= (Gilbert-Elliott) duplicate=1% reorder=5% corrupt=0.1% rate=2mbit queue=64kb blackhole"
)


def parse_impairment(words: Iterable[str]) -> Impairment:
    """Read `key=value` words; see HELP. Raises ValueError that names the word and the nearest right key."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _WORDS:
            near = difflib.get_close_matches(key, _WORDS, 1)
            raise ValueError(f"{word!r} is no impairment{f'; did you mean {near[0]}?' if near else f': {HELP}'}")
        if key in found:
            raise ValueError(f"{key} is given twice")
        if (key == "blackhole") != ("=" not in word):
            raise ValueError(
                f"{word!r}: " + ("blackhole takes no value" if key == "blackhole" else "a value is missing")
            )
        found[key] = value
    return _impairment(found)


def _impairment(found: dict[str, str]) -> Impairment:
    fields: dict[str, Any] = {}
    for key, field, units in (("delay", "delay_us", _TIMES), ("jitter", "jitter_us", _TIMES),
                              ("rate", "rate_bps", _RATES), ("queue", "queue_bytes", _SIZES)):  # fmt: skip
        if key in found:
            fields[field] = round(_quantity(key, found[key], units))
    for key in ("correlation", "duplicate", "reorder", "corrupt"):
        if key in found:
            fields[key] = _share(key, found[key])
    if "distribution" in found:
        fields["distribution"] = found["distribution"]
    if "order" in found:
        if found["order"] not in ("kept", "free"):
            raise ValueError(f"order={found['order']}: it is kept or free")
        fields["keep_order"] = found["order"] == "kept"
    fields["black_hole"] = "blackhole" in found
    return Impairment(**fields, **_loss(found))


def _loss(found: dict[str, str]) -> dict[str, Any]:
    chain = {key: _share(key, found[key]) for key in ("p", "r", "h", "k") if key in found}
    if chain:
        if "loss" in found or "burst" in found:
            raise ValueError("loss and burst exclude p, r, h and k")
        if not {"p", "r"} <= chain.keys():
            raise ValueError("a Gilbert-Elliott model needs p and r")
        return {"bursts": GilbertElliott(**chain)}
    if "burst" in found:
        if "loss" not in found:
            raise ValueError("burst needs a loss")
        try:
            length = float(found["burst"])
        except ValueError:
            raise ValueError(f"burst={found['burst']}: it is the mean number of packets lost in a row") from None
        return {"bursts": GilbertElliott.bursts(_share("loss", found["loss"]), length)}
    return {"loss": _share("loss", found["loss"])} if "loss" in found else {}


def _share(key: str, text: str) -> float:
    number, percent = (text[:-1], 100) if text.endswith("%") else (text, 1)
    try:
        return float(number) / percent
    except ValueError:
        raise ValueError(f"{key}={text}: write a share as 12% or 0.12") from None


def _quantity(key: str, text: str, units: dict[str, int]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]+)", text)
    if not match or match[2].lower() not in units:
        raise ValueError(f"{key}={text}: write a number with one of {', '.join(units)}")
    return float(match[1]) * units[match[2].lower()]


def to_json(impairment: Impairment) -> dict[str, Any]:
    """As JSON: the fields that differ from doing nothing."""
    plain = dataclasses.asdict(impairment)
    return {name: value for name, value in plain.items() if value != dataclasses.asdict(Impairment())[name]}


def from_json(fields: Any) -> Impairment:
    """The other way. Raises ValueError for anything that `to_json` does not write."""
    if not isinstance(fields, dict):
        raise ValueError(f"an impairment is an object, not {fields!r}")  # noqa: TRY004 - input, not a call
    names = {field.name for field in dataclasses.fields(Impairment)}
    if unknown := fields.keys() - names:
        raise ValueError(f"an impairment has no {', '.join(sorted(map(str, unknown)))}")
    made = dict(fields)
    try:
        if made.get("bursts") is not None:
            made["bursts"] = GilbertElliott(**made["bursts"])
        for name in ("keep_order", "black_hole"):
            if not isinstance(made.get(name, False), bool):
                raise ValueError(f"{name} is true or false")  # noqa: TRY004 - input, not a call
        return Impairment(**made)
    except TypeError as error:
        raise ValueError(f"no impairment: {error}") from None
