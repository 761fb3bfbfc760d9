"""The program in the API: who may switch and arrange it, what is refused, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.signaling.api_client import Api, problem

PATH = "/v1/rooms/demo/program"


async def put(api: Api, who: str = "owner", **wanted: Any) -> dict[str, Any]:
    response = await api.call("PUT", PATH, who, json=wanted)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def rectangle(**other: Any) -> dict[str, Any]:
    return {"kind": "custom", "rectangles": [{"identity": "a", "x": 0, "y": 0, "width": 1, "height": 1, **other}]}


async def test_it_is_switched_on_changed_and_off(api: Api) -> None:
    assert problem(await api.call("GET", PATH, "viewer")) == (404, "program-not-found")
    made = await put(api, fps=15, layout={"kind": "speaker", "order": ["bob"]})
    assert (made["state"], made["fps"], made["width"], made["node"], made["video"]) == ("waiting", 15, None, None, None)
    assert made["layout"] == {"kind": "speaker", "fit": "letterbox", "order": ["bob"]}
    assert (await api.call("GET", PATH, "viewer")).json() == made
    changed = await put(api, width=640, height=360, codec="vp8", names=False)
    assert (changed["width"], changed["fps"], changed["names"]) == (640, None, False)
    assert changed["layout"] == made["layout"], "a layout that is not named stays"
    assert (await api.call("DELETE", PATH, "owner")).status_code == 204
    assert problem(await api.call("DELETE", PATH, "owner")) == (404, "program-not-found")


async def test_layouts_can_be_timed(api: Api) -> None:
    await put(api)
    at = str(int(api.now * 1000 + 5000) << 16)
    custom = {
        "kind": "custom",
        "rectangles": [{"identity": "bob/screen", "x": 0, "y": 0.5, "width": 1, "height": 0.5}],
    }
    body = {"layout": custom, "at": at, "animate": 5}
    response = await api.call("POST", f"{PATH}/layout", "owner", json=body)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["layout"]["kind"] == "grid"
    assert found["pending"] == [{"at": at, "animate": 5, "layout": {"fit": "letterbox", **custom}}]
    now = await api.call("POST", f"{PATH}/layout", "owner", json={"layout": {"kind": "grid", "fit": "crop"}})
    assert now.json()["layout"] == {"kind": "grid", "fit": "crop"}
    assert [each["at"] for each in now.json()["pending"]] == [at]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"width": 650, "height": 360}, 422),
        ({"width": 640}, 400),
        ({"fps": 0}, 422),
        ({"codec": "av1"}, 422),
        ({"bitrate_bps": 1}, 422),
        ({"layout": {"kind": "mosaic"}}, 422),
        ({"layout": {"kind": "side_by_side", "left": ["a"]}}, 400),
        ({"layout": {"kind": "side_by_side", "left": ["a"], "right": ["a"]}}, 400),
        ({"layout": {"kind": "custom"}}, 400),
        ({"layout": rectangle(x="0")}, 422),
        ({"layout": rectangle(width=True)}, 422),
        ({"layout": {"order": ["a", "a"]}}, 422),
        ({"layout": {"order": ["a b"]}}, 422),
        ({"layout": {"order": [f"p{n}" for n in range(17)]}}, 422),
        ({"loudness": 3}, 422),
        ([], 422),
    ],
)
async def test_what_cannot_be_shown_is_refused_and_changes_nothing(api: Api, body: Any, status: int) -> None:
    made = await put(api, fps=20)
    assert (await api.call("PUT", PATH, "owner", json=body)).status_code == status
    assert (await api.call("GET", PATH, "owner")).json() == made


async def test_a_rectangle_outside_and_a_far_future_are_refused(api: Api) -> None:
    outside = {"kind": "custom", "rectangles": [{"identity": "a", "x": 0.6, "y": 0, "width": 0.5, "height": 1}]}
    path = f"{PATH}/layout"
    assert problem(await api.call("POST", path, "owner", json={"layout": {}})) == (404, "program-not-found")
    await put(api)
    assert problem(await api.call("POST", path, "owner", json={"layout": outside})) == (400, "bad-request")
    far = str(int(api.now * 1000 + 7_200_000) << 16)
    assert problem(await api.call("POST", path, "owner", json={"layout": {}, "at": far})) == (400, "bad-request")
    assert problem(await api.call("POST", path, "owner", json={"layout": {}, "at": "-1"})) == (422, "invalid-request")
    assert problem(await api.call("POST", path, "owner", json={"layout": {}, "animate": 121})) == (
        422,
        "invalid-request",
    )


@pytest.mark.parametrize("who", ["viewer", "guest"])
async def test_only_the_crew_may(api: Api, who: str) -> None:
    await put(api, "service")
    calls = (("PUT", PATH, {}), ("DELETE", PATH, None), ("POST", f"{PATH}/layout", {"layout": {}}))
    for method, path, body in calls:
        assert problem(await api.call(method, path, who, json=body)) == (403, "forbidden")
    assert problem(await api.call("PUT", PATH, json={}))[0] == 401


async def test_viewers_ask_for_it_with_their_offer(api: Api) -> None:
    for path, program in (("/whep/demo", False), ("/whep/demo?play=program", True), ("/whep/demo?play=stage", False)):
        response = await api.offer(path, "viewer")
        assert response.status_code == 201, response.text
        assert api.node.offers[-1].program is program
    assert problem(await api.offer("/whep/demo?play=radio", "viewer")) == (400, "invalid-parameter")
    assert problem(await api.offer("/whip/demo?play=program", "guest")) == (400, "invalid-parameter")


async def test_who_wants_one_sound_says_so_with_his_offer(api: Api) -> None:
    for query, wanted in (("", (False, False)), ("?sound=mix", (False, True)), ("?sound=voices", (False, False))):
        assert (await api.offer(f"/whep/demo{query}", "viewer")).status_code == 201
        assert (api.node.offers[-1].program, api.node.offers[-1].one_sound) == wanted
    assert (await api.offer("/whep/demo?sound=mix&play=program", "guest")).status_code == 201
    assert (api.node.offers[-1].program, api.node.offers[-1].one_sound) == (True, True)
    assert problem(await api.offer("/whep/demo?sound=both", "viewer")) == (400, "invalid-parameter")
    assert problem(await api.offer("/whip/demo?sound=mix", "guest")) == (400, "invalid-parameter")
