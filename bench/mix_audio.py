"""What a program's sound costs, how punctual its ticks are on a busy machine, and what a death of a mixer is heard as.

The cost is processor time per 20 ms of a mix, everybody speaking, all of Opus included. Beside it stand the ffmpeg
command line (`amix`, `alimiter`) and GStreamer (`audiomixer`), which read the same packets from files, decode, mix and
encode with the same settings, as fast as they can; what they need to start is measured apart and taken off. What hosts
cost who asked for one sound stands beside the same room when nobody did.

Lateness is that of the real process under the real plane while every core encodes video with x264.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from bench.plan import Plan
from bench.report import Figure, figure
from relay.errors import UsageError
from relay.mix.audio.input import packet_queue
from relay.mix.audio.messages import AddInput, Event, MixerReplaced, OpenMix, ProcessReplaced, TicksReported
from relay.mix.audio.mix import FRAME, Encoding
from relay.mix.audio.opus import Encoder
from relay.mix.audio.pool import AudioPool
from relay.mix.audio.ports import TrackSink, TrackSource
from relay.mix.audio.room import Room
from relay.mix.jitter_steps import JitterSettings
from relay.mix.video.process import NICE
from relay.plane import open_plane
from relay.plane.contract import AddTap, AddTrack, Kind, LayerSpec, PayloadType, PlaneConfig
from relay.plane.reference.rtp import HEADER_LENGTH
from relay.settings import MixAudioSettings

COMMAND = "python -m bench mix_audio"
PEOPLE = (4, 8, 16)
SETTINGS = MixAudioSettings()
TICK_US = 20_000
VOICE_S = 6
WARM_TICKS = 50
OPUS = (PayloadType(111, "opus", 48_000),)


async def measure(plan: Plan) -> list[Figure]:
    with _everywhere():
        voices = [_voice(number) for number in range(max(PEOPLE))]
        figures = _cost(plan, voices) + _asked(plan, voices[:8])
        figures += await _lateness(plan, voices)
        figures += await _deaths(plan, voices)
    return figures


@contextlib.contextmanager
def _everywhere() -> Iterator[None]:
    """Run on all cores: mixers are not pinned, and children have the affinity of who starts them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _voice(number: int) -> list[bytes]:
    """Opus packets of some seconds like speech: harmonics and breath that come and go by the syllable."""
    dice = np.random.default_rng(number)
    at = np.arange(VOICE_S * 48_000) / 48_000
    pitch = 90 + 13 * number
    sound = sum(np.sin(2 * np.pi * pitch * harmonic * at) / harmonic for harmonic in range(1, 20))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * (3 + 0.1 * number) * at)
    sound = 0.05 * (sound + 0.3 * dice.standard_normal(len(at))) * syllables
    return _opus(np.repeat(sound.astype(np.float32)[:, None], 2, axis=1))


def _opus(stereo: NDArray[np.float32]) -> list[bytes]:
    encoder = Encoder(2, SETTINGS.bitrate_bps, SETTINGS.complexity)
    return [encoder.encode(stereo[start : start + FRAME]) for start in range(0, len(stereo), FRAME)]


def _rtp(ssrc: int, number: int, payload: bytes) -> bytes:
    head = bytes([0x80, 111]) + (number & 0xFFFF).to_bytes(2, "big")
    packet = head + (number * FRAME & 0xFFFFFFFF).to_bytes(4, "big") + ssrc.to_bytes(4, "big")
    assert len(packet) == HEADER_LENGTH
    return packet + payload


# --- cost ------------------------------------------------------------------------------------------------------------


