"""DTLS-SRTP (RFC 5764) for one session: the only file that touches aiortc's private names, so its version is pinned.

The plane hands in DTLS records of proved addresses and takes ours out; from the handshake come the SRTP keys. aiortc
brings the certificate, the OpenSSL context, the handshake loop and the check of the peer's fingerprints; replaced are
its reading (one bad datagram or OpenSSL error ended it), its writing (a flight may need several datagrams), its SRTP
sessions (the plane's matter) and its task per connection (a connected end works inside `feed`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiortc.rtcdtlstransport import (
    SRTP_PROFILES,
    RTCCertificate,
    RTCDtlsParameters,
    RTCDtlsTransport,
    SRTPProtectionProfile,
    State,
    certificate_digest,
)
from OpenSSL import SSL

from relay.edge.sdp import Fingerprint
from relay.errors import PeerError
from relay.plane.contract import SrtpProfile

MTU = (
    1200  # bytes of UDP payload that every path carries, as QUIC assumes (RFC 9000 14.1); browsers use it for DTLS too
)
MAX_DATAGRAM = 1500  # no longer one fits an Ethernet frame
RECORD_HEADER = 13  # RFC 6347 4.1
_QUEUE = 32  # datagrams waiting for the handshake; the longest flight seen, Chromium's, has 4
_DTLS_1_2 = 0xFEFD
_NO_RENEGOTIATION = 1 << 30  # SSL_OP_NO_RENEGOTIATION; the keys of a session are made once
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS: an idle end keeps 72 KiB instead of 88
_READ = 65_536
_ROTATE_BEFORE_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What a handshake gives: master key followed by salt for what we send and for what we receive."""

    profile: SrtpProfile
    tx_key: bytes
    rx_key: bytes


class Certificate(RTCCertificate):  # type: ignore[misc]
    """Our ECDSA P-256 certificate. Its OpenSSL contexts are made once and shared by all sessions."""

    def __init__(self, key: object, cert: object) -> None:
        super().__init__(key, cert)
        self._contexts: dict[tuple[bytes, ...], SSL.Context] = {}

    @classmethod
    def make(cls) -> Certificate:
        """Make a key and a self-signed certificate, good for 30 days."""
        made: Certificate = cls.generateCertificate()
        return made

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """What the answer names: the SHA-256 hash."""
        return (Fingerprint("sha-256", certificate_digest(self._cert, "sha-256")),)

    @property
    def expires_at(self) -> float:
        """The end of its validity in seconds since the epoch."""
        return float(self.expires.timestamp())

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        names = tuple(profile.openssl_profile for profile in srtp_profiles)
        if names not in self._contexts:
            context = super()._create_ssl_context(srtp_profiles)
            # The records of 1.2 are what `_datagrams` can tell apart, and what browsers speak.
            context.set_max_proto_version(_DTLS_1_2)
            context.set_options(_NO_RENEGOTIATION)
            context.set_mode(_RELEASE_BUFFERS)
            self._contexts[names] = context
        return self._contexts[names]


class CertificateStore:
    """The process's certificate, renewed a week before it ends; sessions keep the one they answered with."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._current: Certificate | None = None

    def current(self) -> Certificate:
        """Return the certificate for new sessions."""
        if self._current is None or self._current.expires_at - self._wall() < _ROTATE_BEFORE_S:
            self._current = Certificate.make()
        return self._current


class DtlsEnd:
    """Our end of one DTLS connection. Not reusable.

    `send` takes datagrams of at most `MTU` bytes, each with whole records. `on_closed` is called once when the peer
    ends the connection after the handshake, by close_notify or a fatal alert; never because of our own `close`.
    """

    def __init__(
        self,
        certificate: Certificate,
        role: str,
        remote_fingerprints: Sequence[Fingerprint],
        send: Callable[[bytes], None],
        on_closed: Callable[[], None] | None = None,
        profiles: Sequence[SrtpProfile] = tuple(SrtpProfile),
    ) -> None:
        self._engine = _Engine(certificate, role, send, profiles)
        self._remote = list(remote_fingerprints)
        self._on_closed = on_closed
        self.dropped = 0
        """Datagrams that were no DTLS, too long, or too many at once."""

    @property
    def connected(self) -> bool:
        """Whether the handshake is done and nobody has closed."""
        return bool(self._engine._state is State.CONNECTED)

    async def run(self, timeout_s: float) -> SrtpKeys:
        """Shake hands. Raises PeerError when it fails, takes longer than `timeout_s`, the certificate is not the one
        that the peer's SDP named, no SRTP profile is common, or `close` is called meanwhile. To be awaited once."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._engine.shake_hands(self._remote)
        except TimeoutError:
            raise PeerError(f"The DTLS handshake was not done within {timeout_s:g} s.") from None
        except SSL.Error as error:
            raise PeerError(f"The DTLS handshake failed: {error}.") from error
        finally:
            if not self.connected:
                self._engine.end()

    def feed(self, datagram: bytes) -> None:
        """Take a datagram that the peer sent. What is no DTLS record is counted and dropped."""
        if not (RECORD_HEADER <= len(datagram) <= MAX_DATAGRAM and 20 <= datagram[0] <= 63):
            self.dropped += 1
        elif not self.connected:
            self.dropped += not self._engine.queue(datagram)
        elif not self._engine.read(datagram):
            self._engine.end()
            if self._on_closed is not None:
                self._on_closed()

    def close(self) -> None:
        """Say close_notify once and stop; a handshake under way ends with PeerError. Repeatable, never waits."""
        self._engine.end()


