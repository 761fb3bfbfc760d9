"""The doctor: each finding is provoked for real, with real sockets, files and a store that answers."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from costream import doctor
from costream.doctor import Finding, Level
from costream.store_probe import StoreAnswer, probe_store
from costream.tls import LIFETIME, prepare_tls
from relay.plane.contract import PlaneConfig
from relay.settings import NodeSettings, dev_settings


def settings(**overrides: object) -> NodeSettings:
    """Dev settings with `section__key` overrides."""
    return dev_settings(False, {}, {name.replace("__", "."): value for name, value in overrides.items()})


def levels(findings: Iterator[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


@contextmanager
def web_server(status: int) -> Iterator[int]:
    """Answer every GET with `status`; yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def store(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """A server that maps what it reads to what it says, once; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as connection, contextlib.suppress(ConnectionResetError):
                while asked := connection.recv(4096):
                    connection.sendall(answer(asked))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_ports_in_use_by_others_and_by_us() -> None:
    for status, expected in ((500, Level.FAIL), (200, Level.OK)):
        with web_server(status) as port:
            found = list(doctor.check_ports(settings(http__port=0, media__port=0, http__plain_port=port)))
            assert [finding.level for finding in found] == [Level.OK, Level.OK, expected]
            assert "in use" in found[2].text
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        wish = settings(http__port=0, media__port=taken.getsockname()[1], http__plain_port=0)
        assert levels(doctor.check_ports(wish)) == [Level.OK, Level.FAIL]


@pytest.mark.parametrize("host", ["192.0.2.254", "no-such-host.invalid"])
def test_a_bind_address_that_is_not_ours(host: str) -> None:
    own_key = {"auth__keys": {"own": "s" * 32}}
    found = list(
        doctor.check_ports(settings(http__host=host, http__port=0, http__plain_port=0, media__port=0, **own_key))
    )
    assert found[0].level is Level.FAIL
    assert "change http.host" in found[0].text


@pytest.mark.parametrize(
    ("advertise", "host", "level"),
    [
        (["127.0.0.1"], "127.0.0.1", Level.OK),
        (["127.0.0.1"], "0.0.0.0", Level.FAIL),
        (["10.0.0.1"], "0.0.0.0", Level.WARN),
        (["10.0.0.1", "8.8.8.8"], "0.0.0.0", Level.OK),
    ],
)
def test_candidates(advertise: list[str], host: str, level: Level) -> None:
    wish = settings(media__advertise=advertise, media__host=host, auth__keys={"own": "s" * 32})
    assert levels(doctor.check_addresses(wish)) == [level]


def test_the_certificate_by_age(tmp_path: Path) -> None:
    wish = settings(node__state_dir=str(tmp_path))
    [missing] = doctor.check_tls(wish)
    assert (missing.level, "will be made" in missing.text) == (Level.OK, True)
    assert not list(tmp_path.iterdir())
    made = prepare_tls(wish)
    [fresh] = doctor.check_tls(wish)
    assert "self-signed" in fresh.text
    own = settings(http__tls_cert=str(made.certificate), http__tls_key=str(made.key))
    assert levels(doctor.check_tls(own)) == [Level.OK]
    for age, level in ((LIFETIME - datetime.timedelta(days=7), Level.WARN), (LIFETIME * 2, Level.FAIL)):
        made.certificate.unlink()
        prepare_tls(wish, datetime.datetime.now(datetime.UTC) - age)
        assert levels(doctor.check_tls(own)) == [level]
    made.key.write_text("rubbish")
    assert levels(doctor.check_tls(own)) == [Level.FAIL]


def test_a_state_dir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert levels(doctor.check_tls(settings(node__state_dir=str(tmp_path / "file" / "state")))) == [Level.FAIL]


def test_a_clock_of_1970(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(doctor.check_clock(settings())) == [Level.OK]
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    assert levels(doctor.check_clock(settings())) == [Level.FAIL]


def test_open_files() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert levels(doctor.check_files(settings(limits__max_sessions=1))) == [Level.OK]
    assert levels(doctor.check_files(settings(limits__max_sessions=soft))) == [Level.WARN]


def test_socket_buffers() -> None:
    assert levels(doctor.check_buffers(settings(media__socket_buffer_bytes=4096))) == [Level.OK] * 2
    found = list(doctor.check_buffers(settings(media__socket_buffer_bytes=1 << 30)))
    assert [finding.level for finding in found] == [Level.WARN] * 2
    assert "sysctl -w net.core.rmem_max=1073741824" in found[0].text


def test_the_plane_that_is_demanded() -> None:
    [pure] = doctor.check_plane(settings(media__plane="reference"))
    assert (pure.level, "pure Python" in pure.text) == (Level.OK, True)


def test_the_native_plane_is_opened_to_see_its_ways() -> None:
    native = pytest.importorskip("relay.plane.native", reason="the native plane is not built: see rust/README.md")
    plane = native.NativePlane(PlaneConfig(), "127.0.0.1", 0)
    ways = plane.ways
    plane.close()
    for wanted in ("auto", "native"):
        [found] = doctor.check_plane(settings(media__plane=wanted))
        lacks = [way for way in ("gso", "sendmmsg", "gro", "recvmmsg") if way not in ways]
        assert found.level is (Level.WARN if lacks else Level.OK)
        assert found.text.startswith("native, with ")
        assert all(way in found.text for way in [*ways, *lacks])


def test_a_native_plane_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "relay.plane._native", None)  # what Python itself does for a blocked import
    [demanded] = doctor.check_plane(settings(media__plane="native"))
    assert (demanded.level, "media.plane" in demanded.text) == (Level.FAIL, True)
    [fallback] = doctor.check_plane(settings(media__plane="auto"))
    assert (fallback.level, "pure Python" in fallback.text) == (Level.OK, True)


def time_reply(skew: float = 0.0) -> bytes:
    seconds = str(int(time.time() + skew)).encode()
    return b"*2\r\n$%d\r\n%s\r\n$6\r\n500000\r\n" % (len(seconds), seconds)


def test_a_store_that_answers_and_one_with_another_clock() -> None:
    assert levels(doctor.check_store(settings())) == [Level.OK]
    for skew, expected in ((0.0, [Level.OK]), (3600.0, [Level.OK, Level.WARN])):
        reply = time_reply(skew)
        with store(lambda _: reply) as port:  # noqa: B023 - the server ends within the round
            url = f"redis://127.0.0.1:{port}/0"
            assert levels(doctor.check_store(settings(store__url=url, store__socket_timeout_s=5))) == expected


def test_a_store_behind_sentinels_that_are_not_there() -> None:
    for url in ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/demo/0", "redis+cluster://127.0.0.1:1"):
        [found] = doctor.check_store(settings(store__url=url))
        assert (found.level, "no server can be reached" in found.text) == (Level.FAIL, True)
    [found] = doctor.check_store(settings(store__url="redis+sentinel://127.0.0.1:1"))
    assert "name of the service" in found.text


def test_a_store_with_a_password() -> None:
    asked: list[bytes] = []

    def answer(words: bytes) -> bytes:
        asked.append(words)
        return b"+OK\r\n" if b"AUTH" in words else time_reply()

    with store(answer) as port:
        assert isinstance(probe_store(f"redis://me:p%20w@127.0.0.1:{port}", 5, 5), StoreAnswer)
    assert asked[0] == b"*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$3\r\np w\r\n"


@pytest.mark.parametrize(
    ("said", "url", "told"),
    [
        (b"-NOAUTH Authentication required.\r\n", "redis://127.0.0.1:{}", "wants a password"),
        (b"-WRONGPASS invalid\r\n", "redis://:x@127.0.0.1:{}", "refuses the password"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "redis://127.0.0.1:{}", "does not speak the Redis protocol"),
        (b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", "redis://127.0.0.1:{}", "does not speak the Redis protocol"),
        (b"\xff\xfe\r\n", "redis://127.0.0.1:{}", "does not speak the Redis protocol"),
        (b"rubbish\r\n", "rediss://127.0.0.1:{}", "TLS failed"),
    ],
)
def test_a_store_that_answers_strangely(said: bytes, url: str, told: str) -> None:
    with store(lambda _: said) as port:
        answer = probe_store(url.format(port), 5, 5)
    assert isinstance(answer, str)
    assert told in answer


def test_a_store_that_is_not_there() -> None:
    for url, told in (("redis://127.0.0.1:1", "refused"), ("redis://no-such-host.invalid", "not a known host")):
        answer = probe_store(url, 5, 5)
        assert isinstance(answer, str)
        assert told in answer
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = probe_store(f"redis://127.0.0.1:{silent.getsockname()[1]}", 5, 0.05)
        assert isinstance(answer, str)
        assert "in time" in answer
