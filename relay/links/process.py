"""The relay's side of its link process: starts it, feeds it, watches it, and replaces it from state.

What is decided stays here (rooms, leases, who may offer what); the process only carries. It is replaced when it ends
or has not been heard of for `HANG_S`. A new one gets new rings, the catalog, and all that is wanted of other nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, assert_never

import structlog

from relay.errors import NotFound, Overloaded, SettingsError, UsageError
from relay.ids import HybridClock
from relay.link.hooks import LinkEvent, OriginHooks
from relay.link.messages import Publication
from relay.links import messages as m
from relay.links.dialled import ProcessLink, Taking
from relay.links.ends import ServingEnd, remote_of
from relay.links.readings import ToldLine
from relay.links.sides import batches, catalog_steps
from relay.plane import Plane
from relay.plane.rings import Gone, InjectRing, TapRing
from relay.ports import RoomEvent
from relay.process.child import Child, Restarts
from relay.process.control import Wire
from relay.settings import LinkSettings, LogSettings
from relay.stage.timeline import Reading

MODULE = "relay.links"
SLOTS = 8192
"""Of each ring: 0.8 s of 10,000 packets/s, 12 MiB."""
LOOK_S = 0.2
HANG_S = 4.0
START_S = 30.0
ANSWER_S = 0.5
log = structlog.get_logger()


class Offering(OriginHooks, Protocol):
    """The origin's side of a node."""

    server: ServingEnd
    ring_for: Callable[[int, int], int | None]
    """Told of each flow and its tap before the first packet; says which ring of the plane the packets go to."""

    def readings(self, flows: Iterable[int] | None = None) -> Iterable[tuple[int, int, Reading]]:
        """Return the newest frames of tapped layers, of all or of these, as (flow, RTP clock in Hz, frame)."""
        ...

    def forget_taps(self) -> None:
        """The ring is closed, and its taps are gone with it."""
        ...


class _Run:
    """One process and its rings."""

    def __init__(self, plane: Plane, on_word: Callable[[m.Word], None], on_end: Callable[[_Run, str], None]) -> None:
        """Raises OSError or Overloaded when it cannot be; nothing stays open then."""
        self.since = time.monotonic()
        self.ready = False
        self.silent = 0
        """Looks since it was last heard of. Not a time: a relay that slept reads first and judges then."""
        with contextlib.ExitStack() as stack:
            self.taps: TapRing = plane.open_tap_ring(slots=SLOTS, on_gone=self._ring_gone)
            stack.callback(self.taps.close)
            self.injects: InjectRing = plane.open_inject_ring(slots=SLOTS, on_gone=self._ring_gone)
            stack.callback(self.injects.close)
            fds = self.taps.fds + self.injects.fds
            words = [str(descriptor) for descriptor in fds]
            wire: Wire[m.Word] = Wire(*m.WORDS)
            self.child: Child[m.Word] = Child(MODULE, words, fds, wire, on_word, lambda why: on_end(self, why))
            stack.pop_all()
        self.taps.passed()
        self.injects.passed()

    def close_rings(self) -> None:
        self.taps.close()
        self.injects.close()

    def _ring_gone(self, why: Gone) -> None:
        if why == "corrupt":
            self.child.kill("it wrote nonsense into a ring")


