"""Small pieces of SVG: elements with escaped attributes and text, a linear scale, ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

_STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low`…`high` of a figure to `start`…`end` of the picture."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is; beyond the ends it is held there."""
        held = min(max(value, self.low), self.high)
        span = self.high - self.low
        return round(self.start + (held - self.low) / span * (self.end - self.start), 2) if span else self.start

    def ticks(self, most: int = 6) -> Iterator[float]:
        """Round numbers within, `most` at the utmost."""
        step = round_step((self.high - self.low) / max(1, most))
        value = math.ceil(self.low / step - 1e-9) * step
        while value <= self.high + step * 1e-9:
            yield round(value, 6)
            value += step


def round_step(rough: float) -> float:
    """The least of 1, 2, 5 × 10ⁿ that is `rough` or more."""
    if rough <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(rough))
    return float(next((step * power for step in _STEPS if step * power >= rough * (1 - 1e-9)), 10 * power))


def round_top(value: float) -> float:
    """A round end for an axis that has to hold a value."""
    return max(round_step(value / 4) * math.ceil(value / round_step(value / 4) - 1e-9), 1e-6) if value > 0 else 1.0


def element(name: str, content: str | Iterable[str] = "", tip: str = "", /, **attributes: object) -> str:
    """An element; `content` is markup already, `tip` is shown on hover. `class_` is `class`, `_` in names is `-`."""
    inner = content if isinstance(content, str) else "".join(content)
    if tip:
        inner = f"<title>{escape(tip)}</title>{inner}"
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{words}>{inner}</{name}>"


def text(words: str, x: float, y: float, **attributes: str) -> str:
    """A piece of text."""
    return element("text", escape(words), "", x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, *, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """The `d` of a line through points; None is a hole."""
    words, is_open = [], False
    for point in points:
        if point is None:
            is_open = False
            continue
        words.append(f"{'L' if is_open else 'M'}{_number(point[0])} {_number(point[1])}")
        is_open = True
    return "".join(words)


def drawing(content: Iterable[str], width: float, height: float, label: str) -> str:
    """A whole picture, as wide as its place."""
    return element(
        "svg", content, viewBox=f"0 0 {_number(width)} {_number(height)}", role="img", aria_label=label, class_="chart"
    )


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
