"""A room's sound on this node, mixed while somebody wants it: its program, or who asked to hear one sound only.

A viewer's mix is made on the viewer's node. Every voice of the stage comes there anyway, by a link when it has to, so a
room needs neither a program nor a lease for it, and nothing in its document. The mix is a track without session that
only the slots of those who asked for it play.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from relay.edge.session import Submit
from relay.errors import Conflict, Overloaded
from relay.mix.audio import messages
from relay.mix.audio.ports import TrackSink, TrackSource
from relay.node.program_inputs import Voice, own_inputs, voices
from relay.node.programs import Pools, picture_wait_ms
from relay.plane.contract import AddTrack, Kind, LayerSpec, PayloadType, RemoveTrack
from relay.stage.document import RoomState
from relay.stage.live_model import EVERYBODY
from relay.stage.one_sound import SoundLive, mix_name
from relay.stage.permissions import Role

log = structlog.get_logger()

AUDIO_TYPE = PayloadType(111, "opus", 48_000)


class Host(Protocol):
    """The room, as its sound sees it."""

    @property
    def id(self) -> str: ...
    @property
    def live(self) -> SoundLive: ...
    @property
    def stage(self) -> RoomState:
        """The document, with the other room's hosts on its stage while both rooms show a PK."""
        ...

    def heard(self) -> None:
        """Mix what can be mixed now, and bind slots."""
        ...


