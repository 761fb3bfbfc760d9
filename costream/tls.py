"""The certificate of HTTPS: the operator's own, or a self-signed one made at the first start.

The self-signed one is ECDSA on P-256 (small enough for any client), names every address that clients may use, and is
made anew when it is about to expire or when an address is missing in it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from costream.addresses import detect_addresses
from relay.errors import SettingsError
from relay.settings import SignalingSettings

CERTIFICATE_NAME = "tls-certificate.pem"
KEY_NAME = "tls-key.pem"
LIFETIME = datetime.timedelta(days=397)  # well below the 825 days that Apple takes from private issuers
RENEW_BEFORE = datetime.timedelta(days=30)
_BACKDATE = datetime.timedelta(hours=1)  # clients whose clock is behind accept it at once


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of the PEM chain and its key. `fingerprint` is the certificate's SHA-256, lower-case hex."""

    certificate: Path
    key: Path
    self_signed: bool
    fingerprint: str
    expires: datetime.datetime


def prepare_tls(settings: SignalingSettings, now: datetime.datetime | None = None) -> TlsFiles:
    """Return the files that HTTPS serves, making or renewing the self-signed ones in `state_dir`.

    Raises SettingsError when configured files cannot be used, or `state_dir` cannot be written.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    if settings.http.tls_cert:
        return load_pair(Path(settings.http.tls_cert), Path(settings.http.tls_key), self_signed=False)
    directory = settings.node.state_dir
    certificate, key = directory / CERTIFICATE_NAME, directory / KEY_NAME
    names = wanted_names(settings.http.host)
    try:
        if not is_fresh(certificate, key, names, now):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make(certificate, key, names, now)
    except OSError as error:
        raise SettingsError(
            f"node.state_dir = {str(directory)!r}: the certificate cannot be kept there: {error.strerror}"
        ) from None
    return load_pair(certificate, key, self_signed=True)


def leaf_pem(files: TlsFiles) -> str:
    """Return the PEM of the one certificate that HTTPS shows first, without its chain."""
    held = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return held.public_bytes(serialization.Encoding.PEM).decode()


def wanted_names(host: str) -> tuple[str, ...]:
    """Return the names and addresses that a certificate for this bind address has to carry."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    try:
        names += detect_addresses(host)
    except ValueError:
        names.append(host)
    usable = [name for name in names if name and name.isascii() and len(name) < 254]
    return tuple(dict.fromkeys(usable))


def is_fresh(certificate: Path, key: Path, names: Iterable[str], now: datetime.datetime) -> bool:
    """Return whether both files fit each other, cover `names` and last longer than the renewal margin."""
    try:
        held = x509.load_pem_x509_certificate(certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        extension = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    carried = {*extension.get_values_for_type(x509.DNSName)}
    carried |= {str(address) for address in extension.get_values_for_type(x509.IPAddress)}
    return set(names) <= carried and held.not_valid_before_utc <= now < held.not_valid_after_utc - RENEW_BEFORE


def _make(certificate: Path, key: Path, names: Iterable[str], now: datetime.datetime) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "costream (self-signed)")])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The key goes first: a stop in between leaves a pair that does not fit, which is_fresh refuses.
    _write(key, pem, 0o600)
    _write(certificate, built.public_bytes(serialization.Encoding.PEM), 0o644)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file at once, with its mode set before anything is in it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_pair(certificate: Path, key: Path, *, self_signed: bool) -> TlsFiles:
    """Read a certificate and its key. Raises SettingsError when they are missing, malformed or no pair."""
    try:
        held = x509.load_pem_x509_certificate(certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError:  # an OSError, so it comes first
        raise SettingsError(
            f"http.tls_key = {str(key)!r} is not the key of http.tls_cert = {str(certificate)!r}"
        ) from None
    except OSError as error:
        raise SettingsError(f"http.tls_cert, http.tls_key: {error.filename or certificate}: {error.strerror}") from None
    except ValueError:
        raise SettingsError(f"http.tls_cert = {str(certificate)!r} is not a PEM certificate") from None
    fingerprint = held.fingerprint(hashes.SHA256()).hex()
    return TlsFiles(certificate, key, self_signed, fingerprint, held.not_valid_after_utc)
