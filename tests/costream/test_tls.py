"""The certificate: made once, private, renewed in time, and real TLS clients accept it."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest

from costream.addresses import detect_addresses
from costream.tls import LIFETIME, RENEW_BEFORE, is_fresh, prepare_tls, wanted_names
from relay.errors import SettingsError
from relay.settings import NodeSettings, dev_settings

NOW = datetime.datetime.now(datetime.UTC)


def settings_in(directory: Path, **http: str) -> NodeSettings:
    return dev_settings(
        False, {}, {"node.state_dir": str(directory), **{f"http.{key}": value for key, value in http.items()}}
    )


def test_it_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "state"
    first = prepare_tls(settings_in(directory))
    assert first == prepare_tls(settings_in(directory))
    assert first.self_signed
    assert first.key.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in directory.iterdir()) == ["tls-certificate.pem", "tls-key.pem"]


def test_it_is_renewed_before_it_expires(tmp_path: Path) -> None:
    first = prepare_tls(settings_in(tmp_path), NOW)
    almost = NOW + LIFETIME - RENEW_BEFORE - datetime.timedelta(hours=1)
    assert prepare_tls(settings_in(tmp_path), almost).fingerprint == first.fingerprint
    assert prepare_tls(settings_in(tmp_path), almost + datetime.timedelta(hours=2)).fingerprint != first.fingerprint


def test_it_is_renewed_for_a_new_address(tmp_path: Path) -> None:
    first = prepare_tls(settings_in(tmp_path))
    moved = prepare_tls(settings_in(tmp_path, host="127.9.9.9"))
    assert moved.fingerprint != first.fingerprint
    assert is_fresh(moved.certificate, moved.key, ["127.9.9.9", "localhost", "::1"], NOW)


@pytest.mark.parametrize("damage", ["tls-certificate.pem", "tls-key.pem"])
@pytest.mark.parametrize("content", [b"", b"rubbish", None])
def test_damaged_files_are_replaced(tmp_path: Path, damage: str, content: bytes | None) -> None:
    first = prepare_tls(settings_in(tmp_path))
    (tmp_path / damage).unlink() if content is None else (tmp_path / damage).write_bytes(content)
    second = prepare_tls(settings_in(tmp_path))
    assert second.fingerprint != first.fingerprint
    assert second.key.stat().st_mode & 0o777 == 0o600


async def test_a_client_that_trusts_it_connects(tmp_path: Path) -> None:
    files = prepare_tls(settings_in(tmp_path))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(files.certificate, files.key)
    client_side = ssl.create_default_context(cafile=str(files.certificate))

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=server_side) as server:
        port = server.sockets[0].getsockname()[1]
        for name in ("127.0.0.1", "localhost"):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname=name)
            writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=client_side, server_hostname="example.org")


def test_configured_files_are_used(tmp_path: Path) -> None:
    made = prepare_tls(settings_in(tmp_path))
    own = prepare_tls(settings_in(tmp_path / "other", tls_cert=str(made.certificate), tls_key=str(made.key)))
    assert (own.certificate, own.key, own.self_signed) == (made.certificate, made.key, False)
    assert not (tmp_path / "other").exists()


def test_unusable_configured_files_are_named(tmp_path: Path) -> None:
    one, two = (prepare_tls(settings_in(tmp_path / name)) for name in ("one", "two"))
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("rubbish")
    for certificate, key, reason in [
        (one.certificate, two.key, "is not the key of"),
        (tmp_path / "none.pem", one.key, r"none\.pem: No such file"),
        (one.certificate, tmp_path / "none.pem", "No such file"),
        (rubbish, one.key, "is not a PEM certificate"),
    ]:
        with pytest.raises(SettingsError, match=reason):
            prepare_tls(settings_in(tmp_path, tls_cert=str(certificate), tls_key=str(key)))


def test_an_unusable_state_dir_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"node\.state_dir"):
        prepare_tls(settings_in(tmp_path / "file" / "state"))


def test_names_cover_a_bind_host_that_is_a_name() -> None:
    assert {"localhost", "127.0.0.1", "::1", "relay.example"} <= set(wanted_names("relay.example"))


@pytest.mark.parametrize(
    ("bind", "found", "expected"),
    [
        ("127.0.0.1", [], ("127.0.0.1",)),
        ("203.0.113.7", ["10.0.0.1"], ("203.0.113.7",)),
        ("0.0.0.0", ["127.0.0.1", "10.0.0.9", "10.0.0.1", "2001:db8::1"], ("10.0.0.1", "10.0.0.9")),
        ("::", ["::1", "2001:db8::1", "10.0.0.1", "fe80::1", "169.254.1.1"], ("10.0.0.1", "2001:db8::1")),
        ("0.0.0.0", ["127.0.0.1", "169.254.1.1"], ("127.0.0.1",)),
        ("0.0.0.0", [], ("127.0.0.1",)),
    ],
)
def test_addresses_by_bind_address(bind: str, found: list[str], expected: tuple[str, ...]) -> None:
    assert detect_addresses(bind, found) == expected


def test_this_machine_has_an_address() -> None:
    assert detect_addresses("0.0.0.0")
