"""A room's part in a cluster: what it takes from other nodes, what it offers them, and the leases that let it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from relay.edge.session import Submit
from relay.link import messages
from relay.node.local import LocalTrack
from relay.node.remote import RemotePublications, Upstream
from relay.node.senders import SenderClocks
from relay.plane.contract import LayerStats
from relay.ports import RoomEvent
from relay.stage.document import RoomState
from relay.stage.live import LiveRoom


class ClusterSide(Protocol):
    """What a room asks of its node's part in a cluster."""

    @property
    def upstream(self) -> Upstream:
        """The links to other nodes."""
        ...

    def publications_changed(self) -> None:
        """What this node offers to others is to be read again (`HostedRoom.offers`)."""
        ...

    def room_event(self, room: str, event: RoomEvent) -> None:
        """An event of the room, for the nodes that watch it."""
        ...

    def want_lease(self, room: str, publication: str, over: int | None) -> None:
        """See `LeaseHolder.want`; `HostedRoom.lease_changed` tells what became of it."""
        ...

    def give_up_lease(self, room: str, publication: str) -> None:
        """See `LeaseHolder.give_up`."""
        ...


class ClusteredRoom:
    """One room's. `on_track` tells which handles of the plane are this room's (False: no longer)."""

    def __init__(
        self,
        room: str,
        node: str,
        live: LiveRoom,
        cluster: ClusterSide,
        submit: Submit,
        next_handle: Callable[[], int],
        monotonic: Callable[[], float],
        on_track: Callable[[int, bool], None],
        senders: SenderClocks,
    ) -> None:
        self.speaks_for_all = True
        """Whether this node tells the room who speaks: that of the first voice on air does. It hears all voices."""
        self._room = room
        self._node = node
        self._live = live
        self._cluster = cluster
        self._monotonic = monotonic
        self._remote = RemotePublications(
            room, node, live, cluster.upstream, submit, next_handle, on_track, senders.linked
        )

    def close(self) -> None:
        """Let go of all links and tracks."""
        self._remote.close()

    # --- from other nodes -------------------------------------------------------------------------------------------

    def update(self, state: RoomState) -> None:
        """Take the newest document, or see who watches now."""
        voices = [each.node for each in state.publications.values() if each.kind == "audio" and each.state == "live"]
        if voices:
            self.speaks_for_all = voices[0] == self._node
        self._remote.update(state, self._monotonic(), watched=self._watched)

    @property
    def _watched(self) -> bool:
        return self._live.viewers > 0 or self.speaks_for_all or self._live.is_mixed

    def demand(self) -> None:
        """Subscribe to what is needed here now."""
        self._remote.demand(self._monotonic(), listen=self.speaks_for_all)

    def sweep(self) -> None:
        """Forget the tracks of former origins whose time is over."""
        self._remote.sweep(self._monotonic())

    def offered(self, node: str, catalog: Mapping[str, messages.Publication]) -> None:
        """Take another node's catalog."""
        self._remote.offered(node, catalog, self._monotonic())

    def sound_waits(self) -> Mapping[str, int]:
        """See `RemotePublications.sound_waits`."""
        return self._remote.sound_waits

    def handle_of(self, node: str, publication: str) -> int | None:
        """Return the track into which a node's packets of a publication go."""
        return self._remote.handle_of(node, publication)

    def request_keyframe(self, handle: int, layer: int) -> None:
        """Ask the origin: the plane wants a keyframe of a track that a link feeds."""
        self._remote.request_keyframe(handle, layer)

    # --- for other nodes --------------------------------------------------------------------------------------------

    def rates(self, tracks: Mapping[int, list[LayerStats]], local: Iterable[LocalTrack], changed: bool) -> None:
        """Take measured bitrates: of what links bring, and of what is offered to others. `changed`: something else of
        the offers did."""
        self._remote.rates(tracks)
        for track in local:
            changed |= track.note_rates([layer.bitrate for layer in tracks.get(track.handle, ())]) | track.note_waits()
        if changed:
            self.offer()

    def offer(self) -> None:
        """Something changed in what this node offers."""
        self._cluster.publications_changed()

    def event(self, event: RoomEvent) -> None:
        """Pass an event of the room on."""
        self._cluster.room_event(self._room, event)

    def lease(self, track: LocalTrack, state: RoomState) -> None:
        """Become the origin of a track's publication. One that the document has elsewhere is taken over: its publisher
        is here now, and has proved who he is."""
        if track.epoch:
            return
        known = state.publications.get(track.publication)
        elsewhere = known is not None and known.node != self._node
        self._cluster.want_lease(self._room, track.publication, known.epoch if known and elsewhere else None)

    def take_over(self, publication: str, owner_epoch: int) -> None:
        """Ask again for a lease that another node still holds."""
        self._cluster.want_lease(self._room, publication, owner_epoch)

    def give_up(self, track: LocalTrack) -> None:
        """This node is the origin no more."""
        self._cluster.give_up_lease(self._room, track.publication)
        self.offer()
