"""A fixed pool of threads that tick: every 20 ms, on deadlines that do not drift, each for its share of the rooms.

Ticks are numbered by the machine's monotonic clock (tick n is due at n · 20 ms), so every mixer, and the next process
after a crash, counts alike, and output timestamps follow from the number. Mixers are due at different moments within
the 20 ms, so that they seldom want the interpreter at once. A tick that comes late is made all the same, up to
`CATCH_UP` of them; older ones are skipped, which shows as a gap in the timestamps.

A mixer that died or hangs (`relay.mix.audio.hang`) is replaced by a spare thread. The room it was in goes on as a copy
with new codecs, since the old thread may still be inside; it is told to leave, and what it makes is not sent.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from relay.errors import UsageError
from relay.mix.audio.hang import Patience, Suspicion
from relay.mix.audio.messages import FromProcess, MixerReplaced, RoomRecovered, TicksReported
from relay.mix.audio.room import Output, Room
from relay.mix.audio.urgency import make_urgent
from relay.plane.urgency import Got, Priority

TICK_US = 20_000
CATCH_UP = 3
CAME_BACK_S = 0.5  # a mixer that was taken for hung and moves so soon was not
TELL_FAILURES = 50  # a room that fails at every tick is told once a second
MAX_ZOMBIES = 4
SAMPLES = 4096  # latenesses kept between two reports


class Outlet:
    """What mixers share: where packets come from, where they go to, and the lock under which a tick is sent."""

    def __init__(self, drain: Callable[[], None], send: Callable[[int, list[Output]], None]) -> None:
        """`drain` takes what has arrived to the rooms' inputs; `send` writes a tick's outputs, under `lock`."""
        self.drain, self.send = drain, send
        self.lock = threading.Lock()


@dataclass(slots=True)
class TickCounts:
    """Of one mixer since the last report."""

    ticks: int = 0
    caught_up: int = 0
    skipped: int = 0
    work_s: float = 0.0


class Mixer(threading.Thread):
    """One thread. It waits until it is `engage`d, as a spare or while the process is in reserve."""

    def __init__(self, outlet: Outlet, priority: Priority, tell: Callable[[FromProcess], None]) -> None:
        super().__init__(name="mixer", daemon=True)
        self._outlet, self._priority, self._tell = outlet, priority, tell
        self.index = -1
        self.got: Got = "none"
        self.rooms: dict[str, Room] = {}
        self.current: Room | None = None
        self.retired = False
        self.hung = False
        self.counts = TickCounts()
        self.latenesses: deque[float] = deque(maxlen=SAMPLES)
        self.moved = time.monotonic()  # when it last got anywhere; in the future while it sleeps until a deadline
        self._phase_us = 0
        self._engaged = threading.Event()
        self._failure: float | None = None
        self.suspicion = Suspicion()
        self.ready = threading.Event()

    def engage(self, index: int, phase_us: int, rooms: dict[str, Room]) -> None:
        """Begin to tick for these rooms."""
        self.index, self._phase_us, self.rooms = index, phase_us, rooms
        self.moved = time.monotonic() + TICK_US / 1_000_000
        self._engaged.set()

    def retire(self) -> None:
        """Leave as soon as you come by, and send nothing more."""
        self.retired = True
        self._engaged.set()

    def fail(self, hang_s: float) -> None:
        """A drill: at the next room die, or hang so long."""
        self._failure = hang_s

    def run(self) -> None:
        self.got = make_urgent(self._priority)
        self.ready.set()
        self._engaged.wait()
        number = (time.monotonic_ns() // 1000 - self._phase_us) // TICK_US  # at once: it may replace another one
        while not self.retired:
            begin = time.perf_counter()
            self._outlet.drain()
            for room in list(self.rooms.values()):
                if self.retired:
                    return
                self._serve(room, number)
                self.moved = time.monotonic()
            self.counts.work_s += time.perf_counter() - begin
            self.counts.ticks += 1
            number = self._sleep_until(number + 1)

    def _sleep_until(self, number: int) -> int:
        """Sleep until a tick is due; return the number of the newest that is."""
        due = (number * TICK_US + self._phase_us) / 1_000_000
        now = time.monotonic()
        if due > now:
            self.moved = due
            time.sleep(due - now)
            now = time.monotonic()
        self.moved = now
        self.latenesses.append(max(now - due, 0.0))
        return max(number, (int(now * 1_000_000) - self._phase_us) // TICK_US)

    def _serve(self, room: Room, newest: int) -> None:
        """Make a room's ticks up to the newest."""
        if room.ticked is None:
            room.ticked = newest - 1
        behind = newest - room.ticked
        if behind > CATCH_UP:
            self.counts.skipped += behind - CATCH_UP
        self.counts.caught_up += min(behind, CATCH_UP) - 1
        for number in range(max(room.ticked + 1, newest - CATCH_UP + 1), newest + 1):
            self.current = room
            outputs = self._tick(room, number)
            with self._outlet.lock:
                if self.retired:
                    return
                self._outlet.send(number, outputs)
                room.ticked = number
                self.current = None

    def _tick(self, room: Room, number: int) -> list[Output]:
        if self._failure is not None:
            self._act_out()
        try:
            return room.tick(number, number * TICK_US + self._phase_us)
        except Exception as error:  # a room's fault costs only that room
            self._recover(room, error)
            return []

    def _recover(self, room: Room, error: Exception) -> None:
        if room.failures % TELL_FAILURES == 0:
            self._tell(RoomRecovered(room.name, f"{type(error).__name__}: {error}"))
        room.failures += 1
        with self._outlet.lock:
            if not self.retired and self.rooms.get(room.name) is room:
                self.rooms = self.rooms | {room.name: room.rescued(anew=room.failures > 1)}

    def _act_out(self) -> None:
        hang_s, self._failure = self._failure, None
        if not hang_s:
            raise SystemExit("told to die")
        time.sleep(hang_s)


