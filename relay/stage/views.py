"""What the API shows of a room: the Room, Stage, Participant and Publication schemas of its document, and Slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.stage.document import Participant, Publication, RoomState
from relay.stage.live_model import LocalTrack, Slot
from relay.stage.times import timestamp as timestamp


def room_view(state: RoomState, viewers: int = 0) -> dict[str, Any]:
    """Return the `Room` schema. `viewers` is how many watch; they are not in the document."""
    return {
        "id": state.id,
        "created_at": timestamp(state.created_at),
        "codecs": list(state.codecs),
        "max_seats": state.max_seats,
        "stage_policy": state.stage_policy,
        "traffic": state.traffic,
        "metadata": state.metadata,
        "on_air": state.on_air(),
        "participants": len(state.participants) + viewers,
        "sync_id": state.sync_id,
    }


def stage_view(state: RoomState, active_speaker: str | None = None) -> dict[str, Any]:
    """Return the `Stage` schema."""
    return {
        "seats": [
            {
                "identity": seat.identity,
                "state": seat.state,
                "since": timestamp(seat.since),
                "connected": seat.away_since is None,
            }
            for seat in state.seats.values()
        ],
        "invitations": [
            {"identity": each.identity, "by": each.by, "expires_at": timestamp(each.expires_at)}
            for each in state.invitations.values()
        ],
        "max_seats": state.max_seats,
        "active_speaker": active_speaker if active_speaker in state.seats else None,
    }


def participant_view(state: RoomState, who: Participant) -> dict[str, Any]:
    """Return the `Participant` schema of a host or moderator."""
    seat = state.seats.get(who.identity)
    place = "audience"
    if seat is not None:
        place = seat.state if seat.away_since is None else "away"
    return {
        "identity": who.identity,
        "role": who.role.value,
        "state": place,
        "muted": {"audio": who.muted_audio, "video": who.muted_video},
        "connected": who.connected,
        "since": timestamp(who.since),
    }


def viewer_view(identity: str, role: str, since: float) -> dict[str, Any]:
    """Return the `Participant` schema of someone who only watches."""
    return {
        "identity": identity,
        "role": role,
        "state": "audience",
        "muted": {"audio": False, "video": False},
        "connected": True,
        "since": timestamp(since),
    }


def publication_view(state: RoomState, publication: Publication) -> dict[str, Any]:
    """Return the `Publication` schema."""
    return {
        "id": publication.id,
        "identity": publication.identity,
        "kind": publication.kind,
        "source": publication.source,
        "codec": publication.codec,
        "state": publication.state,
        "muted": state.is_muted(publication),
        "node": publication.node,
        "layers": list(publication.layers),
        "since": timestamp(publication.since),
    }


def slot_view(slot: Slot, tracks: Mapping[str, LocalTrack], bitrates: Mapping[int, int]) -> dict[str, Any]:
    """Return the `Slot` schema. `tracks` by publication, `bitrates` by the slot's handle."""
    playing = None
    if slot.shows is not None and slot.plays is not None and slot.plays[0] == slot.track:
        playing = tracks[slot.shows].rid(slot.plays[1])
    return {
        "index": slot.spec.index,
        "mid": slot.spec.mid,
        "kind": slot.spec.kind.value,
        "publication": slot.shows,
        "identity": slot.identity,
        "layer": playing,
        "pinned": slot.pin is not None,
        "pinned_layer": slot.pinned_layer,
        "max_layer": slot.max_layer,
        "paused": slot.paused,
        "bitrate_bps": bitrates.get(slot.spec.slot, 0),
    }
