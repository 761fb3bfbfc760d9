"""The drill over time: faults, breakers, each viewer's pictures and freezes, bitrate, API, and the machine itself.

All rows share one axis of seconds since the watching began. Each picture has one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from drills.report.svg import Scale, drawing, element, line, path, round_top, text

WIDTH, LEFT, RIGHT = 1120.0, 190.0, 64.0
_ROW, _GAP, _AXIS = 22.0, 6.0, 24.0
_PHASES = {"watching": "steady", "method": "faults", "rollback": "settling", "calm": "calm"}
Data = Mapping[str, Any]


def _x(data: Data) -> Scale:
    return Scale(0.0, float(data["seconds"]), LEFT, WIDTH - RIGHT)


def faults_and_breakers(data: Data) -> str:
    """Bars of the faults and a strip of states for each link."""
    x = _x(data)
    rows: list[str] = []
    y = 34.0
    for fault in data["faults"]:
        begin, end = x.at(fault["begin"]), x.at(fault["end"])
        rows.append(_label(fault["name"], y, fault["text"]))
        rows.append(_bar(begin, y + 3, max(3.0, end - begin), _ROW - 8, "fault", f"{fault['text']}\n{_span(fault)}"))
        rows.append(text(f"{fault['end'] - fault['begin']:.1f} s", end + 6, y + 14, class_="value"))
        y += _ROW
    for note in data["notes"]:
        at = x.at(note["at"])
        rows.append(element("circle", "", f"{note['text']}, {note['at']:.1f} s", cx=at, cy=y - 11, r=3, class_="note"))
    y += _GAP
    for link, states in data["breakers"].items():
        rows.append(_label(link, y))
        rows += _strip(states, x, y, float(data["seconds"]))
        y += _ROW
    if not data["breakers"]:
        rows.append(_label("links", y))
        rows.append(text("no breaker moved", LEFT + 4, y + 14, class_="value"))
        y += _ROW
    return drawing([*_phases(data, x, y), *rows, *_axis(x, y)], WIDTH, y + _AXIS, "Faults and breaker states over time")


def _strip(states: Sequence[Sequence[Any]], x: Scale, y: float, end: float) -> Iterator[str]:
    """Closed is a thin line, everything else a bar with its name where it fits."""
    times = [0.0, *(entry[0] for entry in states), end]
    before = "ended" if states and states[0][2] == "a new link" else "closed"
    names = [before, *(entry[1] for entry in states)]
    reasons = ["", *(entry[2] for entry in states)]
    for name, reason, begin, until in zip(names, reasons, times, times[1:], strict=False):
        left, width = x.at(begin), x.at(until) - x.at(begin)
        tip = f"{name}{f' ({reason})' if reason else ''}\n{begin:.3f} to {until:.3f} s"
        if name == "ended":
            continue
        if name == "closed":
            yield _bar(left, y + 10, width, 2, "closed", tip)
            continue
        yield _bar(left, y + 3, max(2.0, width), _ROW - 8, name, tip)
        if width > 7.2 * len(name):
            yield text(name, left + width / 2, y + 14.5, class_="inside", text_anchor="middle")


def viewers(data: Data, freezes: Sequence[Mapping[str, Any]], offset: float) -> str:
    """A row for each viewer: new pictures a second, and his freezes by cause."""
    x, names = _x(data), list(data["viewers"])
    height, y = 30.0, 12.0
    top = round_top(max((max(of["frames"], default=0) for of in data["viewers"].values()), default=1) / data["bin"])
    rows: list[str] = []
    for name in names:
        of = data["viewers"][name]
        scale = Scale(0.0, top, y + height - 4, y + 3)
        rows.append(_label(f"{name}{' (near)' if of['near'] else ''}", y + 6))
        points = [(x.at((i + 0.5) * data["bin"]), scale.at(n / data["bin"])) for i, n in enumerate(of["frames"])]
        floor = scale.at(0.0)
        rows.append(line(LEFT, floor, WIDTH - RIGHT, floor, class_="floor"))
        area = [(points[0][0], floor), *points, (points[-1][0], floor)] if points else []
        rows.append(element("path", d=path(area), class_="area"))
        rows.append(element("path", d=path(points), class_="series"))
        rows += _freezes_of(name, freezes, x, y, height, offset)
        for event in of["events"]:
            tip = f"{event['event']} {event['to']}, {event['at']:.1f} s"
            at = x.at(event["at"])
            rows.append(element("path", "", tip, d=f"M{at} {y + 1}l4 6h-8z", class_=f"event {event['event']}"))
        rows.append(text(f"{top:g}/s", WIDTH - RIGHT + 6, y + 10, class_="value") if name == names[0] else "")
        y += height
    return drawing([*_phases(data, x, y, named=False), *rows, *_axis(x, y)], WIDTH, y + _AXIS, "Pictures per viewer")


def _freezes_of(
    name: str, freezes: Iterable[Mapping[str, Any]], x: Scale, y: float, height: float, offset: float
) -> Iterator[str]:
    for each in freezes:
        if each["viewer"] == name:
            begin = each["at"] - offset
            left = x.at(begin)
            width = max(2.0, x.at(begin + each["seconds"]) - left)
            tip = "\n".join(
                [f"frozen {1000 * each['seconds']:.0f} ms at {begin:.2f} s: {each['cause']}", *each["evidence"]]
            )
            yield _bar(left, y + 2, width, height - 5, f"freeze {each['cause']}", tip)


def bitrate(data: Data) -> str:
    """Kilobits per second of every viewer, thin lines on one scale; the name at the end of the line that is highest."""
    series = {
        name: [((i + 0.5) * data["bin"], value) for i, value in enumerate(of["kbps"]) if value is not None]
        for name, of in data["viewers"].items()
    }
    return lines(data, series, "kbit/s", "Bitrate of each viewer", 120.0)


def api(data: Data) -> str:
    """Every answer of the API as a dot; those that were errors stand out."""
    x, height = _x(data), 120.0
    top = round_top(max((entry[1] for entry in data["api"]), default=1.0))
    scale = Scale(0.0, top, height - 4, 10.0)
    dots = []
    for at, took, status, member in data["api"]:
        if at < 0:
            continue
        kind = "dot bad" if status == 0 or status >= 500 else "dot"
        tip = f"{member}: {status or 'no answer'}, {took:g} ms, {at:.1f} s"
        dots.append(element("circle", "", tip, cx=x.at(at), cy=scale.at(took), r=2.2, class_=kind))
    parts = [*_phases(data, x, height, named=False), *_grid(scale, "ms"), *dots, *_axis(x, height)]
    return drawing(parts, WIDTH, height + _AXIS, "Answers of the API")


def machine(data: Data) -> str:
    """How busy this machine was: what clients saw is to be read beside it."""
    series = {"CPU": [(at, cpu) for at, cpu, _ in data["machine"] if at >= 0]}
    return lines(data, series, "%", "CPU of this machine", 80.0, top=100.0)


def slab(data: Data) -> str:
    """Free packet places of each relay."""
    series = {name: [(at, share) for at, share in points if at >= 0] for name, points in data["slab"].items()}
    return lines(data, series, "%", "Free packet buffers of each relay", 80.0, top=100.0)


def lines(
    data: Data,
    series: Mapping[str, Sequence[tuple[float, float]]],
    unit: str,
    label: str,
    height: float,
    top: float = 0.0,
) -> str:
    """Lines on one scale, each with its name on hover."""
    x = _x(data)
    top = top or round_top(max((value for points in series.values() for _, value in points), default=1.0))
    scale = Scale(0.0, top, height - 4, 10.0)
    marks = [
        element(
            "path", tip=name, d=path([(x.at(at), scale.at(value)) for at, value in points]), class_=f"series s{i % 8}"
        )
        for i, (name, points) in enumerate(series.items())
    ]
    parts = [*_phases(data, x, height, named=False), *_grid(scale, unit), *marks, *_axis(x, height)]
    return drawing(parts, WIDTH, height + _AXIS, label)


def _grid(scale: Scale, unit: str) -> Iterator[str]:
    ticks = list(scale.ticks(4))
    for value in ticks:
        y = scale.at(value)
        yield line(LEFT, y, WIDTH - RIGHT, y, class_="grid")
        yield text(
            f"{value:g}{f' {unit}' if value == ticks[-1] else ''}", LEFT - 8, y + 4, class_="tick", text_anchor="end"
        )


def _axis(x: Scale, y: float) -> Iterator[str]:
    yield line(LEFT, y, WIDTH - RIGHT, y, class_="axis")
    for value in x.ticks(12):
        yield line(x.at(value), y, x.at(value), y + 4, class_="axis")
        yield text(f"{value:g}", x.at(value), y + 17, class_="tick", text_anchor="middle")
    yield text("s", WIDTH - RIGHT + 10, y + 17, class_="tick")


def _phases(data: Data, x: Scale, y: float, *, named: bool = True) -> Iterator[str]:
    """The method has a ground of its own; the others are told by a hairline."""
    begins = [*data["phases"].items()]
    ends = [*(at for _, at in begins[1:]), data["seconds"]]
    for (name, begin), end in zip(begins, ends, strict=True):
        left, width = x.at(begin), x.at(end) - x.at(begin)
        if name == "method":
            yield element("rect", x=left, y=0 if not named else 20, width=width, height=y, class_="ground")
        elif begin:
            yield line(left, 0 if not named else 20, left, y, class_="phase")
        if named and width > 30:
            yield text(_PHASES[name], left + 4, 14, class_="phase-name")


def _label(words: str, y: float, tip: str = "") -> str:
    short = words if len(words) <= 27 else f"{words[:26]}…"
    return element("g", text(short, LEFT - 10, y + 14, class_="label", text_anchor="end"), tip or words)


def _bar(x: float, y: float, width: float, height: float, kind: str, tip: str) -> str:
    return element("rect", "", tip, x=x, y=y, width=width, height=height, rx=min(2.0, height / 2), class_=f"bar {kind}")


def _span(fault: Mapping[str, Any]) -> str:
    return f"{fault['begin']:.2f} to {fault['end']:.2f} s"
