"""Logs: one JSON object a line in production, text for people, no credentials in either."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from relay.log import configure_logging
from relay.settings import LogSettings


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def test_json_lines_carry_facts_of_both_loggers() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="auto"), stream, node="n1")
    structlog.get_logger("relay.x").info("session opened", session="s1")
    logging.getLogger("library").warning("slow %s", "store", extra={"seconds": 2})
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["event"] == "session opened"
    assert (first["session"], first["node"], first["level"]) == ("s1", "n1", "info")
    assert first["timestamp"].endswith("Z")
    assert (second["event"], second["seconds"], second["level"]) == ("slow store", 2, "warning")


def test_credentials_are_blanked() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="json"), stream)
    structlog.get_logger().info("asked", token="hunter2", ice_password="hunter2", Authorization="hunter2")
    logging.getLogger("library").warning("asked", extra={"secret": "hunter2"})
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("[hidden]") == 4


def test_console_is_for_people() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(format="console"), stream)
    structlog.get_logger().info("session opened", session="s1")
    line = stream.getvalue()
    assert "session opened" in line
    assert "session=s1" in line
    assert "\x1b[" not in line


def test_level_holds_for_both_loggers() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings(level="error"), stream)
    structlog.get_logger().warning("quiet")
    logging.getLogger("library").warning("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_exceptions_carry_their_traceback(form: str) -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"format": form}), stream)
    credential = "hunter2"
    try:
        dict[str, str]()[form]
    except KeyError:
        structlog.get_logger().exception("failed")
    assert "KeyError" in stream.getvalue()
    assert "Traceback" in stream.getvalue()
    assert credential not in stream.getvalue()
