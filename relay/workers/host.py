"""The host of a worker on another machine: it starts the worker, feeds it from a link and offers what it makes.

The worker is the very process that a relay starts beside itself: it reads and writes rings in shared memory and does
not know whose they are. Nothing here knows of Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from relay.clock import now_us
from relay.errors import PeerError
from relay.link.quic.authority import new_key
from relay.mix.video.messages import FROM_WORKER, TO_WORKER, CloseStage, OpenStage, SendKeyframe
from relay.mix.video.page import Page
from relay.mix.video.pool_worker import MODULE
from relay.plane.shared_ring import RingReader, RingWriter, SharedRing
from relay.process.child import Child
from relay.process.control import Message, Wire, frame
from relay.workers.ends import LinkEnds
from relay.workers.streams import Offers, Takes
from relay.workers.trust import far_identity, public_pem
from relay.workers.words import NEAR, Begin, Heard, Prepared, release

UNHEARD_BYTES = 4 << 20
"""Words of the worker that nobody fetches; then whoever should is gone."""


class WorkerHost:
    """See `relay.workers.words.Host`."""

    def __init__(self, address: str, pid: int) -> None:
        self._address, self._pid = address, pid
        self._key = new_key()
        self._to_worker: Wire[Message] = Wire(*TO_WORKER)
        self._offers = Offers(self._wanted)
        self._ends: LinkEnds | None = None
        self._child: Child[Message] | None = None
        self._stages: dict[int, str] = {}
        self._words = bytearray()
        self._news = asyncio.Event()
        self._ended = ""
        self._still = 0
        self._report_s = 0.1

    async def prepare(self) -> Prepared:
        return Prepared(release(), self._address, self._pid, public_pem(self._key))

    async def clock(self) -> int:
        return now_us()

    async def begin(self, begin: Begin) -> int:
        """See `Host.begin`. Raises SettingsError or OSError when sockets or a process cannot be had."""
        self._report_s = begin.report_s
        identity = far_identity(self._key, begin.certificate, begin.authority)
        self._ends = LinkEnds(identity, NEAR, self._address, self._offers, Takes(self._feed))
        port = await self._ends.open()
        self._spawn(begin)
        self._ends.dial(begin.stand_in)
        return port

    async def tell(self, data: bytes) -> None:
        if self._child is None:
            return
        for message in self._to_worker.feed(data):
            match message:
                case OpenStage():
                    self._stages[message.spec.stream] = message.spec.stage
                    self._offers.offer(message.spec.stream, message.spec.codec)
                case CloseStage():
                    self._close(message.stage)
                case _:
                    pass
            self._child.send(message)

    async def hear(self) -> Heard:
        if not self._words and not self._ended:
            self._news.clear()
            try:
                async with asyncio.timeout(self._report_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        words, self._words = bytes(self._words), bytearray()
        return Heard(words, self._rest(), self._ended)

    async def stop(self) -> None:
        ends, self._ends = self._ends, None
        if ends is not None:
            await ends.close()
        if self._child is not None:
            await self._child.stop()

    # --- the worker -------------------------------------------------------------------------------------------------

    def _spawn(self, begin: Begin) -> None:
        self._page = Page.create()
        tap, inject = SharedRing.create(), SharedRing.create()
        rings = [",".join(map(str, ring.fds)) for ring in (tap, inject)]
        arguments = (*rings, str(self._page.descriptor), begin.shape, begin.font)
        fds = (*tap.fds, *inject.fds, self._page.descriptor)
        self._writer: RingWriter = tap.writer()
        self._reader: RingReader = inject.reader()
        try:
            self._child = Child(MODULE, arguments, fds, Wire(*FROM_WORKER), self._said, self._over)
        except BaseException:
            self._free()
            raise
        tap.passed()
        inject.passed()
        asyncio.get_running_loop().add_reader(self._reader.fileno(), self._made)
        self._made()

    def _free(self) -> None:
        asyncio.get_running_loop().remove_reader(self._reader.fileno())
        self._reader.close()
        self._writer.close()
        self._page.close()

    def _said(self, message: Message) -> None:
        self._words += frame(message)
        self._news.set()
        if len(self._words) > UNHEARD_BYTES and self._child is not None:
            self._child.kill("nobody hears it")

    def _over(self, why: str) -> None:
        self._still = self._rest()
        self._free()
        self._child = None
        self._ended = why
        self._news.set()

    def _rest(self) -> int:
        if self._child is None:
            return self._still
        return now_us() - self._page.beat if self._page.beat else 0  # it says that it is ready before it beats

    def _close(self, stage: str) -> None:
        for stream in [stream for stream, name in self._stages.items() if name == stage]:
            del self._stages[stream]
            self._offers.withdraw(stream)

    def _wanted(self, stream: int) -> None:
        """Who takes a program needs a keyframe."""
        if self._child is not None and stream in self._stages:
            self._child.send(SendKeyframe(self._stages[stream]))

    # --- packets ----------------------------------------------------------------------------------------------------

    def _feed(self, stream: int, packets: Sequence[bytes]) -> None:
        """What the relay's hosts send, from the link to the worker. The arrival is this machine's."""
        if self._child is None:
            return
        now = now_us()
        for packet in packets:
            self._writer.put(stream, now, packet, more=True)
        self._writer.flush()

    def _made(self) -> None:
        """What the worker makes, to the link."""
        if self._reader.ring.gone:
            asyncio.get_running_loop().remove_reader(self._reader.fileno())
        try:
            while batch := self._reader.read():
                self._offers.feed([(stream, bytes(data)) for stream, _, data in batch])
        except PeerError as error:
            asyncio.get_running_loop().remove_reader(self._reader.fileno())
            if self._child is not None:
                self._child.kill(f"its ring is corrupt: {error}")
