"""The life of a WebRTC session as a table, without I/O.

The law:

    IDLE        Started(kind)            -> CONNECTING
    CONNECTING  Connected(address)       -> PUBLISHING (publisher) | WATCHING (viewer)
    PUBLISHING  MediaSilent, ConsentLost -> PAUSING      or 15 s without MediaSeen, or 30 s without ConsentSeen
    PAUSING     MediaSeen                -> PUBLISHING
    CONNECTING, WATCHING  ConsentLost    -> CLOSED       or 30 s without ConsentSeen (RFC 7675)
    any open    CloseAsked(reason)       -> CLOSED       or a limit: connect 15 s, seat hold 60 s, duration 7200 s

MediaSeen, ConsentSeen and IceRestarted elsewhere only refresh the clocks they belong to; MediaSilent and ConsentLost
change nothing in PAUSING. A publisher whose consent is lost pauses rather than closes, because an ICE restart or a new
address may bring it back while its seat is held; a viewer has nothing to hold. In CLOSED only Tick and CloseAsked are
legal, without effect; IDLE takes Started too. Everything else raises.

`now` is monotonic time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from relay.errors import UsageError

SessionKind = Literal["publisher", "viewer"]


class State(Enum):
    """The states, valued as the API calls them."""

    IDLE = "idle"
    CONNECTING = "connecting"
    PUBLISHING = "publishing"
    WATCHING = "watching"
    PAUSING = "pausing"
    CLOSED = "closed"


# --- inputs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The offer was answered."""

    kind: SessionKind


@dataclass(frozen=True, slots=True)
class Connected:
    """ICE has an address and DTLS its keys."""

    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class MediaSeen:
    """Media of the peer arrives."""


@dataclass(frozen=True, slots=True)
class MediaSilent:
    """All tracks of the peer stopped for sure (RTCP BYE): no need to wait for the time-out."""


@dataclass(frozen=True, slots=True)
class ConsentSeen:
    """An authenticated STUN check arrived."""


@dataclass(frozen=True, slots=True)
class ConsentLost:
    """The peer is gone for sure (DTLS close_notify, or the plane gave up its address)."""


@dataclass(frozen=True, slots=True)
class IceRestarted:
    """The peer proved its new ICE credentials."""


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """DELETE, a kick, a newer session of the same identity, a drain, …"""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Input = Started | Connected | MediaSeen | MediaSilent | ConsentSeen | ConsentLost | IceRestarted | CloseAsked | Tick


# --- transitions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionConnected:
    """Keys and an address are there; a viewer is watching now."""

    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class PublishingStarted:
    """A publisher connected."""


@dataclass(frozen=True, slots=True)
class PublishingPaused:
    """Its media or its consent went away; the seat is held."""

    reason: str


