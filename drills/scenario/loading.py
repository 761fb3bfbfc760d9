"""Scenarios from YAML files. Every error names the file, the line, the key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drills.fabric.base import ROOT
from drills.faults import FAULTS
from drills.scenario.model import Scenario
from drills.scenario.words import nearest
from relay.errors import CostreamError

DIRECTORY = ROOT / "configs" / "drills"
_MAX_BYTES = 262_144
_METHOD = re.compile(r"Value error, method\.(\d+): ")


class ScenarioError(CostreamError):
    """A scenario cannot be read or makes no sense. One line per mistake."""


def find(name: str | Path) -> Path:
    """The file of a scenario: a path, or the name of one that ships. Raises ScenarioError."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = DIRECTORY / f"{name}.yaml"
    if path.suffix == "" and len(path.parts) == 1 and shipped.is_file():
        return shipped
    names = [each.stem for each in shipped_files()]
    raise ScenarioError(f"there is no scenario {name}{nearest(str(name), names)}; there are {', '.join(names)}")


def shipped_files() -> list[Path]:
    """The scenarios in configs/drills, by name."""
    return sorted(DIRECTORY.glob("*.yaml"))


def load(path: Path) -> Scenario:
    """Read and check a file. Raises ScenarioError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "scenario") -> Scenario:
    """Read and check a text. Raises ScenarioError."""
    if len(text) > _MAX_BYTES:
        raise ScenarioError(f"{name}: a scenario has {_MAX_BYTES} characters at most")
    try:
        tree = yaml.compose(text, yaml.SafeLoader)
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise ScenarioError(f"{where}: no YAML: {getattr(error, 'problem', None) or error}") from None
    if tree is None or not isinstance(document, dict):
        raise ScenarioError(f"{name}: a scenario is a mapping with title, about, dimension, method, …")
    if twice := next(_doubled(tree), None):
        raise ScenarioError(f"{name}:{twice.start_mark.line + 1}: {twice.value} is given twice")
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError("\n".join(f"{name}:{line}" for line in _lines(error, tree))) from None


def _lines(error: ValidationError, tree: yaml.Node) -> Iterator[str]:
    for each in error.errors(include_url=False, include_input=True):
        path = _path(each["loc"])
        if not path and (named := _METHOD.match(str(each["msg"]))):
            yield f"{_line(tree, ['method', int(named[1])])}: {str(each['msg']).removeprefix('Value error, ')}"
            continue
        key = ".".join(map(str, path))
        yield f"{_line(tree, path)}: {f'{key}: ' if key else ''}{_said(each, path)}"


def _path(loc: Sequence[int | str]) -> list[int | str]:
    """A place in the file: without the fault's name, which pydantic puts after the number of a step."""
    return [part for index, part in enumerate(loc) if not (index == 2 and loc[0] == "method" and part in FAULTS)]


def _said(error: ErrorDetails, path: Sequence[int | str]) -> str:
    match error["type"]:
        case "extra_forbidden":
            known = _keys(error["loc"])
            return f"there is no such key{nearest(str(path[-1]), known)}; allowed: {', '.join(known)}"
        case "union_tag_invalid":
            wrong = str(error.get("ctx", {}).get("tag", ""))
            return f"there is no fault {wrong!r}{nearest(wrong, FAULTS)}; there are {', '.join(sorted(FAULTS))}"
        case "union_tag_not_found":
            return f"fault is missing; there are {', '.join(sorted(FAULTS))}"
        case "missing":
            return "is missing"
    return str(error["msg"]).removeprefix("Value error, ")


def _keys(loc: Sequence[int | str]) -> list[str]:
    """The keys of the mapping that the last part of a place stands in."""
    model: type[BaseModel] = Scenario
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        if part in FAULTS:
            model = FAULTS[part]
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        found = field.annotation if field else None
        if isinstance(found, type) and issubclass(found, BaseModel):
            model = found
        elif get_args(found) and isinstance(get_args(found)[0], type) and issubclass(get_args(found)[0], BaseModel):
            model = get_args(found)[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _line(tree: yaml.Node, path: Sequence[int | str]) -> int:
    """The line (from 1) of the deepest node on a path that is there."""
    node, line = tree, tree.start_mark.line
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1


def _doubled(node: yaml.Node, depth: int = 0) -> Iterator[yaml.ScalarNode]:
    """Keys that a mapping has twice: YAML forbids them, and PyYAML takes the last."""
    if depth > 20:
        return
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _doubled(value, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _doubled(value, depth + 1)


def as_json(scenario: Scenario) -> Mapping[str, Any]:
    """A scenario as it was understood, JSON-ready: bounds as text, times in seconds."""
    plain = scenario.model_dump(mode="json", exclude={"steady_state"})
    plain["steady_state"] = {f"{phase}: {name}": bound.text for phase, name, bound in scenario.steady_state.items()}
    return plain
