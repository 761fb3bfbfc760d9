"""Rooms, tokens, participants, the stage and publications, as a show uses them."""

from __future__ import annotations

import time

from relay.stage.permissions import Actor, Role
from relay.stage.publications import start_publication
from signaling.rooms.service import change_room
from tests.signaling.api_client import Api, problem


async def on_stage(api: Api, role: str, identity: str) -> None:
    """Let somebody publish, as a node notes it."""
    actor = Actor(identity, Role(role))
    await change_room(
        api.app.state.context,
        "demo",
        lambda state: start_publication(
            state,
            actor,
            api.now,
            publication=f"p-{identity}",
            kind="video",
            source="camera",
            codec="vp8",
            node="n1",
            session=f"n1~{identity}",
            layers=("q", "h", "f"),
        ),
    )


async def test_a_room_from_creation_to_end(api: Api) -> None:
    wanted = {"id": "show", "codecs": ["opus", "vp8"], "max_seats": 3, "stage_policy": "invite", "metadata": {"a": 1}}
    created = await api.call("POST", "/v1/rooms", "service", json=wanted)
    assert created.status_code == 201
    assert created.headers["Location"] == "/v1/rooms/show"
    room = created.json()
    assert {name: room[name] for name in wanted} == wanted
    assert (room["on_air"], room["participants"]) == ([], 0)
    assert int(room["sync_id"]) > 0
    assert problem(await api.call("POST", "/v1/rooms", "owner@show", json=wanted)) == (409, "room-exists")
    listed = await api.call("GET", "/v1/rooms", "service")
    assert {each["id"] for each in listed.json()["rooms"]} >= {"demo", "show"}
    assert [each["id"] for each in (await api.call("GET", "/v1/rooms", "guest")).json()["rooms"]] == ["demo"]
    assert (await api.call("DELETE", "/v1/rooms/show", "owner@show")).status_code == 204
    assert problem(await api.call("DELETE", "/v1/rooms/show", "owner@show")) == (404, "room-not-found")
    assert problem(await api.call("GET", "/v1/rooms/show", "owner@show")) == (404, "room-not-found")


async def test_synthetic_rooms_carry_their_traffic(api: Api) -> None:
    made = await api.call("POST", "/v1/rooms", "service", json={"id": "dry-run", "traffic": "drill"})
    assert (made.status_code, made.json()["traffic"]) == (201, "drill")
    assert (await api.call("GET", "/v1/rooms/demo", "guest")).json()["traffic"] == "live"
    wrong = await api.call("POST", "/v1/rooms", "service", json={"id": "other", "traffic": "real"})
    assert problem(wrong) == (422, "invalid-request")


