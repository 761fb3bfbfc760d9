"""Help for misspelt words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is like the word, else nothing."""
    match = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {match[0]}?" if match else ""
