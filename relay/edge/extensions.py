"""Which RTP header extensions a session uses. Ids hold for all its m-lines, as they are bundled (RFC 9143 9)."""

from __future__ import annotations

from relay.edge.sdp import ExtensionMap, Media
from relay.plane.reference.rtp import EXTENSIONS, ONE_BYTE_MAX_ID

_NAMES = {uri: name for name, uri in EXTENSIONS.items()}
# What the plane writes or passes on to a viewer. Not what is true of one layer of a publisher only: its rid, or the
# dependency descriptor, whose frame numbers a switch of layers would break.
_SENT = frozenset(
    {"mid", "abs_send_time", "transport_cc", "audio_level", "orientation", "color_space", "abs_capture_time"}
)
_TWO_BYTE_MAX_ID = 255


class SessionExtensions:
    """Gathers what the m-lines of one session agree on. `sending`: we send (WHEP); else we receive (WHIP)."""

    def __init__(self, *, sending: bool) -> None:
        self._sending = sending
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}

    @property
    def agreed(self) -> tuple[tuple[str, int], ...]:
        """Name and id of each extension in use."""
        return tuple(self._ids.items())

    def negotiate(self, media: Media) -> tuple[ExtensionMap, ...]:
        """Return the extensions to answer for an m-line.

        Left out are those whose direction does not suit, whose id cannot be sent, and those that would give a name or
        an id of another m-line a second meaning.
        """
        answered: dict[str, ExtensionMap] = {}
        theirs, ours = ("recvonly", "sendonly") if self._sending else ("sendonly", "recvonly")
        for offered in media.extensions:
            name = _NAMES.get(offered.uri)
            if name is None or name in answered or (self._sending and name not in _SENT):
                continue
            if offered.direction not in ("", "sendrecv", theirs) or offered.id > self._highest(media):
                continue
            if self._ids.get(name, offered.id) != offered.id or self._names.get(offered.id, name) != name:
                continue
            self._ids[name] = offered.id
            self._names[offered.id] = name
            answered[name] = ExtensionMap(offered.id, offered.uri, ours if offered.direction == theirs else "")
        return tuple(answered.values())

    def _highest(self, media: Media) -> int:
        # We write the one-byte form only; the two-byte form is read where it was agreed on (RFC 8285 6).
        return _TWO_BYTE_MAX_ID if media.allow_mixed and not self._sending else ONE_BYTE_MAX_ID
