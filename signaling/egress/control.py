"""What signaling asks of whoever runs a room's egress: the node in this process, or one elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.egress.playback import PlaylistReply


class EgressControl(Protocol):
    """Facts are the `Egress` schema of the API. Errors: those of `relay.errors`."""

    async def start_egress(self, request: EgressRequest) -> dict[str, Any]:
        """See `EgressManager.start`."""
        ...

    async def stop_egress(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.stop`."""
        ...

    async def read_egress(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.get`."""
        ...

    async def list_egress(self, room: str) -> list[dict[str, Any]]:
        """See `EgressManager.list`."""
        ...

    async def find_hls(self, room: str, source: str) -> str:
        """See `EgressManager.hls`."""
        ...


class EgressPlayback(Protocol):
    """What serves HLS has the files at hand: always the node that makes them."""

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        """See `HlsStream.playlist`."""
        ...

    async def file(self, egress: str, name: str) -> Path:
        """See `HlsStream.file`."""
        ...


class LocalEgress:
    """The egress of the node in this process, as `EgressControl` and `EgressPlayback`."""

    def __init__(self, manager: EgressManager) -> None:
        self._manager = manager
        self.playlist = manager.playlist
        self.file = manager.file

    async def start_egress(self, request: EgressRequest) -> dict[str, Any]:
        return await self._manager.start(request)

    async def stop_egress(self, egress: str) -> dict[str, Any]:
        return await self._manager.stop(egress)

    async def read_egress(self, egress: str) -> dict[str, Any]:
        return self._manager.get(egress)

    async def list_egress(self, room: str) -> list[dict[str, Any]]:
        return self._manager.list(room)

    async def find_hls(self, room: str, source: str) -> str:
        return self._manager.hls(room, source)