def _cost(plan: Plan, voices: Sequence[list[bytes]]) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="costream-bench-") as name:
        files = [_write(Path(name) / f"{number}.ogg", voice) for number, voice in enumerate(voices)]
        for people in PEOPLE:
            for everyone in (False, True):
                ours, ffmpeg, gstreamer = [], [], []
                for _ in range(plan.runs):  # side by side, so that a busy moment meets all of them
                    ours.append(_room_ms(voices[:people], everyone))
                    ffmpeg.append(_peer_ms(_ffmpeg(files[:people], everyone), _ffmpeg(files[:people], everyone, 0.1)))
                    if not everyone and shutil.which("gst-launch-1.0"):
                        gstreamer.append(_peer_ms(_gstreamer(files[:people]), ["gst-launch-1.0", "--version"]))
                what = "program and all N-1" if everyone else "program only"
                name_ = f"CPU per tick, {people} people, {what}"
                figures.append(figure(name_, ours, "ms", beside="ffmpeg amix", beside_values=ffmpeg, command=COMMAND))
                if gstreamer:
                    figures.append(
                        figure(
                            name_, ours, "ms", beside="GStreamer audiomixer", beside_values=gstreamer, command=COMMAND
                        )
                    )
    return figures


def _asked(plan: Plan, voices: Sequence[list[bytes]]) -> list[Figure]:
    """The ways take turns, so that a busy moment meets all of them."""
    silent = _opus(np.zeros((VOICE_S * 48_000, 2), np.float32))
    one = [voices[0], *([silent] * (len(voices) - 1))]
    nobody, all_, one_nobody, one_all = list[float](), list[float](), list[float](), list[float]()
    for _ in range(plan.runs):
        nobody.append(_room_ms(voices, False))
        all_.append(_room_ms(voices, True))
        one_nobody.append(_room_ms(one, False))
        one_all.append(_room_ms(one, True))
    what = f"CPU per tick, {len(voices)} people, {len(voices)} asked for one sound"
    beside = "nobody asked"
    return [
        figure(f"{what}, all speak", all_, "ms", beside=beside, beside_values=nobody, command=COMMAND),
        figure(f"{what}, one speaks", one_all, "ms", beside=beside, beside_values=one_nobody, command=COMMAND),
    ]


def _room_ms(voices: Sequence[list[bytes]], everyone: bool) -> float:
    """Tick a room by hand through all packets; processor time per tick."""
    encoding = Encoding(SETTINGS.channels, SETTINGS.bitrate_bps, SETTINGS.complexity)
    room = Room("bench", encoding, JitterSettings(), len(voices), lambda _: None)
    queues = []
    for number in range(len(voices)):
        queue = packet_queue()
        queues.append(queue)
        room.change(AddInput("bench", f"p{number}", number), queue)
        if everyone:
            room.change(OpenMix("bench", f"p{number}", (f"p{number}",), number + 1, number + 1, number, 0, 0, 111))
    room.change(OpenMix("bench", "program", (), 0, 0, 99, 0, 0, 111))
    begin = 0.0
    for tick in range(len(voices[0])):
        if tick == WARM_TICKS:
            begin = time.process_time()
        now = (tick + 1) * TICK_US
        for number, (voice, queue) in enumerate(zip(voices, queues, strict=True)):
            queue.append((now - 5000, _rtp(number, tick, voice[tick])))
        outputs = room.tick(tick, now)
        for mix, payload in outputs:
            mix.packet(tick, tick, payload)
        assert len(outputs) == 1 + everyone * len(voices)
    return (time.process_time() - begin) * 1000 / (len(voices[0]) - WARM_TICKS)


def _write(path: Path, voice: list[bytes]) -> Path:
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="stereo")
        stream.codec_context.open()
        for number, payload in enumerate(voice):
            packet = av.Packet(payload)
            packet.stream, packet.time_base = stream, Fraction(1, 48_000)
            packet.pts = packet.dts = number * FRAME
            packet.duration = FRAME
            container.mux(packet)
    return path


