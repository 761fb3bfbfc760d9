"""Who a node is: its certificate from the cluster CA, and the check of the other end's (RFC 5280, by `cryptography`).

A node certificate carries its name twice: as the URI `costream://node/NAME`, which is what is believed, and as a DNS
name, which TLS libraries expect. Further DNS names and addresses say where the node can be reached and prove no name.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import verification

from relay.errors import SettingsError
from relay.link.transport import IdentityRefused

URI_PREFIX = "costream://node/"
MAX_CHAIN = 3  # certificates beside the leaf that a peer may send; ours send none
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Identity:
    """This node's certificate and key, and whom it believes. `authorities` are several while a CA is replaced."""

    name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    authorities: tuple[x509.Certificate, ...]


def is_node_name(name: str) -> bool:
    """Say whether a name can stand in a certificate: a DNS name in lower case, at most 200 characters."""
    return len(name) <= 200 and _NAME.fullmatch(name) is not None


def load_identity(certificate: Path, key: Path, authority: Path) -> Identity:
    """Read what `costream ca issue` wrote. Raises SettingsError naming the file when something is wrong with it."""
    own = _read_certificates(certificate)[0]
    authorities = tuple(_read_certificates(authority))
    try:
        secret = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{key}: is no readable private key: {error}") from None
    if not isinstance(secret, ec.EllipticCurvePrivateKey) or secret.public_key() != own.public_key():
        raise SettingsError(f"{key}: is not the key of {certificate}")
    try:
        name = check_peer(own, (), authorities, datetime.datetime.now(datetime.UTC))
    except IdentityRefused as error:
        raise SettingsError(f"{certificate}: would be refused by every node with {authority}: {error}") from None
    return Identity(name, own, secret, authorities)


def check_peer(
    leaf: x509.Certificate | None,
    chain: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    now: datetime.datetime,
    expected: str | None = None,
) -> str:
    """Return the node name that a certificate proves. `expected` None takes any node of the cluster.

    Raises IdentityRefused: missing, no chain to an authority, not valid now, not for this use, or another name.
    """
    if leaf is None:
        raise IdentityRefused("no certificate was shown")
    if len(chain) > MAX_CHAIN:
        raise IdentityRefused(f"{len(chain)} intermediate certificates are too many")
    _check_dates(leaf, now)
    policy = verification.PolicyBuilder().store(verification.Store(list(authorities))).time(now)
    try:
        name = node_name(leaf)
        policy.build_client_verifier().verify(leaf, list(chain))
        policy.build_server_verifier(x509.DNSName(name)).verify(leaf, list(chain))
    except (verification.VerificationError, x509.ExtensionNotFound, ValueError) as error:
        raise IdentityRefused(f"the certificate is not one of this cluster's nodes: {error}") from None
    if expected is not None and name != expected:
        raise IdentityRefused(f"the certificate is for node {name!r}, not for {expected!r}")
    return name


def node_name(leaf: x509.Certificate) -> str:
    """Return the name in the certificate's one node URI. Raises IdentityRefused when there is not exactly one."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise IdentityRefused(f"the certificate names nobody: {error}") from None
    uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(URI_PREFIX)]
    found = [uri.removeprefix(URI_PREFIX) for uri in uris]
    if len(found) != 1 or not is_node_name(found[0]):
        raise IdentityRefused(f"the certificate names {len(found)} nodes of this cluster, where one is needed")
    return found[0]


def _check_dates(leaf: x509.Certificate, now: datetime.datetime) -> None:
    """The verifier checks this too; here it gets words that say what to do."""
    if now < leaf.not_valid_before_utc:
        raise IdentityRefused(f"the certificate is not valid before {leaf.not_valid_before_utc:%F %T} UTC")
    if now > leaf.not_valid_after_utc:
        raise IdentityRefused(f"the certificate expired at {leaf.not_valid_after_utc:%F %T} UTC")


def _read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: is no readable certificate: {error}") from None
