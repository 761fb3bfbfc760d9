"""PKs through the API: two rooms, their owners, and everybody who may not."""

from __future__ import annotations

from typing import Any

import pytest

from relay.ids import sync_id_at
from relay.ports import RoomStore
from relay.stage.document import RoomState
from relay.stage.pk_room import current, pk_view, shown, with_guests
from tests.signaling.api_client import Api, problem

RED, BLUE = "owner:rita@red", "owner:bea@blue"


@pytest.fixture
async def rooms(api: Api) -> Api:
    for room in ("red", "blue", "green"):
        made = await api.call("POST", "/v1/rooms", "service", json={"id": room})
        assert made.status_code == 201
    return api


async def invite(api: Api, **more: Any) -> str:
    answer = await api.call("POST", "/v1/rooms/red/pk", RED, json={"room": "blue", **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def state_of(api: Api, room: str) -> RoomState:
    return RoomState.from_json(await api.store.read(room))


async def told(api: Api, room: str) -> list[tuple[str, dict[str, Any]]]:
    last = int((await api.store.read(room))["sync_id"])
    found = []
    async for event in api.store.events(room, 0):
        if event.type.startswith("pk."):
            found.append((event.type, event.data))
        if event.sync_id >= last:
            break
    return found


async def test_a_pk_from_invitation_to_result(rooms: Api) -> None:
    pk = await invite(rooms, duration_s=60, countdown_s=5)
    seen = (await rooms.call("GET", "/v1/rooms/blue/pk", BLUE)).json()
    assert [each["other"] for each in seen["invitations"]] == ["red"]
    assert seen["current"] is None
    began = rooms.now
    accepted = await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", BLUE)
    assert accepted.status_code == 200, accepted.text
    body = accepted.json()
    assert body["state"] == "running"
    assert int(body["starts_at"]) == sync_id_at(round((began + 5) * 1e6))
    assert int(body["ends_at"]) == sync_id_at(round((began + 65) * 1e6))
    early = await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/score", BLUE, json={"points": 5})
    assert problem(early) == (409, "pk-not-running")
    rooms.now += 6
    for room, who, points in (("blue", BLUE, 5), ("red", "guest:gus@red", 7), ("red", RED, -1)):
        scored = await rooms.call("POST", f"/v1/rooms/{room}/pk/{pk}/score", who, json={"points": points, "at": "12"})
        assert scored.status_code == 200, scored.text
    ended = await rooms.call("POST", f"/v1/rooms/red/pk/{pk}/end", "guest:gus@red")
    assert ended.json()["scores"] == {"red": 6, "blue": 5}
    again = await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/end", BLUE)
    assert again.status_code == 200
    for room, who in (("red", RED), ("blue", BLUE)):
        events = await told(rooms, room)
        kinds = ["pk.invited", "pk.started", "pk.scored", "pk.scored", "pk.scored", "pk.ended"]
        assert [kind for kind, _ in events] == kinds
        assert events[1][1]["starts_at"] == body["starts_at"] == events[1][1]["at"]
        assert events[2][1]["at"] == "12"
        assert events[-1][1]["winner"] == "red"
        seen = (await rooms.call("GET", f"/v1/rooms/{room}/pk", who)).json()
        assert seen["current"] is None
        assert seen["invitations"] == []
        assert seen["last"]["scores"] == {"red": 6, "blue": 5}
        assert seen["last"]["reason"] == "ended"


async def test_who_may_do_what(rooms: Api) -> None:
    for who in ("guest:gus@red", "viewer:vera@red"):
        refused = await rooms.call("POST", "/v1/rooms/red/pk", who, json={"room": "blue"})
        assert problem(refused) == (403, "forbidden")
    pk = await invite(rooms)
    assert problem(await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", RED)) == (403, "wrong-room")
    assert problem(await rooms.call("POST", f"/v1/rooms/red/pk/{pk}/accept", RED)) == (403, "forbidden")
    assert problem(await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", "viewer:vera@blue")) == (403, "forbidden")
    assert problem(await rooms.call("POST", f"/v1/rooms/green/pk/{pk}/end", "owner:gina@green")) == (
        404,
        "pk-not-found",
    )
    assert problem(await rooms.call("POST", "/v1/rooms/blue/pk/none/accept", BLUE)) == (404, "pk-not-found")
    assert (await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", "moderator:mo@blue")).status_code == 200
    rooms.now += 4
    refused = await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/score", "viewer:vera@blue", json={"points": 1})
    assert problem(refused) == (403, "forbidden")
    for body in ({"points": 0}, {"points": True}, {"points": 1, "at": "x"}, {"points": 2_000_000}, {}):
        refused = await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/score", BLUE, json=body)
        assert problem(refused)[0] in (400, 422)


async def test_wrong_invitations(rooms: Api) -> None:
    call = rooms.call
    assert problem(await call("POST", "/v1/rooms/red/pk", RED, json={"room": "red"})) == (409, "pk-same-room")
    assert problem(await call("POST", "/v1/rooms/red/pk", RED, json={"room": "nowhere"})) == (404, "room-not-found")
    times = ({"duration_s": 1}, {"duration_s": "300"}, {"countdown_s": 0}, {"countdown_s": "3"})
    for wrong in (*({"room": "blue"} | each for each in times), {"room": "no room"}, {}):
        assert problem(await call("POST", "/v1/rooms/red/pk", RED, json=wrong)) == (422, "invalid-request")
    for _ in range(16):
        await invite(rooms)
    assert problem(await call("POST", "/v1/rooms/red/pk", RED, json={"room": "blue"})) == (409, "room-full")


async def test_invitations_are_declined_withdrawn_or_run_out(rooms: Api) -> None:
    for room, who, reason in (("blue", BLUE, "declined"), ("red", RED, "withdrawn")):
        pk = await invite(rooms)
        answer = await rooms.call("POST", f"/v1/rooms/{room}/pk/{pk}/decline", who)
        assert answer.json()["reason"] == reason
        assert problem(await rooms.call("POST", f"/v1/rooms/{room}/pk/{pk}/decline", who)) == (409, "pk-over")
        assert problem(await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", BLUE)) == (409, "pk-over")
        for each in ("red", "blue"):
            assert (await told(rooms, each))[-1] == (
                "pk.declined", {"pk": pk, "reason": reason, "by": who.partition(":")[2].partition("@")[0]}
            )  # fmt: skip
    pk = await invite(rooms)
    rooms.now += 61
    assert problem(await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", BLUE)) == (409, "pk-over")


async def test_a_room_has_one_pk_at_a_time(rooms: Api) -> None:
    first = await invite(rooms)
    green = await rooms.call("POST", "/v1/rooms/green/pk", "owner:gina@green", json={"room": "blue"})
    assert (await rooms.call("POST", f"/v1/rooms/blue/pk/{first}/accept", BLUE)).status_code == 200
    busy = await rooms.call("POST", f"/v1/rooms/blue/pk/{green.json()['id']}/accept", BLUE)
    assert problem(busy) == (409, "pk-busy")
    assert current(await state_of(rooms, "blue")).id == first  # type: ignore[union-attr]
    assert (await told(rooms, "green"))[-1][1]["reason"] == "busy"


async def test_the_end_of_a_room_ends_its_pk(rooms: Api) -> None:
    pk = await invite(rooms)
    await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", BLUE)
    assert (await rooms.call("DELETE", "/v1/rooms/blue", BLUE)).status_code == 204
    seen = (await rooms.call("GET", "/v1/rooms/red/pk", RED)).json()
    assert seen["current"] is None
    assert seen["last"]["reason"] == "room-ended"


async def test_both_rooms_see_both_stages(rooms: Api, store: RoomStore) -> None:
    pk = await invite(rooms)
    await rooms.call("POST", f"/v1/rooms/blue/pk/{pk}/accept", BLUE)
    red, blue = await state_of(rooms, "red"), await state_of(rooms, "blue")
    before, during, after = (sync_id_at(round((rooms.now + s) * 1e6)) for s in (2.9, 3.1, 304))
    for own, other in ((red, blue), (blue, red)):
        assert shown(own, other, before) is None
        assert shown(own, other, during) is not None
        assert shown(own, other, after) is None
        view = pk_view(own, other, before)
        assert view is not None
        assert view.phase == "countdown"
        assert view.own.room == own.id
        assert with_guests(own, other).on_air() == own.on_air()
    # A room of the same name that began anew has no part in it.
    await store.delete("blue", ("room.ended", {}))
    await rooms.call("POST", "/v1/rooms", "service", json={"id": "blue"})
    assert shown(red, await state_of(rooms, "blue"), during) is None