async def test_minted_tokens_work_and_expire(api: Api) -> None:
    wanted = {"room": "demo", "identity": "bob", "role": "guest", "ttl_s": 60}
    minted = await api.call("POST", "/v1/tokens", "owner", json=wanted)
    assert minted.status_code == 201
    header = {"Authorization": f"Bearer {minted.json()['token']}"}
    assert (await api.call("GET", "/v1/rooms/demo", headers=header)).status_code == 200
    expires = time.gmtime(api.now + 60)
    assert minted.json()["expires_at"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", expires))
    api.now += 70
    assert problem(await api.call("GET", "/v1/rooms/demo", headers=header)) == (401, "invalid-token")


async def test_from_invitation_to_seat(api: Api) -> None:
    invited = await api.call("POST", "/v1/rooms/demo/stage/invitations", "owner", json={"identity": "carol"})
    assert invited.status_code == 201
    assert [each["identity"] for each in invited.json()["invitations"]] == ["carol"]
    path = "/v1/rooms/demo/stage/invitations/carol"
    assert problem(await api.call("POST", f"{path}/accept", "viewer:eve")) == (403, "forbidden")
    accepted = await api.call("POST", f"{path}/accept", "viewer:carol")
    assert accepted.status_code == 200
    assert [(seat["identity"], seat["state"]) for seat in accepted.json()["stage"]["seats"]] == [("carol", "on_air")]
    header = {"Authorization": f"Bearer {accepted.json()['token']}"}
    published = await api.offer("/whip/demo", None, **header)
    assert published.status_code == 201
    assert api.node.offers[0].role == "guest"
    assert problem(await api.call("POST", f"{path}/accept", "viewer:carol")) == (404, "invitation-not-found")
    assert problem(await api.call("POST", f"{path}/decline", "viewer:carol")) == (404, "invitation-not-found")


async def test_a_declined_invitation(api: Api) -> None:
    await api.call("POST", "/v1/rooms/demo/stage/invitations", "moderator", json={"identity": "carol"})
    declined = await api.call("POST", "/v1/rooms/demo/stage/invitations/carol/decline", "viewer:carol")
    assert (declined.status_code, declined.json()["invitations"]) == (200, [])


async def test_seats_are_limited(api: Api) -> None:
    for who in ("ann", "bob", "cid"):
        await on_stage(api, "guest", who)
    seats = (await api.call("GET", "/v1/rooms/demo/stage", "viewer")).json()["seats"]
    assert [(seat["identity"], seat["state"], seat["connected"]) for seat in seats] == [
        ("ann", "on_air", True),
        ("bob", "on_air", True),
        ("cid", "backstage", True),
    ]
    path = "/v1/rooms/demo/stage/seats"
    assert problem(await api.call("PUT", f"{path}/cid", "guest:cid", json={"state": "on_air"})) == (409, "seat-taken")
    assert problem(await api.call("PUT", f"{path}/ann", "guest:cid", json={"state": "backstage"})) == (403, "forbidden")
    assert (await api.call("PUT", f"{path}/ann", "moderator", json={"state": "backstage"})).status_code == 200
    moved = await api.call("PUT", f"{path}/cid", "guest:cid", json={"state": "on_air"})
    assert {seat["identity"] for seat in moved.json()["seats"] if seat["state"] == "on_air"} == {"bob", "cid"}
    assert (await api.call("GET", "/v1/rooms/demo", "viewer")).json()["on_air"] == ["bob", "cid"]
    left = await api.call("DELETE", f"{path}/bob", "guest:bob")
    assert "bob" not in {seat["identity"] for seat in left.json()["seats"]}
    assert problem(await api.call("DELETE", f"{path}/bob", "guest:bob")) == (404, "participant-not-found")
    assert problem(await api.call("PUT", f"{path}/zoe", "owner", json={"state": "on_air"}))[0] == 404


async def test_participants_are_muted_and_removed(api: Api) -> None:
    await on_stage(api, "guest", "bob")
    await api.store.put_viewer("demo", "carol", {"role": "viewer", "since": api.now})
    people = (await api.call("GET", "/v1/rooms/demo/participants", "viewer")).json()["participants"]
    assert [(who["identity"], who["state"]) for who in people] == [("bob", "on_air"), ("carol", "audience")]
    path = "/v1/rooms/demo/participants/bob"
    muted = await api.call("PATCH", path, "moderator", json={"muted": {"audio": True}})
    assert muted.json()["muted"] == {"audio": True, "video": False}
    assert problem(await api.call("PATCH", path, "guest:eve", json={"muted": {"audio": False}})) == (403, "forbidden")
    assert (await api.call("PATCH", path, "guest:bob", json={"muted": {"audio": False}})).status_code == 200
    assert problem(await api.call("PATCH", path, "moderator", json={"role": "viewer"})) == (403, "forbidden")
    unknown = "/v1/rooms/demo/participants/zoe"
    assert problem(await api.call("PATCH", unknown, "owner", json={"muted": {}})) == (404, "participant-not-found")
    assert (await api.call("DELETE", path, "moderator")).status_code == 204
    people = (await api.call("GET", "/v1/rooms/demo/participants", "viewer")).json()["participants"]
    assert [who["identity"] for who in people] == ["carol"]


async def test_an_owner_cannot_be_removed(api: Api) -> None:
    await on_stage(api, "owner", "owner")
    assert problem(await api.call("DELETE", "/v1/rooms/demo/participants/owner", "moderator")) == (403, "forbidden")


async def test_publications_are_muted_and_ended(api: Api) -> None:
    await on_stage(api, "guest", "bob")
    (publication,) = (await api.call("GET", "/v1/rooms/demo/publications", "viewer")).json()["publications"]
    assert (publication["identity"], publication["layers"]) == ("bob", ["q", "h", "f"])
    path = f"/v1/rooms/demo/publications/{publication['id']}"
    assert (await api.call("PATCH", path, "guest:bob", json={"muted": True})).json()["muted"] is True
    assert problem(await api.call("PATCH", path, "guest:eve", json={"muted": False})) == (403, "forbidden")
    assert (await api.call("DELETE", path, "owner")).status_code == 204
    assert problem(await api.call("DELETE", path, "owner")) == (404, "publication-not-found")


async def test_sessions_and_slots(api: Api) -> None:
    await api.offer("/whep/demo", "viewer:carol")
    await api.offer("/whip/demo", "guest:bob")

    async def seen(who: str) -> list[str]:
        listed = await api.call("GET", "/v1/rooms/demo/sessions", who)
        return [each["identity"] for each in listed.json()["sessions"]]

    assert await seen("owner") == await seen("moderator") == await seen("service") == ["carol", "bob"]
    assert await seen("viewer:carol") == ["carol"]
    path = "/v1/sessions/n1~s1"
    assert (await api.call("GET", path, "viewer:carol")).json()["kind"] == "viewer"
    assert problem(await api.call("GET", path, "guest:bob")) == (403, "forbidden")
    assert problem(await api.call("GET", path, "viewer:carol@other")) == (403, "wrong-room")
    assert (await api.call("GET", f"{path}/slots", "viewer:carol")).json()["slots"][0]["index"] == 0
    changed = await api.call("PATCH", f"{path}/slots/0", "viewer:carol", json={"layer": "q", "paused": True})
    assert changed.json() | {"pinned_layer": "q", "paused": True, "max_layer": None} == changed.json()
    assert problem(await api.call("PATCH", f"{path}/slots/7", "viewer:carol", json={})) == (404, "slot-not-found")
    assert problem(await api.call("PATCH", f"{path}/slots/-1", "viewer:carol", json={}))[0] == 400
    wrong = await api.call("PATCH", f"{path}/slots/0", "viewer:carol", json={"publication": "nobody"})
    assert problem(wrong) == (404, "publication-not-found")
    assert (await api.call("DELETE", path, "viewer:carol")).status_code == 204
    assert problem(await api.call("DELETE", path, "viewer:carol")) == (404, "session-not-found")
    assert problem(await api.call("GET", "/v1/sessions/nonsense", "viewer:carol")) == (404, "session-not-found")


async def test_nodes_are_listed(api: Api) -> None:
    (node,) = (await api.call("GET", "/v1/nodes", "owner")).json()["nodes"]
    assert (node["id"], node["plane"]) == ("n1", "reference")
