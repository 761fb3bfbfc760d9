"""A model path that carries a link's datagrams: media with tokens forth, feedback back."""

from __future__ import annotations

from collections.abc import Callable

from drills.simulation.model_path import Direction, ModelPath


class CarryingPath(ModelPath):
    """What came and what became known since it was last looked at is in the lists, in order; take it from there.

    A datagram is a packet of its own, as large ones are. With `doubled` the network brings a packet twice.
    """

    def __init__(self, forth: Direction, back: Direction, doubled: Callable[[], bool] = lambda: False) -> None:
        super().__init__(forth, back)
        self._kinds["feedback"] = self._returned
        self._cargo: dict[int, tuple[bytes, object]] = {}
        self._doubled = doubled
        self._feedback = 0
        self._returning: dict[int, bytes] = {}
        self.arrived: list[bytes] = []
        self.returned: list[bytes] = []
        self.tokens_acked: list[object] = []
        self.tokens_lost: list[object] = []

    def carry(self, now: int, data: bytes, token: object) -> None:
        """Send a datagram of media."""
        self._cargo[self.send(now)] = (data, token)

    def carry_back(self, now: int, data: bytes) -> None:
        """Send a datagram of feedback. What is lost of it nobody knows."""
        arrival = self.back.arrival(now)
        if arrival is not None:
            self._feedback += 1
            self._returning[self._feedback] = data
            self._push(arrival, "feedback", (self._feedback,), 0)

    def _returned(self, numbers: tuple[int, ...], _: int) -> None:
        self.returned.append(self._returning.pop(numbers[0]))

    def _received(self, numbers: tuple[int, ...], delay: int) -> None:
        data, _ = self._cargo.get(numbers[0], (b"", None))
        if data:
            self.arrived += [data, data] if self._doubled() else [data]
        super()._received(numbers, delay)

    def _acknowledged(self, numbers: tuple[int, ...], delay: int) -> None:
        newly = [number for number in numbers if number in self._open or number in self._declared]
        self.tokens_acked += [self._cargo.pop(number)[1] for number in newly if number in self._cargo]
        super()._acknowledged(numbers, delay)

    def _declare_lost(self, number: int) -> None:
        super()._declare_lost(number)
        if number in self._cargo:
            self.tokens_lost.append(self._cargo[number][1])
