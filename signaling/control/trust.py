"""How a signaling service trusts a relay: which addresses it calls at all, and which certificate it takes there."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from relay.errors import NodeUnreachable, SettingsError
from relay.ports import NodeRecord
from relay.settings import PINNED_BY_DIRECTORY, ClusterSettings


class Trust:
    """The part of `[cluster]` that a caller needs."""

    def __init__(self, settings: ClusterSettings) -> None:
        """Raises SettingsError when the file of the CA cannot be used."""
        self._allow_plain = settings.allow_plain_http
        self._ca: ssl.SSLContext | None = None
        if settings.control_ca != PINNED_BY_DIRECTORY:
            self._ca = _verifying(settings.control_ca)

    def context(self, record: NodeRecord) -> ssl.SSLContext | None:
        """Return how to check the node's certificate; None for plain HTTP. Raises NodeUnreachable when it must not be
        called: plain HTTP without permission, or no certificate to hold it to."""
        try:
            parts = urlsplit(record.control_url)
            scheme, host = parts.scheme, parts.hostname or ""
        except ValueError:
            scheme, host = "", ""
        if scheme == "http" and (self._allow_plain or _is_loopback(host)):
            return None
        if scheme == "http":
            raise NodeUnreachable(f"{record.id} has plain HTTP only, which cluster.allow_plain_http does not allow")
        if scheme != "https":
            raise NodeUnreachable(f"{record.id} has no usable control_url in the directory")
        return self._ca if self._ca is not None else _pinning(record)


def _verifying(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=Path(path))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"cluster.control_ca = {path!r} cannot be used: {error.strerror or error}") from None


def _pinning(record: NodeRecord) -> ssl.SSLContext:
    """Accept the record's certificate and no other, whoever signed it and whatever names it carries."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the certificate itself is the identity; chain and key are still verified
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a leaf may be the trust anchor
    try:
        context.load_verify_locations(cadata=record.certificate)
    except (ssl.SSLError, ValueError) as error:
        raise NodeUnreachable(f"{record.id} has no usable certificate in the directory: {error}") from None
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
