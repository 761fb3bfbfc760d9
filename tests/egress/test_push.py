"""A push by itself, against a server that answers well and then reads, or does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from relay.egress.h264 import Parameters
from relay.egress.media import AudioConfig, VideoUnit
from relay.egress.messages import AddPush, Stated
from relay.egress.rtmp import PushOutput
from relay.egress.rtmp_session import VIDEO
from relay.egress.sps import Sps
from tests.egress.test_rtmp_session import ANSWERS

PARAMETERS = Parameters(b"\x67\x42\xe0\x1f", (b"\x68\xce",), Sps(0x42, 0xE0, 0x1F, 320, 180))
QUEUE = 65_536
SHAKEN = 1 + 2 * 1536


def picture(number: int, *, keyframe: bool = False, size: int = 3_000) -> VideoUnit:
    return VideoUnit(33_333 * number, keyframe, PARAMETERS, number.to_bytes(4, "big") * (size // 4))


def pictures_in(data: bytes) -> list[int]:
    """The numbers of the pictures in what a push sends; none is longer than a chunk."""
    found, at = [], SHAKEN
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at + 4 : at + 7], "big"), data[at + 7]
        body = data[at + 12 : at + 12 + length]
        if kind == VIDEO and body[1] == 1 and len(body) == length:
            found.append(int.from_bytes(body[5:9], "big"))
        at += 12 + length
    return found


def wait(done: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


class Server:
    """Says all that a push has to hear as soon as it connects. Refuses until `open`."""

    def __init__(self, *, reads: bool = True) -> None:
        self._reads = reads
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.bind(("127.0.0.1", 0))
        self._met: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.heard = bytearray()

    @property
    def connected(self) -> int:
        return len(self._met)

    @property
    def url(self) -> str:
        return f"rtmp://127.0.0.1:{self._socket.getsockname()[1]}/live/key"

    def open(self) -> None:
        self._socket.listen()
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for each in (self._socket, *self._met):
            each.close()
        if self._thread.is_alive():
            self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                met, _ = self._socket.accept()
                self._met.append(met)
                met.sendall(b"".join(ANSWERS))
                if not self._reads:
                    continue
                while data := met.recv(65_536):
                    self.heard += data


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def deaf() -> Iterator[Server]:
    made = Server(reads=False)
    yield made
    made.close()


@contextlib.contextmanager
def pushing(server: Server, told: list[Stated], stall_ms: int = 2000) -> Iterator[PushOutput]:
    wanted = AddPush("p", server.url, True, QUEUE, stall_ms, 50, 100)
    output = PushOutput(wanted, AudioConfig(b"\x11\x90"), True, told.append)
    try:
        yield output
    finally:
        output.close()


def test_a_service_that_was_away_gets_what_is_on_now(server: Server) -> None:
    """Also where more came between two keyframes than may wait."""
    told: list[Stated] = []
    with pushing(server, told) as output:
        wait(lambda: told)
        assert told[0].state == "retrying"
        for number in range(100):
            output.take(picture(number, keyframe=not number))
        for number in range(100, 103):
            output.take(picture(number, keyframe=number == 100))
        server.open()
        wait(lambda: len(pictures_in(bytes(server.heard))) >= 3)
    assert pictures_in(bytes(server.heard))[:3] == [100, 101, 102]
    assert told[-1].state == "running"


def test_a_service_that_stops_reading_costs_pictures_and_is_dialled_again(deaf: Server) -> None:
    """Whoever hands over pictures goes on meanwhile, and what waits is bounded."""
    told: list[Stated] = []
    deaf.open()
    with pushing(deaf, told, stall_ms=300) as output:
        wait(lambda: [each for each in told if each.state == "running"])
        number = 0
        while not [each for each in told if each.state == "retrying"]:
            assert number < 20_000
            for _ in range(10):
                output.take(picture(number, keyframe=not number % 10, size=40_000))
                number += 1
            assert output._held <= QUEUE
            time.sleep(0.001)
        assert [each.code for each in told if each.state == "retrying"] == ["unreachable"]
        assert output.dropped > 0
        wait(lambda: deaf.connected >= 2)
