"""What the API says of programs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from relay.stage import layout as stage
from relay.stage.layout import MAX_ANIMATION, MAX_INPUTS, MAX_SIZE, MIN_SIZE, STEP
from relay.stage.program import LEAST_BITRATE_BPS, MAX_FPS, MOST_BITRATE_BPS
from signaling.bodies import Strict
from signaling.rooms.schemas import SyncId

INPUT_PATTERN = r"^[A-Za-z0-9_.@:-]{1,64}(/[A-Za-z0-9_.@:-]{1,64}){0,2}$"
"""An identity, or `ROOM/IDENTITY` of a guest in a PK; with `/screen` his screen."""

Input = Annotated[str, Field(pattern=INPUT_PATTERN)]
Share = Annotated[float, Field(ge=0, le=1)]
Extent = Annotated[float, Field(gt=0, le=1)]
Kind = Literal["grid", "speaker", "side_by_side", "picture_in_picture", "custom"]


def _is_unique(inputs: list[str]) -> list[str]:
    if len(set(inputs)) != len(inputs):
        raise ValueError("an input is named twice")
    return inputs


Inputs = Annotated[list[Input], Field(max_length=MAX_INPUTS), AfterValidator(_is_unique)]


class Rectangle(Strict):
    """A place of a custom layout, in shares of the picture (0 to 1)."""

    identity: Input
    x: Share
    y: Share
    width: Extent
    height: Extent


class Layout(Strict):
    """How the stage is arranged. `order` names who comes first (the speaker, which is who speaks where nobody is
    named; the large picture); "side_by_side" shows
    `left` and `right`, "custom" its `rectangles`, later ones above earlier ones. A screen is `IDENTITY/screen`."""

    kind: Kind = "grid"
    order: Inputs = Field(default_factory=list)
    left: Inputs = Field(default_factory=list)
    right: Inputs = Field(default_factory=list)
    rectangles: Annotated[list[Rectangle], Field(max_length=MAX_INPUTS)] = Field(default_factory=list)
    fit: Literal["crop", "letterbox"] = "letterbox"

    def made(self) -> stage.Layout:
        """Return it as the stage has it."""
        rectangles = tuple(
            stage.Rectangle(one.identity, one.x, one.y, one.width, one.height) for one in self.rectangles
        )
        return stage.Layout(self.kind, tuple(self.order), tuple(self.left), tuple(self.right), rectangles, self.fit)


class PutProgram(Strict):
    """The program as it is to be. What is left out is as the node's settings say; the layout and whether names are
    drawn stay as they are in a running program."""

    width: Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE, multiple_of=STEP)] | None = None
    height: Annotated[int, Field(ge=MIN_SIZE, le=MAX_SIZE, multiple_of=2)] | None = None
    fps: Annotated[int, Field(ge=1, le=MAX_FPS)] | None = None
    codec: Literal["h264", "vp8"] | None = None
    bitrate_bps: Annotated[int, Field(ge=LEAST_BITRATE_BPS, le=MOST_BITRATE_BPS)] | None = None
    layout: Layout | None = None
    names: bool | None = None


class ChangeLayout(Strict):
    """Another arrangement."""

    layout: Layout
    at: SyncId | None = Field(
        None, description="The sync id of the first frame that shows it, so that it can be timed; else the next frame."
    )
    animate: Annotated[int, Field(ge=0, le=MAX_ANIMATION)] = Field(
        0, description="Frames that the pictures take to move to their new places"
    )


class PendingLayout(BaseModel):
    """A layout that holds from the frame with sync id `at` on."""

    at: str | None
    animate: int
    layout: Layout


class Program(BaseModel):
    """The stage mixed into one picture and one sound. `video` and `audio` are its publications, once it flows; null
    sizes and rates are the node's settings. `node` makes it; "waiting": nobody does yet."""

    since: str
    state: Literal["waiting", "live"]
    width: int | None
    height: int | None
    fps: int | None
    codec: Literal["h264", "vp8"] | None
    bitrate_bps: int | None
    layout: Layout
    pending: list[PendingLayout]
    names: bool
    node: str | None
    video: str | None
    audio: str | None
