"""PKs in the store: the steps of which each is one compare-and-set of one key, in an order that may end anywhere.

The record decides. Around it the rooms are bound before it starts and told afterwards; who is told is of no weight to
what holds, so a process that dies between two steps leaves nothing that `look`, which every node calls for its rooms,
does not bring to its end: an invitation expires, a claim that led to nothing is let go, a room that was not told is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import structlog

from relay.errors import Conflict, NotFound, Overloaded
from relay.ids import SYNC_IDS_PER_SECOND
from relay.ports import PkStore, RoomStore
from relay.stage import pk as pks
from relay.stage import pk_room
from relay.stage.document import RoomChange, RoomState
from relay.stage.pk import Pk
from relay.stage.room import changing

log = structlog.get_logger()

_SPARE_S = 60.0


class PkDesk:
    """`wall` is seconds since the epoch. Every call may raise StoreUnavailable, and NotFound for rooms and PKs."""

    def __init__(self, store: RoomStore, wall: Callable[[], float]) -> None:
        self._rooms = store
        self._wall = wall

    @property
    def _records(self) -> PkStore:
        return self._rooms.pks

    # --- what people do -----------------------------------------------------------------------------------------------

    async def invite(self, pk: Pk) -> Pk:
        """Store an invitation and tell both rooms. Raises NotFound when one is not there, Conflict `room-full`."""
        inviting, invited = pk.rooms
        for room in pk.rooms:
            await self._rooms.read(room)
        await self._records.create(pk.id, pk.to_json(), _ttl(pk, self._wall()))
        try:
            await self._room(inviting, partial(pk_room.introduce, pk=pk))
            await self._room(invited, partial(pk_room.introduce, pk=pk))
        except (Conflict, NotFound):
            await self._end_invitation(pk.id, "refused")
            raise
        return pk

    async def accept(self, ident: str, room: str, by: str) -> Pk:
        """Start a PK as the invited room. Raises NotFound, Forbidden, Conflict (`pk-over`, `pk-busy`)."""
        pk = await self.read(ident)
        pks.check_answer(pk, room, self._wall())
        try:
            # Both in one order whoever asks, so that of two PKs between the same rooms one gets both.
            claims = {name: await self._claim(name, pk) for name in sorted(pk.rooms)}
            pk = await self._change(ident, lambda before: pks.start(before, by, self._wall(), claims))
        except (Conflict, NotFound) as error:
            # Somebody else may have accepted it at the same time, with the same claims: then it runs.
            await self._end_invitation(ident, "busy" if error.code == "pk-busy" else "room-ended")
            raise
        await self.tell(pk)
        return pk

    async def decline(self, ident: str, room: str, by: str) -> Pk:
        """Decline an invitation, or withdraw it as the room that made it. Raises Conflict when it is over."""
        pk = await self._change(ident, lambda before: pks.decline(before, room, by, self._wall()))
        await self.tell(pk)
        return pk

    async def score(self, ident: str, room: str, points: int, by: str, at: int | None) -> Pk:
        """Give a side points. Raises Conflict outside the PK's time."""
        pk = await self._change(ident, lambda before: pks.score(before, room, points, by, self._wall(), at))
        await self.tell(pk)
        return pk

    async def end(self, ident: str, reason: str, by: str = "") -> Pk:
        """End a PK or an invitation for both rooms; one that is over is told once more."""
        pk = await self._change(ident, lambda before: pks.end(before, reason, by))
        await self.tell(pk)
        return pk

    async def room_ended(self, known: Iterable[str], by: str = "") -> None:
        """A room is over, and with it the PKs that it knew. What fails here is left to the nodes that look."""
        for ident in known:
            try:
                await self.end(ident, "room-ended", by)
            except (NotFound, Overloaded) as error:
                log.info("a PK is left to be ended", pk=ident, reason=str(error))

    # --- what nodes do ------------------------------------------------------------------------------------------------

    async def look(self, state: RoomState) -> None:
        """Bring what a room knows up to the records, and the records to what time has made of them."""
        for known in list(state.pk.known.values()):
            pk = await self._settled(known)
            if pk.epoch > known.epoch:
                await self._room(state.id, partial(pk_room.hear, pk=pk))
        held = state.pk.claim
        if held is not None and held.id not in state.pk.known:  # nothing says of what it is
            await self._room(state.id, partial(pk_room.release, ident=held.id, epoch=held.epoch))

    async def _settled(self, known: Pk) -> Pk:
        try:
            pk = await self.read(known.id)
        except NotFound:
            # The store has lost it. Both rooms come to the same end by themselves: neither shows the other.
            return pks.end(known, "lost")
        now = self._wall()
        if pks.settle(pk, now) is not pk:
            return await self._change(pk.id, lambda before: pks.settle(before, now))
        reason = await self._broken(pk) if pk.state == "running" else ""
        return await self._change(pk.id, lambda before: pks.end(before, reason)) if reason else pk

    async def _broken(self, pk: Pk) -> str:
        """Return why a PK cannot go on: a room is over or has begun anew, or nobody of one side is there."""
        for name in pk.rooms:
            try:
                state = RoomState.from_json(await self._rooms.read(name))
            except NotFound:
                return "room-ended"
            if not pk_room.stands_by(state, pk):
                return "room-ended"
            since = pk_room.away_since(state)
            if since is not None and max(since, pk.starts_at / SYNC_IDS_PER_SECOND) + pk_room.AWAY_S <= self._wall():
                return "away"
        return ""

    # --- steps --------------------------------------------------------------------------------------------------------

    async def read(self, ident: str) -> Pk:
        """Read a record. Raises NotFound."""
        return Pk.from_json(await self._records.read(ident))

    async def tell(self, pk: Pk) -> None:
        """Tell both rooms of a record. A room that cannot be told now hears of it when its nodes look."""
        for room in pk.rooms:
            try:
                await self._room(room, partial(pk_room.hear, pk=pk))
            except (NotFound, Overloaded) as error:
                log.info("a room is not told of its PK", room=room, pk=pk.id, reason=str(error))

    async def _claim(self, room: str, pk: Pk) -> int:
        try:
            return await self._claimed(room, pk)
        except Conflict as error:
            if error.code != "pk-busy":
                raise
            await self._clear(RoomState.from_json(await self._rooms.read(room)))
            return await self._claimed(room, pk)

    async def _claimed(self, room: str, pk: Pk) -> int:
        state = await self._room(room, partial(pk_room.claim, pk=pk, now=self._wall()))
        assert state.pk.claim is not None
        return state.pk.claim.epoch

    async def _clear(self, state: RoomState) -> None:
        """End what a claim is for when that was begun by somebody who did not finish, so that it holds nothing up."""
        held = state.pk.claim
        if held is None:
            return
        late = held.since + pk_room.CLAIM_S <= self._wall()
        known = state.pk.known.get(held.id)
        if late and known is not None and known.state == "invited":
            await self._end_invitation(held.id, "abandoned")
        await self.look(state)

    async def _end_invitation(self, ident: str, reason: str) -> None:
        await self.tell(await self._change(ident, lambda pk: pks.end(pk, reason) if pk.state == "invited" else pk))

    async def _room(self, room: str, change: Callable[[RoomState], RoomChange]) -> RoomState:
        document, _ = await self._rooms.change(room, changing(change))
        return RoomState.from_json(document)

    async def _change(self, ident: str, change: Callable[[Pk], Pk]) -> Pk:
        def apply(document: dict[str, object]) -> dict[str, object]:
            before = Pk.from_json(document)
            after = change(before)
            return document if after is before else after.to_json()

        known = await self.read(ident)
        return Pk.from_json(await self._records.change(ident, apply, _ttl(known, self._wall())))


def check_part(pk: Pk, room: str) -> None:
    """Raise NotFound unless the room has a part in the PK: others do not learn of it."""
    if room not in pk.rooms:
        raise NotFound(f"room {room} has no PK {pk.id}", code="pk-not-found")


def _ttl(pk: Pk, now: float) -> float:
    """How long a record may still be of use."""
    until = pk.ends_at / SYNC_IDS_PER_SECOND if pk.ends_at else pk.expires_at + pk.countdown_s + pk.duration_s
    return max(0.0, until - now) + _SPARE_S