class _Path:
    """What aiortc wants of an ICE transport: a name of our role for its logs."""

    role = "controlled"


class _Engine(RTCDtlsTransport):  # type: ignore[misc]
    """aiortc's handshake on queued datagrams, without tasks and without SRTP sessions."""

    def __init__(
        self, certificate: Certificate, role: str, send: Callable[[bytes], None], profiles: Sequence[SrtpProfile]
    ) -> None:
        super().__init__(_Path(), [certificate])
        self._certificate = certificate
        self._set_role(role)
        # The server's order decides (RFC 5764 4.1.2); aiortc's own puts AES-256 first.
        self._srtp_profiles = [_AVAILABLE[profile] for profile in profiles if profile in _AVAILABLE]
        self._send_datagram = send
        self._inbox: deque[bytes] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._ended = False
        self._keys: SrtpKeys | None = None

    async def shake_hands(self, remote: list[Fingerprint]) -> SrtpKeys:
        if self._ended:
            raise PeerError("The session was closed before the DTLS handshake.")
        self._ssl = SSL.Connection(self._certificate._create_ssl_context(self._srtp_profiles))
        self._ssl.set_ciphertext_mtu(MTU)  # without it OpenSSL falls back to 256-byte records
        (self._ssl.set_accept_state if self._role == "server" else self._ssl.set_connect_state)()
        self._set_state(State.CONNECTING)
        await self._do_handshake()
        self._flush()
        self._require("The DTLS handshake failed: an alert, or the session was closed.")
        self._validate_peer_identity(RTCDtlsParameters(fingerprints=remote))
        self._require("The peer's certificate is not the one that its SDP names.")
        self._setup_srtp()
        if self._keys is None:
            raise PeerError("No SRTP protection profile is common.")
        self._set_state(State.CONNECTED)
        while self._inbox:
            self.read(self._inbox.popleft())
        return self._keys

    def _require(self, otherwise: str) -> None:
        if self._ended or self._state is State.FAILED:
            raise PeerError(otherwise)

    def queue(self, datagram: bytes) -> bool:
        """Keep a datagram for the handshake. Returns False when there is no room or no use."""
        if self._ended or len(self._inbox) >= _QUEUE:
            return False
        self._inbox.append(datagram)
        self._wake()
        return True

    def read(self, datagram: bytes) -> bool:
        """Process a datagram after the handshake: alerts, and retransmissions of the peer's last flight, which OpenSSL
        answers with ours. Returns False when the peer has closed. Data is of no use here and dropped."""
        self._ssl.bio_write(datagram)
        try:
            while True:
                self._ssl.recv(_READ)
        except SSL.WantReadError:
            return True
        except SSL.Error:  # close_notify (ZeroReturnError) or a fatal alert; OpenSSL drops bad records silently
            return False
        finally:
            self._flush()

    def end(self) -> None:
        """Say close_notify if there is a connection, and let no one wait any longer."""
        if self._ended:
            return
        self._ended = True
        self._inbox.clear()
        self._wake()
        if self._ssl is not None:
            try:
                self._ssl.shutdown()
            except SSL.Error:
                pass  # in mid-handshake there is nothing to say goodbye to
            self._flush()
        self._set_state(State.CLOSED)

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def _recv_next(self) -> None:
        """Wait for a datagram or OpenSSL's timer. The handshake loop reads what was put into its buffer."""
        if not self._inbox and not self._ended:
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._ssl.DTLSv1_get_timeout()):
                    await self._arrived
            except TimeoutError:
                self._retransmit()
            finally:
                self._arrived = None
        if self._ended:
            raise ConnectionError("closed")
        if self._inbox:
            # One at a time: the buffer does not keep datagrams apart, and rubbish must not spoil its neighbour.
            self._ssl.bio_write(self._inbox.popleft())

    def _retransmit(self) -> None:
        try:
            self._ssl.DTLSv1_handle_timeout()
        except SSL.Error as error:
            raise ConnectionError("too many retransmissions") from error
        self._flush()

    async def _write_ssl(self) -> None:
        self._flush()

    def _flush(self) -> None:
        pending = bytearray()
        try:
            while True:
                pending += self._ssl.bio_read(_READ)
        except SSL.Error:  # nothing (more) to read
            pass
        for datagram in _datagrams(bytes(pending)):
            self._send_datagram(datagram)

    def _setup_srtp(self) -> None:
        selected = self._ssl.get_selected_srtp_profile()
        for name, profile in _AVAILABLE.items():
            if profile.openssl_profile == selected:
                length = 2 * (profile.key_length + profile.salt_length)
                material = self._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", length)
                client, server = profile.get_key_and_salt(material, 0), profile.get_key_and_salt(material, 1)
                tx_key, rx_key = (server, client) if self._role == "server" else (client, server)
                self._keys = SrtpKeys(name, tx_key, rx_key)


def _datagrams(records: bytes) -> list[bytes]:
    """Pack whole records into datagrams of at most `MTU` bytes, in order. OpenSSL's memory buffer joins them all."""
    packed: list[bytes] = []
    start = end = 0
    while end + RECORD_HEADER <= len(records):
        following = end + RECORD_HEADER + int.from_bytes(records[end + 11 : end + RECORD_HEADER], "big")
        if following - start > MTU and end > start:
            packed.append(records[start:end])
            start = end
        end = following
    if end > start:
        packed.append(records[start:end])
    return packed


_AVAILABLE: dict[SrtpProfile, SRTPProtectionProfile] = {
    name: profile for name in SrtpProfile for profile in SRTP_PROFILES if profile.openssl_profile == name.value.encode()
}