def _ffmpeg(files: Sequence[Path], everyone: bool, seconds: float = VOICE_S) -> list[str]:
    """Decode, mix with a limiter, encode: once, or for each also without him."""
    people = len(files)
    groups = [list(range(people))]
    if everyone:
        groups += [[other for other in range(people) if other != number] for number in range(people)]
    uses = [sum(number in group for group in groups) for number in range(people)]
    graph = [f"[{n}:a]asplit={uses[n]}" + "".join(f"[i{n}u{use}]" for use in range(uses[n])) for n in range(people)]
    taken = [0] * people
    for index, group in enumerate(groups):
        inputs = ""
        for number in group:
            inputs += f"[i{number}u{taken[number]}]"
            taken[number] += 1
        graph.append(f"{inputs}amix=inputs={len(group)}:normalize=0,alimiter=limit=0.94:level=0[o{index}]")
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin", "-threads", "1"]
    for path in files:
        words += ["-t", str(seconds), "-c:a", "libopus", "-i", str(path)]
    words += ["-filter_complex_threads", "1", "-filter_complex", ";".join(graph)]
    for index in range(len(groups)):
        words += ["-map", f"[o{index}]", "-c:a", "libopus", "-b:a", str(SETTINGS.bitrate_bps), "-vbr", "on"]
        words += ["-compression_level", str(SETTINGS.complexity), "-application", "lowdelay", "-f", "null", "-"]
    return words


def _gstreamer(files: Sequence[Path]) -> list[str]:
    words = ["gst-launch-1.0", "-q", "audiomixer", "name=mix", "!", "audioconvert", "!", "opusenc"]
    words += [f"bitrate={SETTINGS.bitrate_bps}", f"complexity={SETTINGS.complexity}", "audio-type=2051"]
    words += ["bitrate-type=vbr", "!", "fakesink", "sync=false"]
    for path in files:
        words += ["filesrc", f"location={path}", "!", "oggdemux", "!", "opusdec", "!", "audioconvert", "!"]
        words += ["audio/x-raw,format=F32LE", "!", "mix."]
    return words


def _peer_ms(work: list[str], start: list[str]) -> float:
    return (_cpu_s(work) - _cpu_s(start)) * 1000 / (VOICE_S * 50)


def _cpu_s(words: list[str]) -> float:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise UsageError(f"{words[0]} ended with {process.returncode}: {said[-400:]}")
    return usage.ru_utime + usage.ru_stime


# --- the process under the plane --------------------------------------------------------------------------------------


