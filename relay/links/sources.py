"""What the packets of a canonical tap look like, from the payload types of the track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from relay.link.history import FlowSpec
from relay.link.hooks import LayerSource
from relay.plane.contract import Kind
from relay.plane.reference.state import CODECS, INJECT_EXTENSIONS
from relay.stage.timeline import Timeline


class _Format(Protocol):
    """A payload type, of a publisher's session or of a catalog."""

    @property
    def number(self) -> int: ...

    @property
    def codec(self) -> str: ...

    @property
    def clock_hz(self) -> int: ...


def source_of(kind: Kind, formats: Sequence[_Format], timeline: Timeline) -> LayerSource:
    """Say what a canonical tap of a track with these payload types gives, and when its frames were."""
    codecs = {each.number: CODECS[each.codec] for each in formats if each.codec in CODECS}
    return LayerSource(FlowSpec(kind, codecs), formats[0].clock_hz, dict(INJECT_EXTENSIONS), timeline)
