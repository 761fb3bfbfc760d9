"""Viewers that are real libwebrtc: they join by WHEP and write down every picture and every 20 ms of sound.

`python -m drills.viewer PLAN.json` runs one process of them on a host. Each line of the plan's `out` is an object with
`at` (CLOCK_MONOTONIC in seconds, the same in all processes of a machine), `viewer` and `event`:

| event | further fields |
| --- | --- |
| `frame` | `slot`, `publisher`, `counter`, `clock_ms`, `width`; publisher is null where the mark cannot be read |
| `sound` | `slot`, `level` in dBFS (-100 is silence), one per 20 ms |
| `joining`, `joined` | `url`; joined has `session` and `took` in seconds |
| `moving`, `moved` | its node drains: `joined` elsewhere comes between; moved, when that plays, as joined |
| `refused`, `failed` | `url`, `reason`; it tries the next of its addresses |
| `stats` | `over` in seconds, since the last of them: `bits` that came, `plis` that were sent, `dropped` pictures |
| | and `concealed`: samples of sound (48 kHz) that libwebrtc made up |
| `late` | `by` in seconds: this process had no CPU for so long |
| `left` | |
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
import webrtc

from costream.painting import read_i420
from costream.synthetic import allow_loopback, gathered
from costream.whip import Endpoint, Refused, Resource
from drills.client import Tell, read_plan, teller, until_told_to_end
from drills.session_events import Following, following, session_of, until

_SOUND_S = 0.02
_SILENCE_DBFS = -100.0
_RETRY_S = 0.2
_CONNECT_S = 8.0
_STATS_S = 1.0
_LOOK_S = 0.05
_LATE_S = 0.1  # of a look: what a viewer could notice
_OFFER_S = 3.0  # more than a service takes for an answer or a refusal (`join.timeout_s`)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerPlan:
    """What one process of viewers does. `viewers` are (name, token); `urls` are WHEP addresses, tried in turn.

    A viewer that has seen no picture for `stall_s` after its first one joins again; after `silence_s` already when its
    session is gone. 0 for never.
    """

    urls: Sequence[str]
    viewers: Sequence[tuple[str, str]]
    out: str
    videos: int = 1
    audios: int = 1
    listen: bool = True
    """Whether sound is written down. Otherwise it crosses the network, and that is all."""
    stall_s: float = 1.0
    silence_s: float = 0.5
    every_s: float = 0.05
    """Between the joins of two viewers of this process."""


class Viewer:
    """One viewer, that joins for as long as it runs, and moves to another node as the pages do: when its node drains,
    the new connection plays before the old one is let go."""

    def __init__(self, plan: ViewerPlan, token: str, tell: Tell) -> None:
        self._plan, self._token, self._tell = plan, token, tell
        self._turn = 0
        self._connection: Connection | None = None

    @property
    def resource(self) -> Resource | None:
        """The session that counts now; None while there is none."""
        return None if self._connection is None else self._connection.resource

    async def run(self) -> None:
        """Until cancelled; then it leaves."""
        try:
            while True:
                url = self._plan.urls[self._turn % len(self._plan.urls)]
                connection = await self._join(url)
                if connection is not None:
                    connection.is_shown = True
                    await self._stay(connection)
                self._turn += 1
        finally:
            if self._connection is not None:
                await self._connection.leave(delete=True)
            self._tell("left")

    async def _join(self, url: str, event: str = "joining") -> Connection | None:
        """A new connection; None, told, when there is none."""
        connection = Connection(self._plan, self._token, self._tell)
        self._tell(event, url=url)
        try:
            await connection.join(url)
        except Refused as error:
            self._tell("refused", url=url, reason=str(error)[:200])
        except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
            self._tell("failed", url=url, reason=f"{type(error).__name__}: {error}"[:200])
        else:
            return connection
        await connection.leave(delete=False)
        await asyncio.sleep(_RETRY_S)
        return None

    async def _stay(self, connection: Connection) -> None:
        """Watch on this connection, and on those that follow it, until one fails."""
        self._connection = connection
        while True:
            try:
                reason = await connection.watched()
                if reason is not None:
                    break
                connection = self._connection = await self._move(connection)
            except BaseException:
                await connection.leave(delete=True)
                self._connection = None
                raise
        self._tell("failed", url=connection.url, reason=reason)
        self._connection = None
        await connection.leave(delete=False)

    async def _move(self, old: Connection) -> Connection:
        """Connect elsewhere and return that connection when it plays as many pictures; else the old one."""
        began = time.monotonic()
        self._turn += 1
        new = await self._join(self._plan.urls[self._turn % len(self._plan.urls)], "moving")
        if new is None:
            return old
        if not await until(lambda: len(new.playing) >= len(old.playing), _CONNECT_S):
            self._tell("failed", url=new.url, reason=f"only {len(new.playing)} of {len(old.playing)} pictures")
            await new.leave(delete=True)
            return old
        old.is_shown, new.is_shown = False, True
        self._tell("moved", url=new.url, session=new.session, took=time.monotonic() - began)
        await old.leave(delete=True)
        return new


class Connection:
    """One WHEP session. What comes is told while it `is_shown`."""

    def __init__(self, plan: ViewerPlan, token: str, tell: Tell) -> None:
        self._plan, self._token, self._tell = plan, token, tell
        self._pc: Any = None
        self._resource: Resource | None = None
        self._following: Following | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._counting: asyncio.Task[None] | None = None
        self._last_frame = 0.0
        self.url = ""
        self.is_shown = False
        self.playing: set[int] = set()
        """The slots that have shown a picture."""

    @property
    def session(self) -> str:
        """The session's id; empty before `join`."""
        return "" if self._resource is None else session_of(self._resource)

    @property
    def resource(self) -> Resource | None:
        """The WHEP resource; None before `join`."""
        return self._resource

    async def join(self, url: str) -> None:
        """Offer. Raises Refused, httpx2.HTTPError."""
        began = time.monotonic()
        self.url = url
        self._pc = pc = webrtc.RTCPeerConnection(webrtc.RTCConfiguration(bundle_policy="max-bundle"))
        kinds = ["audio"] * self._plan.audios + ["video"] * self._plan.videos  # as browsers order them
        lines = [pc.add_transceiver(kind, webrtc.RTCRtpTransceiverInit(direction="recvonly")) for kind in kinds]
        await pc.set_local_description(await pc.create_offer())
        offer = await gathered(pc)
        async with Endpoint(url, self._token, verify=False, timeout=_OFFER_S) as endpoint:
            self._resource = await endpoint.offer(offer)
        await pc.set_remote_description(webrtc.RTCSessionDescriptionInit(type="answer", sdp=self._resource.answer))
        for slot, (kind, line) in enumerate(zip(kinds, lines, strict=True)):
            if kind == "audio" and not self._plan.listen:
                continue
            self._readers.append(asyncio.create_task(self._read(slot, kind, line.receiver.track)))
        self._following = following(self._resource, self._token, self._plan.urls)
        self._counting = asyncio.create_task(self._count())
        self._tell("joined", url=url, session=self.session, took=time.monotonic() - began)

    async def watched(self) -> str | None:
        """Wait until this connection is of no more use and return why; None when its node asks to go elsewhere."""
        assert self._following is not None
        began = time.monotonic()
        asked = 0.0
        while True:
            await asyncio.sleep(0.05)
            now = time.monotonic()
            if self._following.moved_on.is_set():
                self._following.moved_on.clear()
                return None
            state = str(self._pc.connection_state)
            if state in ("failed", "closed"):
                return f"the connection is {state}"
            if state != "connected" and not self._last_frame and now - began > _CONNECT_S:
                return f"the connection is still {state}"
            if self._plan.stall_s and 0 < self._last_frame < now - self._plan.stall_s:
                return f"no picture for {self._plan.stall_s:g} s"
            silent = self._plan.silence_s and 0 < self._last_frame < now - self._plan.silence_s
            if silent and now - asked > self._plan.silence_s:
                if await self._following.is_lost():
                    return f"no picture for {self._plan.silence_s:g} s, and nobody knows the session"
                asked = time.monotonic()
            for reader in self._readers:
                if reader.done():
                    reader.result()
                    return "a track has ended"

    async def leave(self, *, delete: bool) -> None:
        """Release everything; with `delete` the relay is told."""
        readers, self._readers = self._readers, []
        if self._counting is not None:
            readers.append(self._counting)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        if self._following is not None:
            await self._following.close()
        resource, self._resource = self._resource, None
        if resource is not None and delete:
            with contextlib.suppress(httpx2.HTTPError):
                async with Endpoint(resource.location, self._token, verify=False, timeout=1.0) as endpoint:
                    await endpoint.delete(resource)
        if self._pc is not None:
            self._pc.close()
            self._pc = None

    async def _count(self) -> None:
        """Tell what came and what was asked for, once a second."""
        before, since = await received(self._pc), time.monotonic()
        while True:
            await asyncio.sleep(_STATS_S)
            now, at = await received(self._pc), time.monotonic()
            if self.is_shown:
                bits, plis, dropped, concealed = (b - a for a, b in zip(before, now, strict=True))
                over = round(at - since, 3)
                self._tell("stats", over=over, bits=8 * bits, plis=plis, dropped=dropped, concealed=concealed)
            before, since = now, at

    async def _read(self, slot: int, kind: str, track: Any) -> None:
        size = 4 if kind == "video" else 50
        processor = webrtc.MediaStreamTrackProcessor(
            webrtc.MediaStreamTrackProcessorInit(track=track, max_buffer_size=size)
        )
        sound = _Sound(lambda level: self._tell("sound", slot=slot, level=level) if self.is_shown else None)
        async for media in processor.readable:
            with media:
                if kind == "video":
                    self._picture(slot, media)
                else:
                    sound.take(media)

    def _picture(self, slot: int, frame: Any) -> None:
        self._last_frame = time.monotonic()
        self.playing.add(slot)
        if not self.is_shown:
            return
        width, height = frame.coded_width, frame.coded_height
        data = bytearray(frame.allocation_size())
        frame.copy_to(data).result()
        told = read_i420(data, width, height)
        self._tell(
            "frame",
            slot=slot,
            publisher=told.publisher if told else None,
            counter=told.counter if told else None,
            clock_ms=told.clock_ms if told else None,
            width=width,
        )