class _Show:
    """A pool whose rooms of four speak through a plane, each with a program and all N-1 mixes."""

    PROGRAM = 1000
    HEAR = 1_000_000

    def __init__(self, pool: AudioPool, events: list[Event], arrivals: list[int]) -> None:
        self.pool, self.events, self.arrivals = pool, events, arrivals

    def last(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _show(voices: Sequence[list[bytes]], settings: MixAudioSettings, rooms: int) -> AsyncIterator[_Show]:
    plane = open_plane("auto", PlaneConfig(), "127.0.0.1", 0)
    events: list[Event] = []
    arrivals: list[int] = []
    plane.on_taps = lambda taps: arrivals.extend(arrival for _, _, arrival in taps)
    plane.start()
    pool = AudioPool(settings, plane, events.append)
    handles = count(1)
    tracks: list[int] = []
    numbers = count(1)
    talk: asyncio.Task[None] | None = None
    try:
        await pool.start()
        for room in range(rooms):
            name = f"r{room}"
            pool.open_room(name)
            for person in range(4):
                track, ear = next(numbers), _Show.PROGRAM + next(numbers)
                tracks.append(track)
                plane.submit(AddTrack(track, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
                plane.submit(AddTrack(ear, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
                source = TrackSource(lambda command: plane.submit(command), lambda: next(handles), track)
                pool.add_input(name, f"p{person}", source)
                pool.open_mix(name, f"p{person}", TrackSink(ear), exclude=(f"p{person}",))
            program = _Show.PROGRAM + next(numbers)
            plane.submit(AddTrack(program, None, Kind.AUDIO, "", OPUS, (LayerSpec(),)))
            if not room:
                plane.submit(AddTap(_Show.HEAR, program, 0))
            pool.open_mix(name, "program", TrackSink(program))

        async def speak() -> None:
            due, number = time.monotonic(), 0
            while True:
                for track in tracks:
                    voice = voices[track % len(voices)]
                    plane.inject(track, 0, _rtp(track, number, voice[number % len(voice)]))
                number, due = number + 1, due + 0.02
                await asyncio.sleep(max(due - time.monotonic(), 0))

        talk = asyncio.create_task(speak())
        yield _Show(pool, events, arrivals)
    finally:
        if talk is not None:
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
        await pool.stop()
        plane.close()


@contextlib.contextmanager
def _busy(nice: int) -> Iterator[None]:
    """Encode video on every core, and on one more than there are, as workers do."""
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-nostdin"]
    words += ["-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=30", "-c:v", "libx264", "-preset", "ultrafast"]
    words += ["-tune", "zerolatency", "-threads", "1", "-f", "null", "-"]
    workers = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range((os.cpu_count() or 1) + 1)]
    for worker in workers:
        os.setpriority(os.PRIO_PROCESS, worker.pid, nice)
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()


class _Way(NamedTuple):
    """What the mixers wish for, and how nice the video is."""

    label: str
    priority: str
    video: int
    goal: str = ""


_WAYS = (
    _Way("SCHED_FIFO", "fifo", 0, "<= 0.5"),
    _Way(f"nice -10, video nice {NICE}", "nice", NICE, "<= 2"),
    _Way(f"no priority, video nice {NICE}", "none", NICE, "<= 2"),
    _Way("no priority", "none", 0),
)
"""The last one is what the others are measured beside: no relay runs like that, as its video workers are nice."""


async def _lateness(plan: Plan, voices: Sequence[list[bytes]]) -> list[Figure]:
    """Ways take turns, so that all of them meet the same machine."""
    told: dict[str, list[TicksReported]] = {way.label: [] for way in _WAYS}
    for _ in range(min(plan.runs, 2)):  # each takes some 12 s
        for way in _WAYS:
            settings = MixAudioSettings.model_validate({"priority": way.priority, "reserve_process": False})
            async with _show(voices, settings, rooms=2) as show:
                with _busy(way.video):
                    await asyncio.sleep(1)
                    before = show.last(TicksReported)
                    await show.until(lambda show=show, before=before: show.last(TicksReported) >= before + 2)
            told[way.label].append([event for event in show.events if isinstance(event, TicksReported)][-1])
    none = [each.late_p99_ms for each in told[_WAYS[-1].label]]
    figures = []
    for way in _WAYS:
        runs, name = told[way.label], f"tick lateness, every core busy with x264, {way.label}"
        skipped = [float(each.skipped) for each in runs]
        worst = functools.partial(figure, f"{name}, p99", [each.late_p99_ms for each in runs], "ms", command=COMMAND)
        figures += [
            figure(f"{name}, p50", [each.late_p50_ms for each in runs], "ms", command=COMMAND),
            worst() if way is _WAYS[-1] else worst(goal=way.goal, beside=_WAYS[-1].label, beside_values=none),
            figure(f"{name}, room ticks skipped in 5 s", skipped, "", command=COMMAND),
        ]
    return figures


async def _deaths(plan: Plan, voices: Sequence[list[bytes]]) -> list[Figure]:
    """The longest time between two packets of the program around each death."""
    waits: dict[str, list[float]] = {"dies": [], "hangs": [], "process": []}
    async with _show(voices, MixAudioSettings(mixers=1), rooms=2) as show:
        await show.until(lambda: len(show.arrivals) > 50)
        for _ in range(plan.runs):
            for what in waits:
                await show.until(lambda: show.pool.has_reserve)
                heard, kind = len(show.arrivals), ProcessReplaced if what == "process" else MixerReplaced
                before = show.last(kind)
                if what == "process":
                    assert show.pool.pid is not None
                    os.kill(show.pool.pid, signal.SIGKILL)
                else:
                    show.pool.fail_mixer(0, 0.0 if what == "dies" else 1.0)
                await show.until(lambda kind=kind, before=before: show.last(kind) > before)
                await show.until(lambda heard=heard: len(show.arrivals) > heard + 50)
                around = show.arrivals[heard - 5 :]
                waits[what].append(max(b - a for a, b in pairwise(around)) / 1000)
                await asyncio.sleep(1.2)
    return [
        figure("program silent at most, a mixer thread dies", waits["dies"], "ms", goal="<= 60", command=COMMAND),
        figure("program silent at most, a mixer thread hangs", waits["hangs"], "ms", goal="<= 60", command=COMMAND),
        figure("program silent at most, process killed", waits["process"], "ms", command=COMMAND),
    ]
