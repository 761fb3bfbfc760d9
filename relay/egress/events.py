"""What an egress is, and what happens to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["hls", "recording", "rtmp"]
State = Literal["starting", "running", "retrying", "failed", "ended"]
# starting → running ⇄ retrying → failed | ended; from any of the first three to the last two. Those are final.
FINAL: frozenset[State] = frozenset({"failed", "ended"})


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """What somebody wants out of a room. `source` is "program" or the id of a publication."""

    room: str
    kind: Kind
    source: str = "program"
    url: str = ""
    """Of an RTMP push; holds the key of the stream, so it is neither logged nor told."""


@dataclass(frozen=True, slots=True)
class EgressChanged:
    """An egress has another state. `code` and `detail` say what went wrong, empty when nothing did."""

    id: str
    room: str
    kind: Kind
    source: str
    state: State
    code: str
    detail: str

    @property
    def type(self) -> str:
        return f"egress.{self.state}"

    def data(self) -> dict[str, Any]:
        error = {"code": self.code, "detail": self.detail} if self.code else None
        return {"egress": self.id, "kind": self.kind, "source": self.source, "state": self.state, "error": error}


@dataclass(frozen=True, slots=True)
class RecordingFileClosed:
    """A file of a recording is whole and will not change."""

    id: str
    room: str
    name: str
    bytes: int

    @property
    def type(self) -> str:
        return "egress.file"

    def data(self) -> dict[str, Any]:
        return {"egress": self.id, "name": self.name, "bytes": self.bytes}


EgressEvent = EgressChanged | RecordingFileClosed
