"""The stand-in of a worker on another machine: a process beside the relay that the pool takes for the worker itself.

It is started with the worker's own arguments and descriptors. What the relay puts into the tap ring it offers on a
link, what comes by the other link it puts into the inject ring; words go to the host and back. It keeps the page from
the packets that the relay was really given, so that a successor goes on after those, whatever became of the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from relay.clock import now_us
from relay.errors import CostreamError, PeerError
from relay.mix.video.assembly import VideoCodec
from relay.mix.video.messages import (
    FROM_WORKER,
    AddInput,
    CloseStage,
    InputSpec,
    KeyframeNeeded,
    LagMeasured,
    OpenStage,
    RemoveInput,
    WorkerReady,
)
from relay.mix.video.page import Page, StageWords
from relay.plane.reference import rtp
from relay.plane.reference.descriptors import inspect_vp8
from relay.plane.shared_ring import SharedRing
from relay.process.control import Message, Wire, frame
from relay.process.worker import ControlEnd
from relay.workers.ends import LinkEnds
from relay.workers.streams import Offers, Takes
from relay.workers.trust import PairAuthority
from relay.workers.words import FAR, Begin, Failed, Host, Placed, release

JOIN_S = 10.0
"""Both links have to be there so long after the host has begun."""
LOOK_S = 0.01
MAX_UNTOLD = 10_000
"""Words that wait for a host that is not placed yet, or that does not answer; then this is no use."""
CLOCK_CALLS = 5
STOP_S = 1.5
"""For the host's end in good order; the pool waits for twice as long."""

log = structlog.get_logger()


@dataclass(slots=True)
class MadeProgram:
    """A program, and what of it came here: `next` is the number after the newest packet's."""

    stage: str
    place: int
    codec: VideoCodec
    next: int | None = None
    picture_id: int = 0
    packets: int = 0

    def count(self, data: bytes) -> None:
        """Note a packet; one that cannot be read is not counted, and the plane will refuse it."""
        packet = rtp.parse(data, 0)
        if packet is None:
            return
        self.packets += 1
        following = packet.seq + 1 & rtp.SEQ_MASK
        if self.next is not None and following - self.next & rtp.SEQ_MASK > rtp.SEQ_MASK >> 1:
            return  # late
        self.next = following
        if self.codec == "vp8":
            picture_id = inspect_vp8(data, packet.payload_offset, len(data)).picture_id
            if picture_id >= 0:
                self.picture_id = (picture_id + 1) % (1 << 15)


