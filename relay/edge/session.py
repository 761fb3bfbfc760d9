"""One participant's WebRTC connection: its place in the plane, its DTLS, and its life as a state machine.

The session asks nobody for packets: the plane tells it of addresses and DTLS records, and once a second the owner hands
in what the plane counted.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from relay.edge.dtls import Certificate, DtlsEnd
from relay.edge.plan import Negotiated
from relay.edge.session_state import (
    CloseAsked,
    Connected,
    ConsentLost,
    ConsentSeen,
    IceRestarted,
    Input,
    MediaSeen,
    SessionClosed,
    SessionKind,
    SessionMachine,
    SessionTimeouts,
    Started,
    State,
    Tick,
    Transition,
)
from relay.errors import PeerError
from relay.plane.contract import (
    Address,
    CloseSession,
    Command,
    OpenSession,
    RestartIce,
    SendDtls,
    SessionStats,
    SetKeys,
)

log = structlog.get_logger()

_ICE_CHARACTERS = string.ascii_letters + string.digits + "+/"  # ice-char, RFC 8839 5.4


class Submit(Protocol):
    """`Plane.submit`."""

    def __call__(self, *commands: Command) -> None: ...


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """Local ICE credentials (RFC 8445 5.3 asks for 24 and 128 bits of randomness at least) and their entity tag."""

    ufrag: str
    password: str
    etag: str


def make_ice_credentials() -> IceCredentials:
    """Make fresh credentials. The ufrag also finds the session among all that share the port, so it is long."""

    def text(length: int) -> str:
        return "".join(secrets.choice(_ICE_CHARACTERS) for _ in range(length))

    return IceCredentials(text(16), text(32), secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Who a session belongs to. `handle` is its number in the plane; `opened_at` is wall seconds."""

    id: str
    handle: int
    room: str
    identity: str
    role: str
    kind: SessionKind
    opened_at: float
    shard: int = 0


class Session:
    """An open session. `on_transition` is called for everything that happens to it, `SessionClosed` last."""

    def __init__(
        self,
        info: SessionInfo,
        ice: IceCredentials,
        timeouts: SessionTimeouts,
        submit: Submit,
        on_transition: Callable[[Session, Transition], None],
    ) -> None:
        self.info = info
        self.ice = ice
        self.address: Address | None = None
        self._machine = SessionMachine(timeouts)
        self._connect_timeout = timeouts.connect
        self._submit = submit
        self._on_transition = on_transition
        self._dtls: DtlsEnd | None = None
        self._addressed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_media = 0
        self._last_consent = 0

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._machine.state

    def start(self, negotiated: Negotiated, certificate: Certificate) -> None:
        """Open the session in the plane and wait for the peer. Tracks and slots are added by the caller, after this."""
        info, ice = self.info, self.ice
        self._submit(OpenSession(info.handle, ice.ufrag, ice.password, negotiated.extensions, info.shard))
        self._dtls = DtlsEnd(
            certificate,
            negotiated.dtls_role,
            negotiated.remote_fingerprints,
            send=lambda datagram: self._submit(SendDtls(self.info.handle, datagram)),
            on_closed=lambda: self._take(ConsentLost()),
        )
        self._take(Started(self.info.kind))
        self._task = asyncio.create_task(self._connect(self._dtls))

    async def _connect(self, dtls: DtlsEnd) -> None:
        await self._addressed.wait()
        try:
            keys = await dtls.run(self._connect_timeout)
        except PeerError as error:
            log.info("DTLS failed", session=self.info.id, identity=self.info.identity, reason=str(error))
            self.close("dtls-failed")
            return
        if self.state is State.CLOSED:
            return
        self._submit(SetKeys(self.info.handle, keys.profile, keys.tx_key, keys.rx_key))
        assert self.address is not None
        self._take(Connected(self.address))

    def address_selected(self, address: Address) -> None:
        """The plane has an address for the session, its first or another one."""
        self.address = address
        self._addressed.set()

    def dtls_received(self, datagram: bytes) -> None:
        """A DTLS record of the peer."""
        if self._dtls is not None:
            self._dtls.feed(datagram)

    def restart_ice(self) -> IceCredentials:
        """Make new credentials; the old ones stay good until a check with the new ones (RFC 8445 9)."""
        self.ice = make_ice_credentials()
        self._submit(RestartIce(self.info.handle, self.ice.ufrag, self.ice.password))
        return self.ice

    def ice_restarted(self) -> None:
        """The peer proved the new credentials."""
        self._take(IceRestarted())

    def tick(self, stats: SessionStats) -> None:
        """Take what the plane counted and let time pass. Call it about once a second."""
        if stats.last_consent > self._last_consent:
            self._last_consent = stats.last_consent
            self._take(ConsentSeen())
        if self.info.kind == "publisher" and stats.last_media > self._last_media:
            self._last_media = stats.last_media
            self._take(MediaSeen())
        self._take(Tick())

    def close(self, reason: str) -> None:
        """End the session; repeatable. The plane says BYE and forgets it, DTLS says close_notify."""
        if self.state is State.CLOSED:
            return
        self._take(CloseAsked(reason))

    def _take(self, event: Input) -> None:
        if self.state is State.CLOSED:
            return
        transitions = self._machine.receive(event, time.monotonic())
        if self._machine.state is State.CLOSED:
            self._release()
        for transition in transitions:
            # Acting on one may have closed the session: then SessionClosed, which came last, was the last.
            if self._machine.state is not State.CLOSED or isinstance(transition, SessionClosed):
                self._on_transition(self, transition)

    def _release(self) -> None:
        if self._dtls is not None:
            self._dtls.close()
        self._submit(CloseSession(self.info.handle))
        current = asyncio.current_task()
        if self._task is not None and self._task is not current:
            self._task.cancel()
