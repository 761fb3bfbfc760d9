"""A PK as people have it: invited and ended in the studio, counted down and watched on the watch page."""

from __future__ import annotations

from tests.interop.clients.chromium import Chromium
from tests.interop.relays import Relay, eventually, on_stage
from tests.interop.test_pages import PLAYING, faults

WORDS = "document.querySelector('#pk .pk-words').textContent"


async def test_a_pk_of_two_rooms(relay: Relay, chromium: Chromium) -> None:
    wanted = {"codecs": ["opus", "vp8"]}
    red, blue = await relay.room(**wanted), await relay.room(**wanted)
    async with on_stage(red.host(1, "rita"), blue.host(2, "bea")):
        studio = await chromium.tab(red.page("studio", "olga", "owner"), helpers=False)
        await studio.page.wait_for_function("() => document.getElementById('preview').videoWidth > 0", timeout=30_000)
        await studio.page.select_option("#layers", "1")
        await studio.page.click("#go")
        await studio.page.wait_for_selector("#studio:not([hidden])", timeout=30_000)
        viewer = await chromium.tab(red.page("watch", "vera", "viewer"), helpers=False)

        async def shown() -> set[str]:
            return {tile["name"] for tile in await viewer.page.evaluate(PLAYING)}

        own, both = {"olga", "rita"}, {"olga", "rita", f"{blue.id}/bea"}
        await eventually(shown, lambda names: names == own, 40)
        await studio.page.fill("[data-field=pk-room]", blue.id)
        await studio.page.click("[data-action=pk-invite]")
        invited = await eventually(lambda: blue.ask("GET", "pk"), lambda told: told["invitations"])
        (pk,) = (each["id"] for each in invited["invitations"])
        await blue.ask("POST", f"pk/{pk}/accept")
        await eventually(lambda: viewer.page.evaluate(WORDS), lambda words: f"PK with {blue.id} in" in words)
        await eventually(shown, lambda names: names == both, 40)
        await studio.page.click("[data-action=pk-score]")
        await blue.ask("POST", f"pk/{pk}/score", {"points": 5})
        for tab in (studio, viewer):
            await eventually(
                lambda tab=tab: tab.page.evaluate(WORDS),  # type: ignore[misc]
                lambda words: words.startswith(f"{red.id} 1 : 5 {blue.id} · "),
            )
        await studio.page.click("[data-action=pk-end]")
        await eventually(shown, lambda names: names == own)
        assert (await red.ask("GET", "pk"))["last"]["scores"] == {red.id: 1, blue.id: 5}
        assert not faults(studio, viewer)
