"""How a stand-in and its host know each other on their links: by an authority that vouches for these two and no other.

It is made anew for each pair and kept in the stand-in's memory. Machines that Ray has just started need no certificate
of the cluster, and a worker's proves nothing to any node. No key leaves the process that made it.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from relay.errors import PeerError
from relay.link.quic import Identity
from relay.link.quic.authority import new_authority, new_key, new_node
from relay.workers.words import FAR, NEAR

DAYS = 365
"""Longer than a worker lives."""


class PairAuthority:
    """The stand-in's side."""

    def __init__(self) -> None:
        self._key = new_key()
        self._certificate = new_authority("costream worker authority", self._key, DAYS)

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def near(self) -> Identity:
        """The stand-in's own identity."""
        key = new_key()
        certificate = new_node(NEAR, key.public_key(), self._certificate, self._key, DAYS)
        return Identity(NEAR, certificate, key, (self._certificate,))

    def far(self, public_key: bytes) -> bytes:
        """Return a certificate for the host's key. Raises PeerError when it is none that we take."""
        try:
            key = load_pem_public_key(public_key)
        except ValueError:
            raise PeerError("the host's public key cannot be read") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise PeerError("the host's public key is of another kind than ours")
        return new_node(FAR, key, self._certificate, self._key, DAYS).public_bytes(Encoding.PEM)


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return what a host shows of its key."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def far_identity(key: ec.EllipticCurvePrivateKey, certificate: bytes, authority: bytes) -> Identity:
    """Return the host's identity from what `PairAuthority` gave."""
    own, signer = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
    return Identity(FAR, own, key, (signer,))
