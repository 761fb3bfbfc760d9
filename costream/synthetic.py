"""A host that is no person: a test picture and a tone, published by WHIP through libwebrtc (package `wrtc`).

`costream dev --demo` puts two of them on the stage; benches and tests publish with them. libwebrtc as `wrtc` builds it
encodes VP8, VP9 and AV1, but not H264.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
import webrtc

from costream.painting import CLOCK_MODULUS, TestPicture
from costream.tones import RATE, Tone
from costream.whip import Endpoint, Refused, Resource

_AUDIO_CHUNK = RATE // 50  # samples in 20 ms, one Opus frame
_GATHERING = 2.0  # s: host candidates need milliseconds; a machine without addresses must not hang
_RETRY = (1.0, 2.0, 5.0, 10.0)  # s between attempts of `run`


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What a synthetic host publishes. Sizes in pixels (even), frequencies in Hz, bit rates in bit/s."""

    publisher: int = 1
    label: str = ""
    width: int = 640
    height: int = 360
    fps: int = 30
    codec: str = "VP8"
    simulcast: bool = False
    max_bitrate: int | None = None
    tone: float = 440.0
    video: bool = True
    audio: bool = True
    rids: tuple[str, ...] = field(default=("q", "h", "f"))


def allow_loopback() -> None:
    """Let libwebrtc gather loopback candidates; without effect once a connection of this process exists."""
    with contextlib.suppress(webrtc.InvalidStateError):
        webrtc.allow_loopback()


async def gathered(pc: webrtc.RTCPeerConnection, seconds: float = _GATHERING) -> str:
    """The local SDP once its candidates are in it (or when the time is over)."""
    done = asyncio.Event()
    pc.on("icegatheringstatechange", lambda _: done.set() if pc.ice_gathering_state == "complete" else None)
    if pc.ice_gathering_state != "complete":
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), seconds)
    description = pc.local_description
    assert description is not None
    return str(description.sdp)


def prefer(transceiver: Any, kind: str, codec: str) -> None:
    """Offer `codec` first and keep the repair formats. Raises ValueError if this libwebrtc lacks it."""
    side = webrtc.RTCRtpReceiver if transceiver.direction == "recvonly" else webrtc.RTCRtpSender
    codecs = list(side.get_capabilities(kind).codecs)
    chosen = [c for c in codecs if c.mime_type.lower() == f"{kind}/{codec}".lower()]
    if not chosen:
        raise ValueError(f"wrtc has no {codec}; it has {sorted({c.mime_type for c in codecs})}")
    transceiver.set_codec_preferences(chosen + [c for c in codecs if c not in chosen])


class Painter:
    """Feeds a track generator with a show's pictures, in time; `counter` is the next picture's."""

    def __init__(self, show: Show) -> None:
        self.counter = 0
        self._show = show
        self._picture = TestPicture(show.width, show.height, show.publisher, show.label)

    async def run(self, generator: Any) -> None:
        """Paint until cancelled."""
        show = self._show
        writer = generator.writable.get_writer()
        begin, first = time.monotonic(), self.counter
        while True:
            now = time.time()
            frame = self._picture.frame(self.counter, int(now * 1000) % CLOCK_MODULUS, _wall(now))
            init = webrtc.VideoFrameBufferInit(
                format="I420", coded_width=show.width, coded_height=show.height, timestamp=time.monotonic_ns() // 1000
            )
            await writer.write(webrtc.VideoFrame(frame.data, init))
            self.counter += 1
            due = begin + (self.counter - first) / show.fps
            if due < time.monotonic() - 1:  # held up: skip ahead instead of sending a burst
                begin, first = time.monotonic(), self.counter
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def sing(generator: Any, frequency: float) -> None:
    """Feed a track generator with a tone, in time, until cancelled."""
    tone = Tone(frequency)
    writer = generator.writable.get_writer()
    due = time.monotonic()
    while True:
        init = webrtc.AudioDataInit(
            format="s16",
            sample_rate=RATE,
            number_of_frames=_AUDIO_CHUNK,
            number_of_channels=1,
            timestamp=time.monotonic_ns() // 1000,
            data=tone.samples(_AUDIO_CHUNK).tobytes(),
        )
        await writer.write(webrtc.AudioData(init))
        due = max(due + _AUDIO_CHUNK / RATE, time.monotonic() - 0.2)
        await asyncio.sleep(max(0.0, due - time.monotonic()))


