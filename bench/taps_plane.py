"""One measurement of the native plane's taps, in a process of its own; prints JSON.

    python -m bench.taps_plane none|ring|ticks|callback --packets 200000

Another process injects 100,000 packets/s of 1100 bytes by a ring, in bursts. Nobody taps the track, or a third process
does by a ring (woken, or by looking every 2 ms), or this one by `on_taps`. CPU time is that of this whole process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time

import uvloop

from bench.processes import cores, pin
from relay.plane import open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig
from relay.plane.reference import rtp
from relay.plane.rings import InjectRing, TapRing
from relay.plane.shared_ring import SharedRing

OPUS = (PayloadType(111, "opus", 48_000),)
SLOTS = 4096  # the load's two processes share a core: one may have to wait while the other has it
SIZE = 1100
BURST = 32
RATE = 100_000  # per second
TICK_S = 0.002
PATIENCE_S = 60.0
ROLES = {"ring": "read", "ticks": "look"}


class Peer:
    """The feeder or the reader, on the load's core."""

    def __init__(self, load: int, role: str, ring: TapRing | InjectRing, packets: int) -> None:
        words = ["-m", "bench.taps_plane", role, "--packets", str(packets), "--fds", ",".join(map(str, ring.fds))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, *words], pass_fds=ring.fds, stdin=pipe, stdout=pipe)
        os.sched_setaffinity(self.process.pid, {load})
        ring.passed()
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise RuntimeError(f"the {role} did not start")

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


async def relay(way: str, packets: int, load: int) -> dict[str, float]:
    """CPU µs per injected packet, and the share of tapped ones that was lost."""
    plane = open_plane("native", PlaneConfig(), "127.0.0.1", 0)
    peers: list[Peer] = []
    came = 0

    def count(tapped: list[tuple[int, bytes, int]]) -> None:
        nonlocal came
        came += len(tapped)

    plane.on_taps = count
    plane.start()
    try:
        plane.submit(AddTrack(1, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
        inject = plane.open_inject_ring(slots=SLOTS)
        inject.bind(1, 1, 0)
        tap = plane.open_tap_ring(slots=SLOTS) if way in ROLES else None
        if tap is not None:
            peers.append(Peer(load, ROLES[way], tap, packets))
        if way != "none":
            plane.submit(AddTap(1, 1, 0, ring=tap.number if tap is not None else None))
        feeder = Peer(load, "feed", inject, packets)
        peers.append(feeder)
        before = time.process_time()
        feeder.go()
        async with asyncio.timeout(PATIENCE_S):
            while inject.counts().packets < packets:
                await asyncio.sleep(0.01)
        cpu = time.process_time() - before
        await asyncio.sleep(0.1)  # the last copies are on their way
        if tap is not None:
            came = tap.counts().packets
    finally:
        plane.close()
        for peer in peers:
            peer.close()
    lost = 1 - came / packets if way != "none" else 0.0
    return {"us": cpu / packets * 1e6, "lost": lost}


def feed(ring: SharedRing, packets: int) -> None:
    os.nice(10)  # the reader has the same core and goes first
    writer = ring.writer()
    payload = bytes(SIZE - rtp.HEADER_LENGTH)
    made = [rtp.build_header(111, False, seq, seq * 960 & 0xFFFFFFFF, 9) + payload for seq in range(1 << 16)]
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.monotonic()
    for burst in range(0, packets, BURST):
        time.sleep(max(0.0, start + burst / RATE - time.monotonic()))
        for number in range(burst, min(burst + BURST, packets)):
            while not writer.put(1, 0, made[number & 0xFFFF], more=True):
                time.sleep(0.001)
        writer.flush()
    sys.stdin.readline()


def read(ring: SharedRing) -> None:
    reader = ring.reader()
    print("ready", flush=True)
    while reader.wait():
        reader.read()


def look(ring: SharedRing) -> None:
    reader = ring.reader()
    print("ready", flush=True)
    while not ring.gone:
        while reader.read(wake=False):
            pass
        time.sleep(TICK_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.taps_plane")
    parser.add_argument("way", choices=["none", "ring", "ticks", "callback", "feed", "read", "look"])
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--fds")
    options = parser.parse_args()
    if options.fds:
        ring = SharedRing.attach([int(word) for word in options.fds.split(",")])
        if options.way == "feed":
            feed(ring, options.packets)
        elif options.way == "look":
            look(ring)
        else:
            read(ring)
        return
    test, load = cores()
    pin(test)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(relay(options.way, options.packets, load))))


if __name__ == "__main__":
    main()
