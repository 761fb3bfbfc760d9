"""What a handle of a command stands for."""

from __future__ import annotations

from collections.abc import Mapping

from relay.errors import UsageError
from relay.plane.reference.state import Core, Layer, Session, Slot, Tap, Track


def find_session(core: Core, handle: int) -> Session:
    """Return the session with this handle. UsageError when there is none."""
    found = core.sessions.get(handle)
    if found is None:
        raise UsageError(f"no session {handle}")
    return found


def find_track(core: Core, handle: int) -> Track:
    """Return the track with this handle. UsageError when there is none."""
    found = core.tracks.get(handle)
    if found is None:
        raise UsageError(f"no track {handle}")
    return found


def find_layer(core: Core, track: int, index: int) -> Layer:
    """Return a layer of a track. UsageError when there is none."""
    layers = find_track(core, track).layers
    if not 0 <= index < len(layers):
        raise UsageError(f"track {track} has no layer {index}")
    return layers[index]


def find_slot(core: Core, handle: int) -> Slot:
    """Return the slot with this handle. UsageError when there is none."""
    found = core.slots.get(handle)
    if found is None:
        raise UsageError(f"no slot {handle}")
    return found


def require_unused(table: Mapping[int, Session | Track | Slot | Tap], handle: int) -> None:
    """Raise UsageError for a handle that is taken, or can be none."""
    if handle in table:
        raise UsageError(f"handle {handle} is in use")
    if not 0 <= handle < 1 << 32:
        raise UsageError(f"handle {handle} is not an unsigned 32-bit integer")
