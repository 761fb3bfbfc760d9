"""The egress of a manager in the test's own process, where a relay's would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.egress.events import EgressRequest
from relay.egress.manager import EgressManager
from relay.egress.playback import PlaylistReply


class LocalEgress:
    """The egress of a manager in this process, as `signaling.nodes.NodeEgress`."""

    def __init__(self, manager: EgressManager) -> None:
        self._manager = manager

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

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        return await self._manager.playlist(egress, sequence, part)

    async def file(self, egress: str, name: str) -> Path | bytes:
        return await self._manager.file(egress, name)
