"""The TLS of a connection, with our check of certificates in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aioquic import tls
from aioquic._buffer import Buffer
from cryptography import x509

from relay.link.transport import IdentityRefused

Check = Callable[[x509.Certificate | None, Sequence[x509.Certificate]], None]


class CertificateRequired(tls.Alert):
    """RFC 8446 section 4.4.2.4."""

    description = tls.AlertDescription.certificate_required


class CheckedContext(tls.Context):
    """TLS with our check. An object becomes one by its `__class__`, because aioquic makes it itself."""

    check: Check

    @property
    def _request_client_certificate(self) -> bool:
        return not self._is_client and not self._session_resumed

    @_request_client_certificate.setter
    def _request_client_certificate(self, value: bool) -> None:
        pass

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        super()._set_peer_certificate(certificate)
        self._approve(tls.AlertBadCertificate)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        super()._server_handle_certificate(input_buf)
        if self._peer_certificate is None:
            self._approve(CertificateRequired)

    def _approve(self, alert: type[tls.Alert]) -> None:
        try:
            self.check(self._peer_certificate, self._peer_certificate_chain)
        except IdentityRefused as error:
            raise alert(str(error)) from None
