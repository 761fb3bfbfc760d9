"""Whether this node mixes a room's program: it does while the program is on and the lease `program` is this node's.

A node without links mixes when the first of those on air publishes there. In a cluster the nodes where somebody on air
publishes ask for the lease, the first one's node first; who has it keeps it, whoever comes and goes, until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog

from relay.errors import CostreamError
from relay.mix.audio import messages as sounds
from relay.mix.video import events as picture
from relay.node.clocks import TrackClocks
from relay.node.clustered import ClusterSide
from relay.node.program_mix import Host, ProgramMix
from relay.node.programs import Pools
from relay.node.sound import RoomSound
from relay.stage import program as programs
from relay.stage.document import RoomChange, RoomState

log = structlog.get_logger()

TURN_S = 1.0
"""The second in line asks for the lease so long after the first could have, and so on."""
RETRY_S = 2.0
"""Between two attempts to begin."""
QUESTION_S = 0.5
"""Between two questions for the lease: who had it may not have given it back yet."""
REPEAT_S = 5.0
"""An input's trouble of one kind is told to the room this often at most."""

Tell = Callable[[list[tuple[str, dict[str, Any]]]], None]
Change = Callable[[Callable[[RoomState], RoomChange]], None]


class RoomProgram:
    """One room's. `tell` appends events to the room's stream, `change` changes its document."""

    def __init__(
        self,
        host: Host,
        node: str,
        pools: Pools,
        sound: RoomSound,
        clocks: TrackClocks,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        change: Change,
        tell: Tell,
        cluster: ClusterSide | None,
    ) -> None:
        self._host, self._node, self._pools, self._cluster = host, node, pools, cluster
        self._make = partial(ProgramMix, host, node, pools, sound, clocks, wall)
        sound.on_event = self._sound_told
        self._wall, self._monotonic, self._change, self._tell = wall, monotonic, change, tell
        self._mix: ProgramMix | None = None
        self._epoch = 0
        self._asked = False
        self._alone_since: float | None = None
        self._next_question = self._next_try = float("-inf")
        self._wanted = self._closed = self._busy = False
        self._degraded = False
        """As the room was told last."""
        self._failure = ""
        self._troubles: dict[tuple[str, str], float] = {}

    @property
    def mixing(self) -> bool:
        """Whether this node makes the program now."""
        return self._mix is not None

    def close(self) -> None:
        """Stop, and leave the program to others."""
        self._closed = True
        self._stop()

    def update(self) -> None:
        """The document or the tracks changed."""
        if self._busy or self._closed:
            return
        self._busy = True  # what is changed here may come back as a change
        try:
            self._update()
        finally:
            self._busy = False

    def tick(self) -> None:
        """A few times a second."""
        self.update()
        if self._mix is not None:
            self._mix.tick()

    def lease_changed(self, epoch: int) -> None:
        """This node is to mix under this epoch; 0: another one does, or may."""
        self._asked = False
        self._epoch = epoch
        if epoch and self._mix is not None:
            self._change(partial(programs.take, node=self._node, epoch=epoch))
        self.update()

    def lease_refused(self) -> None:
        """Another node has it still."""
        self._asked = False

    def nodes_known(self, nodes: frozenset[str]) -> None:
        """The nodes that live: one that is gone mixes no more."""
        program = self._host.state.program
        if program is not None and program.node and program.node not in nodes:
            log.warning("the node that mixed is gone", room=self._host.id, node=program.node)
            self._change(partial(programs.let_go, node=program.node, now=self._wall()))

    def request_keyframe(self, track: int) -> None:
        """The plane wants a keyframe of a track that is injected here."""
        if self._mix is not None:
            self._mix.request_keyframe(track)

    # --- who mixes --------------------------------------------------------------------------------------------------

    def _update(self) -> None:
        program = self._host.state.program
        if program is None:
            self._alone_since = None
            self._stop()
        elif self._mix is not None:
            if self._may_mix():
                self._go_on()
            else:
                self._stop()
        elif self._may_mix():
            self._begin()
        else:
            self._pools.unwanted(self._host.id)
            if self._cluster is not None:
                self._ask(self._cluster)

    def _may_mix(self) -> bool:
        if self._cluster is not None:
            return self._epoch > 0
        return self._mix is not None or in_line(self._host.state)[:1] == [self._node]

    def _ask(self, cluster: ClusterSide) -> None:
        now, state = self._monotonic(), self._host.state
        assert state.program is not None
        if state.program.node not in ("", self._node):
            self._alone_since = None
            return
        if self._alone_since is None:
            self._alone_since = now
        line = in_line(state)
        if self._asked or self._node not in line or now < self._next_question:
            return
        first = state.program.node == self._node  # this node's earlier life mixed
        if first or now - self._alone_since >= line.index(self._node) * TURN_S:
            self._asked, self._wanted, self._next_question = True, True, now + QUESTION_S
            cluster.want_lease(self._host.id, programs.LEASE, None)

    def _begin(self) -> None:
        if self._monotonic() < self._next_try or not self._pools.wanted(self._host.id, self):
            return
        self._change(partial(programs.take, node=self._node, epoch=self._epoch))
        try:
            self._mix = self._make()
            self._failure, self._degraded = "", False
        except CostreamError as error:
            self._failed(str(error))

    def _go_on(self) -> None:
        assert self._mix is not None
        try:
            self._mix.update()
        except CostreamError as error:
            self._mix.close()
            self._mix = None
            self._failed(str(error))

    def _failed(self, reason: str) -> None:
        self._next_try = self._monotonic() + RETRY_S
        if reason == self._failure:
            return
        self._failure = reason
        log.error("the program cannot be mixed", room=self._host.id, reason=reason)
        self._tell([("program.failed", {"node": self._node, "reason": reason})])

    def _stop(self) -> None:
        self._pools.unwanted(self._host.id)
        if self._mix is not None:
            mix, self._mix = self._mix, None
            mix.close()
            log.info("program ends here", room=self._host.id)
            if not self._host.ended:
                self._change(partial(programs.let_go, node=self._node, now=self._wall()))
        if self._wanted and self._cluster is not None:
            self._wanted, self._asked, self._epoch = False, False, 0
            self._cluster.give_up_lease(self._host.id, programs.LEASE)

    # --- the pools tell ---------------------------------------------------------------------------------------------

    def pools_ready(self) -> None:
        """See `Mixed`."""
        self.update()

    def picture_told(self, event: picture.VideoEvent) -> None:
        """See `Mixed`."""
        match event:
            case picture.WorkerLost():
                self._tell([("program.interrupted", {"part": "video", "reason": event.reason})])
            case picture.StageMoved():
                self._tell([("program.recovered", {"part": "video", "gap_ms": event.without // 1000})])
                self._restored()  # each worker begins with all of it
            case picture.StageFailed() if self._mix is not None:
                self._mix.close()
                self._mix = None
                self._failed(event.reason)
            case picture.InputTroubled():
                self._trouble(event.identity, event.fault, event.detail)
            case picture.InputRefused():
                self._refused(event.identity, event.reason)
            case picture.ProgramDegraded():
                self._degraded = True
                told = {"fps": event.fps, "width": event.width, "height": event.height}
                self._tell([("program.degraded", told)])
            case picture.ProgramRecovered():
                self._restored()
            case picture.InputShown():
                log.debug("input shown", room=event.stage, identity=event.identity, after_us=event.after)
            case picture.InputLagged() if self._mix is not None:
                self._mix.lips.picture_lags(event.identity, event.told, event.lag)

    def _sound_told(self, event: sounds.Event) -> None:
        """The room's sound may be mixed for others only, and then it is not the program that has trouble."""
        if self._mix is None:
            return
        match event:
            case sounds.ProcessReplaced():
                self._tell([("program.interrupted", {"part": "audio", "reason": event.reason})])
                self._tell([("program.recovered", {"part": "audio", "gap_ms": None})])
            case sounds.InputRefused():
                self._refused(event.identity, event.reason)
            case sounds.InputDamaged():
                self._trouble(event.identity, "damaged", f"{event.packets} packets")
            case sounds.InputStopped():
                self._trouble(event.identity, "silent", "no sound arrives")
            case sounds.SpeakerChanged():
                self.update()
            case sounds.RoomRecovered():
                log.error("a room's sound failed and was begun anew", room=event.room, reason=event.reason)
            case sounds.InputsReported():
                for one in event.inputs:
                    if one.flowing and one.delay_ms > 0:  # 0 in a pause
                        self._mix.sound_told(one)

    def _restored(self) -> None:
        """It is made with all that was asked for. (Plans change in other ways, too: with one more hand, say.)"""
        if self._degraded:
            self._degraded = False
            self._tell([("program.restored", {})])

    def _refused(self, identity: str, reason: str) -> None:
        log.warning("the program refused an input", room=self._host.id, identity=identity, reason=reason)
        self._tell([("program.input_refused", {"identity": identity, "reason": reason})])

    def _trouble(self, identity: str, fault: str, detail: str) -> None:
        now = self._monotonic()
        self._pools.count_trouble(fault)
        log.info("trouble with an input", room=self._host.id, identity=identity, fault=fault, detail=detail)
        last = self._troubles.get((identity, fault))
        if last is not None and now - last < REPEAT_S:
            return
        self._troubles = {key: at for key, at in self._troubles.items() if now - at < REPEAT_S}
        self._troubles[identity, fault] = now
        self._tell([("program.input_troubled", {"identity": identity, "fault": fault, "detail": detail})])


def in_line(state: RoomState) -> list[str]:
    """Return the nodes where somebody on air publishes, in join order."""
    on_air = frozenset(state.on_air())
    nodes: Iterable[str] = (
        each.node for each in state.publications.values() if each.state == "live" and each.identity in on_air
    )
    return list(dict.fromkeys(nodes))
