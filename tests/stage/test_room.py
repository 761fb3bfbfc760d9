"""Stories of a room: who comes, who may do what, who comes back, who has to go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import Conflict, CorruptDocument, Forbidden, NotFound, RequestError, UsageError
from relay.stage import people, publications, room, seats, views
from relay.stage.document import RoomState
from relay.stage.permissions import Action, Actor, Role, allowed
from tests.stage.rooms import GUEST, MODERATOR, OTHER, OWNER, SERVICE, VIEWER, new_room, publish, types


def test_an_open_stage_puts_hosts_on_air_while_seats_are_free() -> None:
    state = new_room(max_seats=2)
    state, events = publish(state, GUEST)
    assert types(events) == ["participant.joined", "publication.started", "stage.seat_changed"]
    state, _ = publish(state, OTHER)
    third = Actor("gwen", Role.GUEST)
    state, _ = publish(state, third)
    assert state.on_air() == ["gus", "greta"]
    assert state.seats["gwen"].state == "backstage"
    with pytest.raises(Conflict) as caught:
        seats.set_seat(state, third, "gwen", "on_air", 1.0)
    assert caught.value.code == "seat-taken"
    state, _ = seats.set_seat(state, GUEST, "gus", "backstage", 1.0)
    state, events = seats.set_seat(state, third, "gwen", "on_air", 1.0)
    assert events == [("stage.seat_changed", {"identity": "gwen", "state": "on_air", "by": "gwen"})]


def test_the_owner_is_always_on_air() -> None:
    state = new_room(max_seats=1)
    state, _ = publish(state, GUEST)
    state, events = publish(state, OWNER)
    assert state.on_air() == ["olga"]
    assert state.seats["gus"].state == "backstage"
    assert [data["identity"] for kind, data in events if kind == "stage.seat_changed"] == ["gus", "olga"]


def test_an_invite_stage_keeps_guests_backstage_until_they_are_asked() -> None:
    state = new_room(stage_policy="invite")
    state, _ = publish(state, GUEST)
    assert state.seats["gus"].state == "backstage"
    with pytest.raises(Conflict) as caught:
        seats.set_seat(state, GUEST, "gus", "on_air", 1.0)
    assert caught.value.code == "invitation-needed"
    state, events = seats.invite(state, OWNER, "gus", 10.0)
    assert events[0][1] == {"identity": "gus", "by": "olga", "expires_at": "1970-01-01T00:02:10.000Z"}
    state, events = seats.accept(state, GUEST, "gus", 129.9)
    assert types(events) == ["stage.accepted", "stage.seat_changed"]
    assert state.on_air() == ["gus"]
    state, _ = publish(state, OTHER, 130.0)
    state, _ = seats.set_seat(state, MODERATOR, "greta", "on_air", 131.0)
    assert state.on_air() == ["gus", "greta"]


def test_a_viewer_who_accepts_becomes_a_guest_and_loses_the_seat_when_not_coming() -> None:
    state = new_room(stage_policy="invite")
    state, _ = seats.invite(state, MODERATOR, "vera", 0.0)
    state, events = seats.accept(state, VIEWER, "vera", 5.0)
    assert types(events) == ["stage.accepted", "participant.joined", "stage.seat_changed"]
    assert people.effective_role(state, VIEWER) is Role.GUEST
    assert views.participant_view(state, state.participants["vera"])["state"] == "away"
    assert room.next_expiry(state) == 65.0
    assert room.expire(state, 64.9) == (state, [])
    state, events = room.expire(state, 65.0)
    assert types(events) == ["stage.left", "participant.left"]
    assert not state.seats
    # The role stays: coming back with the old viewer's token is enough.
    state, _ = publish(state, VIEWER, 70.0)
    assert state.seats["vera"].state == "backstage"


def test_invitations_are_answered_once_and_in_time() -> None:
    state = new_room()
    state, _ = seats.invite(state, OWNER, "vera", 0.0)
    with pytest.raises(NotFound):
        seats.accept(state, VIEWER, "vera", 120.0)
    with pytest.raises(Forbidden):
        seats.accept(state, OTHER, "vera", 1.0)
    with pytest.raises(Forbidden):
        seats.decline(state, GUEST, "vera", 1.0)
    expired, events = room.expire(state, 120.0)
    assert events == [("stage.declined", {"identity": "vera", "reason": "expired"})]
    assert not expired.invitations
    declined, events = seats.decline(state, VIEWER, "vera", 1.0)
    assert events[0][1]["reason"] == "declined"
    with pytest.raises(NotFound) as caught:
        seats.decline(declined, VIEWER, "vera", 1.0)
    assert caught.value.code == "invitation-not-found"
    _, events = seats.decline(state, OWNER, "vera", 1.0)
    assert events[0][1]["reason"] == "withdrawn"
    on_air, _ = publish(new_room(), GUEST)
    with pytest.raises(Conflict):
        seats.invite(on_air, OWNER, "gus", 0.0)


def test_accepting_on_a_full_stage_keeps_the_invitation() -> None:
    state, _ = publish(new_room(max_seats=1), GUEST)
    state, _ = seats.invite(state, OWNER, "vera", 0.0)
    with pytest.raises(Conflict) as caught:
        seats.accept(state, VIEWER, "vera", 1.0)
    assert caught.value.code == "seat-taken"
    assert "vera" in state.invitations


def test_a_publisher_who_returns_resumes_its_publication() -> None:
    state, _ = publish(new_room(), GUEST, session="one")
    state, _ = publish(state, GUEST, kind="audio", source="microphone", session="one")
    state, events = publications.session_away(state, "one", 10.0)
    assert types(events) == ["publication.paused", "publication.paused"]
    assert state.seats["gus"].away_since == 10.0
    assert room.next_expiry(state) == 70.0
    state, events = publish(state, GUEST, 30.0, session="two", publication="another-id", codec="h264")
    assert types(events) == ["publication.resumed"]
    assert events[0][1]["replaced_session"] == "one"
    found = publications.publication_of(state, "gus", "video", "camera")
    assert found is not None
    assert (found.id, found.state, found.codec, found.session, found.since) == ("gus-video", "live", "h264", "two", 0.0)
    assert state.seats["gus"].away_since is None
    assert state.publications["gus-audio"].state == "paused"
    assert room.expire(state, 1000.0)[1] == []


def test_of_two_sessions_with_one_identity_the_newer_counts() -> None:
    state, _ = publish(new_room(), GUEST, session="one")
    state, _ = publish(state, GUEST, 5.0, session="two")
    assert publications.is_replaced(state, "gus", "one")
    assert not publications.is_replaced(state, "gus", "two")
    assert len(state.publications) == 1
    # What the older one still reports must not touch what the newer one publishes.
    assert publications.session_away(state, "one", 6.0) == (state, [])
    assert room.session_left(state, "one", 6.0) == (state, [])
    assert publications.pause_publication(state, "gus-video", 6.0, session="one") == (state, [])
    assert publications.set_layers(state, "gus-video", ("q",), session="one") == (state, [])
    state, events = room.session_left(state, "two", 7.0)
    assert types(events) == ["publication.ended", "stage.left", "participant.left"]


def test_a_lost_node_takes_nothing_from_others() -> None:
    state, _ = publish(new_room(), GUEST)
    state, _ = publish(state, OTHER)
    mine = replace(state.publications["gus-video"], node="n2")
    state = replace(state, publications=state.publications | {"gus-video": mine})
    state, events = publications.node_away(state, "n2", 3.0)
    assert types(events) == ["publication.paused"]
    assert not state.participants["gus"].connected
    assert state.seats["gus"].away_since == 3.0
    assert state.participants[OTHER.identity].connected
    assert publications.node_away(state, "n2", 4.0) == (state, [])


def test_a_later_epoch_fences_off_the_former_origin() -> None:
    state, _ = publish(new_room(), GUEST, session="one")
    state, events = publications.set_epoch(state, "gus-video", "n1", "one", 7)
    assert (types(events), state.publications["gus-video"].epoch) == (["publication.leased"], 7)
    assert publications.set_epoch(state, "gus-video", "n1", "one", 7) == (state, [])
    assert publications.set_epoch(state, "gus-video", "n2", "one", 8) == (state, [])
    moved, _ = publish(state, GUEST, session="two", node="n2", epoch=9)
    assert (moved.publications["gus-video"].node, moved.publications["gus-video"].epoch) == ("n2", 9)
    with pytest.raises(Conflict) as caught:
        publish(moved, GUEST, session="one", node="n1", epoch=7)
    assert caught.value.code == "fenced"
    assert publications.set_epoch(moved, "gus-video", "n1", "one", 10) == (moved, [])
    without, _ = publish(state, GUEST, session="three", node="n3")  # its lease is still on the way
    assert without.publications["gus-video"].epoch == 7


def test_media_that_flows_again_resumes_the_session() -> None:
    state, _ = publish(new_room(), GUEST)
    state, _ = publications.session_away(state, "s-gus", 1.0)
    assert not state.participants["gus"].connected
    state, events = publications.resume_session(state, "s-gus", 2.0)
    assert types(events) == ["publication.resumed"]
    assert state.participants["gus"].connected
    assert state.seats["gus"].away_since is None
    assert publications.resume_session(state, "s-gus", 3.0) == (state, [])


def test_a_seat_is_held_for_a_minute_then_everything_ends() -> None:
    state, _ = publish(new_room(), GUEST)
    state, _ = publications.session_away(state, "s-gus", 100.0)
    assert room.expire(state, 159.9)[1] == []
    state, events = room.expire(state, 160.0)
    assert types(events) == ["publication.ended", "stage.left", "participant.left"]
    assert events[0][1]["reason"] == "timeout"
    assert not state.publications
    assert not state.participants
    assert room.next_expiry(state) is None


def test_kicked_means_out_and_kept_out() -> None:
    state, _ = publish(new_room(), GUEST)
    state, events = room.kick(state, MODERATOR, "gus", 10.0, ban_s=30.0)
    assert types(events) == ["publication.ended", "stage.left", "participant.left", "participant.kicked"]
    for refused in (lambda: publish(state, GUEST, 39.9), lambda: seats.invite(state, OWNER, "gus", 39.9)):
        with pytest.raises(Forbidden) as caught:
            refused()
        assert caught.value.code == "banned"
    state, _ = room.expire(state, 40.0)
    assert publish(state, GUEST, 40.0)[0].on_air() == ["gus"]
    assert room.kick(state, OWNER, "vera", 1.0)[0].bans == {"vera": 61.0}


def test_the_owner_cannot_be_kicked_and_a_ban_does_not_hold_one() -> None:
    state, _ = publish(new_room(), OWNER)
    for actor in (MODERATOR, SERVICE, OWNER):
        with pytest.raises(Forbidden):
            room.kick(state, actor, "olga", 1.0)
    absent, _ = room.kick(new_room(), MODERATOR, "olga", 1.0)
    assert publish(absent, OWNER, 2.0)[0].on_air() == ["olga"]


def test_moderators_do_not_act_on_each_other() -> None:
    state, _ = people.join(new_room(), MODERATOR, 0.0)
    with pytest.raises(Forbidden):
        room.kick(state, Actor("max", Role.MODERATOR), "mona", 1.0)


def test_a_role_given_in_the_room_wins_over_the_token() -> None:
    state, events = room.change_role(new_room(), OWNER, "vera", Role.GUEST, 0.0)
    assert events == [("participant.role_changed", {"identity": "vera", "role": "guest", "by": "olga"})]
    state, _ = publish(state, VIEWER)
    state, events = room.change_role(state, OWNER, "vera", Role.VIEWER, 1.0)
    assert types(events) == ["participant.role_changed", "publication.ended", "stage.left", "participant.left"]
    with pytest.raises(Forbidden):
        publish(state, VIEWER)
    state, _ = publish(state, GUEST)
    state, events = room.change_role(state, OWNER, "gus", Role.MODERATOR, 2.0)
    assert types(events) == ["participant.role_changed", "publication.ended", "stage.left"]
    assert room.kick(state, GUEST, "greta", 3.0)[0].bans
    for actor, wanted, error in (
        (MODERATOR, Role.GUEST, Forbidden),
        (OWNER, Role.OWNER, Conflict),
        (OWNER, Role.SERVICE, Conflict),
    ):
        with pytest.raises(error):
            room.change_role(state, actor, "vera", wanted, 4.0)


def test_mutes_of_participant_and_publication_add_up() -> None:
    state, _ = publish(new_room(), GUEST)
    state, events = room.mute(state, MODERATOR, "gus", video=True)
    assert events[0][1] == {"identity": "gus", "muted": {"audio": False, "video": True}, "by": "mona"}
    assert state.is_muted(state.publications["gus-video"])
    state, events = publications.mute_publication(state, GUEST, "gus-video", muted=True)
    assert events[0][1]["muted"] is True
    state, _ = room.mute(state, GUEST, "gus", video=False)
    assert state.is_muted(state.publications["gus-video"])
    state, _ = publications.mute_publication(state, GUEST, "gus-video", muted=False)
    assert not state.is_muted(state.publications["gus-video"])
    assert room.mute(state, GUEST, "gus", video=False) == (state, [])
    with pytest.raises(Forbidden):
        room.mute(state, OTHER, "gus", audio=True)
    with pytest.raises(NotFound):
        room.mute(state, OWNER, "nobody", audio=True)


def test_leaving_the_seat_and_ending_publications() -> None:
    state, _ = publish(new_room(), GUEST)
    with pytest.raises(Forbidden):
        room.leave_seat(state, OTHER, "gus", 1.0)
    left, events = room.leave_seat(state, OWNER, "gus", 1.0)
    assert types(events) == ["publication.ended", "stage.left"]
    assert events[1][1] == {"identity": "gus", "by": "olga", "reason": "removed"}
    with pytest.raises(NotFound):
        room.leave_seat(left, OWNER, "gus", 1.0)
    ended, events = publications.end_publication(state, GUEST, "gus-video", 5.0)
    assert types(events) == ["publication.ended"]
    assert ended.seats["gus"].away_since == 5.0
    with pytest.raises(NotFound) as caught:
        publications.end_publication(ended, GUEST, "gus-video", 6.0)
    assert caught.value.code == "publication-not-found"


@pytest.mark.parametrize("actor", [VIEWER, MODERATOR, SERVICE])
def test_only_hosts_publish(actor: Actor) -> None:
    with pytest.raises(Forbidden):
        publish(new_room(), actor)


def test_codecs_and_numbers_have_limits() -> None:
    with pytest.raises(Conflict) as caught:
        publish(new_room(codecs=("opus", "h264")), GUEST)
    assert caught.value.code == "codec-not-allowed"
    state = new_room()
    for n in range(people.MAX_PARTICIPANTS):
        state, _ = people.join(state, Actor(f"m{n}", Role.MODERATOR), 0.0)
    with pytest.raises(Conflict):
        people.join(state, MODERATOR, 0.0)


@pytest.mark.parametrize(
    ("state", "by"), [("none", "pause"), ("none", "end"), ("paused", "pause"), ("ended", "start"), ("ended", "end")]
)
def test_the_law_of_publications_forbids_the_rest(state: str, by: Any) -> None:
    with pytest.raises(UsageError):
        publications.move(state, by)


def test_documents_round_trip_and_corrupt_ones_name_the_field() -> None:
    state, _ = publish(new_room(metadata={"title": "PK"}), GUEST)
    state, _ = seats.invite(state, OWNER, "vera", 0.0)
    state, _ = room.kick(state, OWNER, "bad", 0.0)
    assert RoomState.from_json(state.to_json()) == state
    for path, value in (("seats", []), ("max_seats", "many"), ("publications", {"x": {"id": "x"}}), ("id", None)):
        with pytest.raises(CorruptDocument, match=path):
            RoomState.from_json({**state.to_json(), path: value})
    with pytest.raises(CorruptDocument):
        RoomState.from_json({})


def test_changing_works_on_documents_and_keeps_an_unchanged_one() -> None:
    document = new_room().to_json()
    apply = room.changing(lambda state: room.expire(state, 5.0))
    changed, events = apply(document)
    assert changed is document
    assert events == []
    changed, events = room.changing(lambda state: publish(state, GUEST))(document)
    assert "gus-video" in changed["publications"]
    assert events


def test_views_have_the_shapes_of_the_api() -> None:
    state, _ = publish(new_room(), GUEST)
    assert views.room_view(state, viewers=3)["participants"] == 4
    stage = views.stage_view(state, "gus")
    assert stage["seats"] == [
        {"identity": "gus", "state": "on_air", "since": "1970-01-01T00:00:00.000Z", "connected": True}
    ]
    assert stage["active_speaker"] == "gus"
    assert views.stage_view(state, "gone")["active_speaker"] is None
    shown = views.publication_view(state, state.publications["gus-video"])
    assert (shown["state"], shown["muted"], shown["layers"]) == ("live", False, ["q", "h", "f"])


# Role by action, for oneself (s), others who are outranked (o), neither (-).
EXPECTED = {
    Action.CHANGE_ROLE: {"owner": "o", "guest": "-", "moderator": "-", "viewer": "-"},
    Action.MUTE: {"owner": "so", "guest": "s", "moderator": "so", "viewer": "s"},
    Action.KICK: {"owner": "o", "guest": "-", "moderator": "o", "viewer": "-"},
    Action.INVITE: {"owner": "o", "guest": "-", "moderator": "o", "viewer": "-"},
    Action.PUT_SEAT: {"owner": "so", "guest": "s", "moderator": "o", "viewer": "-"},
    Action.LEAVE_SEAT: {"owner": "so", "guest": "s", "moderator": "o", "viewer": "-"},
    Action.PUBLISH: {"owner": "s", "guest": "s", "moderator": "-", "viewer": "-"},
    Action.CHANGE_PUBLICATION: {"owner": "so", "guest": "s", "moderator": "o", "viewer": "-"},
    Action.CHANGE_SLOT: {"owner": "s", "guest": "s", "moderator": "s", "viewer": "s"},
}


@pytest.mark.parametrize("action", EXPECTED, ids=lambda action: action.name)
@pytest.mark.parametrize("role", ["owner", "guest", "moderator", "viewer"])
def test_the_table_of_permissions(action: Action, role: str) -> None:
    actor = Actor("me", Role(role))
    assert allowed(actor, action, "me", Role(role)) == ("s" in EXPECTED[action][role])
    assert allowed(actor, action, "you", Role.VIEWER) == ("o" in EXPECTED[action][role])
    assert not allowed(actor, action, "you", Role.OWNER)
    assert allowed(SERVICE, action, "you", Role.GUEST)


_PEOPLE = [OWNER, GUEST, OTHER, MODERATOR, VIEWER]
_SESSIONS = st.sampled_from(["one", "two", "three"])


def _step(data: st.DataObject, state: RoomState, now: float) -> tuple[RoomState, Any]:
    actor, target = data.draw(st.sampled_from(_PEOPLE)), data.draw(st.sampled_from(_PEOPLE)).identity
    session = f"{actor.identity}-{data.draw(_SESSIONS)}"
    kind: Any = data.draw(st.sampled_from(["audio", "video"]))
    match data.draw(st.integers(0, 13)):
        case 0 | 1 | 2:
            return publish(state, actor, now, kind=kind, session=session, publication=f"p{now}")
        case 3:
            return publications.session_away(state, session, now)
        case 4:
            return publications.resume_session(state, session, now)
        case 5:
            return room.session_left(state, session, now)
        case 6:
            return seats.invite(state, actor, target, now)
        case 7:
            return seats.accept(state, actor, actor.identity, now)
        case 8:
            return seats.set_seat(state, actor, target, data.draw(st.sampled_from(["on_air", "backstage"])), now)
        case 9:
            return room.leave_seat(state, actor, target, now)
        case 10:
            return room.kick(state, actor, target, now, ban_s=20.0)
        case 11:
            return room.change_role(state, actor, target, data.draw(st.sampled_from([*Role])), now)
        case 12:
            return room.mute(state, actor, target, video=data.draw(st.booleans()))
        case _:
            return room.expire(state, now)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_lives_keep_the_document_sound(data: st.DataObject) -> None:
    state = new_room(max_seats=2, stage_policy=data.draw(st.sampled_from(["open", "invite"])))
    now = 0.0
    for _ in range(30):
        now += data.draw(st.floats(0.01, 30.0))
        before = state.to_json()
        try:
            state, _ = _step(data, state, now)
        except RequestError:
            assert state.to_json() == before
        assert len(state.on_air()) <= state.max_seats
        assert set(state.seats) <= set(state.participants)
        assert {each.identity for each in state.publications.values()} <= set(state.seats)
        keys = [(each.identity, each.kind, each.source) for each in state.publications.values()]
        assert len(keys) == len(set(keys))
        for seat in state.seats.values():
            mine = [each.state for each in state.publications.values() if each.identity == seat.identity]
            assert (seat.away_since is None) == ("live" in mine)
            assert state.participants[seat.identity].role in (Role.OWNER, Role.GUEST)
        assert RoomState.from_json(state.to_json()) == state
        later, _ = room.expire(state, now + 1000.0)
        assert room.next_expiry(later) is None
