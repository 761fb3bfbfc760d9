"""Where egress gets packets from: the node's wiring implements this (a tap ring of the plane, with taps of a program's
or a publication's tracks)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relay.egress.messages import Follow, KnowSender
from relay.egress.source import Stream

Tell = Callable[[Follow | KnowSender], None]


class Feed(Protocol):
    """A tap ring for one process."""

    @property
    def fds(self) -> tuple[int, ...]:
        """The process's end of the ring."""
        ...

    @property
    def streams(self) -> tuple[Stream, ...]:
        """One of pictures, one of sound, or one of each: where the process begins."""
        ...

    def passed(self) -> None:
        """The process has `fds`: close our copies. Repeatable."""
        ...

    def watch(self, tell: Tell) -> None:
        """The process reads `streams` now. It is told of another stream of the same picture, already in the ring, that
        it had better go on with (`switched` answers), and of what is known of who sends them."""
        ...

    def switched(self, stream: int) -> None:
        """The process takes pictures from this stream now."""
        ...

    def request_keyframe(self, stream: int) -> None:
        """Ask the stream's publisher (or the program's encoder) for a keyframe."""
        ...

    def close(self) -> None:
        """Remove the taps and the ring. Repeatable."""
        ...


class Feeds(Protocol):
    """Opens feeds."""

    async def open(self, room: str, source: str, on_end: Callable[[], None]) -> Feed:
        """Tap a source. `on_end` is called when its tracks go, once and not after `close`.

        Raises NotFound while there is no such source, BadRequest when egress has no use for its codecs, Overloaded.
        """
        ...
