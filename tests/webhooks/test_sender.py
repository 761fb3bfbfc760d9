"""One try: to the address that was checked, under the name that was asked for."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.settings import WebhookSettings
from signaling.webhooks import sender as module
from signaling.webhooks.sender import Outcome, Sender

NAME = "hooks.example"


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own for one name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = directory / f"{name}.pem", directory / f"{name}.key"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, secret


@contextlib.asynccontextmanager
async def answering(reply: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that reads a request's head and says one thing; gives its port and the heads."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(reply)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every name leads to loopback; what was looked up."""
    looked_up: list[str] = []

    def look_up(host: str, port: int, allow_private: bool, setting: str) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(module, "look_up", look_up)
    return looked_up


async def send(url: str, verify: Any = True, **settings: Any) -> Outcome:
    sender = Sender(WebhookSettings(allow_plain_http=True, **settings), verify)
    try:
        return await sender.send("e", url, {"webhook-id": "1"}, "{}")
    finally:
        await sender.close()


async def test_the_name_is_shown_and_the_address_used(names: list[str]) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as (port, heads):
        assert await send(f"http://{NAME}:{port}/a/b?c=d") == Outcome(True)
    assert names == [NAME]
    assert heads[0].startswith("POST /a/b?c=d HTTP/1.1\r\n")
    assert f"\r\nhost: {NAME}:{port}\r\n" in heads[0].lower()
    assert heads[0].lower().count("\r\nhost:") == 1


@pytest.mark.parametrize(("name", "ok"), [(NAME, True), ("other.example", False)])
async def test_tls_is_verified_for_the_name(names: list[str], tmp_path: Path, name: str, ok: bool) -> None:
    chain, key = certificate(tmp_path, name)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(chain, key)
    trusted = ssl.create_default_context(cafile=str(chain))
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", served) as (port, _):
        outcome = await send(f"https://{NAME}:{port}/", trusted)
    assert (outcome.ok, outcome.reason) == (ok, "" if ok else "unreachable")


async def test_a_certificate_that_nobody_signed(names: list[str], tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, NAME)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(chain, key)
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", served) as (port, _):
        assert (await send(f"https://{NAME}:{port}/")).reason == "unreachable"


async def test_names_that_nobody_answers_for_hold_up_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up lasts as long as the system's resolver tries, also when nobody waits for it any more. What else this
    process does in threads, files of HLS for one, goes on."""
    answered = threading.Event()

    def look_up(*_: object) -> list[str]:
        answered.wait(60)
        return ["127.0.0.1"]

    monkeypatch.setattr(module, "look_up", look_up)
    try:
        tries = [send(f"https://{number}.example/", timeout_s=0.2) for number in range(40)]
        assert {each.reason for each in await asyncio.gather(*tries)} == {"timeout"}
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        answered.set()


async def test_a_name_that_cannot_be_one() -> None:
    """As in the settings, whose addresses are not looked up when they are read."""
    assert await send(f"https://{'a' * 64}.example/") == Outcome(False, "bad-target")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"", "unreachable"),
        (b"SMTP ready\r\n", "unreachable"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "http-999"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx", ""),
        (b"HTTP/1.1 307 Go\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n", "http-307"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "unreachable"),
    ],
)
async def test_answers_of_all_kinds(names: list[str], reply: bytes, reason: str) -> None:
    async with answering(reply) as (port, _):
        outcome = await send(f"http://{NAME}:{port}/", timeout_s=5.0)
    assert outcome.reason == reason


@pytest.mark.parametrize("dead", ["127.0.0.9", "192.0.2.1"])
async def test_another_address_of_a_name_is_tried_where_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    """As of a host with IPv6 that a network does not carry: it refuses, or says nothing."""
    monkeypatch.setattr(module, "look_up", lambda *_: [dead, "127.0.0.1"])
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, heads):
        assert await send(f"http://{NAME}:{port}/", timeout_s=4.0) == Outcome(True)
    assert len(heads) == 1


async def test_one_that_says_nothing_is_given_up(names: list[str]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await send(f"http://{NAME}:{port}/", timeout_s=0.3)).reason == "timeout"
    server.close()


async def test_what_may_not_be_reached() -> None:
    assert (await send("http://127.0.0.1:9/")).reason == "target-not-allowed"
    assert (await send("http://[::ffff:10.0.0.1]:9/")).reason == "target-not-allowed"
    assert (await send("http://127.0.0.1:1/", allow_private_targets=True)).reason == "unreachable"
    assert (await send("http://nowhere.invalid/")).reason == "unreachable"
    assert (await send("gopher://x/")).reason == "bad-target"
