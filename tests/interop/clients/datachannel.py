"""OBS's stand-in: `obs_like.py` as a child process in a Python that has libdatachannel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.interop.clients.process import ClientProcess
from tests.interop.clients.requirements import need

_SCRIPT = Path(__file__).with_name("obs_like.py")


class ObsLike(ClientProcess):
    """Publishes marked H264 and a tone as OBS would. Options are obs_like.py's: publisher, profile, width, tone, …

    Leaving the context makes it DELETE its session; afterwards `exit_code` is 0 if all went as OBS demands.
    """

    def __init__(self, url: str, token: str, **options: Any) -> None:
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        super().__init__([need("libdatachannel"), str(_SCRIPT), url, token or "none", *flags])
        self.events: list[dict[str, Any]] = []

    def last(self, event: str) -> dict[str, Any] | None:
        """The newest event of a kind: offer, answer, state, sent, pli, timeout or deleted."""
        return next((told for told in reversed(self.events) if told["event"] == event), None)

    @property
    def state(self) -> str:
        told = self.last("state")
        return str(told["state"]) if told else "new"

    @property
    def counter(self) -> int:
        """The counter of the next picture, as told once a second."""
        told = self.last("sent")
        return int(told["counter"]) if told else 0

    async def connected(self, seconds: float = 12.0) -> None:
        await self.until(lambda: self.state == "connected", seconds)

    async def heard_line(self, line: str) -> None:
        if line.startswith('{"event"'):
            self.events.append(json.loads(line))
