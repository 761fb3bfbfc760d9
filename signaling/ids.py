"""Names in paths: what a room, an identity, a publication and a session may be called."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path

ROOM_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
IDENTITY_PATTERN = r"^[A-Za-z0-9_.@:-]{1,64}$"
RESOURCE_PATTERN = r"^[A-Za-z0-9_.@:~-]{1,200}$"

RoomId = Annotated[str, Path(pattern=ROOM_PATTERN, description="A room's id", examples=["demo"])]
Identity = Annotated[str, Path(pattern=IDENTITY_PATTERN, description="A participant's identity", examples=["alice"])]
PublicationId = Annotated[str, Path(pattern=RESOURCE_PATTERN, description="A publication's id")]
PkId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="A PK's id")]
SessionId = Annotated[str, Path(pattern=RESOURCE_PATTERN, description="A session's id, `<node>~<random>`")]
