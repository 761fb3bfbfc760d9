"""The publications of one room whose origin is another node: tracks of this node's plane that a link feeds.

A track follows a publication's origin. When that is another node, the new one's packets come as a new
track, and slots play the old one until the new one can be decoded; only then is the old one forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.link import messages
from relay.plane.contract import AddTrack, Command, Kind, LayerSpec, LayerStats, PayloadType, RemoveTrack
from relay.stage.document import RoomState
from relay.stage.live import LiveRoom
from relay.stage.sender_clock import Anchor

KEEP_LAYER_S = 2.0
"""A layer that nobody needs any more is still taken for this long: a viewer who goes down a layer often comes back."""
KEEP_TRACK_S = 4.0
"""A track of a former origin is kept for this long: two keyframe intervals of the encoders that we ask for."""


class Upstream(Protocol):
    """What a room asks of the links to other nodes. Nodes that are not known, or not reached, are tried again."""

    def follow(self, room: str, nodes: frozenset[str]) -> None:
        """These nodes are origins of the room's publications: keep links to them, and to no other for this room."""
        ...

    def subscribe(self, node: str, publication: str, epoch: int, layers: tuple[int, ...]) -> None:
        """Want exactly these layers; none ends it."""
        ...

    def request_keyframe(self, node: str, publication: str, layer: int) -> None:
        """Ask the origin for a keyframe."""
        ...

    def catalog(self, node: str) -> Mapping[str, messages.Publication]:
        """What the node offers now."""
        ...


@dataclass(slots=True)
class RemoteTrack:
    """A publication and its present origin. `handle` is 0 until the origin's catalog has said what it is."""

    publication: str
    node: str
    epoch: int
    handle: int = 0
    form: tuple[object, ...] = ()
    active: tuple[bool, ...] = ()
    wanted: tuple[int, ...] = ()
    waits: Mapping[str, int] = field(default_factory=dict)
    needed: dict[int, float] = field(default_factory=dict)
    """When each layer was last needed."""


@dataclass(frozen=True, slots=True)
class _Former:
    """A track that slots may still play. `source` is its origin, whose packets are still taken; None when it goes on
    under another handle."""

    until: float
    handle: int
    source: RemoteTrack | None


