"""Logging: structlog for everybody, including the libraries that use `logging`.

Events are plain English in the past tense with facts as keys: `log.info("session opened", session=id, room=room)`. One
line per change, never per packet. Names that carry credentials are blanked whoever logs them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from relay.settings import LogSettings

_SECRET_NAMES = ("token", "secret", "password", "authorization", "keys")
_BLANK = "[hidden]"


def configure_logging(settings: LogSettings, stream: TextIO | None = None, **facts: object) -> None:
    """Set up structlog and `logging` for this process; may be called again. `facts` stand in every line (node=…).

    Writes to `stream`, by default standard error: standard output belongs to what a command prints.
    """
    stream = stream or sys.stderr
    as_json = settings.format == "json" or (settings.format == "auto" and not stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
        _blank_secrets,
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    renderer: structlog.typing.Processor
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:  # the rich formatter would print local variables, credentials among them
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**facts)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _blank_secrets(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the values of names such as `token` or `ice_password`; a leaked log must open no room."""
    for name in event:
        if name != "event" and name.lower().endswith(_SECRET_NAMES):
            event[name] = _BLANK
    return event
