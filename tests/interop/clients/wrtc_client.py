"""A viewer that is a real libwebrtc: WHEP with any number of slots, frames read and tones heard per slot."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
import numpy as np
import webrtc

from costream.synthetic import allow_loopback, gathered, prefer
from costream.whip import Endpoint, Resource
from tests.interop.clients.painting import Painted, read_i420
from tests.interop.clients.tones import RATE, Heard, detect


@dataclass(frozen=True, slots=True)
class Seen:
    """A decoded picture: when it came (time.monotonic), what it says (None: no intact mark), its size."""

    at: float
    painted: Painted | None
    width: int
    height: int


@dataclass(slots=True)
class Slot:
    """One m-line of a viewer. Video keeps every picture's record, audio the last second of sound."""

    index: int
    kind: str
    seen: list[Seen] = field(default_factory=list)
    frames: int = 0
    sound: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=100))
    error: BaseException | None = None

    @property
    def latest(self) -> Painted | None:
        """What the newest readable picture said."""
        return next((seen.painted for seen in reversed(self.seen) if seen.painted), None)

    @property
    def publishers(self) -> list[int]:
        """The publishers this slot has shown, in order, without repetition of neighbours."""
        order: list[int] = []
        for seen in self.seen:
            if seen.painted and (not order or order[-1] != seen.painted.publisher):
                order.append(seen.painted.publisher)
        return order

    def counters(self, publisher: int) -> list[int]:
        """The counters read from one publisher's pictures, in order of arrival."""
        return [s.painted.counter for s in self.seen if s.painted and s.painted.publisher == publisher]

    def heard(self, seconds: float = 0.4) -> Heard | None:
        """The tone in the last `seconds`; None in silence or before there is that much sound."""
        need = int(RATE * seconds)
        sound = np.concatenate(list(self.sound)) if self.sound else np.zeros(0, np.int16)
        return detect(sound[-need:]) if len(sound) >= need else None