class LinkProcess:
    """See `relay.links.ends.LinkEnds`, `ServingEnd` and `relay.links.dialled.Injecting`."""

    def __init__(
        self,
        settings: LinkSettings,
        log_settings: LogSettings,
        node: str,
        plane: Plane,
        clock: HybridClock,
        origin: Offering,
        upstreams: Taking,
    ) -> None:
        self._settings = settings
        self._log_settings = log_settings
        self._node = node
        self._plane = plane
        self._clock = clock
        self._origin = origin
        self._upstreams = upstreams
        self._restarts = Restarts()
        self._run: _Run | None = None
        self._opened: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._catalog: dict[str, Publication] = {}
        self._links: dict[int, ProcessLink] = {}
        self._served: list[dict[str, Any]] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._draining = False
        self._closed = False
        self._gathered: list[dict[str, Any]] = []
        self._lines: dict[int, ToldLine] = {}
        self._tapped: set[int] = set()
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """Of the process that is there now."""
        return self._run.child.pid if self._run is not None else None

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._opened = asyncio.get_running_loop().create_future()
        self._origin.ring_for = self._ring_for
        try:
            self._start()
        except (OSError, Overloaded) as error:
            raise SettingsError(f"the link process cannot be started: {error}") from error
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        try:
            await self._opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._closed = True
        for timer in (self._timer, self._restart):
            if timer is not None:
                timer.cancel()
        run = self._run
        if run is not None:
            await run.child.stop()
        self._fail_answers()

    def _start(self) -> None:
        self._run = run = _Run(self._plane, self._heard, self._ended)
        self.starts += 1
        run.child.send(m.Begin(self._node, self._settings, self._log_settings, self._clock.last))
        self._say_catalog({}, self._catalog)
        if self._draining:
            run.child.send(m.Drain())
        for link in self._links.values():
            link.begin_anew()

    def _look(self) -> None:
        """Watch the process, and let the clocks observe each other."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        run = self._run
        if run is None:
            return
        run.silent += 1
        if run.silent * LOOK_S > (HANG_S if run.ready else START_S):
            run.child.kill("it hangs")
        run.child.send(m.Observe(self._clock.last))

    def _ended(self, run: _Run, why: str) -> None:
        run.close_rings()
        self._origin.forget_taps()
        self._lines.clear()
        self._tapped.clear()
        self._run, self._served, self._gathered = None, [], []
        for link in self._links.values():
            link.last_state = None
        self._fail_answers()
        if self._closed:
            return
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(SettingsError(f"the link process did not start: {why}"))
            return
        wait = self._restarts.died(time.monotonic() - run.since)
        log.error("link process ended", pid=run.child.pid, reason=why, next_in_s=wait)
        self._restart = asyncio.get_running_loop().call_later(wait, self._start_again)

    def _start_again(self) -> None:
        try:
            self._start()
        except (OSError, Overloaded) as error:
            wait = self._restarts.died(0.0) + LOOK_S
            log.error("link process not started", reason=str(error), next_in_s=wait)
            self._restart = asyncio.get_running_loop().call_later(wait, self._start_again)

    # --- the node says ----------------------------------------------------------------------------------------------

    def set_catalog(self, publications: Iterable[Publication]) -> None:
        """See `LinkServer.set_catalog`."""
        before, self._catalog = self._catalog, {publication.id: publication for publication in publications}
        if before != self._catalog:
            self._say_catalog(before, self._catalog)

    def room_events(self, room: str, events: Sequence[RoomEvent]) -> None:
        """See `LinkServer.room_events`."""
        for event in events:
            try:
                self._say(m.SayEvents(room, (event,)))
            except UsageError as error:  # longer than what the wire takes; a link would not carry it either
                log.error("an event does not go to other nodes", room=room, reason=str(error))

    def drain(self) -> None:
        self._draining = True
        self._say(m.Drain())

    def tick(self) -> None:
        for link in self._links.values():
            link.rebind()
        self._say_times(self._origin.readings())

    @property
    def server(self) -> ServingEnd:
        return self

    def served(self) -> list[dict[str, Any]]:
        return list(self._served)

    def dial(self, node: str, addresses: Sequence[str], hooks: Taking) -> ProcessLink:
        for address in addresses:
            remote_of(address)
        number = next(self._numbers)
        forget = self._links.__delitem__
        link = self._links[number] = ProcessLink(number, node, tuple(addresses), hooks, self, self._say, forget)
        return link

    async def command(self, link: str, action: str) -> dict[str, Any]:
        """Raises NotFound, and Overloaded when the process does not answer."""
        request = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        self._say(m.Command(request, link, action))
        try:
            return await asyncio.wait_for(answer, ANSWER_S)
        except TimeoutError:
            raise Overloaded("the link process does not answer") from None
        finally:
            self._answers.pop(request, None)

    # --- the inject ring ----------------------------------------------------------------------------------------------

    def bind(self, stream: int, track: int, layer: int) -> None:
        run = self._run
        if run is not None:
            with contextlib.suppress(UsageError):  # the ring is closed: its process is ending
                run.injects.bind(stream, track, layer)

    def unbind(self, stream: int) -> None:
        run = self._run
        if run is not None:
            with contextlib.suppress(UsageError):
                run.injects.unbind(stream)

    def new_stream(self) -> int:
        return next(self._numbers)

    # --- the process says -------------------------------------------------------------------------------------------

    def _heard(self, word: m.Word) -> None:
        run = self._run
        if run is None:
            return
        match word:
            case m.Ready():
                run.ready, run.silent = True, 0
                if self._opened is not None and not self._opened.done():
                    self._opened.set_result(None)
            case m.Failed(reason):
                run.child.kill(reason)
            case m.Pulse():
                run.silent = 0
                self._pulse(word)
            case m.Tap(flow, publication, layer):
                if not run.taps.closed:
                    self._origin.tap(flow, publication, layer)
            case m.Untap(flow):
                self._lines.pop(flow, None)
                if flow in self._tapped and not run.taps.closed:
                    self._tapped.discard(flow)
                    self._origin.untap(flow)
            case m.KeyframeWanted(publication, layer):
                self._origin.request_keyframe(publication, layer)
            case m.Answered():
                self._answered(word)
            case m.Moved(served, event):
                self._clock.observe(event.sync_id)
                self._link_changed(served, event)
            case m.PathTold(served, path):
                self._link_changed(served, path)
            case m.Offered() | m.Subscribed() | m.LayerStarted() | m.TimeOf() | m.HeardEvents() | m.Goodbye():
                self._heard_of_link(word)
            case _:
                raise UsageError(f"no such word: {word}")

    def _heard_of_link(
        self, word: m.Offered | m.Subscribed | m.LayerStarted | m.TimeOf | m.HeardEvents | m.Goodbye
    ) -> None:
        link = self._links.get(word.number)
        if link is None:
            return
        match word:
            case m.Offered():
                link.offered(word)
            case m.Subscribed(_, publication, layers):
                self._upstreams.subscribed(link.node, publication, layers)
            case m.LayerStarted(_, publication, layer, payload_type):
                self._upstreams.layer_started(link.node, publication, layer, payload_type)
            case m.TimeOf(_, publication, layer, reading):
                self._clock.observe(reading[2])
                link.time_of(publication, layer, reading)
            case m.HeardEvents(_, room, events, gap):
                for event in events:
                    self._clock.observe(event.sync_id)
                link.events(room, events, gap)
            case m.Goodbye(_, reason, instead):
                self._upstreams.goodbye(link.node, reason, instead)
            case _:
                assert_never(word)

    def _pulse(self, pulse: m.Pulse) -> None:
        self._clock.observe(pulse.sync_id)
        self._gathered += pulse.served
        if not pulse.more:
            self._served, self._gathered = self._gathered, []
        for number, heard_at, state in pulse.dialled:
            if (link := self._links.get(number)) is not None:
                link.heard_at = heard_at
                if state["bytes"] > (link.last_state or state)["bytes"]:
                    self._upstreams.media_came(link.node)
                link.last_state = state

    def _answered(self, word: m.Answered) -> None:
        answer = self._answers.get(word.request)
        if answer is None or answer.done():
            return
        if word.error:
            answer.set_exception(NotFound(word.error))
        else:
            answer.set_result(word.state)

    def _link_changed(self, served: bool, event: LinkEvent) -> None:
        (self._origin if served else self._upstreams).link_changed(event)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _ring_for(self, flow: int, tap: int) -> int | None:
        assert self._run is not None
        self._tapped.add(flow)
        self._say(m.Tapped(flow, tap))
        self._say_times(self._origin.readings((flow,)))
        return self._run.taps.number

    def _say_times(self, readings: Iterable[tuple[int, int, Reading]]) -> None:
        """Of those of which what was told is old, or wrong."""
        now, due = time.monotonic(), []
        for flow, clock_hz, reading in readings:
            line = self._lines.get(flow)
            if line is None:
                line = self._lines[flow] = ToldLine(clock_hz)
            if line.is_due(reading, now):
                due.append((flow, reading))
        for batch in batches(due, m.TIMES):
            self._say(m.TimesOf(tuple(batch)))

    def _say(self, order: m.Order) -> None:
        if self._run is not None:
            self._run.child.send(order)

    def _say_catalog(self, before: dict[str, Publication], after: dict[str, Publication]) -> None:
        for changed, removed, done in catalog_steps(before, after):
            self._say(m.SetCatalog(changed, removed, done))

    def _fail_answers(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Overloaded("the link process has ended"))
