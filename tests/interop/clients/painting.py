"""The mark in test pictures, and its twin for browsers."""

from pathlib import Path

from costream.painting import (
    CLOCK_MODULUS,
    COUNTER_MODULUS,
    Painted,
    TestPicture,
    cells,
    clock_text,
    crc16,
    paint,
    read,
    read_i420,
)

JAVASCRIPT = Path(__file__).with_name("painting.js").read_text(encoding="utf-8")
"""Defines `painting` in a page: {paint, read, cells, crc16}; see the file."""

__all__ = [
    "CLOCK_MODULUS",
    "COUNTER_MODULUS",
    "JAVASCRIPT",
    "Painted",
    "TestPicture",
    "cells",
    "clock_text",
    "crc16",
    "paint",
    "read",
    "read_i420",
]
