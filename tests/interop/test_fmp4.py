"""The pages' fmp4.js, in the browser: when the pictures of a fragment happened, whatever the fragment is like."""

from __future__ import annotations

from relay.egress.mp4 import AUDIO_TRACK, VIDEO_TRACK, Run, Sample, fragment
from tests.interop.clients.chromium import Chromium
from tests.interop.relays import Relay

READ = """async (fragments) => {
    const { firstPicture } = await import('/js/fmp4.js');
    return fragments.map((bytes) => firstPicture(new Uint8Array(bytes).buffer));
}"""

SPOILT = """async (bytes) => {
    const { firstPicture } = await import('/js/fmp4.js');
    let seed = 1, read = 0;
    const random = (below) => (seed = (seed * 1103515245 + 12345) % 2147483648) % below;
    for (let length = 0; length < bytes.length; length++) firstPicture(new Uint8Array(bytes.slice(0, length)).buffer);
    for (let round = 0; round < 3000; round++) {
        const copy = new Uint8Array(bytes);
        for (let flips = 1 + random(4); flips; flips--) copy[random(copy.length)] = random(256);
        read += firstPicture(copy.buffer) !== null;
    }
    return read;
}"""

CLOCK = """async (bytes) => {
    const { PictureClock } = await import('/js/fmp4.js');
    const clock = new PictureClock(), payload = new Uint8Array(bytes).buffer;
    const at = (cc, date) => ({ frag: { cc, programDateTime: date }, payload });
    const out = [clock.momentOf(1)];
    clock.loaded({ ...at(0, 10_000), part: { index: 1 } });
    clock.loaded(at(0, null));
    out.push(clock.lines.length);
    clock.loaded({ ...at(0, 10_000), part: { index: 0 } });
    clock.loaded(at(0, 10_000));
    out.push(clock.momentOf(1));
    clock.began({ frag: { cc: 0 }, initPTS: -90_000, timescale: 90_000 });
    out.push(clock.lines.length, clock.momentOf(6), clock.momentOf(6.5), clock.momentOf(5));
    return out;
}"""


def made(*, video: bool = True, time: int = 450_000) -> list[int]:
    sound = Run(AUDIO_TRACK, 7, [Sample(b"\x01" * 9, 1024)])
    picture = Run(VIDEO_TRACK, time, [Sample(b"\x02" * 5, 3000)])
    return list(fragment(3, [sound, picture] if video else [sound]))


async def test_the_first_picture_of_a_fragment(chromium: Chromium, relay: Relay) -> None:
    tab = await chromium.tab(f"{relay.https}/", helpers=False)
    read = await tab.page.evaluate(READ, [made(), made(time=1 << 40), made(video=False), [], [0] * 40])
    assert read == [5.0, (1 << 40) / 90_000, None, None, None]
    assert await tab.page.evaluate(SPOILT, made()) > 0
    assert not [error for error in tab.errors if "Failed to load resource" not in error]


async def test_moments_count_from_the_first_picture(chromium: Chromium, relay: Relay) -> None:
    tab = await chromium.tab(f"{relay.https}/", helpers=False)
    told = await tab.page.evaluate(CLOCK, made())
    assert told == [None, 0, None, 1, 10_000, 10_500, 9_000]
