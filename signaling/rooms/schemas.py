"""What the API says of rooms and their events."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, Field, JsonValue

from signaling.bodies import Strict
from signaling.events import MAX_SYNC_ID
from signaling.ids import ROOM_PATTERN

MAX_DATA_BYTES = 4096

Codec = Literal["opus", "vp8", "h264", "vp9", "av1"]
ALL_CODECS: tuple[Codec, ...] = get_args(Codec)
StagePolicy = Literal["open", "invite"]
Traffic = Literal["live", "drill", "load"]


def _is_small(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if size > MAX_DATA_BYTES:
        raise ValueError(f"exceeds {MAX_DATA_BYTES} bytes as JSON")
    return value


def _is_unique(codecs: list[Codec]) -> list[Codec]:
    if len(set(codecs)) != len(codecs):
        raise ValueError("a codec is named twice")
    return codecs


def _is_sync_id(value: str) -> str:
    if int(value) > MAX_SYNC_ID:
        raise ValueError("has more than 64 bits")
    return value


SyncId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$"), AfterValidator(_is_sync_id)]
Data = Annotated[dict[str, JsonValue], AfterValidator(_is_small)]


class CreateRoom(Strict):
    """A new room. What is left out is as the settings say."""

    id: Annotated[str, Field(pattern=ROOM_PATTERN)]
    codecs: Annotated[list[Codec], Field(min_length=1, max_length=5), AfterValidator(_is_unique)] | None = None
    max_seats: Annotated[int, Field(ge=1, le=64)] | None = None
    stage_policy: StagePolicy | None = None
    traffic: Traffic = Field(
        default="live",
        description="What the room is for. Metrics and events of synthetic rooms (`drill`, `load`) carry it.",
    )
    metadata: Data = Field(default_factory=dict)


class Room(BaseModel):
    """A live show. Follow its events from `sync_id` to miss none."""

    id: str
    created_at: str
    codecs: list[str]
    max_seats: int
    stage_policy: StagePolicy
    traffic: Traffic
    metadata: dict[str, Any]
    on_air: list[str]
    participants: int
    sync_id: str


class RoomList(BaseModel):
    rooms: list[Room]


class AppEvent(Strict):
    """An event of the application's own."""

    type: Annotated[str, Field(pattern=r"^app\.[A-Za-z0-9_.-]{1,60}$")]
    data: Data = Field(default_factory=dict)
    at: SyncId | None = Field(
        None,
        description="The sync id of the frame that the event belongs to: whoever follows can show both at "
        "once, however far behind they play.",
    )


class EventAccepted(BaseModel):
    sync_id: str