class Mixers:
    """The pool. All methods are the watchdog's thread's."""

    def __init__(self, count: int, outlet: Outlet, priority: Priority, tell: Callable[[FromProcess], None]) -> None:
        if count < 1:
            raise UsageError("a pool has at least one mixer")
        self._outlet, self._priority, self._tell = outlet, priority, tell
        self._count = count
        self._mixers: list[Mixer] = [self._start() for _ in range(count)]
        self._spare = self._start()
        self._zombies: list[tuple[float, Mixer]] = []
        self._patience = Patience()
        self._homes: dict[str, int] = {}
        self._engaged = False

    @property
    def got(self) -> Got:
        """The priority that all of them have."""
        for mixer in self._mixers:
            mixer.ready.wait()
        return self._mixers[0].got

    def begin(self) -> None:
        """Tick from now on."""
        if self._engaged:
            return
        self._engaged = True
        for index, mixer in enumerate(self._mixers):
            mixer.engage(index, self._phase(index), mixer.rooms)

    def add(self, room: Room) -> None:
        """Give a room to the mixer with the fewest inputs and outputs. UsageError when there is one of the name."""
        if room.name in self._homes:
            raise UsageError(f"room {room.name!r} is open")
        loads = [sum(1 + len(one.mixes) + len(one.inputs) for one in [*m.rooms.values()]) for m in self._mixers]
        index = loads.index(min(loads))
        self._homes[room.name] = index
        self._change_rooms(self._mixers[index], lambda rooms: rooms | {room.name: room})

    def remove(self, name: str) -> None:
        """Forget a room. UsageError when there is none of the name."""
        mixer = self._home(name)
        del self._homes[name]
        self._change_rooms(mixer, lambda rooms: {other: room for other, room in rooms.items() if other != name})

    def find(self, name: str) -> Room:
        """Return a room. UsageError when there is none of the name."""
        return self._home(name).rooms[name]

    def fail(self, index: int, hang_s: float) -> None:
        """A drill; see `FailMixer`. UsageError for no such mixer."""
        if not 0 <= index < len(self._mixers):
            raise UsageError(f"no mixer {index}")
        self._mixers[index].fail(hang_s)

    def watch(self) -> None:
        """Replace who died or hangs. Call it every 5 ms. Raises UsageError when too many hang."""
        now = time.monotonic()
        self._bury(now)
        if not self._engaged:
            return
        for index, mixer in enumerate(self._mixers):
            if not mixer.is_alive():
                self._replace(index, "died")
            elif now - mixer.moved > self._patience.seconds:
                others = [other.native_id or 0 for other in self._mixers if other is not mixer and now > other.moved]
                if mixer.suspicion.hangs(mixer.native_id or 0, mixer.moved, self._patience.seconds, others):
                    self._replace(index, "hung")

    def _bury(self, now: float) -> None:
        """Forget replaced mixers that have ended since."""
        for since, zombie in self._zombies:
            if not zombie.is_alive() and zombie.hung and now - since < CAME_BACK_S:
                self._patience.was_wrong(now)
        self._patience.pass_time(now)
        self._zombies = [(since, zombie) for since, zombie in self._zombies if zombie.is_alive()]
        if sum(now - since > 1 for since, _ in self._zombies) > MAX_ZOMBIES:
            raise UsageError("too many mixers hang")

    def report(self, tap_dropped: int) -> None:
        """Tell how punctual they were since the last time."""
        late: list[float] = []
        counts = TickCounts()
        for mixer in self._mixers:
            one, mixer.counts = mixer.counts, TickCounts()
            taken, mixer.latenesses = mixer.latenesses, deque(maxlen=SAMPLES)
            late += taken
            counts.ticks += one.ticks
            counts.caught_up += one.caught_up
            counts.skipped += one.skipped
            counts.work_s += one.work_s
        if not late or not counts.ticks:
            return
        late.sort()
        p50, p99, most = (round(late[int((len(late) - 1) * share)] * 1000, 3) for share in (0.5, 0.99, 1.0))
        work = round(counts.work_s / counts.ticks * 1000, 3)
        self._tell(TicksReported(counts.ticks, p50, p99, most, work, counts.caught_up, counts.skipped, tap_dropped))

    def close(self) -> None:
        """End all of them; those that hang are left to the end of the process."""
        for mixer in (*self._mixers, self._spare):
            mixer.retire()
        for mixer in (*self._mixers, self._spare):
            mixer.join(1.0)

    def _replace(self, index: int, reason: str) -> None:
        old, new = self._mixers[index], self._spare
        with self._outlet.lock:
            old.retire()
            rooms = old.rooms.copy()
            if old.current is not None and old.current.name in rooms:
                rooms[old.current.name] = rooms[old.current.name].rescued()
        self._mixers[index] = new
        old.hung = reason == "hung"
        new.counts, new.latenesses = old.counts, old.latenesses
        new.engage(index, self._phase(index), rooms)
        self._tell(MixerReplaced(index, reason, len(rooms)))
        self._zombies.append((time.monotonic(), old))
        self._spare = self._start()

    def _change_rooms(self, mixer: Mixer, change: Callable[[dict[str, Room]], dict[str, Room]]) -> None:
        with self._outlet.lock:  # against a room that is being rescued
            mixer.rooms = change(mixer.rooms)

    def _home(self, name: str) -> Mixer:
        if name not in self._homes:
            raise UsageError(f"no room {name!r}")
        return self._mixers[self._homes[name]]

    def _phase(self, index: int) -> int:
        return index * TICK_US // self._count

    def _start(self) -> Mixer:
        mixer = Mixer(self._outlet, self._priority, self._tell)
        mixer.start()
        return mixer
