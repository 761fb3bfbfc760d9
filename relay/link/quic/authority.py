"""Certificates as `relay.link.quic.identity` takes them: an authority's, and those of the nodes that it vouches for."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from relay.link.quic.identity import URI_PREFIX

_SLACK = datetime.timedelta(minutes=5)  # a certificate made now has to be good on a node whose clock is behind


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key of the kind that all of ours are."""
    return ec.generate_private_key(ec.SECP256R1())


def new_authority(name: str, key: ec.EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    """Return a certificate that vouches for itself and may sign those of nodes."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _dated(days).subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def new_node(
    name: str,
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
    addresses: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """Return a certificate that says that whoever has this key is node `name`, and may be reached at `addresses`."""
    names = [x509.DNSName(name), x509.UniformResourceIdentifier(URI_PREFIX + name), *addresses]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # the upper bound of RFC 5280 A.1
    builder = _dated(days).subject_name(subject).issuer_name(authority.subject).public_key(key)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(both, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(issuer, critical=False).sign(signer, hashes.SHA256())


def _dated(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _SLACK).not_valid_after(now + datetime.timedelta(days=days))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
