"""A light WebRTC peer for loads: SDP from a template, ICE checks, DTLS and SRTP by the relay's own parts, no codecs.

It answers a full ICE agent's checks and offers too, so that stock aiortc and Janus can be loaded with the same client.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import socket
import time
from collections.abc import Callable

import httpx2

from bench.processes import token
from bench.stamps import Arrival, read_all, stamp
from relay.edge.dtls import Certificate, DtlsEnd, SrtpKeys
from relay.edge.sdp import Fingerprint
from relay.plane.contract import SrtpProfile
from relay.plane.reference import stun
from relay.plane.reference.srtp import Srtp
from signaling.tokens import Role

CHECK_S = 0.2  # between checks until one is answered; the first one nearly always is
CONNECT_S = 20.0
_AUDIO = ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1")
_VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
    "a=rtpmap:96 VP8/90000",
    "a=rtcp-fb:96 nack",
    "a=rtcp-fb:96 nack pli",
    "a=rtcp-fb:96 transport-cc",
    "a=rtpmap:97 rtx/90000",
    "a=fmtp:97 apt=96",
)
_EXTENSIONS = (
    "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid",
    "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
)
VIDEO_SSRC = 0x0B00_0001
_THEIRS = tuple(
    f"a={name}"
    for name in (
        "ice-",
        "fingerprint",
        "setup",
        "candidate",
        "end-of-candidates",
        "ssrc",
        "msid",
        "sendonly",
        "sendrecv",
    )
)


class Peer:
    """One session. `connect` makes it; `on_media` takes what arrives beside STUN and DTLS, still sealed.

    `times` has, in seconds since the POST: `answer` (201 came), `ice` (check answered), `dtls` (keys are there).
    """

    def __init__(
        self, certificate: Certificate, kinds: str, *, publish: bool = False, address: str = "127.0.0.1"
    ) -> None:
        """`kinds` names the m-lines: "aavv" are two audio and two video ones. `address` is what its candidate says."""
        self._address = address
        self.times: dict[str, float] = {}
        self.srtp: Srtp | None = None
        self.on_media: Callable[[bytes], None] = lambda _: None
        self.arrivals: list[Arrival] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.location = ""
        self._certificate = certificate
        self._kinds, self._publish = kinds, publish
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(16)
        self._remote: tuple[str, int] = ("", 0)
        self._remote_ufrag = self._remote_password = ""
        self._checked = asyncio.Event()
        self._controlled = False
        self._dtls: DtlsEnd | None = None

    async def connect(self, client: httpx2.AsyncClient, url: str, identity: str, role: Role = "viewer") -> None:
        """POST the offer and do all of ICE and DTLS. Raises RuntimeError, PeerError or TimeoutError."""
        begin = time.perf_counter()
        headers = {"Authorization": f"Bearer {token(identity, role)}", "Content-Type": "application/sdp"}
        response = await client.post(url, content=self.offer(), headers=headers)
        if response.status_code != 201:
            raise RuntimeError(f"{response.status_code}: {response.text[:300]}")
        self.times["answer"] = time.perf_counter() - begin
        self.location = response.headers["location"]
        await self.establish(response.text, begin)

    async def establish(self, remote: str, begin: float) -> None:
        """Do all of ICE and DTLS with the end that wrote `remote`. `times` count from `begin`, of `perf_counter`."""
        self._read(remote)
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._readable)
        await self._check()
        self.times["ice"] = time.perf_counter() - begin
        assert self._dtls is not None
        keys: SrtpKeys = await self._dtls.run(CONNECT_S)
        self.srtp = Srtp(SrtpProfile[keys.profile.name], keys.tx_key, keys.rx_key)
        self.times["dtls"] = time.perf_counter() - begin

    def close(self) -> None:
        """Vanish, with a close_notify where there is a connection."""
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        if self._dtls is not None:
            self._dtls.close()
        self.socket.close()

    def keep_alive(self) -> None:
        """Send a consent check."""
        self._send_check()

    def offer(self) -> str:
        """The offer: everything bundled, `setup:actpass`, no candidates (our address shows in the checks)."""
        digest = self._certificate.fingerprints[0]
        lines = ["v=0", f"o=- {secrets.randbits(40)} 1 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        lines.append("a=group:BUNDLE " + " ".join(str(mid) for mid in range(len(self._kinds))))
        for mid, kind in enumerate(self._kinds):
            lines += [*(_AUDIO if kind == "a" else _VIDEO), "c=IN IP4 0.0.0.0", f"a=mid:{mid}", "a=rtcp-mux"]
            lines += [*_EXTENSIONS, f"a=ice-ufrag:{self._ufrag}", f"a=ice-pwd:{self._password}"]
            lines += [f"a=fingerprint:{digest.algorithm} {digest.value}", "a=setup:actpass"]
            lines.append("a=sendonly" if self._publish else "a=recvonly")
            if self._publish:
                lines += ["a=msid:bench bench", f"a=ssrc:{VIDEO_SSRC + mid} cname:bench"]
            lines.append(f"a=candidate:1 1 udp 2130706431 {self._address} {self._port()} typ host")
            lines.append("a=end-of-candidates")
        return "\r\n".join(lines) + "\r\n"

    def answer(self, offer: str) -> str:
        """Take all that is offered, receive only; `establish` then needs the offer. `setup:passive`: the other end
        says hello when it is ready for it, and not before, which OpenSSL would make up for after a second only."""
        self._controlled = True  # who offers controls (RFC 8445 6.1.1)
        digest = self._certificate.fingerprints[0]
        ours = [f"a=ice-ufrag:{self._ufrag}", f"a=ice-pwd:{self._password}", "a=setup:passive", "a=recvonly"]
        ours += [f"a=fingerprint:{digest.algorithm} {digest.value}"]
        ours += [f"a=candidate:1 1 udp 2130706431 {self._address} {self._port()} typ host", "a=end-of-candidates"]
        lines = []
        for line in offer.splitlines():
            if not line.startswith(_THEIRS):
                lines += [line, *ours] if line.startswith("a=mid:") else [line]
        return "\r\n".join(lines) + "\r\n"

    def _port(self) -> int:
        if self.socket.getsockname()[1] == 0:
            self.socket.bind(("0.0.0.0", 0))
        port: int = self.socket.getsockname()[1]
        return port

    def _read(self, answer: str) -> None:
        found = {
            name: re.search(pattern, answer, re.M)
            for name, pattern in {
                "ufrag": r"^a=ice-ufrag:(\S+)",
                "password": r"^a=ice-pwd:(\S+)",
                "candidate": r"^a=candidate:\S+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host",
                "setup": r"^a=setup:(\w+)",
            }.items()
        }
        missing = [name for name, match in found.items() if match is None]
        if missing:
            raise RuntimeError(f"the answer lacks {missing}:\n{answer}")
        self._remote_ufrag, self._remote_password = found["ufrag"][1], found["password"][1]  # type: ignore[index]
        self._remote = (found["candidate"][1], int(found["candidate"][2]))  # type: ignore[index]
        role = "server" if self._controlled or found["setup"][1] == "active" else "client"  # type: ignore[index]
        self._dtls = DtlsEnd(self._certificate, role, _fingerprints(answer), self._send)

    async def _check(self) -> None:
        async with asyncio.timeout(CONNECT_S):
            while not self._checked.is_set():
                self._send_check()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._checked.wait(), CHECK_S)

    def _send_check(self) -> None:
        username = f"{self._remote_ufrag}:{self._ufrag}"
        key = self._remote_password.encode()
        controlled = self._controlled
        self._send(
            stun.binding_request(
                secrets.token_bytes(12), username, key, controlled=controlled, use_candidate=not controlled
            )
        )

    def _send(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, self._remote)

    def record(self) -> None:
        """From now on keep everything that arrives in `arrivals`, with the kernel's time, and process nothing."""
        stamp(self.socket)
        loop, descriptor = asyncio.get_running_loop(), self.socket.fileno()
        loop.remove_reader(descriptor)
        loop.add_reader(descriptor, read_all, self.socket, self.arrivals)

    def send_media(self, packet: bytes) -> None:
        """Seal and send an RTP packet."""
        assert self.srtp is not None
        sealed = self.srtp.protect_rtp(packet)
        assert sealed is not None
        self.socket.sendto(sealed, self._remote)

    def _readable(self) -> None:
        while True:
            try:
                datagram, source = self.socket.recvfrom(2048)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self.take(datagram, source)

    def take(self, datagram: bytes, source: tuple[str, int]) -> None:
        """Demultiplex a datagram (RFC 7983)."""
        if stun.is_stun(datagram):
            message = stun.parse(datagram)
            if isinstance(message, stun.BindingRequest):
                answer = stun.binding_success(message.transaction_id, *source, self._password.encode())
                self.socket.sendto(answer, source)
            elif isinstance(message, stun.StunMessage) and message.kind == stun.BINDING_SUCCESS:
                self._checked.set()
        elif 20 <= datagram[0] <= 63:
            if self._dtls is not None:
                self._dtls.feed(datagram)
        else:
            self.on_media(datagram)


def _fingerprints(answer: str) -> list[Fingerprint]:
    return [Fingerprint(*pair) for pair in dict.fromkeys(re.findall(r"^a=fingerprint:(\S+) (\S+)", answer, re.M))]
