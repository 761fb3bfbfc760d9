"""The pages' frames.js, in the browser: wrap-around, re-binding, and events that wait for their frame."""

from __future__ import annotations

from typing import Any

from tests.interop.clients.chromium import Chromium, Tab
from tests.interop.relays import Relay

CLOCK = """async ({ steps, ask }) => {
    const { FrameClock } = await import('/js/frames.js');
    const clock = new FrameClock();
    for (const [what, data] of steps) clock[what](data);
    return ask.map((timestamp) => clock.syncIdOf(timestamp)?.toString() ?? null);
}"""

HELD = """async () => {
    const { HeldEvents, Shown } = await import('/js/frames.js');
    const shown = new Shown(), out = [], ms = 65536n;
    const held = new HeldEvents(() => [shown], ({ data }) => out.push(data.name), 300);
    const add = (name, at) => held.add({ type: 'app.x', data: { name, at: String(at * ms) } });
    const show = (at) => { shown.frame(at * ms); held.look(); out.push(Number(at)); };
    show(1000n); show(1040n);
    add('now', 1040n); add('next', 1080n); add('later', 1120n); add('never', 9000n); add('past', 10n);
    show(1081n); show(1119n);
    await new Promise((resolve) => setTimeout(resolve, 500));
    held.slotsFor = () => [];
    add('nothing plays', 5000n);
    return out;
}"""

WRAP = 1 << 32
SECOND = 65_536_000


async def page(chromium: Chromium, relay: Relay) -> Tab:
    return await chromium.tab(f"{relay.https}/", helpers=False)


def at(timestamp: int, sync_id: int | None) -> dict[str, Any]:
    return {
        "rtp_timestamp": timestamp % WRAP,
        "sync_id": None if sync_id is None else str(sync_id),
        "clock_hz": 90_000,
    }


async def test_rtp_timestamps_become_sync_ids(chromium: Chromium, relay: Relay) -> None:
    tab = await page(chromium, relay)
    big = 117_653_650_758_890_487

    async def ask(steps: list[Any], *timestamps: int) -> list[str | None]:
        found: list[str | None] = await tab.page.evaluate(
            CLOCK, {"steps": steps, "ask": [timestamp % WRAP for timestamp in timestamps]}
        )
        return found

    first = WRAP - 100
    assert await ask([], 5) == [None]
    # across the wrap-around, and not before the binding
    assert await ask([["bound", at(first, big)]], first, first + 90_000, first - 1) == [
        str(big),
        str(big + SECOND),
        None,
    ]
    # what waits to be shown is the former binding's until the new one's first frame
    steps = [["bound", at(first, big)], ["bound", at(first + 9000, big + 7 * SECOND)]]
    assert await ask(steps, first + 8999, first + 9000) == [
        str(big + 8999 * SECOND // 90_000), str(big + 7 * SECOND)
    ]  # fmt: skip
    # not placed yet, then placed; and placed without a binding having been heard
    steps = [["bound", at(first, None)]]
    assert await ask(steps, first) == [None]
    assert await ask([*steps, ["timeline", at(first + 90_000, big)]], first) == [str(big - SECOND)]
    assert await ask([["timeline", at(first, big)]], first - 45_000) == [str(big - SECOND // 2)]
    # for a day: far longer than half of the timestamps' range
    day = [["timeline", at(first + second * 90_000, big + second * SECOND)] for second in range(0, 86_400, 600)]
    assert await ask([["bound", at(first, big)], *day], first + 86_000 * 90_000) == [str(big + 86_000 * SECOND)]


async def test_events_wait_for_their_frame(chromium: Chromium, relay: Relay) -> None:
    tab = await page(chromium, relay)
    assert await tab.page.evaluate(HELD) == [
        1000, 1040, "now", "past", "next", 1081, "later", 1119, "never", "nothing plays"
    ]  # fmt: skip
