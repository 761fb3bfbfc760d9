"""What ships and what a scenario may say, as tables: made from the schema, so that they cannot be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table

from drills.faults import FAULTS
from drills.scenario.figures import FIGURES
from drills.scenario.loading import load, shipped_files
from drills.scenario.model import Scenario

_COMMON = ("fault", "at", "for")


def drills() -> Table:
    """The scenarios that ship."""
    table = Table("name", "dimension", "s", "title", box=None)
    for path in shipped_files():
        scenario = load(path)
        seconds = scenario.watch + scenario.lasts + scenario.settle + scenario.calm
        table.add_row(path.stem, scenario.dimension, f"{seconds:g}", scenario.title)
    return table


def figures() -> Table:
    """The figures that hypotheses may be about."""
    table = Table("figure", "unit", "means", box=None)
    for figure in FIGURES.values():
        table.add_row(figure.name, figure.unit, figure.means)
    return table


def faults() -> Table:
    """The faults and their own keys."""
    table = Table("fault", "key", "default", "means", box=None)
    for name, kind in FAULTS.items():
        table.add_row(name, "", "", (kind.__doc__ or "").split("\n")[0])
        for key, default, means in documented(kind):
            if key not in _COMMON:
                table.add_row("", key, default, means)
    return table


def keys() -> Table:
    """All keys of a scenario."""
    table = Table("key", "default", "means", box=None)
    for row in _all_keys(Scenario, ""):
        table.add_row(*row)
    for key, default, means in documented(next(iter(FAULTS.values()))):
        if key in _COMMON:
            table.add_row(f"method.N.{key}", default, means)
    return table


def documented(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of each field of a model."""
    for name, field in model.model_fields.items():
        yield field.alias or name, _default(field), field.description or ""


def _all_keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for (key, default, means), field in zip(documented(model), model.model_fields.values(), strict=True):
        part = _part(field.annotation)
        yield f"{prefix}{key}", "" if part else default, means
        if part is not None:
            yield from _all_keys(part, f"{prefix}{key}.")


def _part(annotation: Any) -> type[BaseModel] | None:
    found = [each for each in (annotation, *get_args(annotation)) if isinstance(each, type)]
    return next((each for each in found if issubclass(each, BaseModel)), None)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "" if value in (None, {}, "") else str(value)
