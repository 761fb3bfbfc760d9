"""aioquic 1.7.2 as we need it: the one place where its private names are touched (`tests/link/test_quic_adapter.py`).

What is changed, and why it cannot be had from its public face:
- TLS asks every client for a certificate, unless the session is resumed (aioquic's own flag breaks resumption), and
  hands each certificate to our check in the middle of the handshake (`tls`);
- packets, losses and RTT samples are counted, loss is told by time (`recovery`);
- DATAGRAM frames carry a token, which comes back when the packet is acknowledged or lost; MTU probes are sent and
  packets resized; the window can be opened; a server sends NEW_TOKEN with HANDSHAKE_DONE; what a client sent early is
  sent again after a Retry; how a connection ends is known at once instead of three timeouts later (`general`);
- packets of datagrams, acknowledgements and pings take a short way (`quick`).
Times are seconds of the monotonic clock, as in aioquic.
"""

from __future__ import annotations

import logging
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import CipherSuite
from cryptography import x509

from relay.link.quic.adapter.general import Wire
from relay.link.quic.adapter.quick import Quic

__all__ = ["VERSION", "Quic", "Wire", "configure"]
VERSION = "1.7.2"
logging.getLogger("quic").setLevel(logging.ERROR)  # its warnings are strangers' mistakes; ours say the same with names


def configure(
    *, client: bool, alpns: list[str], certificate: x509.Certificate, key: Any, **more: Any
) -> QuicConfiguration:
    """Settings common to both ends: one version, one cipher, our certificate, no check by aioquic."""
    return QuicConfiguration(
        alpn_protocols=alpns,
        is_client=client,
        certificate=certificate,
        private_key=key,
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
        supported_versions=[1],
        verify_mode=0,  # ssl.CERT_NONE: the check is ours
        max_datagram_frame_size=65_535,
        **more,
    )
