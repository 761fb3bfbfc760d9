"""What Python may ask of the packet plane, and what the plane tells back.

The plane is one machine without I/O: datagrams, commands and times in; datagrams and events out. The Python one in
`relay.plane.reference` is the specification; the native twin takes the same commands and gives the same events and
bytes.

Units: `now` is monotonic time in integer microseconds. Bitrates are bits per second. Handles (`session`, `track`,
`slot`, `tap`) are unsigned 32-bit integers chosen by the caller and never reused while the plane lives.

A *track* is what a publication is to the plane: one incoming m-line with its layers. A *slot* is one outgoing m-line of
a viewer's session.
"""

from __future__ import annotations

from relay.plane.contract.commands import (
    AddSlot,
    AddTap,
    AddTrack,
    BindSlot,
    CloseSession,
    Command,
    MoveTrack,
    MuteTrack,
    OpenSession,
    PauseSlot,
    ProbeBandwidth,
    RemoveRingTaps,
    RemoveSlot,
    RemoveTap,
    RemoveTrack,
    RequestKeyframe,
    RestartIce,
    SendDtls,
    SetKeys,
    SetLayer,
)
from relay.plane.contract.events import (
    AddressSelected,
    DtlsReceived,
    EstimateChanged,
    Event,
    IceRestarted,
    KeyframeRequested,
    LayerStarted,
    LayerStopped,
    LoudnessMeasured,
    SlotSwitched,
)
from relay.plane.contract.media import Address, Feedback, Kind, LayerSpec, PayloadType, SrtpProfile
from relay.plane.contract.stats import SLAB_MEMORY, LayerStats, PlaneConfig, PlaneStats, SessionStats, SlotStats

__all__ = [
    "SLAB_MEMORY",
    "AddSlot",
    "AddTap",
    "AddTrack",
    "Address",
    "AddressSelected",
    "BindSlot",
    "CloseSession",
    "Command",
    "DtlsReceived",
    "EstimateChanged",
    "Event",
    "Feedback",
    "IceRestarted",
    "KeyframeRequested",
    "Kind",
    "LayerSpec",
    "LayerStarted",
    "LayerStats",
    "LayerStopped",
    "LoudnessMeasured",
    "MoveTrack",
    "MuteTrack",
    "OpenSession",
    "PauseSlot",
    "PayloadType",
    "PlaneConfig",
    "PlaneStats",
    "ProbeBandwidth",
    "RemoveRingTaps",
    "RemoveSlot",
    "RemoveTap",
    "RemoveTrack",
    "RequestKeyframe",
    "RestartIce",
    "SendDtls",
    "SessionStats",
    "SetKeys",
    "SetLayer",
    "SlotStats",
    "SlotSwitched",
    "SrtpProfile",
]