class RemotePublications:
    """Those of one room. `on_track` tells who owns a handle of the plane now (False: nobody), `on_captured` when a
    frame of a layer was captured by its sender's clock, as far as the origin knows."""

    def __init__(
        self,
        room: str,
        node: str,
        live: LiveRoom,
        upstream: Upstream,
        submit: Callable[..., None],
        next_handle: Callable[[], int],
        on_track: Callable[[int, bool], None],
        on_captured: Callable[[int, int, Anchor | None], None],
    ) -> None:
        self._room = room
        self._node = node
        self._live = live
        self._upstream = upstream
        self._submit = submit
        self._next_handle = next_handle
        self._on_track = on_track
        self._on_captured = on_captured
        self._tracks: dict[str, RemoteTrack] = {}
        self._by_handle: dict[int, RemoteTrack] = {}
        self._former: list[_Former] = []
        self._watched = False

    def __iter__(self) -> Iterator[RemoteTrack]:
        return iter(self._tracks.values())

    @property
    def sound_waits(self) -> Mapping[str, int]:
        """For how long each one's sound waits for his picture in the program that another node mixes, ms; empty while
        none does."""
        return next((track.waits for track in self._tracks.values() if track.waits), {})

    def update(self, state: RoomState, now: float, *, watched: bool) -> None:
        """Take the newest document. Without anybody who needs media (`watched`) no link is kept for this room."""
        self._watched = watched
        wanted = {
            each.id: each
            for each in state.publications.values()
            if watched and each.node != self._node and each.epoch > 0
        }
        for ident in [ident for ident in self._tracks if ident not in wanted]:
            moved_here = watched and ident in state.publications
            self._drop(self._tracks.pop(ident), now, keep=moved_here)
        for ident, publication in wanted.items():
            known = self._tracks.get(ident)
            if known is not None and known.node == publication.node:
                self._renew(known, publication.epoch)
                continue
            if known is not None:
                self._drop(known, now, keep=True)
            self._tracks[ident] = RemoteTrack(ident, publication.node, publication.epoch)
        nodes = frozenset(track.node for track in self._tracks.values())
        former = frozenset(each.source.node for each in self._former if each.source is not None)
        self._upstream.follow(self._room, nodes | former)
        for node in nodes:
            self.offered(node, self._upstream.catalog(node), now)

    def offered(self, node: str, catalog: Mapping[str, messages.Publication], now: float) -> None:
        """Take what an origin offers; what it does not hold by our document is left alone."""
        for track in list(self._tracks.values()):
            entry = catalog.get(track.publication)
            if track.node == node and entry is not None and entry.epoch >= track.epoch:
                self._renew(track, entry.epoch)
                self._take(track, entry, now)

    def demand(self, now: float, *, listen: bool) -> None:
        """Subscribe to what is needed here now."""
        if not self._tracks:
            return
        needed = self._live.demand(listen=listen)
        for track in self._tracks.values():
            if not track.handle:
                continue
            for layer in needed.get(track.handle, ()):
                track.needed[layer] = now
            track.needed = {layer: at for layer, at in track.needed.items() if now - at <= KEEP_LAYER_S}
            wanted = tuple(sorted(track.needed))
            if wanted != track.wanted:
                track.wanted = wanted
                self._upstream.subscribe(track.node, track.publication, track.epoch, wanted)

    def sweep(self, now: float) -> None:
        """Forget the tracks of former origins whose time is over."""
        due = [each for each in self._former if each.until <= now]
        self._former = [each for each in self._former if each.until > now]
        for each in due:
            self._end(each)

    def handle_of(self, node: str, publication: str) -> int | None:
        """The track that a node's packets of a publication go into: those of a former origin, too, while slots may
        still play them."""
        track = self._tracks.get(publication)
        if track is not None and track.node == node and track.handle:
            return track.handle
        for each in self._former:
            if each.source is not None and (each.source.node, each.source.publication) == (node, publication):
                return each.handle
        return None

    def request_keyframe(self, handle: int, layer: int) -> None:
        """The plane's `KeyframeRequested`."""
        track = self._by_handle.get(handle)
        if track is not None and self._tracks.get(track.publication) is track:
            self._upstream.request_keyframe(track.node, track.publication, layer)

    def rates(self, tracks: Mapping[int, list[LayerStats]]) -> None:
        """Take measured bitrates of the layers that come; those of the others are the origin's to tell."""
        self._live.on_layer_rates(
            {handle: [layer.bitrate for layer in tracks[handle]] for handle in self._by_handle if handle in tracks}
        )

    def close(self) -> None:
        """Let go of all links and tracks."""
        for track in self._tracks.values():
            self._drop(track, 0.0, keep=False)
        self._tracks.clear()
        for each in self._former:
            self._end(each)
        self._former.clear()
        self._upstream.follow(self._room, frozenset())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _renew(self, track: RemoteTrack, epoch: int) -> None:
        """The same origin holds it under a later lease, say because the store had forgotten the former one."""
        if epoch > track.epoch:
            track.epoch, track.wanted = epoch, ()

    def _take(self, track: RemoteTrack, entry: messages.Publication, now: float) -> None:
        types = tuple(
            PayloadType(each.number, each.codec, each.clock_hz, each.apt, each.profile) for each in entry.codecs
        )
        rids = tuple(layer.rid for layer in entry.layers)
        form = (entry.kind, types, rids)
        if track.form != form:
            if track.handle:
                self._former.append(_Former(now + KEEP_TRACK_S, track.handle, None))
            track.form, track.handle, track.active, track.wanted = form, self._next_handle(), (), ()
            self._by_handle[track.handle] = track
            self._on_track(track.handle, True)
            kind = Kind(entry.kind)
            self._submit(AddTrack(track.handle, None, kind, "", types, tuple(LayerSpec(rid) for rid in rids)))
            self._live.publication_local(track.publication, track.handle, kind, rids, types[0], now)
        active = tuple(layer.active for layer in entry.layers)
        for layer, lives in enumerate(active):
            if track.active[layer : layer + 1] != (lives,):
                tell = self._live.on_layer_started if lives else self._live.on_layer_stopped
                tell(track.handle, layer, now)
            captured = entry.layers[layer].captured
            self._on_captured(track.handle, layer, None if captured is None else Anchor(*captured))
        track.active = active
        track.waits = {each.participant: each.ms for each in entry.waits}
        self._live.on_layer_rates({track.handle: [layer.bps for layer in entry.layers]})

    def _drop(self, track: RemoteTrack, now: float, *, keep: bool) -> None:
        """Forget an origin. With `keep` its track plays on until the new one does: whoever publishes there may do so
        for another second."""
        if keep and track.handle:
            self._former.append(_Former(now + KEEP_TRACK_S, track.handle, track))
            return
        self._upstream.subscribe(track.node, track.publication, track.epoch, ())
        if not track.handle:
            return
        self._live.track_gone(track.handle, now)
        self._remove(track.handle)

    def _end(self, former: _Former) -> None:
        source = former.source
        if source is not None:
            now_at = self._tracks.get(source.publication)
            if now_at is None or now_at.node != source.node:  # or else it has come back, and is wanted
                self._upstream.subscribe(source.node, source.publication, source.epoch, ())
        self._remove(former.handle)

    def _remove(self, handle: int) -> None:
        self._by_handle.pop(handle, None)
        self._on_track(handle, False)
        commands: list[Command] = [*self._live.commands(), RemoveTrack(handle)]  # bind elsewhere before it goes
        self._submit(*commands)
