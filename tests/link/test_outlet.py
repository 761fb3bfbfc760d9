"""What waits for one path: whose turn it is."""

from __future__ import annotations

import itertools

import pytest

from relay.link.history import Entry, Flow, FlowSpec
from relay.link.marking import Marked
from relay.link.outlet import Outlet
from relay.plane.contract import Kind


class Queue:
    """An outlet with as much new media as it is asked for, and old packets; `o` and `n` say what it gave."""

    def __init__(self, old: int) -> None:
        self.outlet = Outlet("primary", 4, 32)
        self._flow = Flow(1, FlowSpec(Kind.VIDEO))
        self._numbers = itertools.count()
        self._old = [self.entry() for _ in range(old)]
        for entry in self._old:
            self.outlet.put_again(entry)

    def entry(self) -> Entry:
        number = next(self._numbers)
        return self._flow.remember(Marked(b"", 7, number, number * 3000, number, True), b"", 4096, 0)

    def turns(self, count: int, room: int) -> str:
        given = ""
        for _ in range(count):
            for _ in range(room):
                self.outlet.put(self.entry())
            given += "".join("o" if entry in self._old else "n" for entry in self.outlet.take(room, 0))
        return given


@pytest.mark.parametrize("room", [1, 2, 3, 4, 5, 16, 100])
def test_new_media_has_three_quarters_of_any_room_while_it_wants_them(room: int) -> None:
    given = Queue(old=1000).turns(240 // room, room)
    assert len(given) == 240 // room * room
    assert 0.7 <= given.count("n") / len(given) <= 0.8
    if room < 4:  # and never waits long for its turn
        assert "oo" not in given


def test_what_is_sent_again_has_all_the_room_that_is_left_and_none_is_put_by() -> None:
    queue = Queue(old=20)
    assert [len(queue.outlet.take(room, 0)) for room in (1, 2, 8)] == [1, 2, 8]
    assert queue.turns(1, 1) == "n"
    queue = Queue(old=0)
    assert queue.turns(50, 1) == "n" * 50
    for entry in [queue.entry() for _ in range(5)]:
        queue.outlet.put_again(entry)
        queue._old.append(entry)
    assert queue.turns(8, 1) == "onnnonnn"
