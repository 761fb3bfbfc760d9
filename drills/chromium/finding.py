"""Whether there is a Chromium here that can be driven. Imports nothing of it, so that anybody may ask."""

from __future__ import annotations

import importlib.util
import shutil

NEEDS = "Debian package chromium and PyPI package playwright"
_NAMES = ("chromium", "chromium-browser")


def executable() -> str | None:
    """The browser's command; None without it, or without what drives it."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return next(filter(None, map(shutil.which, _NAMES)), None)


def why_not() -> str | None:
    """Why it cannot be used here; None where it can."""
    if importlib.util.find_spec("playwright") is None:
        return "the Python package playwright is not installed (pip install 'costream[chromium]')"
    return None if executable() else "there is no Chromium (Debian package chromium)"
