"""One room's program while this node mixes it: its inputs, its arrangement, and its two tracks, kept as they should be.

`update` compares what the document and this node's tracks say with what the pools were told, and tells the difference.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog

from relay.clock import now_us
from relay.edge.plan import TrackPlan
from relay.errors import BadRequest, CostreamError, RequestError
from relay.ids import sync_id_at, sync_id_milliseconds
from relay.mix.audio.messages import InputReport
from relay.mix.video.program import Program as Made
from relay.node.clocks import TrackClocks
from relay.node.lips import ProgramLips
from relay.node.local import LocalTrack
from relay.node.program_inputs import Picture, pictures
from relay.node.programs import Pools
from relay.node.sound import AUDIO_TYPE, RoomSound
from relay.plane.contract import Feedback, Kind, LayerSpec, PayloadType
from relay.stage import program as programs
from relay.stage.document import PROGRAM, MediaKind, Program, ProgramCodec, RoomChange, RoomState
from relay.stage.layout import MAX_INPUTS, MAX_TEXT, Layout, Overlays, Score, Timer
from relay.stage.live import LiveRoom
from relay.stage.pk_room import PkView

log = structlog.get_logger()

VIDEO_TYPES = {
    "h264": PayloadType(102, "h264", 90_000, None, "42e01f/1"),  # what the encoder makes: Constrained Baseline
    "vp8": PayloadType(96, "vp8", 90_000),
}
MIX = "program"


class Host(Protocol):
    """The room, as its program sees it."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> RoomState: ...
    @property
    def live(self) -> LiveRoom: ...
    @property
    def stage(self) -> RoomState:
        """`state`, with the other room's hosts on its stage while both rooms show a PK."""
        ...

    @property
    def pk(self) -> PkView | None:
        """What is to be seen of the room's PK now."""
        ...

    @property
    def ended(self) -> bool: ...

    def inject(self, track: LocalTrack) -> None:
        """Take in a track whose packets this process injects; it is published when they come."""
        ...

    def withdraw(self, track: LocalTrack) -> None:
        """Forget such a track."""
        ...

    def rename(self, track: LocalTrack, publication: str) -> None:
        """It is this publication."""
        ...


