"""Where settings come from: a TOML file, then environment variables, then flags; the later one wins.

Knows nothing about the settings themselves: any tree of frozen pydantic models will do. Every refusal says where the
bad value stands (file and line, variable, or flag) and, for a wrong key, which key was probably meant.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from relay.errors import SettingsError

ENVIRONMENT_PREFIX = "COSTREAM_"
_SEPARATOR = "__"
_MAX_FILE_BYTES = 1 << 20  # a settings file is some KiB; more is a wrong path (a log, a device)

_HEADER = re.compile(r"^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")

Model = TypeVar("Model", bound=BaseModel)
Key = tuple[str, ...]
"""A key's place in the tree: `("http", "port")`."""


def read_settings(
    model: type[Model],
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    also_known: tuple[type[BaseModel], ...] = (),
) -> Model:
    """Build `model` from a TOML file, the `COSTREAM_SECTION__KEY` variables and `{"section.key": value}` overrides.

    String overrides are parsed like variables. Variables that only a model of `also_known` has are skipped, because
    commands share an environment. Raises SettingsError with one line per fault.
    """
    places: dict[Key, str] = {}
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read_file(path, places)
    for name, text in sorted((environ or {}).items()):
        key = _variable_key(name)
        if key is None or (not _has(model, key) and any(_has(other, key) for other in also_known)):
            continue
        _put(tree, key, _parse_text(model, key, text), places, f"environment variable {name}")
    for dotted, value in (overrides or {}).items():
        key = tuple(dotted.split("."))
        parsed = _parse_text(model, key, value) if isinstance(value, str) else value
        _put(tree, key, parsed, places, f"flag {dotted}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = [_explain(model, fault, places) for fault in error.errors(include_url=False)]
        raise SettingsError("\n".join(faults)) from None


def walk_keys(model: type[BaseModel], prefix: Key = ()) -> Iterator[Key]:
    """Yield every key of a model and its sections, leaves only."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from walk_keys(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name)


def key_lines(text: str) -> dict[Key, int]:
    """Map each key and table of a TOML text to the line (from 1) where it first stands."""
    lines: dict[Key, int] = {}
    section: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.match(line):
            section = _split(match[1])
            lines.setdefault(section, number)
        elif match := _KEY.match(line):
            lines.setdefault(section + _split(match[1]), number)
    return lines


def _split(dotted: str) -> Key:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _read_file(path: Path, places: dict[Key, str]) -> dict[str, Any]:
    """Parse a file and note where its keys stand."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    if len(raw) > _MAX_FILE_BYTES:
        raise SettingsError(f"{path}: is larger than {_MAX_FILE_BYTES} bytes; is it a settings file?")
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None
    places.update({key: f"{path}:{number}" for key, number in key_lines(text).items()})
    places.setdefault((), str(path))
    return tree


def _variable_key(name: str) -> Key | None:
    """Return the key that a variable names, or None when it is no setting (`COSTREAM_TOKEN`, `PATH`)."""
    if not name.startswith(ENVIRONMENT_PREFIX) or _SEPARATOR not in name:
        return None
    return tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split(_SEPARATOR))


def _has(model: type[BaseModel], key: Key) -> bool:
    return key in set(walk_keys(model))


def _parse_text(model: type[BaseModel], key: Key, text: str) -> object:
    """Turn a variable's text into what the TOML file would hold; text that does not fit is left for validation."""
    annotation: Any = model
    for part in key:
        field = getattr(annotation, "model_fields", {}).get(part)
        if field is None:
            return text
        annotation = field.annotation
    if annotation in (str, Path) or text == "":
        return [] if text == "" and get_origin(annotation) is tuple else text
    if annotation is bool and text.lower() in {"true", "false", "yes", "no", "on", "off", "1", "0"}:
        return text.lower() in {"true", "yes", "on", "1"}
    try:
        return json.loads(text)
    except ValueError:
        return [part.strip() for part in text.split(",")] if get_origin(annotation) is tuple else text


def _put(tree: dict[str, Any], key: Key, value: object, places: dict[Key, str], place: str) -> None:
    """Set one leaf of the tree; a scalar standing where a section belongs is replaced, as the later source wins."""
    for part in key[:-1]:
        child = tree.get(part)
        if not isinstance(child, dict):
            child = tree[part] = {}
        tree = child
    tree[key[-1]] = value
    places[key] = place


def _explain(model: type[BaseModel], fault: Any, places: Mapping[Key, str]) -> str:
    """Return one line: where, which key, what is wrong, and what was probably meant."""
    key: Key = tuple(str(part) for part in fault["loc"])
    place = _place(key, places)
    shown = ".".join(key) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {shown}{_nearest(model, key)}"
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "missing" or isinstance(fault["input"], dict) or _is_secret(key):
        return f"{place}: {shown}: {message}"
    return f"{place}: {shown} = {fault['input']!r:.80}: {message}"


def _place(key: Key, places: Mapping[Key, str]) -> str:
    """Return where a key was set, else something in it, else the table around it."""
    if key in places:
        return places[key]
    inside = [place for other, place in places.items() if other[: len(key)] == key]
    around = [places[key[:length]] for length in range(len(key), -1, -1) if key[:length] in places]
    return next(iter(inside + around), "settings")


def _is_secret(key: Key) -> bool:
    return key[:2] == ("auth", "keys") or (key[:2] == ("webhooks", "endpoints") and "secrets" in key)


def _nearest(model: type[BaseModel], key: Key) -> str:
    """Return `; did you mean …?` for the nearest key in the same section, else in any section, else nothing."""
    known = list(walk_keys(model))
    siblings = [other[-1] for other in known if other[:-1] == key[:-1]]
    if match := difflib.get_close_matches(key[-1], siblings, 1):
        return f"; did you mean {'.'.join((*key[:-1], match[0]))}?"
    tables = {other[: len(key)] for other in known}
    names = {".".join(other): other for other in [*known, *tables]}
    elsewhere = [name for name, other in names.items() if other[-1] == key[-1]]
    if match := elsewhere[:1] or difflib.get_close_matches(".".join(key), names, 1):
        return f"; did you mean {match[0]}?"
    return ""
