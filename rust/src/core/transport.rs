//! Who may speak: ICE-lite checks, proved addresses and the gate in front of DTLS and SRTP. The twin of
//! `relay/plane/reference/transport.py`, where the rules stand.

use super::binding::{for_each, plan};
use super::contract::{Address, Event};
use super::fanout::flush_session;
use super::state::State;
use crate::stun::{self, Parsed};

/// Bytes: OpenSSL is given one Ethernet frame at a time.
const MAX_DTLS: usize = 1500;

/// Answer a connectivity check. Returns why the datagram was dropped, or "" when it was handled.
pub fn receive_stun(core: &mut State, datagram: &[u8], source: Address, now: i64) -> &'static str {
    let request = match stun::parse(datagram) {
        Parsed::Request(request) => request,
        Parsed::Dropped(_) => return "stun_malformed",
        Parsed::Message { .. } => return "stun_not_a_request",
    };
    if stun::refusal_before_integrity(&request) != 0 {
        return "stun_unauthenticated";
    }
    let Some(&key) = core.by_ufrag.get(request.local_ufrag) else { return "stun_unknown_user" };
    let session = &mut core.sessions[key];
    let restarts = session.credentials.0 != request.local_ufrag;
    let expected = match &session.restart {
        Some(restart) if restarts => restart,
        _ => &session.credentials,
    };
    if !stun::verify_integrity(datagram, &request, &expected.1) {
        return "stun_wrong_integrity";
    }
    // Packets that wait go where they would have gone, and before the answer.
    flush_session(core, key);
    if let Some(&owner) = core.by_address.get(&source) {
        flush_session(core, owner);
    }
    let session = &mut core.sessions[key];
    let expected = match &session.restart {
        Some(restart) if restarts => restart,
        _ => &session.credentials,
    };
    let mut answer = std::mem::take(&mut core.scratch.control);
    answer.clear();
    let refusal = stun::refusal_after_integrity(&request);
    if refusal != 0 {
        stun::binding_error(&request.transaction_id, refusal, Some(&expected.1), request.unknown(), &mut answer);
    } else {
        stun::binding_success(&request.transaction_id, source, &expected.1, &mut answer);
        if restarts && let Some(restart) = session.restart.take() {
            core.by_ufrag.remove(&session.credentials.0);
            session.credentials = restart;
            core.events.push(Event::IceRestarted { session: session.handle });
        }
        session.stats.last_consent = now;
        prove(core, key, source, request.use_candidate, now);
    }
    core.out.push(&answer, source);
    core.scratch.control = answer;
    ""
}

/// Note an address that answered for the session, and select it when it is due.
fn prove(core: &mut State, key: usize, source: Address, nominated: bool, now: i64) {
    if !core.sessions[key].addresses.contains_key(&source) {
        if let Some(&owner) = core.by_address.get(&source) {
            forget(core, owner, source);
        }
        let session = &core.sessions[key];
        if session.addresses.len() >= core.config.max_addresses {
            let oldest = |spared: Option<Address>| {
                let others = session.addresses.iter().filter(|(address, _)| Some(**address) != spared);
                others.min_by_key(|(_, heard)| **heard).map(|(address, _)| *address)
            };
            if let Some(address) = oldest(session.selected).or_else(|| oldest(None)) {
                forget(core, key, address);
            }
        }
        core.by_address.insert(source, key);
    }
    let session = &mut core.sessions[key];
    session.addresses.insert(source, now);
    let selected = session.selected;
    if selected == Some(source) {
        return;
    }
    let silent = |address: Address| now - session.addresses.get(&address).copied().unwrap_or(0);
    if nominated || selected.is_none_or(|address| silent(address) >= core.config.address_stale_us) {
        session.selected = Some(source);
        session.stats.address = Some(source);
        core.events.push(Event::AddressSelected { session: session.handle, address: source });
        if selected.is_none() {
            for_each(core, |core| &core.sessions[key].slots, |core, slot| plan(core, slot, now, true));
        }
    }
}

/// Take an address from a session; its next check selects another when this one was selected.
fn forget(core: &mut State, key: usize, address: Address) {
    let session = &mut core.sessions[key];
    session.addresses.shift_remove(&address);
    core.by_address.remove(&address);
    if session.selected == Some(address) {
        session.selected = None;
        session.stats.address = None;
    }
}

/// Free every address and ufrag of a session that closes.
pub fn forget_all(core: &mut State, key: usize) {
    let session = &mut core.sessions[key];
    for address in session.addresses.keys() {
        core.by_address.remove(address);
    }
    session.addresses.clear();
    session.selected = None;
    core.by_ufrag.remove(&session.credentials.0);
    if let Some(restart) = &session.restart {
        core.by_ufrag.remove(&restart.0);
    }
}

/// Hand a DTLS record of a proved address to the session's owner. Returns the reason of a drop, or "".
pub fn receive_dtls(core: &mut State, datagram: &[u8], source: Address) -> &'static str {
    let Some(&key) = core.by_address.get(&source) else { return "dtls_stranger" };
    if datagram.len() > MAX_DTLS {
        return "dtls_oversize";
    }
    let session = core.sessions[key].handle;
    core.events.push(Event::DtlsReceived { session, datagram: datagram.to_vec() });
    ""
}

/// Send a DTLS record to the selected address.
pub fn send_dtls(core: &mut State, key: usize, datagram: &[u8]) {
    let session = &mut core.sessions[key];
    let Some(address) = session.selected else {
        core.drop("out_no_address");
        return;
    };
    if core.out.push(datagram, address) {
        session.stats.packets_out += 1;
        session.stats.bytes_out += datagram.len() as u64;
    } else {
        core.drop("out_refused");
    }
}
