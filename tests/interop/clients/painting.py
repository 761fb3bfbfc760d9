"""The mark in test pictures, and its twin for browsers."""

from costream.painting import (
    CLOCK_MODULUS,
    COUNTER_MODULUS,
    JAVASCRIPT_FILE,
    Painted,
    TestPicture,
    cells,
    clock_text,
    crc16,
    paint,
    read,
    read_i420,
)

JAVASCRIPT = JAVASCRIPT_FILE.read_text(encoding="utf-8")
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
