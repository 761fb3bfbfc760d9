"""What Ctrl-C, SIGTERM and a closed terminal do to a run: end it once, with everything taken back."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Each of them raises KeyboardInterrupt, also where SIGINT is ignored (a job in the background)."""
    with _handled(_interrupt):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A second one does not leave half of it behind: taking away is bounded."""
    with _handled(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled(handler: signal._HANDLER) -> Iterator[None]:
    before = [signal.signal(number, handler) for number in _NUMBERS]
    try:
        yield
    finally:
        for number, old in zip(_NUMBERS, before, strict=True):
            signal.signal(number, old)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
