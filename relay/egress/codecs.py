"""Which codecs each kind of egress takes. Nothing is transcoded but sound."""

from __future__ import annotations

from collections.abc import Iterable

from relay.egress.events import Kind
from relay.egress.source import Stream
from relay.errors import BadRequest

TAKEN: dict[Kind, frozenset[str]] = {
    "hls": frozenset({"h264", "opus"}),
    "rtmp": frozenset({"h264", "opus"}),
    "recording": frozenset({"h264", "vp8", "opus"}),
}
"""Safari and most services that take RTMP decode no VP8."""
INSTEAD = 'take the source "program" in H264, or make the room with "codecs": ["opus", "h264"]'


def check_codecs(kind: Kind, streams: Iterable[Stream]) -> None:
    """Raise BadRequest when this kind of egress does not take one of a source's streams."""
    for stream in streams:
        if stream.codec not in TAKEN[kind]:
            raise BadRequest(
                f"{kind} takes H264 and this source is {stream.codec.upper()}: {INSTEAD} (a recording takes VP8)",
                code="codec-not-taken",
            )
