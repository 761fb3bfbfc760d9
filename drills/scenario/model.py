"""What a scenario may say: the schema of configs/drills/*.yaml, with the meaning of every key."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from drills.faults import AnyFault
from drills.scenario.figures import FIGURES
from drills.scenario.units import Bound, Part, Rate, Time
from drills.scenario.words import nearest
from relay.stage.layout import STEP

Phase = Literal["before", "during", "after", "whole"]
PHASES: tuple[Phase, ...] = ("before", "during", "after", "whole")
Dimension = Literal[
    "path failover",
    "delay",
    "loss",
    "partition",
    "flapping",
    "node loss",
    "control plane",
    "store",
    "overload",
    "resources",
    "time",
    "change",
]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


class ClusterPart(Part):
    """`cluster`: what is started."""

    relays: int = Field(default=3, ge=1, le=26, description="How many relays: relay-a, relay-b, …")
    signaling: int = Field(default=1, ge=1, le=9, description="How many signaling services: signaling-1, …")
    regions: list[str] = Field(default=["local"], min_length=1, description="Of the relays, in turn.")
    store: Literal["valkey"] = Field(default="valkey", description="The store; a real server with an append-only file.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of all relays, SECTION.KEY: VALUE, as in configs/relay.toml."
    )


class HostsPart(Part):
    """`load.hosts`: who publishes, in every room."""

    count: int = Field(default=2, ge=1, le=64, description="Hosts with a picture and a tone.")
    voices: int = Field(
        default=0, ge=0, le=64, description="Hosts with a tone only; they make links busy at little cost."
    )
    at: list[str] = Field(default=["relay-a"], min_length=1, description="Members whose API they use first, in turn.")
    codec: Literal["VP8", "H264", "VP9", "AV1"] = Field(default="VP8", description="Of the picture.")
    layers: Literal[1, 3] = Field(default=1, description="1: one encoding; 3: simulcast.")
    size: tuple[int, int] = Field(default=(320, 180), description="Width and height of the picture.")
    fps: int = Field(default=20, ge=5, le=60, description="Pictures a second.")


class ViewersPart(Part):
    """`load.viewers`: who watches, in every room."""

    count: int = Field(default=6, ge=0, le=500, description="Viewers; libwebrtc decodes every picture.")
    at: list[str] = Field(default=["relay-b"], min_length=1, description="Members whose API they use first, in turn.")
    play: Literal["stage", "program"] = Field(
        default="stage",
        description="What they watch. The program shows the first host of the room in all of its picture.",
    )
    rejoin: bool = Field(default=True, description="Whether they join again, elsewhere if need be, when nothing comes.")
    join_rate: Rate = Field(default=10.0, description="Joins a second.")
    jitter: Time = Field(default=0.0, description="A random time, this at most, is added to each one's wait; seeded.")


class ChromiumPart(Part):
    """`load.chromium`: who watches in headless Chromium by the project's watch page, in every room.

    What they watch is what `load.viewers` do; they come back and move by the page's own rules.
    """

    count: int = Field(default=0, ge=0, le=8, description="Viewers in Chromium; each takes a quarter of a core.")
    at: list[str] = Field(default=["relay-b"], min_length=1, description="Members that serve them the page, in turn.")
    optional: bool = Field(
        default=False,
        description="Without a Chromium the drill goes on without them and says so, rather than being refused.",
    )


class LoadPart(Part):
    """`load`: who uses the cluster."""

    rooms: int = Field(default=1, ge=1, le=100, description="Rooms, each with these hosts and viewers.")
    traffic: Literal["drill", "load"] = Field(default="drill", description="The tag of the rooms.")
    hosts: HostsPart = Field(default=HostsPart(), description="Who publishes.")
    viewers: ViewersPart = Field(default=ViewersPart(), description="Who watches.")
    chromium: ChromiumPart = Field(default=ChromiumPart(), description="Who watches in a browser.")
    near: int = Field(
        default=1,
        ge=0,
        le=4,
        description="Viewers at the hosts' own relay: they tell what was encoded and what this machine lost.",
    )
    api_rate: Rate = Field(default=4.0, description="Requests a second to the REST API, of each signaling service.")
    newcomers: float = Field(
        default=0.0, ge=0, le=50, description="Offers a second during the method, each ended at once."
    )
    newcomers_at: str = Field(default="signaling-1", description="The member whose API they use.")
    program: bool = Field(
        default=False,
        description="Whether the rooms have a program, of the first host's picture and everybody's sound.",
    )
    program_size: tuple[int, int] | None = Field(
        default=None, description="Width and height of the programs; left out: those of the hosts' pictures."
    )
    program_fps: int | None = Field(
        default=None, ge=5, le=120, description="Their pictures a second; left out: as many as the hosts'."
    )
    pk: bool = Field(
        default=False,
        description="Whether the two rooms are in a PK: one from before the watch, another once all is taken back.",
    )
    pk_lasts: Time = Field(default=20.0, ge=10, le=3600, description="How long each PK lasts from its start on.")

    @model_validator(mode="after")
    def _can_be_watched(self) -> Self:
        width, height = self.program_size or self.hosts.size
        if self.viewers.play == "program" and not self.program:
            raise ValueError("viewers.play: program needs program: true")
        if self.program and (width % STEP or height % 2):
            raise ValueError(f"a program needs program_size or hosts.size with a width by {STEP} and an even height")
        if (self.program_size or self.program_fps) and not self.program:
            raise ValueError("program_size and program_fps need program: true")
        if self.program_size and self.viewers.play == "program":
            raise ValueError("program_size needs viewers.play: stage; at another size the host's mark may not be read")
        if self.pk and self.rooms != 2:
            raise ValueError(f"pk: true needs rooms: 2, not {self.rooms}")
        if self.pk and self.viewers.play == "program":
            raise ValueError("pk: true needs viewers.play: stage; in a PK a program shows both stages")
        return self


def _bounds(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found = {}
    for name, text in value.items():
        if isinstance(text, Bound):
            found[name] = text
            continue
        figure = FIGURES.get(str(name))
        if figure is None:
            raise ValueError(f"{name!r} is no figure{nearest(str(name), FIGURES)}; there are {', '.join(FIGURES)}")
        try:
            found[name] = Bound.parse(text, figure.unit)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


Bounds = Annotated[dict[str, Bound], BeforeValidator(_bounds)]


class SteadyStatePart(Part):
    """`steady_state`: the hypotheses, figure: bound. `costream drill list --figures` has all figures."""

    before: Bounds = Field(
        default_factory=dict, description="Checked before the method; if one fails nothing is broken."
    )
    during: Bounds = Field(default_factory=dict, description="From the first fault until the settling is over.")
    after: Bounds = Field(default_factory=dict, description="Once everything has been taken back and has settled.")
    whole: Bounds = Field(default_factory=dict, description="From the first viewer to the end.")

    def items(self) -> list[tuple[Phase, str, Bound]]:
        """All hypotheses: phase, figure, bound."""
        return [(phase, name, bound) for phase in PHASES for name, bound in getattr(self, phase).items()]


class Scenario(Part):
    """A drill."""

    title: str = Field(min_length=3, max_length=100, description="One line for the report.")
    about: str = Field(min_length=10, description="What breaks, and why that should not be seen.")
    dimension: Dimension = Field(description="What the scorecard counts it for.")
    seed: int = Field(default=1, ge=0, description="Of all dice: the fabric's, the load's and the faults'.")
    root: bool = Field(
        default=True, description="Whether it needs network namespaces; else the proxy on loopback will do."
    )
    cluster: ClusterPart = Field(default=ClusterPart(), description="What is started.")
    load: LoadPart = Field(default=LoadPart(), description="Who uses it.")
    steady_state: SteadyStatePart = Field(description="What has to hold.")
    watch: Time = Field(default=6.0, description="How long the steady state is watched before the method.")
    method: list[AnyFault] = Field(min_length=1, max_length=100, description="The faults.")
    lasts: Time = Field(description="How long the method lasts; then everything is taken back.")
    settle: Time = Field(default=4.0, description="How long the cluster may take to recover after that.")
    calm: Time = Field(default=4.0, description="How long it is watched once more, as `after`.")

    @model_validator(mode="after")
    def _times_are_possible(self) -> Self:
        for number, step in enumerate(self.method):
            end = step.at + (step.lasts or 0.0)
            if step.at >= self.lasts or end > self.lasts:
                raise ValueError(
                    f"method.{number}: {step.fault} at {step.at:g} s{f' for {step.lasts:g} s' if step.lasts else ''} "
                    f"is not over when the method ends at {self.lasts:g} s"
                )
        if self.watch < 1 or self.calm < 1:
            raise ValueError("watch and calm are 1 s at least: nothing can be said about less")
        return self
