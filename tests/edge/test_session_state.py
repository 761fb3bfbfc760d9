"""Every edge of the session's table, and random walks that must never leave it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.edge.session_state import (
    CloseAsked,
    Connected,
    ConsentLost,
    ConsentSeen,
    IceRestarted,
    Input,
    MediaSeen,
    MediaSilent,
    PublishingPaused,
    PublishingResumed,
    PublishingStarted,
    SessionClosed,
    SessionConnected,
    SessionMachine,
    SessionTimeouts,
    Started,
    State,
    Tick,
)
from relay.errors import UsageError

ADDRESS = ("192.0.2.1", 5000)


def machine(kind: str | None, *inputs: Input) -> SessionMachine:
    made = SessionMachine()
    if kind is not None:
        made.receive(Started(kind), 0.0)  # type: ignore[arg-type]
    for each in inputs:
        made.receive(each, 0.0)
    return made


def in_state(state: State) -> SessionMachine:
    match state:
        case State.IDLE:
            return machine(None)
        case State.CONNECTING:
            return machine("publisher")
        case State.PUBLISHING:
            return machine("publisher", Connected(ADDRESS))
        case State.WATCHING:
            return machine("viewer", Connected(ADDRESS))
        case State.PAUSING:
            return machine("publisher", Connected(ADDRESS), MediaSilent())
        case State.CLOSED:
            return machine("publisher", CloseAsked("test"))


INPUTS: list[Input] = [
    Started("viewer"),
    Connected(ADDRESS),
    MediaSeen(),
    MediaSilent(),
    ConsentSeen(),
    ConsentLost(),
    IceRestarted(),
    CloseAsked("asked"),
    Tick(),
]
# state -> input -> (next state, transitions); what is missing must raise.
EDGES: dict[State, dict[type[Input], tuple[State, list[object]]]] = {
    State.IDLE: {
        Started: (State.CONNECTING, []),
        CloseAsked: (State.CLOSED, [SessionClosed("asked")]),
        Tick: (State.IDLE, []),
    },
    State.CONNECTING: {
        Connected: (State.PUBLISHING, [SessionConnected(ADDRESS), PublishingStarted()]),
        MediaSeen: (State.CONNECTING, []),
        ConsentSeen: (State.CONNECTING, []),
        ConsentLost: (State.CLOSED, [SessionClosed("consent-lost")]),
        IceRestarted: (State.CONNECTING, []),
        CloseAsked: (State.CLOSED, [SessionClosed("asked")]),
        Tick: (State.CONNECTING, []),
    },
    State.PUBLISHING: {
        MediaSeen: (State.PUBLISHING, []),
        MediaSilent: (State.PAUSING, [PublishingPaused("media-silent")]),
        ConsentSeen: (State.PUBLISHING, []),
        ConsentLost: (State.PAUSING, [PublishingPaused("consent-lost")]),
        IceRestarted: (State.PUBLISHING, []),
        CloseAsked: (State.CLOSED, [SessionClosed("asked")]),
        Tick: (State.PUBLISHING, []),
    },
    State.WATCHING: {
        MediaSeen: (State.WATCHING, []),
        MediaSilent: (State.WATCHING, []),
        ConsentSeen: (State.WATCHING, []),
        ConsentLost: (State.CLOSED, [SessionClosed("consent-lost")]),
        IceRestarted: (State.WATCHING, []),
        CloseAsked: (State.CLOSED, [SessionClosed("asked")]),
        Tick: (State.WATCHING, []),
    },
    State.PAUSING: {
        MediaSeen: (State.PUBLISHING, [PublishingResumed()]),
        MediaSilent: (State.PAUSING, []),
        ConsentSeen: (State.PAUSING, []),
        ConsentLost: (State.PAUSING, []),
        IceRestarted: (State.PAUSING, []),
        CloseAsked: (State.CLOSED, [SessionClosed("asked")]),
        Tick: (State.PAUSING, []),
    },
    State.CLOSED: {CloseAsked: (State.CLOSED, []), Tick: (State.CLOSED, [])},
}


@pytest.mark.parametrize("given_input", INPUTS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("state", list(State))
def test_every_edge_of_the_table(state: State, given_input: Input) -> None:
    subject = in_state(state)
    assert subject.state is state
    expected = EDGES[state].get(type(given_input))
    if expected is None:
        with pytest.raises(UsageError, match=state.name):
            subject.receive(given_input, 1.0)
        assert subject.state is state
        return
    assert (subject.receive(given_input, 1.0), subject.state) == (expected[1], expected[0])


@pytest.mark.parametrize(
    ("state", "at", "after", "told"),
    [
        (State.CONNECTING, 15.0, State.CLOSED, SessionClosed("connect-timeout")),
        (State.PUBLISHING, 15.0, State.PAUSING, PublishingPaused("media-silent")),
        (State.WATCHING, 30.0, State.CLOSED, SessionClosed("consent-lost")),
        (State.PAUSING, 60.0, State.CLOSED, SessionClosed("seat-timeout")),
    ],
)
def test_each_time_limit_holds_to_the_moment(state: State, at: float, after: State, told: object) -> None:
    subject = in_state(state)
    assert subject.next_timeout() == at
    assert subject.receive(Tick(), at - 0.001) == []
    assert subject.state is state
    assert subject.receive(Tick(), at) == [told]
    assert subject.state is after


def test_media_alone_does_not_stand_for_consent() -> None:
    subject = in_state(State.PUBLISHING)
    for second in range(1, 30):
        subject.receive(MediaSeen(), float(second))
    assert subject.receive(Tick(), 30.0) == [PublishingPaused("consent-lost")]


def test_a_return_within_the_hold_lasts() -> None:
    subject = in_state(State.PUBLISHING)
    subject.receive(Tick(), 15.0)
    assert subject.receive(MediaSeen(), 74.9) == [PublishingResumed()]
    assert subject.receive(Tick(), 75.0) == []
    assert subject.state is State.PUBLISHING


def test_an_ice_restart_refreshes_consent() -> None:
    subject = in_state(State.WATCHING)
    subject.receive(IceRestarted(), 29.0)
    assert subject.receive(Tick(), 58.9) == []
    assert subject.receive(Tick(), 59.0) == [SessionClosed("consent-lost")]


@pytest.mark.parametrize("state", [State.PUBLISHING, State.WATCHING, State.PAUSING])
def test_the_longest_duration_ends_every_session(state: State) -> None:
    subject = SessionMachine(SessionTimeouts(media_silence=1e6, seat_hold=1e6, consent=1e6))
    subject.receive(Started("viewer" if state is State.WATCHING else "publisher"), 0.0)
    subject.receive(Connected(ADDRESS), 1.0)
    if state is State.PAUSING:
        subject.receive(MediaSilent(), 2.0)
    assert subject.next_timeout() == 7200.0
    assert subject.receive(Tick(), 7200.0) == [SessionClosed("max-duration")]
    assert subject.next_timeout() is None


_STEPS = st.lists(st.tuples(st.sampled_from([*INPUTS, Started("publisher")]), st.floats(0.0, 40.0)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(_STEPS)
def test_random_walks_keep_the_law(steps: list[tuple[Input, float]]) -> None:
    subject, now = SessionMachine(), 0.0
    closed = paused = connected = 0
    for each, elapsed in steps:
        now += elapsed
        before = subject.state
        legal = type(each) in EDGES[before]
        try:
            told = subject.receive(each, now)
        except UsageError:
            assert not legal
            assert subject.state is before
            continue
        assert legal
        closed += sum(isinstance(one, SessionClosed) for one in told)
        connected += sum(isinstance(one, SessionConnected) for one in told)
        paused += sum(isinstance(one, PublishingPaused) - isinstance(one, PublishingResumed) for one in told)
        # Each change of state is told and nothing is told without one, but for the silent start.
        assert bool(told) == (subject.state is not before and subject.state is not State.CONNECTING)
        assert closed == (subject.state is State.CLOSED)
        assert connected <= 1
        if subject.state is not State.CLOSED:
            assert paused == (subject.state is State.PAUSING)
        timeout = subject.next_timeout()
        assert (timeout is None) == (subject.state in (State.IDLE, State.CLOSED))
        if isinstance(each, Tick) and timeout is not None and subject.state is before:
            assert timeout > now