class RoomSound:
    """One room's. `on_track(handle, present)` hears of the tracks of mixes that come and go."""

    def __init__(
        self,
        host: Host,
        pools: Pools,
        submit: Submit,
        monotonic: Callable[[], float],
        on_track: Callable[[int, bool], None],
        elsewhere: Callable[[], Mapping[str, int]],
    ) -> None:
        """`elsewhere`: for how long each one's sound waits for his picture in the program that another node mixes."""
        self._elsewhere = elsewhere
        self._host, self._pools, self._submit, self._monotonic = host, pools, submit, monotonic
        self._on_track = on_track
        self.on_event: Callable[[messages.Event], None] = lambda event: None
        """Hears what the audio process says of the room."""
        self.speaker: str | None = None
        """Whose voice is heard, or was last, by name."""
        self._open: set[str] = set()
        self._asked: dict[str, int] = {}
        """Tracks of the mixes that viewers asked for, by whom they leave out."""
        self._refused: set[str] = set()
        self._voices: dict[str, Voice] = {}
        self._unheard: dict[str, Voice] = {}
        """What the pool did not take, as it was offered: offered again when it is another, or when somebody goes."""

    @property
    def voices(self) -> Mapping[str, Voice]:
        """What is mixed, or muted, by name."""
        return self._voices

    def close(self) -> None:
        """Let go of everything that viewers asked for; the program closes its own mix."""
        for without in list(self._asked):
            self._close_asked(without)
        self._pools.sound_unwanted(self._host.id)

    def admit(self, identity: str, role: Role) -> None:
        """Raise Conflict when who asks for one sound is a host, and one more mix without a host would be too many."""
        without, wanted = self._host.live.sound_for(identity, role), self._host.live.sounds_wanted()
        most = self._pools.settings.audio.one_sounds_per_room
        if without != EVERYBODY and without not in wanted and sum(one != EVERYBODY for one in wanted) >= most:
            raise Conflict(
                f"{most} hosts of room {self._host.id} have a mix without themselves on this node, "
                "and mix.audio.one_sounds_per_room allows no more: watch with sound=voices",
                code="too-many-mixes",
            )

    def update(self) -> None:
        """The document, the tracks or the viewers changed."""
        wanted = self._allowed()
        for without in self._asked.keys() - set(wanted):
            self._close_asked(without)
        if wanted and self._pools.sound_wanted(self._host.id, self):
            for without in wanted:
                if without not in self._asked:
                    self._open_asked(without)
        if not wanted and not self._open:
            self._pools.sound_unwanted(self._host.id)
        if self._open:
            self._wait()
            self._update_voices()
            self._wait_for_each()

    def open(self, mix: str, track: int, exclude: tuple[str, ...] = ()) -> None:
        """Send a mix without some inputs to an injected track. Raises Overloaded. Only once the pool is there."""
        pool = self._pools.audio
        if not self._open:
            self._pools.sound_wanted(self._host.id, self)
            pool.open_room(self._host.id)
        self._open.add(mix)
        try:
            pool.open_mix(self._host.id, mix, TrackSink(track), exclude=exclude, payload_type=AUDIO_TYPE.number)
        except Overloaded:
            self._open.discard(mix)
            self._end_if_unused()
            raise

    def close_mix(self, mix: str) -> None:
        """Make it no more. One that is not open is ignored."""
        if mix in self._open:
            self._open.discard(mix)
            self._pools.audio.close_mix(self._host.id, mix)
            self._end_if_unused()

    # --- the pool tells ---------------------------------------------------------------------------------------------

    def pool_ready(self) -> None:
        """The audio process has started."""
        self._host.heard()

    def sound_told(self, event: messages.Event) -> None:
        """Something of this room, or of all of them."""
        if isinstance(event, messages.InputRefused):  # until another one goes
            log.warning("a voice is not mixed", room=self._host.id, identity=event.identity, reason=event.reason)
            if (one := self._voices.pop(event.identity, None)) is not None:
                self._unheard[event.identity] = one
        if isinstance(event, messages.SpeakerChanged):
            self.speaker = event.identity
        self.on_event(event)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _allowed(self) -> list[str]:
        """What viewers asked for, without what is too much: who became a host later than he asked may be too many."""
        wanted, most = self._host.live.sounds_wanted(), self._pools.settings.audio.one_sounds_per_room
        self._refused &= set(wanted)
        own = [without for without in wanted if without != EVERYBODY]
        own.sort(key=lambda without: without not in self._asked)  # what is made stays
        for without in own[most:]:
            self._refuse(without, f"{most} hosts have one")
        return [without for without in wanted if without == EVERYBODY or without in own[:most]]

    def _open_asked(self, without: str) -> None:
        name, track = mix_name(without), self._pools.next_handle()
        self._on_track(track, True)
        self._submit(AddTrack(track, None, Kind.AUDIO, "", (AUDIO_TYPE,), (LayerSpec(),)))
        try:
            self.open(name, track, own_inputs(without) if without != EVERYBODY else ())
        except Overloaded as error:
            self._forget_track(track)
            self._refuse(without, str(error))
            return
        self._asked[without] = track
        self._refused.discard(without)
        self._pools.count_one_sounds(1)
        self._host.live.sound_here(without, track, AUDIO_TYPE, self._monotonic())
        log.info("one sound begins", room=self._host.id, without=without, track=track)

    def _close_asked(self, without: str) -> None:
        track = self._asked.pop(without)
        self._pools.count_one_sounds(-1)
        self.close_mix(mix_name(without))
        self._host.live.sound_gone(without, self._monotonic())
        self._submit(*self._host.live.commands())  # bind elsewhere before it goes
        self._forget_track(track)
        log.info("one sound ends", room=self._host.id, without=without, track=track)

    def _forget_track(self, track: int) -> None:
        self._on_track(track, False)
        self._submit(RemoveTrack(track))

    def _refuse(self, without: str, reason: str) -> None:
        if without not in self._refused:
            self._refused.add(without)
            log.warning("no mix without this host: voices instead", room=self._host.id, host=without, reason=reason)

    def _wait(self) -> None:
        """Sound that goes with a program's picture waits as that does; sound beside people's own pictures does not."""
        with_program = self._mixes_program or self._host.live.sounds_programs()
        self._pools.audio.wait_for_pictures(
            self._host.id, picture_wait_ms(self._pools.settings.video) if with_program else 0
        )

    @property
    def _mixes_program(self) -> bool:
        return bool(self._open - {mix_name(without) for without in self._asked})

    def _wait_for_each(self) -> None:
        """Beside a program of another node, everybody's sound waits as long as there. (A program of this node has its
        own word on that: `ProgramLips`.)"""
        if self._mixes_program:
            return
        known = self._elsewhere() if self._host.live.sounds_programs() else {}
        least = picture_wait_ms(self._pools.settings.video)
        for name in self._voices:
            self._pools.audio.wait_for_picture(self._host.id, name, max(0, known.get(name, 0) - least))

    def _end_if_unused(self) -> None:
        if self._open:
            self._wait()
            return
        self._pools.audio.close_room(self._host.id)
        self._voices.clear()
        self._unheard.clear()
        self.speaker = None

    def _update_voices(self) -> None:
        room, pool = self._host.id, self._pools.audio
        wanted = voices(self._host.stage, self._host.live.tracks)
        for name in [name for name in self._voices if name not in wanted]:
            del self._voices[name]
            pool.remove_input(room, name)
            self._unheard.clear()
        for name, one in wanted.items():
            known = self._voices.get(name)
            if one in (known, self._unheard.get(name)):
                continue
            if known is not None and (known.track, known.payload_type) == (one.track, one.payload_type):
                pool.mute(room, name, one.muted)
            else:
                source = TrackSource(self._submit, self._pools.next_handle, one.track)
                pool.add_input(room, name, source, muted=one.muted, payload_type=one.payload_type)
            self._voices[name] = one
