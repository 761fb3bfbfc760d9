"""Whose certificate counts: chain, validity, use and the one node name."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from relay.errors import SettingsError
from relay.link.quic.identity import URI_PREFIX, Identity, check_peer, is_node_name, load_identity
from relay.link.transport import IdentityRefused
from tests.link.quic_world import UTC, authorities, cluster, forged, identity

NOW = datetime.datetime.now(UTC) + datetime.timedelta(hours=1)  # the tests' certificates are made later than this line


def refusal(who: Identity, expected: str | None = None, now: datetime.datetime = NOW) -> str:
    with pytest.raises(IdentityRefused) as caught:
        check_peer(who.certificate, (), authorities(), now, expected)
    return str(caught.value)


def test_a_nodes_certificate_proves_its_name() -> None:
    assert check_peer(identity("b").certificate, (), authorities(), NOW) == "b"
    assert check_peer(identity("b").certificate, (), authorities(), NOW, "b") == "b"
    assert check_peer(forged().certificate, (), authorities(), NOW) == "b"


def test_another_name_than_expected_is_refused() -> None:
    assert refusal(identity("b"), "a") == "the certificate is for node 'b', not for 'a'"


def test_another_clusters_certificate_is_refused() -> None:
    assert "not one of this cluster's nodes" in refusal(identity("b", of="other"))


def test_no_certificate_is_refused() -> None:
    with pytest.raises(IdentityRefused, match="no certificate was shown"):
        check_peer(None, (), authorities(), NOW)


def test_certificates_out_of_their_time_are_refused() -> None:
    assert refusal(forged(days=(-2, -1))).startswith("the certificate expired at ")
    assert refusal(forged(days=(1, 2))).startswith("the certificate is not valid before ")
    year = datetime.timedelta(days=400)
    assert refusal(identity("b"), now=NOW + year).startswith("the certificate expired at ")


@pytest.mark.parametrize(
    "uris",
    [(), (URI_PREFIX + "a", URI_PREFIX + "b"), (URI_PREFIX,), (URI_PREFIX + "B",), ("https://b",), (URI_PREFIX + "*",)],
)
def test_a_certificate_names_exactly_one_node(uris: tuple[str, ...]) -> None:
    assert "where one is needed" in refusal(forged(uris=uris))


def test_the_dns_name_has_to_agree() -> None:
    assert "not one of this cluster's nodes" in refusal(forged(dns="a"))


@pytest.mark.parametrize("use", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
def test_a_node_is_both_client_and_server(use: x509.ObjectIdentifier) -> None:
    assert "not one of this cluster's nodes" in refusal(forged(uses=(use,)))


def test_the_authority_is_no_node() -> None:
    with pytest.raises(IdentityRefused):
        check_peer(authorities()[0], (), authorities(), NOW)


def test_a_long_chain_is_refused_unread() -> None:
    with pytest.raises(IdentityRefused, match="4 intermediate certificates are too many"):
        check_peer(identity("b").certificate, authorities() * 4, authorities(), NOW)


@pytest.mark.parametrize("name", ["a", "relay-1", "relay-1.fra.example", "x" * 63, "0"])
def test_node_names(name: str) -> None:
    assert is_node_name(name)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a..b", "*", "a/b", "x" * 64, ".".join("x" * 101), "é"])
def test_no_node_names(name: str) -> None:
    assert not is_node_name(name)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("b.pem", "a.key", "ca.pem"), "a.key: is not the key of "),
        (("b.pem", "none.key", "ca.pem"), "none.key: is no readable private key"),
        (("b.key", "b.key", "ca.pem"), "b.key: is no readable certificate"),
        (("ca.pem", "ca.key", "ca.pem"), "ca.pem: would be refused by every node"),
        (("b.pem", "b.key", "none.pem"), "none.pem: is no readable certificate"),
    ],
)
def test_wrong_files_are_named(files: tuple[str, str, str], told: str) -> None:
    certificate, key, authority = (cluster() / name for name in files)
    with pytest.raises(SettingsError) as caught:
        load_identity(certificate, key, authority)
    assert told in str(caught.value)


def test_a_certificate_of_another_authority_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="would be refused by every node"):
        load_identity(cluster() / "b.pem", cluster() / "b.key", cluster("other") / "ca.pem")
