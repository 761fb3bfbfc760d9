"""Who may speak: ICE-lite checks, proved addresses and the gate in front of DTLS and SRTP.

An address is proved by a connectivity check with a session's ufrag and a MESSAGE-INTEGRITY under its password. Only
proved addresses reach DTLS or SRTP, and strangers get no answer at all, so the port neither reflects nor amplifies.
"""

from __future__ import annotations

from relay.plane.contract import Address, AddressSelected, DtlsReceived, IceRestarted
from relay.plane.reference import stun
from relay.plane.reference.binding import plan
from relay.plane.reference.state import Core, Session

MAX_DTLS = 1500  # bytes: OpenSSL is given one Ethernet frame at a time


def receive_stun(core: Core, datagram: bytes, source: Address, now: int) -> str:
    """Answer a connectivity check. Returns why the datagram was dropped, or "" when it was handled."""
    request = stun.parse(datagram)
    if isinstance(request, stun.Drop):
        return "stun_malformed"
    if isinstance(request, stun.StunMessage):
        return "stun_not_a_request"
    if stun.refusal_before_integrity(request):
        return "stun_unauthenticated"
    session = core.by_ufrag.get(request.local_ufrag)
    if session is None:
        return "stun_unknown_user"
    ufrag, password = session.credentials
    restarts = ufrag != request.local_ufrag
    if restarts and session.restart is not None:
        password = session.restart[1]
    if not stun.verify_integrity(datagram, request, password):
        return "stun_wrong_integrity"
    refusal = stun.refusal_after_integrity(request)
    if refusal:
        answer = stun.binding_error(request.transaction_id, refusal, password, request.unknown)
        core.out.append((answer, source))
        return ""
    if restarts and session.restart is not None:
        del core.by_ufrag[ufrag]
        session.credentials, session.restart = session.restart, None
        core.events.append(IceRestarted(session.handle))
    session.stats.last_consent = now
    _prove(core, session, source, request.use_candidate, now)
    core.out.append((stun.binding_success(request.transaction_id, source[0], source[1], password), source))
    return ""


def _prove(core: Core, session: Session, source: Address, nominated: bool, now: int) -> None:
    """Note an address that answered for the session, and select it when it is due."""
    addresses = session.addresses
    if source not in addresses:
        owner = core.by_address.get(source)
        if owner is not None:
            _forget(core, owner, source)
        if len(addresses) >= core.config.max_addresses:
            others = [address for address in addresses if address != session.selected]
            _forget(core, session, min(others or addresses, key=addresses.__getitem__))
        core.by_address[source] = session
    addresses[source] = now
    selected = session.selected
    if selected == source:
        return
    if nominated or selected is None or now - addresses[selected] >= core.config.address_stale_us:
        session.selected = session.stats.address = source
        core.events.append(AddressSelected(session.handle, source))
        if selected is None:
            for slot in session.slots.values():
                plan(core, slot, now)


def _forget(core: Core, session: Session, address: Address) -> None:
    """Take an address from a session; its next check selects another when this one was selected."""
    del session.addresses[address]
    core.by_address.pop(address, None)
    if session.selected == address:
        session.selected = session.stats.address = None


def forget_all(core: Core, session: Session) -> None:
    """Free every address and ufrag of a session that closes."""
    for address in session.addresses:
        core.by_address.pop(address, None)
    session.addresses.clear()
    session.selected = None
    core.by_ufrag.pop(session.credentials[0], None)
    if session.restart is not None:
        core.by_ufrag.pop(session.restart[0], None)


def receive_dtls(core: Core, datagram: bytes, source: Address) -> str:
    """Hand a DTLS record of a proved address to the session's owner. Returns the reason of a drop, or ""."""
    session = core.by_address.get(source)
    if session is None:
        return "dtls_stranger"
    if len(datagram) > MAX_DTLS:
        return "dtls_oversize"
    core.events.append(DtlsReceived(session.handle, datagram))
    return ""


def send_dtls(core: Core, session: Session, datagram: bytes) -> None:
    """Send a DTLS record to the selected address."""
    if session.selected is None:
        core.drop("out_no_address")
        return
    core.out.append((datagram, session.selected))
    session.stats.packets_out += 1
    session.stats.bytes_out += len(datagram)