class Watcher:
    """Watches a WHEP address with `videos` + `audios` recvonly m-lines (audio first, as browsers order them).

    `slots` follows the m-lines. `gather=False` offers no candidates. `read=False` counts pictures without reading them.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        videos: int = 1,
        audios: int = 1,
        codec: str = "",
        verify: bool = False,
        gather: bool = True,
        read: bool = True,
    ) -> None:
        self.slots = [Slot(i, "audio" if i < audios else "video") for i in range(audios + videos)]
        self.resource: Resource | None = None
        self.posted_at = self.first_frame_at = 0.0  # time.monotonic
        self._codec, self._gather, self._read = codec, gather, read
        self._url, self._token, self._verify = url, token, verify
        self._pc: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    @property
    def videos(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.kind == "video"]

    @property
    def audios(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.kind == "audio"]

    @property
    def state(self) -> str:
        return str(self._pc.connection_state) if self._pc else "new"

    async def start(self) -> None:
        """Offer; returns at the answer. Raises costream.whip.Refused, having cleaned up."""
        allow_loopback()
        self._pc = pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
        pc.on("connectionstatechange", lambda _: self._news.set())
        try:
            transceivers = [self._line(slot) for slot in self.slots]
            await pc.set_local_description(await pc.create_offer())
            sdp = await gathered(pc) if self._gather else str(pc.local_description.sdp)
            self.posted_at = time.monotonic()
            async with Endpoint(self._url, self._token, verify=self._verify) as endpoint:
                self.resource = await endpoint.offer(sdp)
            await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=self.resource.answer))
        except BaseException:
            pc.close()
            raise
        for slot, transceiver in zip(self.slots, transceivers, strict=True):
            self._tasks.append(asyncio.create_task(self._follow(slot, transceiver.receiver.track)))

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until `condition()` is true, asking after every picture and every 10 ms of sound.

        Raises AssertionError with what the slots have seen when the time is over, or what broke a slot's reader.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    self._raise_errors()
                    self._news.clear()
                    await self._news.wait()
                return
        self._raise_errors()
        told = "; ".join(f"{s.kind} {s.index}: {s.frames} frames, latest {s.latest}, {s.heard()}" for s in self.slots)
        raise AssertionError(f"not within {seconds} s, connection {self.state}; {told}")

    async def stats(self, kind: str = "") -> list[dict[str, Any]]:
        """The W3C statistics, one dictionary (snake_case names) each; `kind` selects a type such as inbound-rtp."""
        report = await self._pc.get_stats()
        return [dict(vars(entry)) for entry in report.values() if kind in ("", str(entry.type))]

    async def close(self, *, delete: bool = True) -> None:
        """End the session, with a DELETE unless told to vanish. May be called twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        resource, self.resource = self.resource, None
        if resource and delete:
            with contextlib.suppress(httpx2.HTTPError):
                async with Endpoint(self._url, self._token, verify=self._verify, timeout=5.0) as endpoint:
                    await endpoint.delete(resource)
        if self._pc:
            self._pc.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _line(self, slot: Slot) -> Any:
        transceiver = self._pc.add_transceiver(slot.kind, webrtc.RTCRtpTransceiverInit(direction="recvonly"))
        if slot.kind == "video" and self._codec:
            prefer(transceiver, "video", self._codec)
        return transceiver

    def _raise_errors(self) -> None:
        for slot in self.slots:
            if slot.error:
                raise AssertionError(f"the reader of slot {slot.index} broke") from slot.error

    async def _follow(self, slot: Slot, track: Any) -> None:
        size = 4 if slot.kind == "video" else 50
        processor = webrtc.MediaStreamTrackProcessor(
            webrtc.MediaStreamTrackProcessorInit(track=track, max_buffer_size=size)
        )
        take = self._picture if slot.kind == "video" else self._sound
        try:
            async for media in processor.readable:
                with media:
                    take(slot, media)
                self._news.set()
        except Exception as error:  # told by `until`: a task's error must not wait for the end of the test
            slot.error = error
            self._news.set()

    def _picture(self, slot: Slot, frame: Any) -> None:
        now = time.monotonic()
        self.first_frame_at = self.first_frame_at or now
        slot.frames += 1
        if not self._read:
            return
        width, height = frame.coded_width, frame.coded_height
        data = bytearray(frame.allocation_size())
        frame.copy_to(data).result()
        slot.seen.append(Seen(now, read_i420(data, width, height), width, height))

    def _sound(self, slot: Slot, chunk: Any) -> None:
        data = bytearray(chunk.allocation_size(webrtc.AudioDataCopyToOptions(plane_index=0)))
        chunk.copy_to(data, webrtc.AudioDataCopyToOptions(plane_index=0))
        samples = np.frombuffer(bytes(data), np.int16).reshape(-1, chunk.number_of_channels)[:, 0]
        slot.frames += 1
        if int(chunk.sample_rate) != RATE:
            # libwebrtc hands out the decoder's rate; a tone needs no better resampler than repetition-free indexing.
            where = np.arange(0, len(samples), chunk.sample_rate / RATE)
            samples = np.interp(where, np.arange(len(samples)), samples).astype(np.int16)
        slot.sound.append(samples)


async def _watch(options: argparse.Namespace) -> None:
    async with Watcher(options.url, options.token, videos=options.videos, audios=options.audios) as watcher:
        for _ in range(options.seconds):
            await asyncio.sleep(1)
            for slot in watcher.slots:
                told = slot.latest if slot.kind == "video" else slot.heard()
                print(f"{slot.kind} {slot.index}: {slot.frames} frames, {told}", flush=True)
        await watcher.until(lambda: all(slot.frames for slot in watcher.slots), 1)


def main() -> None:
    """`python -m tests.interop.clients.wrtc_client URL --token TOKEN`: tell every second what the slots show."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop.clients.wrtc_client", description=__doc__)
    parser.add_argument("url", help="a WHEP address")
    parser.add_argument("--token", default="")
    parser.add_argument("--videos", type=int, default=1)
    parser.add_argument("--audios", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=10)
    asyncio.run(_watch(parser.parse_args()))


if __name__ == "__main__":
    main()
