"""Sessions without a network: they play or send until somebody closes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relay.edge.plan import SlotPlan, TrackPlan
from relay.edge.session import Session, SessionInfo
from relay.edge.session_state import PublishingPaused, PublishingResumed, SessionClosed, State, Transition
from relay.node.local import LocalSession, LocalSlot
from relay.plane.contract import Feedback, Kind, LayerSpec, PayloadType

VP8 = PayloadType(96, "vp8", 90_000)
_TRACK = TrackPlan("0", Kind.VIDEO, (VP8,), (LayerSpec(),), Feedback(), "camera", "")
SLOTS = 4
"""Of a viewer: more than any room here has hosts."""


class PlainSession(Session):
    """Connected from the start. `on_transition` as for a `Session`."""

    def __init__(self, info: SessionInfo, on_transition: Callable[[PlainSession, Transition], None]) -> None:
        self.info = info
        self._now = State.PUBLISHING if info.kind == "publisher" else State.WATCHING
        self._told = on_transition

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._now

    def pause(self) -> None:
        """Its media no longer comes."""
        if self._now is State.PUBLISHING:
            self._now = State.PAUSING
            self._told(self, PublishingPaused("media-lost"))

    def resume(self) -> None:
        """Its media comes again."""
        if self._now is State.PAUSING:
            self._now = State.PUBLISHING
            self._told(self, PublishingResumed())

    def close(self, reason: str) -> None:
        """See `Session.close`."""
        if self._now is not State.CLOSED:
            self._now = State.CLOSED
            self._told(self, SessionClosed(reason))


def host(session: Session) -> LocalSession:
    """A publisher of one picture."""
    return LocalSession(session, "", tracks=(_TRACK,))


def viewer(session: Session, handles: Iterator[int]) -> LocalSession:
    """A viewer with slots for all hosts."""
    plans = [SlotPlan(n, str(n), Kind.VIDEO, (VP8,), Feedback(), n + 1, None, f"slot-{n}", "sim") for n in range(SLOTS)]
    return LocalSession(session, "", slots=tuple(LocalSlot(next(handles), plan) for plan in plans))
