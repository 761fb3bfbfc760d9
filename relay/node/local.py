"""What this node holds for a room: the tracks that its publishers send and the slots that its viewers have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from relay.edge.plan import SlotPlan, TrackPlan
from relay.edge.session import Session
from relay.link import messages
from relay.plane.contract import AddSlot, AddTrack, MoveTrack
from relay.stage.document import RoomChange, RoomState
from relay.stage.sender_clock import Anchor

WAIT_STEP_MS = 5
"""Below what people notice of lip sync (20 ms); each step is a small message to other nodes."""

TrackKey = tuple[str, str, str]
"""Identity, kind and source: a publisher who comes back with the same ones resumes the same publication."""


@dataclass(slots=True)
class LocalTrack:
    """A track of the plane and the publication that it is. `session` is the one that sends it now.

    `registered` says that the room knows it; `active` are the layers that packets arrive for.
    """

    key: TrackKey
    handle: int
    publication: str
    session: str
    plan: TrackPlan
    codec: str = ""
    registered: bool = False
    active: set[int] = field(default_factory=set)
    epoch: int = 0
    """Of this node's lease; 0 while it has none, and then no other node is offered the track."""
    rates: list[int] = field(default_factory=list)
    """Bits per second of each layer, as other nodes were told."""
    captured: dict[int, Anchor] = field(default_factory=dict)
    """When a frame of each layer was captured by the sender's clock, as other nodes were told."""
    waits: dict[str, int] = field(default_factory=dict)
    """Of a program's sound: for how long each input waits for its picture, ms."""
    told_waits: dict[str, int] = field(default_factory=dict)
    """As other nodes were told."""
    register: Callable[[LocalTrack], Callable[[RoomState], RoomChange]] | None = None
    """For a track that this process injects and no session sends: makes the change that tells the room of it."""

    @property
    def rids(self) -> tuple[str, ...]:
        """The layers' rids, lowest first; one empty rid without simulcast."""
        return tuple(layer.rid for layer in self.plan.layers)

    @property
    def active_rids(self) -> tuple[str, ...]:
        """The rids of the layers that arrive now, lowest first."""
        return tuple(layer.rid for index, layer in enumerate(self.plan.layers) if index in self.active)

    def note_rates(self, rates: Sequence[int]) -> bool:
        """Take measured rates; returns whether one differs by a quarter or more from what was told."""
        told = self.rates or [0] * len(rates)
        if all(3 * new <= 4 * old and 3 * old <= 4 * new for old, new in zip(told, rates, strict=False)):
            return False
        self.rates = list(rates)
        return True

    def note_waits(self) -> bool:
        """Returns whether `waits` are others than were told; a few milliseconds are of no matter."""
        told, now = self.told_waits, self.waits
        if told.keys() == now.keys() and all(abs(ms - told[name]) < WAIT_STEP_MS for name, ms in now.items()):
            return False
        self.told_waits = dict(now)
        return True

    def offer(self, room: str) -> messages.Publication:
        """Describe the track to other nodes: the codec in use first, no retransmission formats."""
        identity, kind, source = self.key
        types = [each for each in self.plan.payload_types if each.codec != "rtx"]
        types.sort(key=lambda each: each.codec != self.codec)
        rates = self.rates or [0] * len(self.plan.layers)
        return messages.Publication(
            id=self.publication,
            epoch=self.epoch,
            room=room,
            participant=identity,
            kind="audio" if kind == "audio" else "video",
            source=source,
            codecs=tuple(
                messages.Codec(number=each.number, codec=each.codec, clock_hz=each.clock_hz, profile=each.profile)
                for each in types
            ),
            layers=tuple(
                messages.Layer(
                    rid=layer.rid, active=index in self.active, bps=rates[index], captured=self.captured.get(index)
                )
                for index, layer in enumerate(self.plan.layers)
            ),
            waits=tuple(
                messages.SoundWait(participant=name, ms=min(ms, messages.MAX_WAIT_MS))
                for name, ms in list(self.told_waits.items())[: messages.MAX_WAITS]
            ),
        )

    def codec_of(self, payload_type: int) -> str:
        """The codec of a payload type; empty for an unknown one."""
        return next((each.codec for each in self.plan.payload_types if each.number == payload_type), "")


@dataclass(slots=True)
class LocalSlot:
    """A slot of the plane."""

    handle: int
    plan: SlotPlan


@dataclass(slots=True)
class LocalSession:
    """A session and its media. A publisher has `tracks` (what its offer planned), a viewer has `slots`."""

    session: Session
    remote_ufrag: str
    tracks: tuple[TrackPlan, ...] = ()
    slots: tuple[LocalSlot, ...] = ()
    program: bool = False
    """Of a viewer: whether the slots play the program by themselves."""
    one_sound: bool = False
    """Of a viewer: whether one slot plays a mix instead of voices in several."""


def add_track(track: LocalTrack, session: int | None) -> AddTrack:
    """The command that makes a new track; without a session its packets are injected."""
    plan = track.plan
    return AddTrack(track.handle, session, plan.kind, plan.mid, plan.payload_types, plan.layers, plan.feedback)


def move_track(track: LocalTrack, session: int) -> MoveTrack:
    """The command that receives a known track on another session."""
    plan = track.plan
    return MoveTrack(track.handle, session, plan.mid, plan.payload_types, plan.layers, plan.feedback)


def add_slot(slot: LocalSlot, session: int) -> AddSlot:
    """The command that makes a slot."""
    plan = slot.plan
    return AddSlot(
        slot=slot.handle,
        session=session,
        kind=plan.kind,
        mid=plan.mid,
        ssrc=plan.ssrc,
        rtx_ssrc=plan.rtx_ssrc,
        payload_types=plan.payload_types,
        feedback=plan.feedback,
        cname=plan.cname,
    )
