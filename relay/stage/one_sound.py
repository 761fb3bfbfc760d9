"""A live room with viewers who asked for one sound only: a mix of all that is heard, instead of a slot for each voice.

Mixes are told by whom they leave out: a host has one without himself, those who have no part in the stage share a
complete one (`EVERYBODY`). Who mixes asks what is wanted and says what there is; while a viewer's mix is not there, he
hears voices one by one as others do.
"""

from __future__ import annotations

from relay.plane.contract import Kind, PayloadType
from relay.stage.live import LiveRoom
from relay.stage.permissions import Role


def mix_name(without: str) -> str:
    """Return what a slot's `publication` is called while it plays a mix, which is no publication of the room."""
    return f"mix:{without}" if without else "mix"


class SoundLive(LiveRoom):
    """See `LiveRoom`; `sound_here` may be called for what nobody wants any more."""

    def sounds_wanted(self) -> list[str]:
        """Return the mixes that viewers here asked for, by whom they leave out, each once and the oldest first."""
        if self._sight.state is None:
            return []
        asking = (viewer for viewer in self._viewers.values() if viewer.one_sound)
        return list(dict.fromkeys(self.sound_for(viewer.identity, viewer.role) for viewer in asking))

    def sounds_programs(self) -> bool:
        """Return whether somebody who asked for one sound watches the program."""
        return any(viewer.one_sound and viewer.program for viewer in self._viewers.values())

    def sound_for(self, identity: str, role: Role) -> str:
        """Return the mix that somebody gets who asks for one."""
        return self._sight.leaves_out(identity, role)

    def sound_here(self, without: str, track: int, payload: PayloadType, now: float) -> None:
        """A mix is on this node as `track`: slots of those who asked for it play it."""
        name = self._sight.sounds[without] = mix_name(without)
        LiveRoom.publication_local(self, name, track, Kind.AUDIO, ("",), payload, now)
        LiveRoom.on_layer_started(self, track, 0, now)

    def sound_gone(self, without: str, now: float) -> None:
        """A mix is made no longer. Unknown ones are ignored."""
        name = self._sight.sounds.pop(without, None)
        if name is not None:
            LiveRoom.track_gone(self, self._tracks[name].track, now)
