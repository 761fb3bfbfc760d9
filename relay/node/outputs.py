"""Egress of a node: what leaves its rooms as HLS, recordings and RTMP; made when it is first wanted.

One node is the owner of a room's HLS of a source, and of a push to an address: by a lease, where the store is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from relay.egress.events import FINAL, EgressChanged, EgressEvent, EgressRequest
from relay.egress.manager import EgressManager
from relay.egress.playback import PlaylistReply
from relay.ending import end
from relay.errors import Conflict, CostreamError, LeaseHeld, RequestError, StoreUnavailable
from relay.node.rooms import HostedRooms
from relay.node.senders import SenderClocks
from relay.node.taps import RoomFeeds
from relay.plane import Plane
from relay.ports import LeaseStore, RoomStore
from relay.settings import NodeSettings

log = structlog.get_logger()

UNTOLD = 1024
"""Events that wait for the store; beyond that the oldest are lost."""
FLUSH_S = 1.0
_RENEWALS = 3


class Outputs:
    """The egress of one node, as `signaling.egress.control.NodeEgress`. `start` it, `close` it."""

    def __init__(
        self,
        settings: NodeSettings,
        node_id: str,
        rooms: HostedRooms,
        plane: Plane,
        next_handle: Callable[[], int],
        store: RoomStore,
        senders: SenderClocks,
    ) -> None:
        self._settings, self._node_id, self._store, self._rooms = settings, node_id, store, rooms
        self._feeds = RoomFeeds(rooms, plane, next_handle, senders)
        self._directory = settings.node.state_dir
        self._manager = EgressManager(settings.egress, self._directory, self._feeds, self._on_event, node_id)
        self._untold: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue(UNTOLD)
        self._leases: LeaseStore | None = None
        self._ttl_s = settings.cluster.lease_ttl_s
        self._held: dict[str, dict[str, int]] = defaultdict(dict)
        """Room -> what is held there -> epoch."""
        self._owned: dict[str, tuple[str, str]] = {}
        """Egress -> room and what it holds there."""
        self._free: list[tuple[str, str]] = []
        """Of egress that is over: to be given back."""
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False
        self._lock: Any = None

    def share(self, leases: LeaseStore) -> None:
        """Other nodes may want the same: become an owner by lease. Call it before `start`; the leases are closed
        here."""
        self._leases = leases

    async def start(self) -> None:
        """Finish what a crash of this node left behind, and begin to tell."""
        await asyncio.to_thread(self._tidy)
        self._rooms.on_track_gone = self._feeds.track_gone
        self._rooms.on_closed = self._room_closed
        self._tasks = [asyncio.create_task(each) for each in (self._tell(), self._renew(), self._feeds.watch())]

    async def close(self) -> None:
        """End all in good order and tell so; bounded, repeatable."""
        if self._closing:
            return
        self._closing = True
        await self._manager.close()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._give_back()
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._untold.join()
        await end(self._tasks)
        if self._leases is not None:
            await self._leases.close()
        if self._lock is not None:
            self._lock.close()

    # --- signaling asks ---------------------------------------------------------------------------------------------

    async def start_egress(self, request: EgressRequest) -> dict[str, Any]:
        """See `EgressManager.start`. Raises Conflict also when another node does the same."""
        async with self._starting:
            await self._rooms.open(request.room)
            what = lease_name(request)
            if not what or self._leases is None or what in self._held[request.room]:
                return await self._manager.start(request)
            try:
                lease = await self._leases.acquire(f"egress/{request.room}", what, self._node_id, self._ttl_s)
            except LeaseHeld as error:
                raise Conflict(f"node {error.owner} does this already", code="egress-exists") from None
            self._held[request.room][what] = lease.epoch
            try:
                facts = await self._manager.start(request)
            except BaseException:
                await self._release(request.room, what)
                raise
            self._owned[facts["id"]] = request.room, what
            return facts

    async def stop_egress(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.stop`."""
        facts = await self._manager.stop(egress)
        await self._give_back()
        return facts

    async def read_egress(self, egress: str) -> dict[str, Any]:
        """See `EgressManager.get`."""
        return self._manager.get(egress)

    async def list_egress(self, room: str) -> list[dict[str, Any]]:
        """See `EgressManager.list`."""
        return self._manager.list(room)

    async def find_hls(self, room: str, source: str) -> str:
        """See `EgressManager.hls`."""
        return self._manager.hls(room, source)

    async def playlist(self, egress: str, sequence: int | None, part: int | None) -> PlaylistReply:
        """See `HlsStream.playlist`."""
        return await self._manager.playlist(egress, sequence, part)

    async def file(self, egress: str, name: str) -> Path:
        """See `HlsStream.file`."""
        return await self._manager.file(egress, name)

    def facts(self) -> list[dict[str, Any]]:
        """All egress, for the metrics."""
        return self._manager.list()

    # --- the node tells ---------------------------------------------------------------------------------------------

    def layer_stopped(self, track: int) -> None:
        """A layer of a track fell silent: who takes it takes another one, if there is one."""
        self._feeds.layer_stopped(track)

    def _room_closed(self, room: str) -> None:
        """Ends in good order, which takes a moment that the node's housekeeping has not."""
        task = asyncio.create_task(self._manager.end_room(room))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_event(self, event: EgressEvent) -> None:
        if self._untold.full():
            self._untold.get_nowait()
            self._untold.task_done()
        self._untold.put_nowait((event.room, event.type, event.data()))
        if isinstance(event, EgressChanged):
            log.info("egress", egress=event.id, room=event.room, kind=event.kind, state=event.state, reason=event.code)
            if event.state in FINAL and event.id in self._owned:
                self._free.append(self._owned.pop(event.id))

    async def _tell(self) -> None:
        """One after the other, so that states come in the order in which they were."""
        while True:
            room, kind, data = await self._untold.get()
            try:
                await self._append(room, kind, data)
            finally:
                self._untold.task_done()

    async def _append(self, room: str, kind: str, data: dict[str, Any]) -> None:
        try:
            await self._store.append(room, [(kind, data)])
        except StoreUnavailable:
            hosted = self._rooms.get(room)
            if hosted is not None:
                hosted.tell_unstored([(kind, data)])
        except RequestError:
            pass  # the room is over

    # --- leases -----------------------------------------------------------------------------------------------------

    async def _give_back(self) -> None:
        while self._free:
            await self._release(*self._free.pop())

    async def _release(self, room: str, what: str) -> None:
        epoch = self._held[room].pop(what, None)
        if epoch is not None and self._leases is not None:
            with contextlib.suppress(CostreamError):
                await self._leases.release(f"egress/{room}", self._node_id, {what: epoch})

    async def _renew(self) -> None:
        """Media never waits for the store: what cannot be renewed goes on until another node is known to have it."""
        while True:
            await asyncio.sleep(self._ttl_s / _RENEWALS)
            await self._give_back()
            for room in list(self._held):
                if not self._held[room]:
                    del self._held[room]
                    continue
                try:
                    await self._renew_room(room)
                except StoreUnavailable:
                    break

    async def _renew_room(self, room: str) -> None:
        assert self._leases is not None
        lost = await self._leases.renew(f"egress/{room}", self._node_id, self._held[room], self._ttl_s)
        for what in lost:
            if what not in self._held[room]:  # given back meanwhile
                continue
            try:
                lease = await self._leases.acquire(f"egress/{room}", what, self._node_id, self._ttl_s)
                self._held[room][what] = lease.epoch
            except LeaseHeld as error:
                del self._held[room][what]
                for egress in [each for each, held in self._owned.items() if held == (room, what)]:
                    del self._owned[egress]
                    await self._manager.fail(egress, "taken-over", f"node {error.owner} does this now")

    def _tidy(self) -> None:
        """Only when no other node runs in the same directory: it would lose what it writes."""
        wanted = self._settings.egress
        if not any(
            path.is_dir()
            for path in (
                Path(wanted.hls_directory or self._directory / "hls"),
                Path(wanted.recording_directory or self._directory / "recordings"),
                self._directory,
            )
        ):
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = (self._directory / "egress.lock").open("ab")
        except OSError as error:
            log.warning("egress that a crash left is not tidied", path=str(self._directory), reason=error.strerror)
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            log.warning(
                "another node runs in this directory: egress left there is not tidied", path=str(self._directory)
            )
            return
        self._lock = lock
        for path in self._manager.tidy():
            log.info("finished a recording that a crash had cut off", path=str(path))


def lease_name(request: EgressRequest) -> str:
    """What only one node may do at a time; empty for what any number may. Says nothing of the address's key."""
    match request.kind:
        case "hls":
            return f"hls:{request.source}"
        case "rtmp":
            return f"rtmp:{hashlib.sha256(request.url.encode()).hexdigest()[:32]}"
        case _:
            return ""
