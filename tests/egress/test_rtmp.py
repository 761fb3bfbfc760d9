"""RTMP to ffmpeg as a server, to servers that hang, refuse, talk nonsense, or are not to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from costream.tls import prepare_tls
from relay.addresses import is_public
from relay.egress.address import parse_target, shown
from relay.egress.targets import check_target
from relay.errors import BadRequest
from relay.settings import dev_settings
from tests.egress.show import LiveFeeds
from tests.egress.world import FFMPEG, World, ffmpeg_errors, until

SECRET = "live_123456_secret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def listening(port: int, path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """ffmpeg takes one RTMP stream and writes it to a file; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        FFMPEG, "-v", "error", "-listen", "1", "-i", f"rtmp://127.0.0.1:{port}/live/{SECRET}",
        "-c", "copy", "-f", "flv", "-flush_packets", "1", str(path),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_reaches_ffmpeg_and_comes_back_to_it(world: World, feeds: LiveFeeds, tmp_path: Path) -> None:
    feeds.start()
    port = free_port()
    first, second = tmp_path / "first.flv", tmp_path / "second.flv"
    async with listening(port, first):
        egress = await world.start("rtmp", url=f"rtmp://127.0.0.1:{port}/live/{SECRET}")
        await world.running(egress)
        await until(lambda: size(first) > 60_000)
    await until(lambda: world.manager.get(egress)["state"] == "retrying")
    async with listening(port, second) as listener:
        await world.running(egress)
        await until(lambda: size(second) > 60_000)
        facts = await world.manager.stop(egress)
        assert await asyncio.wait_for(listener.wait(), 20) == 0  # it was told that the stream is over
    assert (facts["state"], facts["error"]) == ("ended", None)
    assert facts["pictures"] > 60
    assert ffmpeg_errors(second) == ""
    states = world.states(egress)
    assert states[0] == "starting"
    assert [state for state in states if state != "retrying"] == ["starting", "running", "running", "ended"]
    assert SECRET not in repr(world.events) + repr(world.manager.list())


async def test_a_server_that_hangs_holds_back_nobody(world: World, feeds: LiveFeeds) -> None:
    """It takes the connection and reads nothing: first before the handshake, then nobody cares how often."""
    world.use(push_stall_ms=400, push_queue_bytes=65_536)
    feeds.start()
    connected: list[asyncio.StreamWriter] = []

    def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        connected.append(writer)

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        egress = await world.start("rtmp", url=f"rtmp://127.0.0.1:{port}/live/{SECRET}")
        hls = await world.start("hls")
        await until(lambda: len(connected) >= 2)
        await world.running(hls)
        assert world.codes(egress) == {"unreachable"}
        await world.manager.stop(egress)
        for writer in connected:
            writer.transport.abort()
    assert world.manager.get(hls)["state"] == "running"


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "refused"), (b"", "unreachable"), (b"\x03" + b"\xff" * 9000, "refused")],
)
async def test_nonsense_is_an_error_of_that_push(world: World, feeds: LiveFeeds, answer: bytes, code: str) -> None:
    feeds.start()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        await writer.drain()
        await reader.read(5000)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        egress = await world.start("rtmp", url=f"rtmp://127.0.0.1:{port}/live/{SECRET}")
        await until(lambda: code in world.codes(egress))
        await world.manager.stop(egress)


async def test_a_certificate_that_nobody_vouches_for_is_refused(world: World, feeds: LiveFeeds, tmp_path: Path) -> None:
    feeds.start()
    heard = bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read(10))
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        egress = await world.start("rtmp", url=f"rtmps://localhost:{port}/live/{SECRET}")
        await until(lambda: world.codes(egress) == {"tls"})
        await world.manager.stop(egress)
    assert not heard


def self_signed(directory: Path) -> tuple[Path, Path]:
    files = prepare_tls(dev_settings(environ={}, overrides={"node.state_dir": directory}))
    return files.certificate, files.key


@pytest.mark.parametrize(
    "url",
    [
        "rtmp://127.0.0.1/live/key",
        "rtmp://localhost/live/key",
        "rtmp://10.0.0.7/live/key",
        "rtmp://169.254.169.254/live/key",
        "rtmp://[::1]/live/key",
        "rtmp://[::ffff:192.168.1.1]/live/key",
        "rtmp://0/live/key",
        "rtmps://0x7f000001/live/key",
        "rtmp://[64:ff9b::7f00:1]/live/key",
    ],
)
async def test_private_targets_are_refused(world: World, url: str) -> None:
    world.use(allow_private_targets=False)
    with pytest.raises(BadRequest) as caught:
        await world.start("rtmp", url=url)
    assert caught.value.code == "target-not-allowed"
    assert not world.manager.list()


async def test_a_name_that_turned_private_meanwhile_is_refused_by_who_connects(
    world: World, feeds: LiveFeeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding: the manager's look-up is let pass; the process looks up and checks by itself, and that is final."""

    async def pass_by(url: str, allow_private: bool) -> None:
        parse_target(url)

    monkeypatch.setattr("relay.egress.manager.check_target", pass_by)
    world.use(allow_private_targets=False)
    feeds.start()
    egress = await world.start("rtmp", url="rtmp://localhost/live/key")
    await until(lambda: world.manager.get(egress)["state"] == "failed")
    assert world.codes(egress) == {"target-not-allowed"}
    await until(lambda: not world.pids())


@pytest.mark.parametrize(
    "url",
    ["", "http://a/b/c", "rtmp://host", "rtmp://host/app", "rtmp://host/app/", "rtmp://u:p@host/a/b", "rtmp://h:99999/a/b",
     "rtmp://host/a/b#c", "rtmp://host/a/b\r\nX", "rtmp://h/a/" + "b" * 3000, "rtmp://[::/a/b"],
)  # fmt: skip
def test_what_is_no_target(url: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_target(url)
    assert caught.value.code == "bad-target"
    assert shown(url) == "…"


def test_a_target_in_its_parts() -> None:
    target = parse_target(f"rtmps://a.example:8443/app/inst/{SECRET}?x=1")
    assert (target.host, target.port, target.app, target.playpath) == (
        "a.example", 8443, "app/inst", f"{SECRET}?x=1",
    )  # fmt: skip
    assert target.tc_url == "rtmps://a.example:8443/app/inst"
    assert parse_target("rtmp://[2001:db8::1]/live/k").tc_url == "rtmp://[2001:db8::1]/live"
    assert SECRET not in shown(f"rtmp://a.example/live/{SECRET}")


def test_addresses_of_the_internet() -> None:
    assert all(map(is_public, ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]))
    private = [
        "127.0.0.1",
        "10.1.2.3",
        "100.64.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "240.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ]
    private += ["::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1", "2002:7f00:1::", "64:ff9b::a00:1"]
    private += ["192.0.0.192", "::ffff:192.0.0.192", "fec0::1"]
    assert [each for each in private if is_public(each)] == []


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example"])
async def test_a_name_that_cannot_be_one_is_told_at_once(host: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await check_target(f"rtmp://{host}/live/{SECRET}", allow_private=True)
    assert refused.value.code == "bad-target"