class SyntheticHost:
    """Publishes a `Show` to a WHIP address until stopped. Not reusable: one object, one session (`run` makes several).

    `gather=False` sends the offer without candidates, which an ICE-lite relay does not need.
    """

    def __init__(
        self, url: str, token: str = "", show: Show | None = None, *, verify: bool = True, gather: bool = True
    ) -> None:
        self.show = show or Show()
        self.resource: Resource | None = None
        self._url, self._token, self._verify, self._gather = url, token, verify, gather
        self._painter = Painter(self.show)
        self._pc: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    @property
    def counter(self) -> int:
        """The counter of the next picture."""
        return self._painter.counter

    @property
    def state(self) -> str:
        """new, connecting, connected, disconnected, failed or closed."""
        return str(self._pc.connection_state) if self._pc else "new"

    async def start(self) -> None:
        """Offer and begin to paint; returns at the answer, before media is connected.

        Raises Refused, httpx2.HTTPError or ValueError (codec), having cleaned up.
        """
        allow_loopback()
        self._pc = pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
        pc.on("connectionstatechange", lambda _: self._changed.set())
        try:
            video, audio = self._tracks()
            await pc.set_local_description(await pc.create_offer())
            sdp = await gathered(pc) if self._gather else str(pc.local_description.sdp)
            async with Endpoint(self._url, self._token, verify=self._verify) as endpoint:
                self.resource = await endpoint.offer(sdp)
            await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=self.resource.answer))
        except BaseException:
            pc.close()
            raise
        if video:
            self._tasks.append(asyncio.create_task(self._painter.run(video), name=f"paint {self.show.publisher}"))
        if audio:
            self._tasks.append(asyncio.create_task(sing(audio, self.show.tone), name=f"sing {self.show.publisher}"))

    async def connected(self, seconds: float = 10.0) -> None:
        """Wait for media to be connected. Raises TimeoutError, or ConnectionError if it fails first."""
        await asyncio.wait_for(self._until({"connected", "failed", "closed"}), seconds)
        if self.state != "connected":
            raise ConnectionError(f"the connection is {self.state}")

    async def ended(self) -> None:
        """Wait until the connection has failed or was closed, or painting broke (its error surfaces)."""
        waiters = [asyncio.create_task(self._until({"failed", "closed"})), *self._tasks]
        done, _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        waiters[0].cancel()
        for task in done:
            task.result()

    async def stop(self) -> None:
        """DELETE the session and release everything. May be called at any time and twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        resource, self.resource = self.resource, None
        if resource:
            with contextlib.suppress(httpx2.HTTPError):  # the relay may be gone before its hosts
                async with Endpoint(self._url, self._token, verify=self._verify, timeout=2.0) as endpoint:
                    await endpoint.delete(resource)
        if self._pc:
            self._pc.close()
            self._changed.set()

    async def stats(self) -> list[dict[str, Any]]:
        """The W3C statistics, one dictionary (snake_case names) each."""
        report = await self._pc.get_stats()
        return [dict(vars(entry)) for entry in report.values()]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _tracks(self) -> tuple[Any, Any]:
        video = audio = None
        if self.show.audio:
            audio = webrtc.MediaStreamTrackGenerator("audio")
            self._pc.add_transceiver(audio, webrtc.RTCRtpTransceiverInit(direction="sendonly"))
        if self.show.video:
            video = webrtc.VideoTrackGenerator()
            init = webrtc.RTCRtpTransceiverInit(direction="sendonly", send_encodings=self._encodings())
            prefer(self._pc.add_transceiver(video.track, init), "video", self.show.codec)
        return video, audio

    def _encodings(self) -> list[Any]:
        if not self.show.simulcast:
            return [webrtc.RTCRtpEncodingParameters(max_bitrate=self.show.max_bitrate)]
        last = len(self.show.rids) - 1
        return [
            webrtc.RTCRtpEncodingParameters(rid=rid, scale_resolution_down_by=float(2 ** (last - i)))
            for i, rid in enumerate(self.show.rids)
        ]

    async def _until(self, states: set[str]) -> None:
        while self.state not in states:
            self._changed.clear()
            await self._changed.wait()


async def run(url: str, token: str, show: Show, *, verify: bool = True) -> None:
    """Publish for as long as the caller lives: a session that ends or is refused is offered again, ever more slowly."""
    attempt = 0
    while True:
        host = SyntheticHost(url, token, show, verify=verify)
        try:
            await host.start()
            await host.connected()
            attempt = 0
            await host.ended()
        except (Refused, httpx2.HTTPError, ConnectionError, TimeoutError):
            pass  # the relay is starting, full or gone: that is what the next attempt is for
        finally:
            await host.stop()
        await asyncio.sleep(_RETRY[min(attempt, len(_RETRY) - 1)])
        attempt += 1


def _wall(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"


def main() -> None:
    """`python -m costream.synthetic URL --token TOKEN`: publish until interrupted, or for `--seconds`."""
    parser = argparse.ArgumentParser(
        prog="python -m costream.synthetic", description="Publish a test picture and a tone."
    )
    parser.add_argument("url", help="a WHIP address")
    parser.add_argument("--token", default="")
    parser.add_argument("--publisher", type=int, default=1, help="0 to 65535, painted in the picture")
    parser.add_argument("--codec", default="VP8", choices=["VP8", "VP9", "AV1"])
    parser.add_argument("--tone", type=float, default=440.0, help="Hz")
    parser.add_argument("--simulcast", action="store_true", help="three layers, of 1280x720 and below")
    parser.add_argument("--seconds", type=float, help="how long; for ever by default")
    parser.add_argument("--insecure", action="store_true", help="accept a self-signed certificate")
    options = parser.parse_args()
    width, height = (1280, 720) if options.simulcast else (640, 360)
    show = Show(
        publisher=options.publisher,
        codec=options.codec,
        tone=options.tone,
        simulcast=options.simulcast,
        width=width,
        height=height,
    )
    publishing = run(options.url, options.token, show, verify=not options.insecure)
    with contextlib.suppress(KeyboardInterrupt, TimeoutError):
        asyncio.run(asyncio.wait_for(publishing, options.seconds))


if __name__ == "__main__":
    main()
