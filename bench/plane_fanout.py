"""Packets per second that the reference plane sends per core, at several fan-outs.

A second process plays one publisher with real SRTP and `fan_out` viewers on the loopback interface. It keeps a window
of packets under way, so the plane is always busy and nothing overflows. The figure is packets sent per second of the
plane process's CPU time, so that other load on the machine counts as little as can be. Beside it stands the limit: the
same process doing nothing but seal and `sendto`.

    python -m bench.plane_fanout [--seconds 3] [--fan-out 1 10 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from relay.plane import open_plane
from relay.plane.contract import (
    AddSlot,
    AddTrack,
    BindSlot,
    Event,
    Feedback,
    Kind,
    LayerSpec,
    OpenSession,
    PayloadType,
    PlaneConfig,
    SetKeys,
    SlotSwitched,
    SrtpProfile,
)
from relay.plane.reference import rtp, stun
from relay.plane.reference.srtp import Srtp

PAYLOAD = 1100  # bytes, a full video packet
WINDOW = 24  # incoming packets under way: their copies fit the receivers' default socket buffers
KINDS = (PayloadType(96, "vp8", 90_000), PayloadType(97, "rtx", 90_000, apt=96))
FEEDBACK = Feedback(nack=True, pli=True, transport_cc=True)
EXTENSIONS = (("mid", 1), ("transport_cc", 2), ("abs_send_time", 3))
KEY_SIZE = 28


@dataclass
class Result:
    """One fan-out. Rates are packets sent per second of CPU time; `wall` is per second of real time."""

    fan_out: int
    packets_per_second: float
    wall: float
    limit_per_second: float
    microseconds_per_packet: float
    lost: float


def _key(peer: int, incoming: bool) -> bytes:
    return bytes(((peer * 2 + incoming) >> shift) & 0xFF for shift in (8, 0)) * (KEY_SIZE // 2)


def _password(peer: int) -> str:
    return f"password-of-bench-peer-{peer}"


# --- the plane's process --------------------------------------------------------------------------------------------


async def _run(fan_out: int, seconds: float) -> Result:
    plane = open_plane("reference", PlaneConfig(seed=1), "127.0.0.1", 0)
    switched = asyncio.Event()
    count = 0

    def on_events(events: list[Event]) -> None:
        nonlocal count
        count += sum(isinstance(event, SlotSwitched) for event in events)
        if count >= fan_out:
            switched.set()

    plane.on_events = on_events
    plane.start()
    profile = SrtpProfile.AES_128_GCM
    for peer in range(fan_out + 1):
        plane.submit(
            OpenSession(peer, f"bench{peer}", _password(peer), EXTENSIONS),
            SetKeys(peer, profile, _key(peer, False), _key(peer, True)),
        )
    plane.submit(AddTrack(1, 0, Kind.VIDEO, "0", KINDS, (LayerSpec(ssrc=1),), FEEDBACK))
    for peer in range(1, fan_out + 1):
        slot = AddSlot(peer, peer, Kind.VIDEO, "0", 2 * peer, 2 * peer + 1, KINDS, FEEDBACK, "bench")
        plane.submit(slot, BindSlot(peer, 1))
    peers = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "bench.plane_fanout", "--peers", str(plane.addresses[0][1]), "--fan-out", str(fan_out)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    )
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(peers.pid, {allowed[-1]})
    os.sched_setaffinity(0, {allowed[0]})
    try:
        await asyncio.wait_for(switched.wait(), 20)
        await asyncio.sleep(0.5)
        before, cpu, wall = plane.stats().datagrams_out, time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        sent = plane.stats().datagrams_out - before
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        received = int(peers.communicate(b"stop", timeout=20)[0])
        total = sum(slot.packets for slot in plane.stats().slots.values())
    finally:
        peers.kill()
        peers.wait()
        plane.close()
        os.sched_setaffinity(0, allowed)
    return Result(fan_out, sent / cpu, sent / wall, _limit(), cpu / sent * 1e6, 1 - received / max(total, 1))


def _limit(count: int = 20_000) -> float:
    """Packets per second of CPU time when there is nothing to do but seal and send."""
    srtp = Srtp(SrtpProfile.AES_128_GCM, bytes(KEY_SIZE), bytes(KEY_SIZE))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out,
    ):
        sink.bind(("127.0.0.1", 0))
        address = sink.getsockname()
        packets = [rtp.build_header(96, False, seq & 0xFFFF, 0, 1) + bytes(PAYLOAD) for seq in range(count)]
        start = time.process_time()
        for packet in packets:
            sealed = srtp.protect_rtp(packet)
            if sealed is not None:
                out.sendto(sealed, address)
        return count / (time.process_time() - start)


def run(fan_out: int, seconds: float = 3.0) -> dict[str, float]:
    """Measure one fan-out, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asdict(asyncio.run(_run(fan_out, seconds)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return asdict(runner.run(_run(fan_out, seconds)))


# --- the peers' process ---------------------------------------------------------------------------------------------


def _peers(port: int, fan_out: int) -> None:
    """Prove every address, then publish within the window until standard input says stop; print what arrived."""
    sockets = []
    for peer in range(fan_out + 1):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.connect(("127.0.0.1", port))
        opened.settimeout(5)
        opened.send(stun.binding_request(bytes(12), f"bench{peer}:x", _password(peer).encode(), use_candidate=True))
        opened.recv(2048)
        opened.setblocking(False)
        sockets.append(opened)
    poll = select.epoll()
    by_fd = {opened.fileno(): opened for opened in sockets[1:]}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    srtp = Srtp(SrtpProfile.AES_128_GCM, _key(0, True), _key(0, False))
    head = b"\x90\xe0\x80\x01\x01\x20"
    key = head + b"\x10\x00\x00\x9d\x01\x2a\x80\x02\x68\x01" + bytes(PAYLOAD - 16)
    delta = head + b"\x11\x00\x00" + bytes(PAYLOAD - 9)
    sent = received = media = 0
    buffer = bytearray(2048)
    while True:
        if (sent - received // fan_out) < WINDOW:
            # a keyframe's first packet every 1000: nothing a slot waits for, as after the start
            elements = ((2, (sent & 0xFFFF).to_bytes(2, "big")),)
            header = rtp.build_header(96, True, sent & 0xFFFF, sent * 90 & 0xFFFFFFFF, 1, elements)
            sealed = srtp.protect_rtp(header + (delta if sent % 1000 else key))
            if sealed is not None:
                sockets[0].send(sealed)
            sent += 1
            timeout = 0.0
        else:
            timeout = 0.05
        ready = poll.poll(timeout)
        if not ready and timeout:
            received = sent * fan_out  # lost: go on
        for fd, _ in ready:
            if fd not in by_fd:
                print(media, flush=True)
                return
            read = by_fd[fd].recv_into
            try:
                while True:
                    read(buffer)
                    received += 1
                    media += 1 if not 192 <= buffer[1] <= 223 else 0
            except BlockingIOError:
                pass


def main() -> None:
    """Print a table and the figures as JSON."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0)
    arguments.add_argument("--fan-out", type=int, nargs="+", default=[1, 10, 100])
    arguments.add_argument("--peers", type=int, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.peers is not None:
        _peers(chosen.peers, chosen.fan_out[0])
        return
    results = [run(fan_out, chosen.seconds) for fan_out in chosen.fan_out]
    print(f"{'fan-out':>8} {'packets/s':>10} {'µs each':>8} {'limit/s':>10} {'of limit':>8} {'wall/s':>8} {'lost':>7}")
    for r in results:
        print(
            f"{r['fan_out']:8} {r['packets_per_second']:10.0f} {r['microseconds_per_packet']:8.1f} "
            f"{r['limit_per_second']:10.0f} {r['packets_per_second'] / r['limit_per_second']:8.0%} "
            f"{r['wall']:8.0f} {r['lost']:7.2%}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
