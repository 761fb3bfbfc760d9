"""One sound for each host, with libwebrtc at both ends: everybody else is in it, and not he himself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from costream.whip import Refused
from tests.interop.clients.chromium import Chromium
from tests.interop.clients.tones import RATE, level
from tests.interop.clients.wrtc_client import Watcher
from tests.interop.relays import Relay, Room, eventually, on_stage, session_of, tone_of
from tests.interop.test_pages import SOUNDING, faults
from tests.interop.test_program import workers
from tests.processes import ended

HOSTS = (1, 2, 3)
PATIENCE_S = 40.0
BETWEEN = 1900.0  # Hz, nobody's tone


def listener(room: Room, host: int | None = None) -> Watcher:
    """A host's second session, or a viewer's, with one slot for sound and none for pictures."""
    token = room.token("viewer", "viewer") if host is None else room.token(f"h{host}", "guest")
    return Watcher(f"{room.whep}?sound=mix", token, videos=0)


def heard(watcher: Watcher) -> set[int]:
    """The hosts whose tones stand out in the last half second."""
    (slot,) = watcher.audios
    sound = np.concatenate(list(slot.sound))[-RATE // 2 :] if slot.sound else np.zeros(0, np.int16)
    if len(sound) < RATE // 2:
        return set()
    floor = max(-45.0, level(sound, BETWEEN) + 15)
    return {host for host in HOSTS if level(sound, tone_of(host)) > floor}


@pytest.fixture
def small(relay_with: Callable[..., Relay]) -> Iterator[Relay]:
    return relay_with(mix__audio__one_sounds_per_room=3)


async def playing(room: Room, watcher: Watcher) -> str | None:
    return (await room.session(session_of(watcher)))["slots"][0]["publication"]  # type: ignore[no-any-return]


async def test_three_hosts_hear_the_other_two(small: Relay) -> None:
    room = await small.room(codecs=["opus", "vp8"])
    first, second, third = (room.host(host, fps=5) for host in HOSTS)
    async with (
        on_stage(first, second, third),
        listener(room, 1) as one,
        listener(room, 2) as two,
        listener(room, 3) as three,
        listener(room) as viewer,
    ):
        alone = {one: {2, 3}, two: {1, 3}, three: {1, 2}, viewer: {1, 2, 3}}
        for watcher, others in alone.items():
            await watcher.until(lambda watcher=watcher, others=others: heard(watcher) == others, PATIENCE_S)
        assert [await playing(room, each) for each in alone] == ["mix:h1", "mix:h2", "mix:h3", "mix"]
        assert workers(small, "relay.mix.video") == []
        with pytest.raises(Refused) as refused:
            async with Watcher(f"{room.whep}?sound=mix", room.token("h4", "guest"), videos=0):
                pass
        assert refused.value.status == 409
        assert "too-many-mixes" in refused.value.body

        await room.ask("PATCH", "participants/h1", {"muted": {"audio": True}})
        await two.until(lambda: heard(two) == {3}, PATIENCE_S)
        assert heard(one) == {2, 3}
        await room.ask("PATCH", "participants/h1", {"muted": {"audio": False}})

        killed = max(workers(small, "relay.mix.audio"), key=lambda each: sum(each.cpu_times()[:2]))
        killed.kill()
        await ended(killed.pid)
        for watcher in alone:
            watcher.audios[0].sound.clear()
        for watcher, others in alone.items():
            await watcher.until(lambda watcher=watcher, others=others: heard(watcher) == others, PATIENCE_S)

        await third.stop()
        await three.close()
        await one.until(lambda: heard(one) == {2}, PATIENCE_S)
        async with Watcher(f"{room.whep}?sound=mix", room.token("h4", "guest"), videos=0) as fourth:
            await fourth.until(lambda: heard(fourth) == {1, 2}, PATIENCE_S)
    assert small.stop() == 0


async def test_the_studio_has_a_box_for_it(small: Relay, chromium: Chromium) -> None:
    room = await small.room(codecs=["opus", "vp8"])
    async with on_stage(room.host(1, fps=5), room.host(2, fps=5)):
        studio = await chromium.tab(room.page("studio", "olga", "owner"), helpers=False)
        await studio.page.wait_for_function("() => document.getElementById('preview').videoWidth > 0", timeout=30_000)
        await studio.page.select_option("#layers", "1")
        await studio.page.check("#one-sound")
        await studio.page.click("#go")
        await studio.page.wait_for_selector("#studio:not([hidden])", timeout=30_000)
        await studio.page.wait_for_function(
            "() => costream.viewer.slots.filter((slot) => slot.kind === 'audio').map((slot) => slot.publication).join()"
            " === 'mix:olga'"
        )
        await eventually(lambda: studio.page.evaluate(SOUNDING), lambda count: count == 1)
        assert faults(studio) == []
