"""Our relay beside Janus, a known SFU, with the very same clients in the same run, on the same core.

Both get one publisher of VP8 at 30 frames a second and of Opus, as `bench.latency` sends it, and the same light
viewers (`bench.peer`); for joining, libwebrtc clients. Ours is `costream dev` with the native plane, store included.
Janus is Debian's, its videoroom plugin behind its HTTP transport (`bench.janus_server` tells how it is set up), once
with a thread for each participant, its default, and once with `event_loops = 1`, which is right for one core. The light
viewers send no RTCP. All of them get AES-128-GCM. In the end one libwebrtc viewer's path loses packets (`bench.lossy`).
"""

from __future__ import annotations

import asyncio
import functools
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.janus_doors import DECIDED, OFFERED, Doors, janus_doors, relay_doors
from bench.janus_server import janus_missing, janus_name, own_address
from bench.join import GAPS_S, PARTS, Join, Viewer
from bench.latency import FPS, Pattern, delays
from bench.lossy import LossyPath
from bench.peer import Peer
from bench.plan import Plan
from bench.processes import going_first, hurried
from bench.report import Figure, figure, percentile
from costream.synthetic import allow_loopback
from relay.plane import native_missing
from relay.plane.contract import SrtpProfile

COMMAND = "make bench-janus"
FAN_OUTS = (1, 10, 50)
LATENCY_AT = 10
AUDIO_PER_S = 50
WARM_UP_S = 1.0
WARM_UP_IDLE = 5  # what the first viewers cost is the process's, not theirs
LOSS = 0.05
LOSSY_DELAY_S = 0.02  # each way
PAUSE_S = 0.5
ONE_LOOP = "event_loops = 1"


