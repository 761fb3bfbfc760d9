"""The audio process itself: rings, threads, deaths, and what is left after it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys

import numpy as np
import psutil
import pytest

from relay.errors import UsageError
from relay.mix.audio.messages import (
    InputRefused,
    InputsReported,
    MixerReplaced,
    ProcessReplaced,
)
from relay.settings import MixAudioSettings
from tests.mix.audio_node import Ear, Studio, studio
from tests.mix.audio_world import FRAME, Listener, amplitude_of, residue
from tests.processes import ended

UNREAD = 25
"""Packets that may be lost with the ring of a killed process: half a second, for a plane that a busy machine kept from
reading."""


def newest(listener: Listener, packets: int, lost: int = 0) -> np.ndarray:
    return listener.hear(lost)[-packets * FRAME :]


async def two_tones(show: Studio) -> tuple[Listener, Listener]:
    """Ann and Bob in a room; a listener to the program and Bob's own mix, both flowing."""
    show.pool.open_room("show")
    show.join("show", "ann", 440)
    show.join("show", "bob", 1000)
    program, own = show.listen("show", "program"), show.listen("show", "bob", exclude=("bob",))
    await show.heard(program, 40)
    return program, own


def has_both(sound: np.ndarray) -> None:
    """On a busy machine some frames of the speakers come late and are concealed, so the limits are wide."""
    assert 0.03 <= amplitude_of(sound, 440) <= 0.25
    assert 0.03 <= amplitude_of(sound, 1000) <= 0.25


async def test_two_tones_go_in_by_one_ring_and_their_mixes_come_out_by_another() -> None:
    async with studio() as show:
        program, own = await two_tones(show)
        await show.heard(program, 60)
        await show.heard(own, 1)
        has_both(newest(program, 60))
        sound = newest(own, 60)
        assert 0.03 <= amplitude_of(sound, 440) <= 0.25
        assert amplitude_of(sound, 1000) <= 0.002
        assert residue(newest(program, 60), [440, 1000]) <= 0.05
        await show.until(lambda: bool(show.told(InputsReported)))


