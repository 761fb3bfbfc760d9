"""A relay whose machine its own programs overload: what is forwarded does not suffer, and sound goes before pictures.

Programs that are far above what a small machine can make; hosts with painted counters in the same rooms, and a stamped
stream in a room without a program. Counts and orders decide: sequence numbers, painted counters, what plane and kernel
dropped. Times are printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.latency import Pattern, delays
from bench.report import percentile
from bench.stamps import Arrival
from tests.interop.clients.counting import Counter, Stream, connected, counting, dropped_by_kernel, dropped_on_the_way
from tests.interop.relays import Relay, Room, eventually, on_stage

ROOMS, HOSTS = 3, 4
WIDTH, HEIGHT, FPS = 2560, 1440, 120
TICK = 960  # of 48 kHz: a packet of sound
QUIET_S, SEGMENT_S = 3.0, 2.0
PATIENCE_S = 120.0
MORE = 1000
"""Datagrams for each viewer, once a program's picture got smaller."""
MOST_MISSING = 0.01
"""Of the ticks of sound."""
OVERLOADED = {
    "mix__video__width": WIDTH,
    "mix__video__height": HEIGHT,
    "mix__video__fps": FPS,
    "mix__video__spares": 0,
    # Who shares a machine with others and gets nothing of it for long, does not hang.
    "mix__video__hang_ms": 30_000,
}
LOST = (
    "costream_packets_lost_in_total",
    "costream_nacks_out_total",
    "costream_nacks_in_total",
    "costream_packets_unkept_total",
    "costream_plane_lost_total datagrams",
    "costream_plane_lost_total orders",
    "costream_plane_lost_total injects",
    "costream_datagrams_dropped_total out_",
)
"""What must not grow: each is the beginning of a metric's name and its labels."""
TICKS_SKIPPED = "costream_mix_skipped_ticks_total"


