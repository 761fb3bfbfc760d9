"""`costream ca`: the cluster's certificate authority and the certificates of its nodes, as files.

`init` writes `ca.pem` and `ca.key`; `issue` writes `NAME.pem` and `NAME.key` beside them. A node needs its two files
and `ca.pem`; `ca.key` stays where certificates are made.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from relay.errors import SettingsError
from relay.link.quic.authority import new_authority, new_key, new_node
from relay.link.quic.identity import is_node_name

CA_DAYS = 3650
NODE_DAYS = 397  # what browsers accept of a server; a node's certificate has no reason to live longer
MAX_DAYS = 3650


def init(directory: Path, days: int = CA_DAYS) -> x509.Certificate:
    """Write a new authority. Raises SettingsError when one is there or a file cannot be written."""
    key = new_key()
    certificate = new_authority("costream cluster authority", key, days)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{directory}: cannot be made: {error.strerror}") from None
    _write_pair(directory, "ca", certificate, key)
    return certificate


def issue(directory: Path, name: str, addresses: Sequence[str] = (), days: int = NODE_DAYS) -> x509.Certificate:
    """Write a node's certificate and key. Raises SettingsError for a wrong name or address, no authority, or a file
    that is there already.
    """
    if not is_node_name(name) or name == "ca":
        raise SettingsError(f"{name!r} cannot be a node's name: write it like a host name, in lower case, and not `ca`")
    authority, signer = _authority(directory)
    if datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days) > authority.not_valid_after_utc:
        raise SettingsError(f"the authority itself expires at {authority.not_valid_after_utc:%F}: ask for fewer days")
    key = new_key()
    reached = [_address(address) for address in addresses if address != name]
    certificate = new_node(name, key.public_key(), authority, signer, days, reached)
    _write_pair(directory, name, certificate, key)
    return certificate


def _authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
    except FileNotFoundError as error:
        raise SettingsError(f"{error.filename} is missing: run `costream ca init {directory}` first") from None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{directory}: its authority cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise SettingsError(f"{directory / 'ca.key'} is not the key of {directory / 'ca.pem'}")
    return certificate, key


def _address(text: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    if not is_node_name(text.lower()):
        raise SettingsError(f"--address {text}: is neither a host name nor an IP address")
    return x509.DNSName(text.lower())


def _write_pair(directory: Path, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write both or nothing, readable by their owner only."""
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = ((directory / f"{stem}.key", secret), (directory / f"{stem}.pem", certificate.public_bytes(Encoding.PEM)))
    for path, _ in files:
        if path.exists():
            raise SettingsError(f"{path} exists and is not overwritten: move it away to make a new one")
    written: list[Path] = []
    try:
        for path, content in files:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                written.append(path)
                file.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise SettingsError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