@dataclass(frozen=True, slots=True)
class PublishingResumed:
    """It came back in time."""


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The end. `reason` is connect-timeout, seat-timeout, consent-lost, max-duration or what was asked."""

    reason: str


Transition = SessionConnected | PublishingStarted | PublishingPaused | PublishingResumed | SessionClosed


@dataclass(frozen=True, slots=True)
class SessionTimeouts:
    """The layered time-outs, in seconds."""

    connect: float = 15.0
    media_silence: float = 15.0
    seat_hold: float = 60.0
    consent: float = 30.0
    max_duration: float = 7200.0


_OPEN = frozenset({State.CONNECTING, State.PUBLISHING, State.WATCHING, State.PAUSING})
_LIVE = _OPEN - {State.CONNECTING}
# Where an input is legal. The plane may report media and checks between the first packet and the end of the handshake.
_LEGAL: dict[type[Input], frozenset[State]] = {
    Started: frozenset({State.IDLE}),
    Connected: frozenset({State.CONNECTING}),
    MediaSeen: _OPEN,
    MediaSilent: _LIVE,
    ConsentSeen: _OPEN,
    ConsentLost: _OPEN,
    IceRestarted: _OPEN,
    CloseAsked: frozenset(State),
    Tick: frozenset(State),
}


class SessionMachine:
    """One session's state. Feed it inputs, act on the transitions that it returns."""

    def __init__(self, timeouts: SessionTimeouts | None = None) -> None:
        self._timeouts = timeouts or SessionTimeouts()
        self.state = State.IDLE
        self.kind: SessionKind | None = None
        self._started = 0.0
        self._last_media = 0.0
        self._last_consent = 0.0
        self._paused = 0.0

    def receive(self, event: Input, now: float) -> list[Transition]:
        """Take an input. Returns what happened, in order. Raises UsageError when the law does not allow the input."""
        if self.state not in _LEGAL[type(event)]:
            raise UsageError(f"{type(event).__name__} is not legal in {self.state.name}")
        match event:
            case Started(kind):
                self.kind = kind
                self._started = self._last_consent = now
                self.state = State.CONNECTING
                return []
            case Connected(address):
                return self._connect(address, now)
            case MediaSeen():
                return self._media(now)
            case ConsentSeen() | IceRestarted():
                self._last_consent = now
                return []
            case MediaSilent():
                return self._pause("media-silent", now) if self.state is State.PUBLISHING else []
            case ConsentLost():
                return self._consent_lost(now)
            case CloseAsked(reason):
                return [] if self.state is State.CLOSED else self._close(reason)
            case Tick():
                return self._tick(now)

    def next_timeout(self) -> float | None:
        """Return when `Tick` next does something; None in IDLE and CLOSED."""
        return min((at for at, _ in self._deadlines()), default=None)

    def _connect(self, address: tuple[str, int], now: float) -> list[Transition]:
        self._last_consent = self._last_media = now
        connected: list[Transition] = [SessionConnected(address)]
        if self.kind == "viewer":
            self.state = State.WATCHING
            return connected
        self.state = State.PUBLISHING
        return [*connected, PublishingStarted()]

    def _media(self, now: float) -> list[Transition]:
        self._last_media = now
        if self.state is not State.PAUSING:
            return []
        # Media is authenticated, so it proves the peer as well as a check does; else the consent time-out, which the
        # pause may have outlived, would end the session again at once.
        self._last_consent = max(self._last_consent, now)
        self.state = State.PUBLISHING
        return [PublishingResumed()]

    def _consent_lost(self, now: float) -> list[Transition]:
        if self.state is State.PUBLISHING:
            return self._pause("consent-lost", now)
        return [] if self.state is State.PAUSING else self._close("consent-lost")

    def _pause(self, reason: str, now: float) -> list[Transition]:
        self.state = State.PAUSING
        self._paused = now
        return [PublishingPaused(reason)]

    def _close(self, reason: str) -> list[Transition]:
        self.state = State.CLOSED
        return [SessionClosed(reason)]

    def _deadlines(self) -> list[tuple[float, str]]:
        """Return what may run out in this state, the graver first when two run out together."""
        limit = self._timeouts
        if self.state not in _OPEN:
            return []
        found = [(self._started + limit.max_duration, "max-duration")]
        if self.state is State.CONNECTING:
            found.append((self._started + limit.connect, "connect-timeout"))
        elif self.state is State.PAUSING:
            found.append((self._paused + limit.seat_hold, "seat-timeout"))
        else:
            found.append((self._last_consent + limit.consent, "consent-lost"))
            if self.state is State.PUBLISHING:
                found.append((self._last_media + limit.media_silence, "media-silent"))
        return found

    def _tick(self, now: float) -> list[Transition]:
        due = [(at, reason) for at, reason in self._deadlines() if at <= now]
        if not due:
            return []
        reason = due[0][1]
        if self.state is State.PUBLISHING and reason != "max-duration":
            return self._pause(reason, now)
        return self._close(reason)
