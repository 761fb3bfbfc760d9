"""CPU time per 1280x720 picture of a program: our workers, ffmpeg's xstack and GStreamer's compositor.

All get the same clips, half of them H264 and half VP8, put them into the same cells and encode with the same x264
settings. Ours is what runs in production: RTP by a ring from the plane at 30 pictures a second, RTP back, and the CPU
time is that of the whole worker process. The others read files at that pace too, choose their threads themselves, and
write nothing; ffmpeg is also shown with one thread for each of its parts, which is the least that it can do with. The
limit is what decoding and encoding alone take (`bench.mix_codecs`). All run on one core that has nothing else to do,
and before all else there, where that is allowed.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.mix_clips import FPS, SECONDS, clip, ffmpeg, frames, run
from bench.mix_world import Feed, Mixer
from bench.plan import Plan
from bench.report import Figure, figure
from relay.mix.layout import Cell, cells
from relay.mix.video.assembly import VideoCodec
from relay.stage.layout import Layout

COMMAND = "make bench-mix"
WIDTH, HEIGHT, BITRATE, KEYFRAME_S = 1280, 720, 2_500_000, 2
X264 = "deblock=1:subme=1"
MEASURE_S, QUICK_S = 4.0, 2.0
SETTLE_S = 1.0
TRIES = 3
LIMIT = "the codecs alone"
GOALS = {"ffmpeg": "<= 0.85", "GStreamer": "<= 0.7"}
_CLOCK = os.sysconf("SC_CLK_TCK")


class Case(NamedTuple):
    """`count` inputs of this height."""

    count: int
    height: int

    @property
    def name(self) -> str:
        return f"{self.count} × {self.height}p"


CASES = (Case(4, 360), Case(9, 360), Case(4, 720))


class Clip(NamedTuple):
    path: Path
    codec: VideoCodec


async def measure(plan: Plan) -> list[Figure]:
    """Measure all in turns, so that what else the machine does falls on all alike."""
    ours: dict[Case, list[float]] = defaultdict(list)
    peers: dict[tuple[str, Case], list[float]] = defaultdict(list)
    programs: dict[str, Callable[[Sequence[Clip], int], Awaitable[float]]] = {
        "ffmpeg": via_ffmpeg,
        "ffmpeg, one thread each": functools.partial(via_ffmpeg, threads=1),
        LIMIT: codecs_alone,
    }
    missing = await gstreamer_missing()
    if not missing:
        programs["GStreamer"] = via_gstreamer
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as name:
        clips = await _clips(Path(name))
        for _ in range(plan.runs):
            for case in CASES:
                ours[case].append(await via_worker(clips[case], plan))
                for peer, make in programs.items():
                    peers[peer, case].append(await make(clips[case], plan.test))
    figures = [_figure(case, peer, ours[case], peers[peer, case]) for case in CASES for peer in programs]
    figures += [_ratio(case, peer, ours[case], peers[peer, case]) for case in CASES for peer in programs]
    figures += [
        figure(
            f"{case.name}: share of ffmpeg's CPU that its codecs alone take, the least that ours could",
            [a / b for a, b in zip(peers[LIMIT, case], peers["ffmpeg", case], strict=True)], "", command=COMMAND,
        )
        for case in CASES
    ]  # fmt: skip
    if missing:
        figures.append(figure(f"GStreamer is not here ({missing}): its figures are left out", [0], "", command=COMMAND))
    return figures


def _figure(case: Case, peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    name = f"CPU per 1280x720 picture of {case.name}"
    return figure(name, ours, "ms", beside=peer, beside_values=theirs, command=COMMAND)


def _ratio(case: Case, peer: str, ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Run by run, as both sides of one run had the same machine."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return figure(f"{case.name}: share of {peer}'s CPU", ratios, "", goal=GOALS.get(peer, ""), command=COMMAND)


async def _clips(folder: Path) -> dict[Case, list[Clip]]:
    """Two clips of each codec and height, which take turns."""
    codecs: tuple[VideoCodec, ...] = ("h264", "vp8")
    heights = sorted({case.height for case in CASES})
    keys = [(height, number, codec) for height in heights for number in range(2) for codec in codecs]
    made = {key: Clip(await clip(folder, key[2], key[0], key[1]), key[2]) for key in keys}
    found = {case: [made[key] for key in keys if key[0] == case.height] for case in CASES}
    return {case: [clips[number % len(clips)] for number in range(case.count)] for case, clips in found.items()}


def grid(count: int) -> tuple[Cell, ...]:
    return cells(Layout(), tuple(map(str, range(count))), WIDTH, HEIGHT)


# --- ours -----------------------------------------------------------------------------------------------------------


async def via_worker(clips: Sequence[Clip], plan: Plan) -> float:
    """CPU ms of a worker per picture. One that gave up pictures, for want of a free core, is tried again."""
    for _ in range(TRIES):
        found = await _via_worker(clips, QUICK_S if plan.quick else MEASURE_S, plan.test)
        if found is not None:
            return found
    raise RuntimeError("the machine is too busy to make every picture")


async def _via_worker(clips: Sequence[Clip], seconds: float, core: int) -> float | None:
    async with Mixer.opened() as mixer:
        program = mixer.program(WIDTH, HEIGHT, FPS, BITRATE)
        mixer.pool.open_stage("bench", program)
        feeds = []
        for number, one in enumerate(clips):
            feed = Feed(mixer, one.codec, frames(one.path, one.codec))
            mixer.pool.add_input("bench", str(number), "", feed.source)
            feeds.append(feed)
        task = asyncio.create_task(_play(feeds))
        try:
            mixer.hurry("bench", core)
            await mixer.shown(len(clips))
            await asyncio.sleep(SETTLE_S)
            pid, count = mixer.pid("bench"), mixer.pictures
            before = _cpu(pid)
            await asyncio.sleep(seconds)
            used, made = _cpu(pid) - before, mixer.pictures - count
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    return None if mixer.degraded else used * 1000 / made


async def _play(feeds: Sequence[Feed]) -> None:
    start = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, start + number / FPS - time.monotonic()))
        for feed in feeds:
            feed.send(number)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK


# --- peers ----------------------------------------------------------------------------------------------------------


async def via_ffmpeg(clips: Sequence[Clip], core: int, *, threads: int | None = None) -> float:
    """CPU ms of the ffmpeg command line per picture, with its xstack filter; `threads` of each part, or its choice."""
    places = grid(len(clips))
    scaled = [
        f"[{n}:v]scale={cell.box.width}:{cell.box.height}:flags=bilinear,setsar=1[c{n}]"
        for n, cell in enumerate(places)
    ]
    left, top = min(cell.box.x for cell in places), min(cell.box.y for cell in places)
    layout = "|".join(f"{cell.box.x - left}_{cell.box.y - top}" for cell in places)
    names = "".join(f"[c{n}]" for n in range(len(clips)))
    stacked = f"{names}xstack=inputs={len(clips)}:layout={layout}:fill=black"
    graph = ";".join([*scaled, f"{stacked},pad={WIDTH}:{HEIGHT}:{left}:{top}[out]"])
    limit = [] if threads is None else ["-threads", str(threads)]
    inputs = [word for one in clips for word in (*limit, "-re", "-i", str(one.path))]
    rate = ["-b:v", str(BITRATE), "-maxrate", str(BITRATE), "-bufsize", str(BITRATE // 2), "-g", str(KEYFRAME_S * FPS)]
    x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"]
    x264 += ["-x264-params", X264, *limit]
    filters = [] if threads is None else ["-filter_complex_threads", str(threads)]
    words = [ffmpeg(), "-v", "error", "-nostdin", *filters, *inputs, "-filter_complex", graph, "-map", "[out]"]
    return await _cpu_of([*words, *x264, *rate, "-f", "null", "-"], core)


async def codecs_alone(clips: Sequence[Clip], core: int) -> float:
    """CPU ms per picture of decoding the clips and encoding a picture, without anything between."""
    words = [f"{one.codec}={one.path}" for one in clips]
    return float(await run([sys.executable, "-m", "bench.mix_codecs", *words], alone_on=core))


async def via_gstreamer(clips: Sequence[Clip], core: int) -> float:
    """CPU ms of gst-launch-1.0 per picture, with its compositor."""
    places = grid(len(clips))
    pads = []
    for number, cell in enumerate(places):
        x, y, width, height = cell.box
        pads += [f"sink_{number}::xpos={x}", f"sink_{number}::ypos={y}"]
        pads += [f"sink_{number}::width={width}", f"sink_{number}::height={height}"]
    caps = f"video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
    rate = [f"bitrate={BITRATE // 1000}", "vbv-buf-capacity=500", f"key-int-max={KEYFRAME_S * FPS}"]
    x264 = ["x264enc", "speed-preset=ultrafast", "tune=zerolatency", f"option-string={X264}", *rate]
    head = ["gst-launch-1.0", "-q", "compositor", "name=mix", "background=black", *pads, "!", caps, "!", *x264]
    words = [*head, "!", "video/x-h264,profile=constrained-baseline", "!", "fakesink", "sync=true"]
    for number, one in enumerate(clips):
        decoder = ["h264parse", "!", "avdec_h264"] if one.codec == "h264" else ["vp8dec"]
        source = ["filesrc", f"location={one.path}", "!", "matroskademux", "!", *decoder, "!"]
        words += [*source, "queue", "!", f"mix.sink_{number}"]
    return await _cpu_of(words, core)


async def gstreamer_missing() -> str:
    """Why its figures cannot be had; empty when they can. As root it is installed by apt when it is not there."""
    wanted = ["gstreamer1.0-tools", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-ugly", "gstreamer1.0-libav"]
    if shutil.which("gst-launch-1.0") is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            return f"install {' '.join(wanted)}"
        try:
            await run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted])
        except RuntimeError as error:
            return str(error).splitlines()[-1]
    for element in ("compositor", "x264enc", "avdec_h264", "vp8dec", "matroskademux"):
        try:
            await run(["gst-inspect-1.0", "--exists", element])
        except (RuntimeError, OSError):
            return f"no element {element}: install {' '.join(wanted)}"
    return ""


async def _cpu_of(command: list[str], core: int) -> float:
    """CPU ms per picture of a program that mixes the clips from their beginning to their end."""
    before = os.times()
    await run(command, alone_on=core)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used * 1000 / (SECONDS * FPS)