@dataclass
class Found:
    """What was measured of one server, a list of runs each."""

    cpu: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    delays: list[list[float]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    joins: list[list[Join]] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    repaired_at_first: list[float] = field(default_factory=list)
    repaired: list[float] = field(default_factory=list)
    frozen: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done in a run."""

    fan_outs: Sequence[int]
    seconds: float
    joins: int
    idle: int
    lossy_s: float

    @classmethod
    def of(cls, plan: Plan) -> Size:
        return cls((LATENCY_AT,), 1.0, 2, 10, 1.0) if plan.quick else cls(FAN_OUTS, 3.0, 10, 100, 6.0)


async def measure(plan: Plan) -> list[Figure]:
    """Measure all in turns, so that what else the machine does falls on all alike."""
    for name, missing in (("Janus", await janus_missing()), ("the native plane", native_missing())):
        if missing:
            return [figure(f"{name} is not here ({missing}): nothing to compare", [0], "", command=COMMAND)]
    allow_loopback()
    size = Size.of(plan)
    ours, theirs, one_loop = Found(), Found(), Found()
    name = ""
    for run in range(plan.runs):
        async with relay_doors(plan.test) as doors:
            await _measure(doors, ours, size, plan, run)
        async with janus_doors(plan.test) as doors:
            name = await janus_name(doors.server)
            await _measure(doors, theirs, size, plan, run)
        if not plan.quick:
            async with janus_doors(plan.test, 1) as doors:
                await _forward(doors, one_loop, size, run)
    found = _figures(ours, theirs, name)
    return found if plan.quick else [*found, *_packets(ours, one_loop, f"{name}, {ONE_LOOP}")]


async def _measure(doors: Doors, into: Found, size: Size, plan: Plan, run: int) -> None:
    await _forward(doors, into, size, run)
    async with doors.host(plan.load):
        await asyncio.sleep(plan.settle_s)
        into.joins.append(await _join(doors, size.joins, run))
        await _lose(doors, into, size.lossy_s, run)


async def _forward(doors: Doors, into: Found, size: Size, run: int) -> None:
    await _idle(doors, into, size.idle)
    await _play(doors, into, size, run)
    await doors.leave()


# --- memory -----------------------------------------------------------------------------------------------------------


async def _idle(doors: Doors, into: Found, count: int) -> None:
    """Viewers of a publisher who is connected and silent."""
    await doors.publish()
    for _ in range(WARM_UP_IDLE):
        await doors.watch()
    await asyncio.sleep(0.5)
    before = doors.server.resident_of_all()
    for _ in range(count):
        await doors.watch()
    await asyncio.sleep(1.5)  # tasks end, and a node's second tick has passed
    into.base.append(before / 2**20)
    into.memory.append((doors.server.resident_of_all() - before) / count / 1024)
    await doors.leave()


# --- packets ----------------------------------------------------------------------------------------------------------


async def _play(doors: Doors, into: Found, size: Size, seed: int) -> None:
    publisher = await doors.publish()
    pattern = Pattern(publisher.send_media, seed)
    viewers: list[Peer] = []
    for fan_out in size.fan_outs:
        while len(viewers) < fan_out:
            viewers.append(await doors.watch())
            viewers[-1].record()
        for peer in (publisher, *viewers):
            _check_cipher(peer)
            peer.keep_alive()
        await pattern.run(WARM_UP_S)  # ends with a whole number of keyframe distances, so that all have a picture
        cpu = doors.server.cpu_of_all()
        packets = await _passed(pattern, viewers, size.seconds)
        into.cpu[fan_out].append((doors.server.cpu_of_all() - cpu) * 1e6 / len(packets))
        if fan_out == LATENCY_AT:
            before = doors.server.waited()
            with going_first(), hurried(doors.server.pid):
                into.delays.append(await _passed(pattern, viewers, size.seconds))
            into.waited.append((doors.server.waited() - before) / size.seconds * 1e3)


async def _passed(pattern: Pattern, viewers: Sequence[Peer], seconds: float) -> list[float]:
    """Delays in ms of all authentic packets that came. RuntimeError when too few did: the others would flatter."""
    for viewer in viewers:
        viewer.arrivals.clear()
    await pattern.run(seconds)
    await asyncio.sleep(0.3)
    found = [each for viewer in viewers if viewer.srtp for each in delays(viewer.arrivals, viewer.srtp.unprotect_rtp)]
    least = len(viewers) * seconds * (FPS * 5 + AUDIO_PER_S) * 0.95
    if len(found) < least:
        raise RuntimeError(f"only {len(found)} of at least {least:.0f} packets came through to {len(viewers)} viewers")
    return found


def _check_cipher(peer: Peer) -> None:
    if peer.srtp is None or peer.srtp.profile is not SrtpProfile.AES_128_GCM:
        raise RuntimeError(f"a peer does not use AES-128-GCM but {peer.srtp and peer.srtp.profile}: not comparable")


# --- joining ----------------------------------------------------------------------------------------------------------


async def _join(doors: Doors, count: int, seed: int) -> list[Join]:
    gaps = random.Random(seed)
    await doors.picture()  # pays for what is made once
    joins = []
    for _ in range(count):
        await asyncio.sleep(gaps.uniform(*GAPS_S))
        joins.append(await doors.picture())
        doors.server.alive()
    return joins


# --- loss ---------------------------------------------------------------------------------------------------------


async def _lose(doors: Doors, into: Found, seconds: float, seed: int) -> None:
    """One viewer, from its first picture on. Nothing is lost in between, so that repeats are told apart."""
    viewer = Viewer()
    with LossyPath(own_address(), LOSSY_DELAY_S, seed) as path:
        async with doors.entered(viewer, path) as track:
            await viewer.picture(track)
            begin = await _received(viewer)
            into.repaired_at_first.append(await _repaired(viewer, path, 1.0))
            into.repaired.append(await _repaired(viewer, path, seconds))
            frozen = (await _received(viewer))["frozen"] - begin["frozen"]
    into.frozen.append(frozen / (1 + seconds + 2 * PAUSE_S) * 1e3)


async def _repaired(viewer: Viewer, path: LossyPath, seconds: float) -> float:
    """Percent of the pictures' packets lost in this time that came again."""
    kind = path.passed.most_common(1)[0][0]  # most packets are pictures'
    before, dropped = await _received(viewer), path.dropped[kind]
    path.loss = LOSS
    await asyncio.sleep(seconds)
    path.loss = 0.0
    await asyncio.sleep(PAUSE_S)  # for what is asked for last
    dropped = path.dropped[kind] - dropped
    if not dropped:
        raise RuntimeError("the lossy path has lost nothing")
    return ((await _received(viewer))["repaired"] - before["repaired"]) / dropped * 100


async def _received(viewer: Viewer) -> dict[str, float]:
    for entry in (await viewer.pc.get_stats()).values():
        values = vars(entry)
        if str(values.get("type")) == "inbound-rtp" and values.get("kind") == "video":
            repaired, frozen = values["retransmitted_packets_received"], values["total_freezes_duration"]
            return {"repaired": repaired or 0, "frozen": frozen or 0.0}
    raise RuntimeError("the viewer has no statistics of its pictures")


# --- the table --------------------------------------------------------------------------------------------------------


def _figures(ours: Found, theirs: Found, beside: str) -> list[Figure]:
    first_packet, first_frame = PARTS[-2:]
    joins = [
        figure(
            f"viewer's first request to {what}, {label}",
            [percentile([join.at[part] for join in joins], share) * 1e3 for joins in ours.joins],
            "ms",
            beside=beside,
            beside_values=[percentile([join.at[part] for join in joins], share) * 1e3 for joins in theirs.joins],
            command=COMMAND,
        )
        for part, what in ((first_packet, "first media packet"), (first_frame, "first decoded frame"))
        for label, share in (("p50", 0.5), ("p95", 0.95))
    ]
    loss = [
        figure(f"{LOSS:.0%} lost: {name}", mine, unit, beside=beside, beside_values=its, command=COMMAND)
        for name, mine, its, unit in (
            ("packets that come again, viewer's 1st second", ours.repaired_at_first, theirs.repaired_at_first, "%"),
            ("packets that come again, later", ours.repaired, theirs.repaired, "%"),
            ("a picture stands still", ours.frozen, theirs.frozen, "ms per s"),
        )
    ]
    return [*_packets(ours, theirs, beside), *joins, *_parts(ours, theirs, beside), *loss]


def _parts(ours: Found, theirs: Found, beside: str) -> list[Figure]:
    # Janus's last answer comes while ICE is under way, so what signaling takes is not told apart from ICE
    rows: list[tuple[str, Callable[[Join], float]]] = [
        ("signaling", lambda join: join.at[PARTS[0]]),
        ("signaling and ICE", lambda join: join.at[PARTS[1]]),
        *((f"from then until {part}", functools.partial(Join.since_previous, part=part)) for part in PARTS[2:]),
    ]
    figures = [
        figure(
            f"of it, {name} (median)",
            [statistics.median(map(taken, joins)) * 1e3 for joins in ours.joins],
            "ms",
            beside=beside,
            beside_values=[statistics.median(map(taken, joins)) * 1e3 for joins in theirs.joins],
            command=COMMAND,
        )
        for name, taken in rows
    ]
    work = [statistics.median(join.at[DECIDED] - join.at[OFFERED] for join in joins) * 1e3 for joins in theirs.joins]
    name = f"of {beside}'s signaling: the client makes its answer, which WHEP's makes before"
    return [*figures, figure(name, work, "ms", command=COMMAND)]


def _packets(ours: Found, theirs: Found, beside: str) -> list[Figure]:
    rows = [
        (f"CPU of the server per 1,000 packets out, fan-out {each}", ours.cpu[each], theirs.cpu[each], "ms")
        for each in ours.cpu
    ]
    rows += [
        (
            f"added latency at 1x{LATENCY_AT}, {label}",
            [percentile(values, share) for values in ours.delays],
            [percentile(values, share) for values in theirs.delays],
            "ms",
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]
    rows += [
        ("memory per idle viewer, sound and picture", ours.memory, theirs.memory, "KiB"),
        ("memory of the server before them", ours.base, theirs.base, "MiB"),
    ]
    return [
        figure(name, mine, unit, beside=beside, beside_values=its, command=COMMAND) for name, mine, its, unit in rows
    ]
