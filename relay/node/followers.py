"""Those who follow the events of one session: each has a bounded queue and loses its oldest events when it lags."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from relay.ports import RoomEvent

QUEUE = 256  # events: a session of eight slots re-bound thirty times


class _Follower:
    def __init__(self) -> None:
        self.events: deque[RoomEvent] = deque(maxlen=QUEUE)
        self.wake = asyncio.Event()
        self.ended = False


class SessionFollowers:
    """The followers of all sessions of a node."""

    def __init__(self) -> None:
        self._followers: dict[str, set[_Follower]] = {}
        self._fresh: set[str] = set()

    def sessions(self) -> dict[str, bool]:
        """Return the sessions that are followed; True for those that somebody follows since the last call."""
        fresh, self._fresh = self._fresh, set()
        return {session: session in fresh for session in self._followers}

    async def follow(self, session: str) -> AsyncIterator[RoomEvent]:
        """Yield the session's events from now on, until it ends."""
        follower = _Follower()
        self._followers.setdefault(session, set()).add(follower)
        self._fresh.add(session)
        try:
            while True:
                while follower.events:
                    yield follower.events.popleft()
                if follower.ended:
                    return
                follower.wake.clear()
                await follower.wake.wait()
        finally:
            rest = self._followers.get(session, set())
            rest.discard(follower)
            if not rest:
                self._followers.pop(session, None)

    def tell(self, session: str, event: RoomEvent) -> None:
        """Give an event to all who follow the session."""
        for follower in self._followers.get(session, ()):
            follower.events.append(event)
            follower.wake.set()

    def end(self, session: str) -> None:
        """The session is gone: let its followers go after what is queued."""
        for follower in self._followers.get(session, ()):
            follower.ended = True
            follower.wake.set()