class ProgramMix:
    """Begun by making it. Raises Overloaded, and nothing is left, when no worker can be had."""

    def __init__(
        self,
        host: Host,
        node: str,
        pools: Pools,
        sound: RoomSound,
        clocks: TrackClocks,
        wall: Callable[[], float],
    ) -> None:
        self._host, self._node, self._pools, self._sound = host, node, pools, sound
        self._clocks, self._wall = clocks, wall
        self._room = host.id
        self.lips = ProgramLips(host.id, pools, clocks, sound.voices)
        self._pictures: dict[str, Picture] = {}
        self._unseen: dict[str, Picture] = {}
        """What the pool did not take, as it was offered: offered again when it is another, or when somebody goes."""
        self._told: set[int] = set()
        self._followed: Layout | None = None
        """The layout that was told last because somebody else speaks."""
        self._form: tuple[object, ...] = ()
        self._video: LocalTrack | None = None
        self._audio: LocalTrack | None = None
        wanted = programs.running(host.state)
        try:
            self._open_video(wanted)
            self._open_audio()
        except CostreamError:
            self.close()
            raise
        self.update()

    def close(self) -> None:
        """Let go of everything. The document is the owner's."""
        self._host.live.mixed = None
        self.lips.close()
        if self._audio is not None:
            self._sound.close_mix(MIX)
            self._host.withdraw(self._audio)
            self._audio = None
        self._close_video()

    def update(self) -> None:
        """Something changed, or might have. Raises Overloaded when the picture cannot be made in its new form."""
        program = self._host.state.program
        if program is None:
            return
        self._check_names()
        if self._form != _form(program):
            self._close_video()
            self._open_video(program)
        self._arrange(program)
        self._update_pictures()
        self._sound.update()
        self._host.live.mixed = {
            **{voice.track: {0} for voice in self._sound.voices.values() if not voice.muted},
            **{one.source.track: {one.source.layer} for one in self._pictures.values() if one.source is not None},
        }

    def tick(self) -> None:
        """Some time passed: note where the program's frames stand in time, exactly as it was computed."""
        self.lips.update(self._host.stage, self._pictures)
        now = now_us()
        if self._video is not None and (anchor := self._pools.video.anchor(self._room, now)) is not None:
            self._anchor(self._video, 90_000, *anchor)
        if self._audio is not None:
            self._audio.waits = self.lips.waits

    def request_keyframe(self, track: int) -> None:
        """A viewer of the program needs one."""
        self._pools.video.request_keyframe(track)

    def sound_told(self, report: InputReport) -> None:
        """How somebody's sound comes, and how long it waits."""
        self.lips.sound_told(report, self._fps)

    # --- tracks -----------------------------------------------------------------------------------------------------

    def _open_video(self, wanted: Program) -> None:
        settings = self._pools.settings.video
        codec = wanted.codec or self._codec(settings.codec)
        payload = VIDEO_TYPES[codec]
        self._video = track = self._track("video", payload)
        self._host.inject(track)
        made = Made(
            track.handle,
            payload.number,
            width=wanted.width,
            height=wanted.height,
            fps=wanted.fps,
            codec=codec,
            bitrate=wanted.bitrate_bps,
        )
        first, overlays = wanted.layouts[0], wanted.overlays[0]
        self._pools.video.open_stage(self._room, made, self._with_speaker(first.layout), overlays.overlays)
        self._followed = None
        self._told = {first.number, overlays.number}
        self._pk_layout: Layout | None = None
        self._pk_overlays: Overlays | None = None
        self._form = _form(wanted)
        self._lines, self._fps = wanted.height or settings.height, wanted.fps or settings.fps
        log.info("program begins", room=self._room, codec=codec, track=track.handle)

    def _codec(self, usual: ProgramCodec) -> ProgramCodec:
        codecs = self._host.state.codecs
        other: ProgramCodec = "vp8" if usual == "h264" else "h264"
        found = usual if usual in codecs else other
        if found not in codecs:
            raise BadRequest("the room carries neither H264 nor VP8, and a program is made in one of them")
        return found

    def _close_video(self) -> None:
        self._pools.video.close_stage(self._room)
        self._pictures.clear()
        self._form = ()
        if self._video is not None:
            self._host.withdraw(self._video)
            self._video = None

    def _open_audio(self) -> None:
        self._audio = track = self._track("audio", AUDIO_TYPE)
        self._host.inject(track)
        self._sound.open(MIX, track.handle)

    def _track(self, kind: MediaKind, payload: PayloadType) -> LocalTrack:
        known = programs.publications_of(self._host.state).get(kind)
        plan = TrackPlan("", Kind(kind), (payload,), (LayerSpec(),), Feedback(), PROGRAM, "")
        return LocalTrack(
            key=(PROGRAM, kind, PROGRAM),
            handle=self._pools.next_handle(),
            publication=known.id if known is not None else secrets.token_hex(8),
            session=f"{PROGRAM}~{self._node}",
            plan=plan,
            register=self._register,
        )

    def _register(self, track: LocalTrack) -> Callable[[RoomState], RoomChange]:
        now = self._wall()
        kind: MediaKind = "video" if track.plan.kind is Kind.VIDEO else "audio"

        def register(state: RoomState) -> RoomChange:
            return programs.publish(
                state,
                now,
                publication=track.publication,
                kind=kind,
                codec=track.codec,  # type: ignore[arg-type]
                node=self._node,
                session=track.session,
                layers=track.active_rids,
                epoch=track.epoch,
            )

        return register

    def _check_names(self) -> None:
        """Who began without knowing of an earlier node's publications has to go by their names."""
        published = programs.publications_of(self._host.state)
        for track in (self._video, self._audio):
            if track is None:
                continue
            known = published.get("video" if track.plan.kind is Kind.VIDEO else "audio")
            if known is not None and known.id != track.publication:
                self._host.rename(track, known.id)

    def _anchor(self, track: LocalTrack, clock_hz: int, ssrc: int, timestamp: int, wall_us: int) -> None:
        if track.registered:
            self._clocks.timeline(track.handle, 0, clock_hz).anchor(ssrc, timestamp, sync_id_at(wall_us))

    # --- arrangement ------------------------------------------------------------------------------------------------

    def _arrange(self, program: Program) -> None:
        view = self._host.pk
        layout, overlays = pk_layout(view, program), pk_overlays(view, program)
        for change in program.layouts:
            if change.number not in self._told:
                self._told.add(change.number)
                shown = self._with_speaker(change.layout)
                self._try(self._pools.video.set_layout, self._room, shown, change.at, change.animate)
                if not change.at:
                    self._followed = shown
        if layout != self._pk_layout:
            self._pk_layout = layout
            shown = layout or self._with_speaker(program.layouts[0].layout)
            self._try(self._pools.video.set_layout, self._room, shown)
        self._follow_speaker(program)
        for overlay in program.overlays if overlays is None else ():
            if overlay.number not in self._told:
                self._told.add(overlay.number)
                self._try(self._pools.video.set_overlays, self._room, overlay.overlays, overlay.at)
        if overlays != self._pk_overlays:
            self._pk_overlays = overlays
            self._try(self._pools.video.set_overlays, self._room, overlays or program.overlays[0].overlays)

    def _with_speaker(self, layout: Layout) -> Layout:
        """A layout of "speaker" that says nothing of who that is shows who speaks, or spoke last."""
        speaker = self._sound.speaker
        if layout.kind != "speaker" or layout.order or speaker is None or speaker not in self._sound.voices:
            return layout
        return replace(layout, order=(speaker,))

    def _follow_speaker(self, program: Program) -> None:
        now = self._pools.video.sync_id()
        holds = [change.layout for change in program.layouts if change.at <= now][-1:]
        wanted = self._with_speaker(holds[0]) if holds and self._pk_layout is None else None
        if wanted is None or wanted == holds[0]:
            self._followed = None
        elif wanted != self._followed:
            self._followed = wanted
            self._try(self._pools.video.set_layout, self._room, wanted)

    # --- inputs -----------------------------------------------------------------------------------------------------

    def _update_pictures(self) -> None:
        live, pool = self._host.live, self._pools.video
        wanted = pictures(self._host.stage, live.tracks, self._heights, self._lines, self._pictures)
        for name in [name for name in self._pictures if name not in wanted]:
            del self._pictures[name]
            pool.remove_input(self._room, name)
            self._unseen.clear()
        for name, one in wanted.items():
            if one in (self._pictures.get(name), self._unseen.get(name)):
                continue
            self._pictures[name] = one
            if not pool.add_input(self._room, name, one.name, one.source):  # too many, or the track has just gone
                self._unseen[name] = self._pictures.pop(name)
                pool.remove_input(self._room, name)

    def _heights(self, track: int) -> list[int]:
        return self._pools.heights(track)

    def _try(self, tell: Callable[..., None], *arguments: object) -> None:
        try:
            tell(*arguments)
        except RequestError as error:
            log.warning("the program's arrangement was refused", room=self._room, reason=str(error))


def _form(program: Program) -> tuple[object, ...]:
    return program.width, program.height, program.fps, program.codec, program.bitrate_bps


def pk_layout(view: PkView | None, program: Program) -> Layout | None:
    """Return how a PK that both rooms show is arranged: one's own side at the left. None: as the program says."""
    if view is None or view.phase != "running" or not (view.own.on_air and view.other.on_air):
        return None
    sides = view.own.on_air[:MAX_INPUTS], view.other.on_air[:MAX_INPUTS]
    return Layout("side_by_side", left=sides[0], right=sides[1], fit=program.layouts[0].layout.fit)


def pk_overlays(view: PkView | None, program: Program) -> Overlays | None:
    """Return what a PK draws: the time until it begins, then points and the time that is left."""
    if view is None:
        return None
    names = program.overlays[0].overlays.names
    if view.phase == "countdown":
        return Overlays(names, None, Timer(sync_id_milliseconds(view.starts_at)))
    score = Score(view.own.points, view.other.points, view.own.room[:MAX_TEXT], view.other.room[:MAX_TEXT])
    return Overlays(names, score, Timer(sync_id_milliseconds(view.ends_at)))
