"""`costream ca`: files that nobody else can read, nothing overwritten, sentences for mistakes."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from costream import ca
from costream.cli import app
from relay.errors import SettingsError
from relay.link.quic.identity import load_identity


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ca", *words])
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "cluster"
    ca.init(made)
    return made


def names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_the_command_line_makes_a_node_that_can_link(tmp_path: Path) -> None:
    where = tmp_path / "cluster"
    assert run("init", str(where))[0] == 0
    code, output = run("issue", str(where), "relay-1", "--address", "10.0.0.7", "--address", "Relay.example")
    assert code == 0
    assert f'certificate = "{where / "relay-1.pem"}"' in output
    made = load_identity(where / "relay-1.pem", where / "relay-1.key", where / "ca.pem")
    assert made.name == "relay-1"
    assert isinstance(made.key.curve, ec.SECP256R1)
    assert names(made.certificate).get_values_for_type(x509.DNSName) == ["relay-1", "relay.example"]
    assert names(made.certificate).get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.7")]


def test_files_are_their_owners_only(directory: Path) -> None:
    ca.issue(directory, "a")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "ca.pem": 0o600,
        "ca.key": 0o600,
        "a.pem": 0o600,
        "a.key": 0o600,
    }
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_nothing_is_overwritten(directory: Path) -> None:
    ca.issue(directory, "a")
    before = {path: path.read_bytes() for path in directory.iterdir()}
    for again in (lambda: ca.init(directory), lambda: ca.issue(directory, "a")):
        with pytest.raises(SettingsError, match="exists and is not overwritten"):
            again()
    (directory / "a.key").unlink()
    with pytest.raises(SettingsError, match=r"a\.pem exists"):
        ca.issue(directory, "a")
    assert not (directory / "a.key").exists()
    before.pop(directory / "a.key")
    assert before == {path: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", ["", "A", "a/../b", "ca", "x" * 64, "a b"])
def test_a_wrong_name_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be a node's name"):
        ca.issue(directory, name)


def test_a_wrong_address_is_refused(directory: Path) -> None:
    with pytest.raises(SettingsError, match="--address a b: is neither a host name nor an IP address"):
        ca.issue(directory, "a", ["a b"])
    assert not (directory / "a.pem").exists()


def test_without_an_authority_it_says_what_to_do(tmp_path: Path) -> None:
    code, output = run("issue", str(tmp_path), "a")
    assert code != 0
    assert f"run `costream ca init {tmp_path}` first" in output


def test_a_broken_authority_is_named(directory: Path) -> None:
    (directory / "ca.key").write_text("nothing")
    with pytest.raises(SettingsError, match="its authority cannot be read"):
        ca.issue(directory, "a")
    other = directory / "other"
    ca.init(other)
    (directory / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(SettingsError, match=r"ca\.key is not the key of "):
        ca.issue(directory, "a")


def test_no_node_outlives_its_authority(tmp_path: Path) -> None:
    ca.init(tmp_path, days=10)
    with pytest.raises(SettingsError, match="ask for fewer days"):
        ca.issue(tmp_path, "a")
    made = ca.issue(tmp_path, "a", days=9)
    left = made.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=8) < left <= datetime.timedelta(days=9)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        ca.init(tmp_path / "file" / "cluster")