async def received(pc: Any) -> tuple[int, int, int, int]:
    """Bytes that came, keyframes asked for, pictures that were dropped and samples of sound that were made up, of all
    tracks of a connection."""
    report = await pc.get_stats()
    found = [entry for entry in report.values() if str(entry.type) == "inbound-rtp"]
    return (
        sum(int(entry.bytes_received or 0) for entry in found),
        sum(int(getattr(entry, "pli_count", 0) or 0) for entry in found),
        sum(int(getattr(entry, "frames_dropped", 0) or 0) for entry in found),
        sum(int(getattr(entry, "concealed_samples", 0) or 0) for entry in found),
    )


async def tell_lateness(tells: Sequence[Tell]) -> None:
    """Tell all viewers of this process when it had no CPU: what they saw then is not the cluster's doing."""
    while True:
        due = time.monotonic() + _LOOK_S
        await asyncio.sleep(_LOOK_S)
        if (late := time.monotonic() - due) > _LATE_S:
            for tell in tells:
                tell("late", by=round(late, 3))


class _Sound:
    """Levels of 20 ms each, from pieces of any length."""

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told
        self._square = 0.0
        self._count = 0

    def take(self, chunk: Any) -> None:
        options = webrtc.AudioDataCopyToOptions(plane_index=0)
        data = bytearray(chunk.allocation_size(options))
        chunk.copy_to(data, options)
        samples = np.frombuffer(bytes(data), np.int16).reshape(-1, chunk.number_of_channels)[:, 0].astype(np.float64)
        self._square += float(np.dot(samples, samples))
        self._count += len(samples)
        if self._count >= chunk.sample_rate * _SOUND_S:
            power = self._square / self._count / 32768**2
            self._told(round(max(_SILENCE_DBFS, 10 * math.log10(power)) if power else _SILENCE_DBFS, 1))
            self._square, self._count = 0.0, 0


async def _watch(plan: ViewerPlan) -> None:
    allow_loopback()

    async def one(number: int, token: str, tell: Tell) -> None:
        await asyncio.sleep(number * plan.every_s)
        await Viewer(plan, token, tell).run()

    with open(plan.out, "a", encoding="utf-8") as out:  # noqa: ASYNC230 - lines to a local file
        tells = [teller(out, name) for name, _ in plan.viewers]
        viewing = [
            one(number, token, tell) for number, ((_, token), tell) in enumerate(zip(plan.viewers, tells, strict=True))
        ]
        await until_told_to_end(*map(asyncio.create_task, (tell_lateness(tells), *viewing)))


if __name__ == "__main__":
    asyncio.run(_watch(read_plan(ViewerPlan, "Watch by WHEP and write down what comes.")))