@pytest.mark.parametrize(("hang_s", "reason"), [(0.0, "died"), (2.0, "hung")])
async def test_a_mixer_that_fails_is_replaced_and_its_rooms_go_on(
    hang_s: float, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with studio(MixAudioSettings(mixers=1)) as show:
        program, own = await two_tones(show)
        replaced = len(show.told(MixerReplaced))
        show.pool.fail_mixer(0, hang_s)
        await show.until(lambda: len(show.told(MixerReplaced)) > replaced)
        await show.heard(program, 50)
        assert reason in {event.reason for event in show.told(MixerReplaced)}
        assert not show.told(ProcessReplaced)
        missing = [max(listener.jumps()) for listener in (program, own)]
        with capsys.disabled():
            print(f"\nmixer {reason}: {missing} frames missing, longest wait {program.longest_wait_ms():.1f} ms")
        assert max(missing) <= 3
        has_both(newest(program, 40))


async def test_a_process_that_is_killed_is_replaced_with_its_rooms_and_positions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with studio() as show:
        program, own = await two_tones(show)
        show.pool.mute("show", "ann", True)
        await show.heard(program, 10)
        for _ in range(2):
            before = show.pool.pid
            assert before is not None
            count = len(show.told(ProcessReplaced))
            await show.until(lambda: show.pool.has_reserve)
            os.kill(before, signal.SIGKILL)
            await show.until(lambda count=count: len(show.told(ProcessReplaced)) > count)
            await show.heard(program, 60)
            assert show.pool.pid not in {None, before}
        missing = [max(listener.jumps(lost=UNREAD)) for listener in (program, own)]  # sequence numbers and SSRC went on
        with capsys.disabled():
            print(f"\nprocess killed twice: {missing} frames missing, longest wait {program.longest_wait_ms():.1f} ms")
        sound = newest(program, 40, UNREAD)
        assert amplitude_of(sound, 440) <= 0.002  # still muted
        assert 0.03 <= amplitude_of(sound, 1000) <= 0.25


async def test_without_one_in_reserve_a_new_process_is_started() -> None:
    async with studio(MixAudioSettings(reserve_process=False)) as show:
        program, _ = await two_tones(show)
        assert show.pool.pid is not None
        os.kill(show.pool.pid, signal.SIGKILL)
        await show.heard(program, 60)
        assert len(show.told(ProcessReplaced)) == 1
        program.jumps(lost=UNREAD)
        has_both(newest(program, 30, UNREAD))


async def test_a_process_that_stands_still_is_killed_and_replaced() -> None:
    async with studio() as show:
        program, _ = await two_tones(show)
        before = show.pool.pid
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        await show.until(lambda: bool(show.told(ProcessReplaced)))
        assert show.told(ProcessReplaced)[0].reason == "it does not tick"
        await show.heard(program, 60)
        assert not psutil.pid_exists(before)


async def test_the_process_ends_with_the_relays_process() -> None:
    """A parent that is killed cannot end its children: the kernel does, and so does the end of the control socket."""
    script = (
        "import asyncio, sys\n"
        "from tests.mix.audio_node import studio\n"
        "async def main():\n"
        "    async with studio() as show:\n"
        "        print(show.pool.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(30):
        child = psutil.Process(int(await parent.stdout.readline()))
        family = [child, *psutil.Process(parent.pid).children()]
        parent.kill()
        await parent.wait()
    await ended(*(one.pid for one in family))


async def test_the_seventeenth_is_refused_and_let_go() -> None:
    async with studio() as show:
        show.pool.open_room("show")
        for number in range(17):
            show.join("show", f"p{number}", 300 + 50 * number, 0.02)
        await show.until(lambda: bool(show.told(InputRefused)))
        assert [event.identity for event in show.told(InputRefused)] == ["p16"]
        with pytest.raises(UsageError):
            show.pool.set_gain("show", "p16", 1.0)
        program = show.listen("show", "program")
        await show.heard(program, 20)


async def test_what_is_not_there_is_refused() -> None:
    async with studio() as show:
        show.pool.open_room("show")
        for wrong in (
            lambda: show.pool.open_room("show"),
            lambda: show.pool.close_room("other"),
            lambda: show.join("other", "ann", 440),
            lambda: show.pool.mute("show", "ann", True),
            lambda: show.pool.remove_input("show", "ann"),
            lambda: show.pool.open_mix("other", "program", Ear()),
            lambda: show.pool.close_mix("show", "program"),
        ):
            with pytest.raises(UsageError):
                wrong()
        show.join("show", "ann", 440)
        with pytest.raises(UsageError):
            show.pool.set_gain("show", "ann", float("nan"))


def footprint(process: psutil.Process) -> tuple[int, list[str]]:
    """Threads, and what is open, without the numbers of sockets."""
    directory = f"/proc/{process.pid}/fd"
    targets = [_target(f"{directory}/{descriptor}") for descriptor in os.listdir(directory)]
    return process.num_threads(), sorted(target.split(":[")[0] for target in targets if target)


async def test_a_hundred_rooms_leave_nothing_behind() -> None:
    gc.collect()
    me = psutil.Process()
    before = footprint(me), len(me.children())
    async with studio(MixAudioSettings(reserve_process=False)) as show:
        assert show.pool.pid is not None
        child = psutil.Process(show.pool.pid)
        resident, idle = [], None
        for round_ in range(5):
            for number in range(20):
                room = f"r{round_}-{number}"
                show.pool.open_room(room)
                show.join(room, "ann", 300 + number)
                show.listen(room, "program")
                last = show.listen(room, "ann", exclude=("ann",))
            await show.heard(last, 5)
            for number in range(20):
                show.pool.close_room(f"r{round_}-{number}")
            show.mouths.clear()
            await asyncio.sleep(0.3)
            resident.append(child.memory_info().rss)
            idle = idle or footprint(child)
            assert footprint(child) == idle
        assert resident[-1] - resident[1] <= 4 << 20
    assert not child.is_running()
    gc.collect()  # the test's own ends of the rings
    assert (footprint(me), len(me.children())) == before


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # the directory's own, closed by now
        return ""