class StandIn:
    """Use `run`. `address` is where the host's machine reaches this one; `cores` what the worker may use there."""

    def __init__(
        self,
        control: ControlEnd[Message],
        tap: SharedRing,
        inject: SharedRing,
        page: Page,
        host: Host,
        *,
        address: str,
        cores: int,
        report_s: float,
        shape: str,
        font: str,
    ) -> None:
        self._control, self._page, self._host = control, page, host
        self._reader, self._writer = tap.reader(), inject.writer()
        self._address, self._cores, self._report_s = address, cores, report_s
        self._shape, self._font = shape, font
        self._from_worker: Wire[Message] = Wire(*FROM_WORKER)
        self._offers = Offers(self._wanted)
        self._trust = PairAuthority()
        self._ends = LinkEnds(self._trust.near(), FAR, address, self._offers, Takes(self._take))
        self._made: dict[int, MadeProgram] = {}
        self._inputs: dict[tuple[str, str], int] = {}
        self._ahead = 0
        self._untold: list[Message] = []
        self._told = asyncio.Event()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Until the relay or the worker is gone."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control.fileno(), self._hear)
        loop.add_reader(self._reader.fileno(), self._tapped)
        self._tapped()
        try:
            self._spawn(self._work())
            why = await self._over
            if why:
                log.warning("a remote worker is gone", reason=why)
                self._control.send(Failed(why))
        finally:
            loop.remove_reader(self._control.fileno())
            loop.remove_reader(self._reader.fileno())
            await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Both at once: an end that is left alone would dial the other again.
        await asyncio.gather(self._ends.close(), self._stop_host())
        self._reader.close()
        self._writer.close()
        self._page.close()
        self._control.close()

    async def _stop_host(self) -> None:
        with suppress(TimeoutError, CostreamError):
            async with asyncio.timeout(STOP_S):
                await self._host.stop()

    def _end(self, why: str) -> None:
        if not self._over.done():
            self._over.set_result(why)

    # --- the host ---------------------------------------------------------------------------------------------------

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Whatever goes wrong with the host ends its stand-in, with the reason."""
        try:
            await work
        except (CostreamError, OSError) as error:
            self._end(str(error) or type(error).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(self._guarded(work)))

    async def _work(self) -> None:
        prepared = await self._host.prepare()
        if prepared.release != release():
            raise PeerError(f"{prepared.address} has costream {prepared.release}, this relay {release()}")
        port = await self._ends.open()
        begin = Begin(
            self._trust.far(prepared.public_key),
            self._trust.pem,
            (self._address, port),
            self._shape,
            self._font,
            self._report_s,
        )
        self._ends.dial((prepared.address, await self._host.begin(begin)))
        self._where = f"{prepared.address}/{prepared.pid}"
        self._spawn(self._tell_all())
        self._spawn(self._hear_all())

    async def _tell_all(self) -> None:
        """One call at a time: that is what keeps their order."""
        while True:
            await self._told.wait()
            self._told.clear()
            told, self._untold = self._untold, []
            if any(isinstance(message, OpenStage) for message in told):
                self._ahead = await self._measured()
            there = [to_host(message, self._ahead, self._cores) for message in told]
            await self._host.tell(b"".join(map(frame, there)))
            # Not before: links may be quicker than words, and a worker drops packets that nobody has announced.
            self._offers.publish(one.stream for message in told for one in _inputs(message) if one.stream is not None)

    async def _hear_all(self) -> None:
        while True:
            heard = await self._host.hear()
            for message in self._from_worker.feed(heard.data):
                if isinstance(message, WorkerReady):
                    await self._join()
                    self._page.beat = now_us()  # first: once it is ready it is given work, and watched
                    self._say(Placed(self._where))
                self._say(from_host(message, self._ahead))
            if heard.ended:
                self._end(heard.ended)
                return
            self._page.beat = max(0, now_us() - max(heard.still, self._ends.silence))

    async def _join(self) -> None:
        """Without links a worker is of no use, however ready."""
        try:
            async with asyncio.timeout(JOIN_S):
                while not self._ends.joined:
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise PeerError(f"no link with {self._where}: {self._ends.trouble or 'it does not dial'}") from None

    async def _measured(self) -> int:
        """Return how far the host's monotonic clock is ahead of ours, in µs, by the quickest of some answers."""
        best = None
        for _ in range(CLOCK_CALLS):
            asked = now_us()
            theirs = await self._host.clock()
            took = now_us() - asked
            if best is None or took < best[0]:
                best = took, theirs - asked - took // 2
        assert best is not None
        return best[1]

    # --- the relay --------------------------------------------------------------------------------------------------

    def _say(self, message: Message) -> None:
        if not self._control.send(message):
            self._end("")

    def _hear(self) -> None:
        try:
            messages = self._control.receive(0)
        except PeerError as error:
            self._end(str(error))
            return
        if messages is None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._end("")
            return
        for message in messages:
            self._note(message)
            self._untold.append(message)
            self._told.set()
        if len(self._untold) > MAX_UNTOLD:
            self._end(f"{MAX_UNTOLD} words wait for its host")

    def _note(self, message: Message) -> None:
        match message:
            case OpenStage(spec):
                self._close_stage(spec.stage)
                self._made[spec.stream] = MadeProgram(spec.stage, spec.place, spec.codec)
                for each in spec.inputs:
                    self._add(spec.stage, each)
            case CloseStage(stage):
                self._close_stage(stage)
            case AddInput(stage, each):
                self._remove(stage, each.identity)
                self._add(stage, each)
            case RemoveInput(stage, identity):
                self._remove(stage, identity)
            case _:
                pass

    def _add(self, stage: str, one: InputSpec) -> None:
        if one.stream is not None and one.codec is not None:
            self._inputs[stage, one.identity] = one.stream
            self._offers.offer(one.stream, one.codec, later=True)

    def _remove(self, stage: str, identity: str) -> None:
        stream = self._inputs.pop((stage, identity), None)
        if stream is not None:
            self._offers.withdraw(stream)

    def _close_stage(self, stage: str) -> None:
        for name, identity in [key for key in self._inputs if key[0] == stage]:
            self._remove(name, identity)
        self._made = {stream: one for stream, one in self._made.items() if one.stage != stage}

    def _wanted(self, stream: int) -> None:
        """The link needs a keyframe of an input."""
        for (stage, identity), number in self._inputs.items():
            if number == stream:
                self._say(KeyframeNeeded(stage, identity))

    # --- packets ----------------------------------------------------------------------------------------------------

    def _tapped(self) -> None:
        """From the relay to the link."""
        try:
            while batch := self._reader.read():
                if any(stream not in self._offers for stream, _, _ in batch):
                    self._hear()  # packets may be here before the words that announce them
                self._offers.feed([(stream, bytes(data)) for stream, _, data in batch])
        except PeerError as error:
            self._end(str(error))
        if self._reader.ring.gone:
            self._end("")

    def _take(self, stream: int, packets: Sequence[bytes]) -> None:
        """From the link to the relay."""
        made = self._made.get(stream)
        if made is None:
            return
        now = now_us()
        for packet in packets:
            made.count(packet)
        if made.next is not None:
            self._page.write(made.place, StageWords(made.next, made.picture_id, made.packets, now))
        for packet in packets:
            self._writer.put(stream, now, packet, more=True)
        self._writer.flush()


def _inputs(message: Message) -> tuple[InputSpec, ...]:
    """The inputs that a message announces."""
    match message:
        case OpenStage(spec):
            return spec.inputs
        case AddInput(_, one):
            return (one,)
        case _:
            return ()


def to_host(message: Message, ahead: int, cores: int) -> Message:
    """Say it in the time of the host's machine, whose monotonic clock is `ahead` µs ahead of ours: the same moments,
    and so the same frames, timestamps and sync ids. Lags compare arrivals by that clock with clocks of hosts."""
    match message:
        case OpenStage(spec):
            return OpenStage(replace(spec, epoch=spec.epoch + ahead, wall_offset=spec.wall_offset - ahead, cores=cores))
        case _:
            return message


def from_host(message: Message, ahead: int) -> Message:
    """Say it in our time, likewise."""
    return replace(message, lag=message.lag - ahead) if isinstance(message, LagMeasured) else message
