"""What a relay and its link process say: it comes back as it was said, and nothing else is taken."""

from __future__ import annotations

import json
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import PeerError
from relay.link.hooks import LinkMoved, PathChanged
from relay.link.messages import Publication
from relay.links import messages as m
from relay.links.sides import catalog_steps
from relay.ports import RoomEvent
from relay.process.control import Wire, frame
from relay.settings import LinkSettings, LogSettings
from tests.link.link_world import publication

NEWEST = (1 << 64) - 1
SAID: tuple[m.Order | m.Word, ...] = (
    m.Begin("a", LinkSettings(advertise=("10.0.0.1:7444",), process=True), LogSettings(level="debug"), NEWEST),
    m.Observe(NEWEST),
    m.SetCatalog((publication("cam"), publication("screen", layers=3)), ("mic",), True),
    m.Tapped(4, 17),
    m.TimesOf(((4, (1, 2, NEWEST)), (8, (3, 4, 5)))),
    m.SayEvents("r", (RoomEvent(NEWEST, "score", {"home": 1, "names": ["ä", None]}),)),
    m.Drain(),
    m.Command(3, "l", "open"),
    m.Dial(1, "b", ("10.0.0.2:7444", "[::1]:7444")),
    m.HangUp(1),
    m.WatchRoom(1, "r", True, NEWEST),
    m.WatchRoom(1, "r", False),
    m.Subscribe(1, "cam", 9, (0, 2), (30, 31)),
    m.AskKeyframe(1, "cam", 2),
    m.Fence(1, "cam", 8, "b holds it"),
    m.Ready(),
    m.Failed("UDP 0.0.0.0:7444 cannot be opened"),
    m.Pulse(NEWEST, ({"link": "l", "paths": {"primary": {"rtt_us": 5}}},), ((1, 7, {"dials": {"primary": 1}}),), False),
    m.Tap(4, "cam", 1),
    m.Untap(4),
    m.KeyframeWanted("cam", 1),
    m.Answered(3, {"breaker": "open"}),
    m.Answered(3, {}, "no link l"),
    m.Moved(True, LinkMoved("l", "b", "LINK_UNSTABLE", "open", "suspect", "loss", NEWEST, ("backup",))),
    m.PathTold(False, PathChanged("l", "b", "metadata", False, "lost")),
    m.Offered(1, (publication("cam"),), (), True, False),
    m.Subscribed(1, "cam", (0,)),
    m.LayerStarted(1, "cam", 0, 96),
    m.TimeOf(1, "cam", 0, (1, 2, NEWEST)),
    m.HeardEvents(1, "r", (RoomEvent(5, "x", {}),), True),
    m.Goodbye(1, "draining", "c"),
)


def wire() -> Wire[Any]:
    return Wire[Any](*m.ORDERS, *m.WORDS)


def test_all_messages_are_tried() -> None:
    assert {type(each) for each in SAID} == {*m.ORDERS, *m.WORDS}


@pytest.mark.parametrize("message", SAID, ids=lambda message: type(message).__name__)
def test_a_message_comes_back(message: Any) -> None:
    assert wire().feed(frame(message)) == [message]


@pytest.mark.parametrize(
    "message",
    [each for each in SAID if len(frame(each)) > len(type(each).__name__) + 11],
    ids=lambda each: type(each).__name__,
)
def test_a_field_of_a_wrong_type_or_none_at_all_is_refused(message: Any) -> None:
    name, values = json.loads(frame(message)[4:])
    for key in values:
        wrong = json.dumps([name, values | {key: {"no": "such"} if key != "state" else 7}]).encode()
        with pytest.raises(PeerError):
            wire().feed(pack("!I", len(wrong)) + wrong)
    more = json.dumps([name, values | {"more": 1}]).encode()
    with pytest.raises(PeerError):
        wire().feed(pack("!I", len(more)) + more)


def test_the_relay_may_not_say_what_only_the_process_says() -> None:
    with pytest.raises(PeerError):
        Wire[m.Order](*m.ORDERS).feed(frame(m.Ready()))


@settings(max_examples=100, deadline=None)  # adapters are made anew each time
@given(st.sampled_from(SAID), st.data())
def test_changed_bytes_are_a_message_or_a_peer_error(message: Any, data: st.DataObject) -> None:
    body = bytearray(frame(message))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(4, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert all(isinstance(each, (m.Order, m.Word)) for each in wire().feed(bytes(body)))
    except PeerError:
        pass


catalogs = st.dictionaries(st.sampled_from([f"p{n}" for n in range(200)]), st.integers(1, 3), max_size=200).map(
    lambda wanted: {key: publication(key, epoch) for key, epoch in wanted.items()}
)


@settings(max_examples=40, deadline=None)
@given(catalogs, catalogs)
def test_the_steps_from_one_catalog_lead_to_the_other(
    before: dict[str, Publication], after: dict[str, Publication]
) -> None:
    steps = catalog_steps(before, after)
    there = dict(before)
    for changed, removed, _ in steps:
        assert len(changed) <= m.BATCH
        for key in removed:
            del there[key]
        there.update((entry.id, entry) for entry in changed)
    assert there == after
    assert [done for *_, done in steps] == [False] * (len(steps) - 1) + [True]
