"""Quantities as people write them in scenarios: `150 ms`, `5s`, `8 %`, `4/s`; and bounds, `<= 150 ms`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_QUANTITY = re.compile(r"(-?\d+(?:\.\d+)?)\s*([a-z%/]*)")
_BOUND = re.compile(r"(<=|>=|==|<|>)\s*(-?\d+(?:\.\d+)?)\s*([a-z%/]*)")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


def seconds(value: Any) -> Any:
    """A time with its unit as seconds. Raises ValueError for a number without one: seconds or milliseconds?"""
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or match[2] not in _TIMES:
        raise ValueError(f"write a time with one of {', '.join(_TIMES)}, for example 150ms; not {value!r}")
    return float(match[1]) * _TIMES[match[2]]


def _share(value: Any) -> Any:
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


def _rate(value: Any) -> Any:
    if isinstance(value, str) and value.replace(" ", "").endswith("/s"):
        return float(value.replace(" ", "")[:-2])
    return value


Time = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=86_400)]
"""Seconds, written with a unit."""
Jump = Annotated[float, BeforeValidator(seconds), Field(ge=-86_400 * 366, le=86_400 * 366)]
"""Seconds forward or, negative, back."""
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
"""Written as `25%` or `0.25`."""
Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, le=10_000)]
"""Per second, written as `4/s`."""


class Part(BaseModel):
    """A mapping of a scenario: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure has to be like. `limit` is in the figure's own unit."""

    compare: str
    limit: float
    text: str

    def holds(self, value: float | None) -> bool:
        """Whether a measured value is within; a figure that could not be measured is not."""
        return value is not None and _HOLDS[self.compare](value, self.limit)

    @staticmethod
    def parse(text: Any, unit: str) -> Bound:
        """Read `<= 150 ms` for a figure in `unit`. Raises ValueError."""
        match = _BOUND.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"write a bound as `<= 150 ms`, `== 0` or `>= 3`, not {text!r}")
        number, given = float(match[2]), match[3]
        if unit == "ms" and given in _TIMES:
            number *= _TIMES[given] * 1000
        elif given != unit:
            raise ValueError(f"{text!r}: the unit has to be {unit or 'left out'}")
        return Bound(match[1], number, f"{match[1]} {match[2]}{' ' if given else ''}{given}")