class Told:
    """What a room's stream said of its program."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.name = room.id
        self.events: list[tuple[str, dict[str, Any]]] = []

    @property
    def plans(self) -> list[dict[str, Any]]:
        """Frames a second and sizes with which it was made, when that was less than was asked for."""
        return self.of("program.degraded")

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        headers = {"Authorization": f"Bearer {self._room.token('follower', 'viewer')}"}
        url = f"{self._room.relay.http}/v1/rooms/{self._room.id}/events"
        async with (
            httpx2.AsyncClient(trust_env=False, headers=headers, timeout=None) as client,
            client.stream("GET", url) as response,
        ):
            assert response.status_code == 200
            reader = asyncio.create_task(self._read(response))
            try:
                yield
            finally:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, response: httpx2.Response) -> None:
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                self.events.append((event["type"], event["data"]))


class Show:
    """Everybody there: rooms with hosts and two equal viewers each, a listener for each program, a stamped stream."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.told: list[Told] = []
        self.twins: list[tuple[Counter, Counter]] = []
        self.listeners: list[Counter] = []
        self._rooms: list[Room] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._rooms = [await self.relay.room() for _ in range(ROOMS)]
            hosts = [(room, index * HOSTS + n + 1) for index, room in enumerate(self._rooms) for n in range(HOSTS)]
            stage = on_stage(*(room.host(number, fps=10, max_bitrate=120_000) for room, number in hosts))
            await self._stack.enter_async_context(stage)
            for room in self._rooms:
                self.twins.append((await self._viewer(room, "red"), await self._viewer(room, "blue")))
                self.told.append(Told(room))
                await self._stack.enter_async_context(self.told[-1].following())
            await self._stamped()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def viewers(self) -> list[Counter]:
        """Those of slots."""
        return [*(each for pair in self.twins for each in pair), self.stamped]

    @property
    def counters(self) -> list[Counter]:
        """All, with those who listen to programs."""
        return [*self.viewers, *self.listeners]

    async def switch_on(self) -> None:
        """One program after the other: a worker that starts beside all of them would take minutes."""
        for room in self._rooms:
            await room.ask("PUT", "program", {})
            await eventually(
                lambda room=room: room.publications("program"), lambda all_of: len(all_of) == 2, PATIENCE_S
            )
            url, token = f"{room.whep}?play=program", room.token("ear", "viewer")
            self.listeners.append(await self._stack.enter_async_context(counting(url, token, "a", f"{room.id}/ear")))

    async def go_on(self, until: Callable[[], bool]) -> None:
        """Send the stamped stream until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not until():
                await self._pattern.run(SEGMENT_S)

    async def _viewer(self, room: Room, name: str) -> Counter:
        slots = "a" * HOSTS + "v" * HOSTS
        viewer = counting(room.whep, room.token(name, "viewer"), slots, f"{room.id}/{name}")
        return await self._stack.enter_async_context(viewer)

    async def _stamped(self) -> None:
        room = await self.relay.room()
        publisher = await connected(room.whip, room.token("host", "guest"), "av", publish=True)
        self._stack.callback(publisher.close)
        self._pattern = Pattern(publisher.send_media, seed=1)
        await self._pattern.run(0.5)
        viewer = counting(room.whep, room.token("viewer", "viewer"), "av", f"{room.id}/stamped")
        self.stamped = await self._stack.enter_async_context(viewer)
        await self._pattern.run(QUIET_S)


async def metrics(relay: Relay) -> dict[str, float]:
    """By name and labels."""
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        text = (await client.get(f"{relay.http}/metrics")).text
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def frames_went_before_pixels(plans: Sequence[dict[str, Any]]) -> bool:
    """Whether a program was at a quarter of its frames each time that it was told to be smaller."""
    return all(plan["fps"] <= FPS / 4 for plan in plans if plan["width"] < WIDTH)


def painted(streams: dict[int, Stream]) -> dict[int, list[int]]:
    """The counters in the pictures of each publisher whose pictures are among the streams."""
    found: dict[int, list[int]] = {}
    for stream in streams.values():
        for mark in stream.painted():
            found.setdefault(mark.publisher, []).append(mark.counter)
    return found


def watched_by_both(one: list[int], other: list[int]) -> tuple[list[int], list[int]]:
    """The counters that two viewers saw of a host, in the time in which both watched."""
    begin, end = max(one[0], other[0]), min(one[-1], other[-1])
    seen = [[counter for counter in each if begin <= counter <= end] for each in (one, other)]
    return seen[0], seen[1]


def require_all_pictures(show: Show, streams: dict[str, dict[int, Stream]]) -> None:
    """Both viewers of a room saw the same pictures of each host, in order, none twice."""
    for index, (red, blue) in enumerate(show.twins):
        hosts = set(range(index * HOSTS + 1, (index + 1) * HOSTS + 1))
        ones, others = painted(streams[red.name]), painted(streams[blue.name])
        assert ones.keys() == others.keys() == hosts
        for host in hosts:
            one, other = watched_by_both(ones[host], others[host])
            assert one == other == sorted(set(one))
            assert one


def require_all_packets(show: Show, streams: dict[str, dict[int, Stream]], kernel: dict[str, int]) -> None:
    """No number is missing that the plane had to send: what is missing at a viewer, the kernel dropped there."""
    for viewer in show.counters:
        found = streams[viewer.name]
        lines = {True: 2, False: 1 if viewer in show.listeners else 2 * HOSTS}[viewer is show.stamped]
        assert len(found) == lines, f"{viewer.name} got {len(found)} streams of {lines}"
        holes = sum(len(stream.holes) for stream in found.values())
        assert holes <= kernel[viewer.name] + kernel["on the way"], f"{viewer.name} lacks {holes}; {kernel}"


def require_sound(show: Show, streams: dict[str, dict[int, Stream]], skipped: float) -> None:
    """Programs have all their sound, but for a few ticks."""
    made = missing = 0
    for ear in show.listeners:
        (stream,) = streams[ear.name].values()
        made, missing = made + len(stream.packets), missing + stream.missing_ticks(TICK)
    print(f"ticks of programs' sound: {made} came, {missing} never made; {skipped:.0f} skipped, as the relay says")
    assert made > ROOMS * MORE // 10
    assert max(missing, skipped) <= MOST_MISSING * made


def print_delays(stamped: dict[int, Stream], began_us: int) -> None:
    packets = [packet for stream in stamped.values() for _, packet in stream.packets]
    for name, chosen in (
        ("before any program", [packet for packet in packets if packet.arrival < began_us]),
        ("beside programs", [packet for packet in packets if packet.arrival >= began_us]),
    ):
        found = delays([Arrival(packet.arrival * 1000, bytes(packet.data)) for packet in chosen], bytes)
        figures = ", ".join(f"p{share * 100:g} {percentile(found, share):.2f}" for share in (0.5, 0.99, 0.999))
        print(f"through the relay {name}: {figures}, most {max(found):.2f} ms of {len(found)}")


@pytest.mark.timeout(4 * PATIENCE_S)
async def test_what_is_forwarded_does_not_suffer_beside_programs(relay_with: Callable[..., Relay]) -> None:
    async with Show(relay_with(**OVERLOADED)) as show:
        before, on_the_way, began_us = await metrics(show.relay), dropped_on_the_way(), time.time_ns() // 1000
        await show.switch_on()
        await show.go_on(lambda: any(plan["width"] < WIDTH for told in show.told for plan in told.plans))
        counts = [each.count for each in show.viewers]
        await show.go_on(
            lambda: all(each.count > count + MORE for each, count in zip(show.viewers, counts, strict=True))
        )
        grown = {name: value - before.get(name, 0.0) for name, value in (await metrics(show.relay)).items()}
        kernel = {each.name: dropped_by_kernel(each.port) for each in show.counters}
        kernel |= {"on the way": dropped_on_the_way() - on_the_way, "plane": dropped_by_kernel(show.relay.port)}
        streams = {each.name: each.streams() for each in show.counters}

    print(*(f"{told.name}: {told.plans}" for told in show.told), f"the kernel dropped: {kernel}", sep="\n")
    print_delays(streams[show.stamped.name], began_us)
    assert kernel["plane"] == 0  # what waits for the plane's thread has room for seconds
    assert {name: value for name, value in grown.items() if name.startswith(LOST) and value} == {}
    require_all_packets(show, streams, kernel)
    require_all_pictures(show, streams)
    assert all(frames_went_before_pixels(told.plans) for told in show.told)
    assert not any(told.of("program.interrupted") for told in show.told)
    require_sound(show, streams, grown[TICKS_SKIPPED])
