"""The sessions of a node: an offer becomes one, and what is asked of one by its id finds it."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import structlog

from relay.edge.dtls import CertificateStore
from relay.edge.fragment import parse_fragment, write_restart
from relay.edge.plan import LocalCandidate, LocalEnd, Negotiated, NegotiationPolicy
from relay.edge.sdp import SdpLimits, SessionDescription
from relay.edge.sdp_reader import parse
from relay.edge.session import IceCredentials, Session, SessionInfo, Submit, make_ice_credentials
from relay.edge.session_state import SessionClosed, SessionConnected, SessionKind, Transition
from relay.errors import NotFound, PreconditionFailed, PreconditionRequired
from relay.metrics import Metrics
from relay.node.config import policy_of, timeouts_of
from relay.node.followers import SessionFollowers
from relay.node.local import LocalSession, LocalSlot, add_slot
from relay.node.room import HostedRoom
from relay.node.views import Meter, session_view
from relay.plane.contract import AddressSelected, DtlsReceived, IceRestarted, SessionStats
from relay.ports import Answer, IceFragment, Offer
from relay.settings import NodeSettings
from relay.stage.document import Traffic

log = structlog.get_logger()

Negotiate = Callable[[SessionDescription, LocalEnd, NegotiationPolicy], Negotiated]


class NodeSessions:
    """See the module. `ports` are those of the plane's shards, `advertised` the addresses that candidates name."""

    def __init__(
        self,
        settings: NodeSettings,
        node_id: str,
        submit: Submit,
        next_handle: Callable[[], int],
        ports: Sequence[int],
        advertised: Sequence[str],
        followers: SessionFollowers,
        metrics: Metrics,
    ) -> None:
        self._settings, self._node_id, self._submit, self._next_handle = settings, node_id, submit, next_handle
        self._ports, self._advertised = tuple(ports), tuple(advertised)
        self._followers, self._metrics = followers, metrics
        self._certificates = CertificateStore()
        self._all: dict[str, tuple[HostedRoom, LocalSession]] = {}
        self._by_handle: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[tuple[HostedRoom, LocalSession]]:
        """Those that there are now, even if they end meanwhile."""
        return iter(list(self._all.values()))

    def open(self, room: HostedRoom, offer: Offer, kind: SessionKind, negotiate: Negotiate) -> Answer:
        """Answer an offer. Raises BadRequest and what `negotiate` raises; then nothing is left of it."""
        limits = self._settings.limits
        description = parse(
            offer.sdp,
            SdpLimits(bytes=limits.offer_bytes, media=limits.m_lines, candidates=limits.candidates, ssrcs=limits.ssrcs),
        )
        ice, certificate = make_ice_credentials(), self._certificates.current()
        shard = self._least_busy_shard(kind)
        local = self._local_end(ice, shard, certificate.fingerprints)
        negotiated = negotiate(description, local, policy_of(room.state))
        session_id = f"{self._node_id}~{secrets.token_urlsafe(12)}"
        info = SessionInfo(
            session_id, self._next_handle(), offer.room, offer.identity, offer.role, kind, time.time(), shard
        )
        session = Session(info, ice, timeouts_of(self._settings), self._submit, self._on_transition)
        slots = tuple(LocalSlot(self._next_handle(), plan) for plan in negotiated.slots)
        local_session = LocalSession(
            session, negotiated.remote_ufrag, negotiated.tracks, slots, offer.program, offer.one_sound
        )
        self._all[session_id] = (room, local_session)
        self._by_handle[info.handle] = session
        session.start(negotiated, certificate)
        self._submit(*(add_slot(slot, info.handle) for slot in slots))
        room.add(local_session)
        log.info("session opened", session=session_id, room=info.room, identity=info.identity, kind=kind)
        return Answer(session_id, negotiated.answer, ice.etag)

    def trickle(self, session: str, fragment: str, etag: str | None) -> IceFragment | None:
        """See `NodeControl.trickle`. Candidates are not needed by an ICE-lite end, so they are read and forgotten."""
        _, local = self.find(session)
        parsed = parse_fragment(fragment, SdpLimits(candidates=self._settings.limits.candidates))
        current = local.session.ice.etag
        if etag not in (None, "*", current):
            raise PreconditionFailed("the entity tag is not that of this session's ICE generation")
        if parsed.ufrag == local.remote_ufrag:
            return None
        if etag is None:
            raise PreconditionRequired("an ICE restart needs If-Match with the session's entity tag")
        local.remote_ufrag = parsed.ufrag
        ice = local.session.restart_ice()
        mids = parsed.mids or tuple(plan.mid for plan in local.tracks) or tuple(slot.plan.mid for slot in local.slots)
        return IceFragment(write_restart(self._local_end(ice, local.session.info.shard), mids), ice.etag)

    def find(self, session: str) -> tuple[HostedRoom, LocalSession]:
        """Return a session with its room. Raises NotFound."""
        found = self._all.get(session)
        if found is None:
            raise NotFound(f"no session {session!r}", code="session-not-found")
        return found

    def heard(self, handle: int, event: DtlsReceived | AddressSelected | IceRestarted) -> None:
        """The plane tells something of a session; passed over when that is gone."""
        session = self._by_handle.get(handle)
        if session is None:
            return
        match event:
            case DtlsReceived():
                session.dtls_received(event.datagram)
            case AddressSelected():
                session.address_selected(event.address)
            case IceRestarted():
                session.ice_restarted()

    def room_of(self, handle: int) -> HostedRoom | None:
        """Return the room of a session that the plane knows by this handle."""
        session = self._by_handle.get(handle)
        return None if session is None else self._all[session.info.id][0]

    def count(self, kind: SessionKind) -> int:
        """How many publish, or watch."""
        return sum(local.session.info.kind == kind for _, local in self._all.values())

    def publishes(self, room: str, identity: str) -> bool:
        """Whether somebody sends something to a room from here."""
        return any(
            local.session.info.identity == identity and local.session.info.room == room and local.tracks
            for _, local in self._all.values()
        )

    def views(self, room: str | None, meter: Meter) -> list[dict[str, Any]]:
        """See `NodeControl.sessions`."""
        found = [(hosted, local) for hosted, local in self._all.values() if room in (None, hosted.id)]
        return [session_view(hosted, local, meter) for hosted, local in found]

    def tick(self, counted: Mapping[int, SessionStats]) -> None:
        """Let time pass, with what the plane has counted of sessions by their handles."""
        for _, local in self:
            if (stats := counted.get(local.session.info.handle)) is not None:
                local.session.tick(stats)
        counts = Counter((local.session.info.kind, room.state.traffic) for room, local in self._all.values())
        for traffic, kind in itertools.product(get_args(Traffic), get_args(SessionKind)):
            self._metrics.sessions.labels(kind, traffic).set(counts[kind, traffic])

    def close(self, reason: str) -> None:
        """End all of them."""
        for _, local in self:
            local.session.close(reason)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _least_busy_shard(self, kind: SessionKind) -> int:
        """The shard with the fewest sessions, for a publisher the one with the fewest publishers."""
        counts = [[0, 0] for _ in self._ports]
        for _, local in self._all.values():
            info = local.session.info
            counts[info.shard][0] += kind == "publisher" == info.kind
            counts[info.shard][1] += 1
        return min(range(len(counts)), key=counts.__getitem__)

    def _local_end(self, ice: IceCredentials, shard: int, fingerprints: Any = ()) -> LocalEnd:
        """Our side of a session. Its candidates name the port of its shard only: nobody else knows it."""
        candidates = tuple(
            # RFC 8445 5.1.2.1: type preference 126 for host candidates, then the order in which we name them
            LocalCandidate(host, self._ports[shard], priority=126 << 24 | (65535 - index) << 8 | 255)
            for index, host in enumerate(self._advertised)
        )
        return LocalEnd(
            ufrag=ice.ufrag,
            password=ice.password,
            fingerprints=fingerprints,
            candidates=candidates,
            session_id=secrets.randbits(62),
            new_ssrc=lambda: secrets.randbits(32) or 1,
            cname=self._node_id,
        )

    def _on_transition(self, session: Session, transition: Transition) -> None:
        info = session.info
        room = self._all[info.id][0]
        if isinstance(transition, SessionConnected):
            self._metrics.joins.labels(info.kind).inc()
            self._metrics.join_latency.labels(info.kind).observe(max(0.0, time.time() - info.opened_at))
        if isinstance(transition, SessionClosed):
            del self._all[info.id], self._by_handle[info.handle]
            self._followers.end(info.id)
            self._metrics.endings.labels(transition.reason).inc()
            log.info(
                "session closed", session=info.id, room=info.room, identity=info.identity, reason=transition.reason
            )
        room.took_transition(session, transition)
