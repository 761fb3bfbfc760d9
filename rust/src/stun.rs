//! STUN as an ICE-lite agent needs it: read binding requests, answer them (RFC 8489, RFC 8445).
//!
//! The twin of `relay/plane/reference/stun.py`. Order of checks for a request, RFC 8489 9.1.3 and 6.3.1:
//! `refusal_before_integrity`, the owner looks the local ufrag up (unknown: 401), `verify_integrity` (wrong: 401),
//! `refusal_after_integrity`, then `binding_success`.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use crate::rtp::{read_u16, read_u32};

pub const MAGIC_COOKIE: u32 = 0x2112_A442;
pub const HEADER_SIZE: usize = 20;
/// A check carries about 100 bytes; more than one MTU is not a check.
pub const MAX_SIZE: usize = 2048;
pub const MAX_ATTRIBUTES: usize = 64;
/// Unknown attributes listed in a 420.
pub const MAX_UNKNOWN: usize = 16;
/// RFC 8489 14.3: fewer than 509 bytes; ICE allows 256 + 1 + 256.
pub const MAX_USERNAME: usize = 513;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802A;

/// "STUN", RFC 8489 14.7.
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Comprehension-required attributes that are understood: acted upon, or known to mean nothing in a binding request.
fn is_understood(kind: u16) -> bool {
    matches!(
        kind,
        0x0001
            | USERNAME
            | MESSAGE_INTEGRITY
            | ERROR_CODE
            | UNKNOWN_ATTRIBUTES
            | 0x0014
            | 0x0015
            | MESSAGE_INTEGRITY_SHA256
            | XOR_MAPPED_ADDRESS
            | PRIORITY
            | USE_CANDIDATE
    )
}

/// Why a datagram is not STUN that we can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    TooShort,
    TooLong,
    NotStun,
    BadLength,
    TruncatedAttribute,
    TooManyAttributes,
    BadAttribute,
    BadFingerprint,
}

/// One connectivity check. Ufrags are empty when USERNAME is absent or has no colon.
///
/// `controlling` and `controlled` are the tie-breakers. `integrity_at` is the offset of MESSAGE-INTEGRITY, 0 when
/// absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingRequest<'a> {
    pub transaction_id: [u8; 12],
    pub username: &'a [u8],
    pub local_ufrag: &'a str,
    pub remote_ufrag: &'a str,
    pub priority: u32,
    pub use_candidate: bool,
    pub controlling: Option<u64>,
    pub controlled: Option<u64>,
    pub integrity_at: usize,
    pub fingerprint: bool,
    unknown: [u16; MAX_UNKNOWN],
    unknown_count: usize,
}

impl BindingRequest<'_> {
    /// The comprehension-required attributes that we do not understand.
    pub fn unknown(&self) -> &[u16] {
        &self.unknown[..self.unknown_count]
    }
}

/// What one datagram is. A `Message` is well formed but not a binding request; `kind` is its 14-bit type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<'a> {
    Request(BindingRequest<'a>),
    Message { kind: u16, transaction_id: [u8; 12] },
    Dropped(Drop),
}

/// Classify one datagram of any size and content. A request's FINGERPRINT is verified when present.
pub fn parse(datagram: &[u8]) -> Parsed<'_> {
    let size = datagram.len();
    if size < HEADER_SIZE {
        return Parsed::Dropped(Drop::TooShort);
    }
    if datagram[0] > 3 || read_u32(datagram, 4) != MAGIC_COOKIE {
        return Parsed::Dropped(Drop::NotStun);
    }
    if size > MAX_SIZE {
        return Parsed::Dropped(Drop::TooLong);
    }
    let length = usize::from(read_u16(datagram, 2));
    if length & 3 != 0 || length + HEADER_SIZE != size {
        return Parsed::Dropped(Drop::BadLength);
    }
    let mut transaction_id = [0; 12];
    transaction_id.copy_from_slice(&datagram[8..20]);
    let kind = read_u16(datagram, 0);
    if kind != BINDING_REQUEST {
        return Parsed::Message { kind, transaction_id };
    }
    match request(datagram, transaction_id) {
        Ok(request) => Parsed::Request(request),
        Err(reason) => Parsed::Dropped(reason),
    }
}

/// Values of a request's attributes, the first of each type.
#[derive(Default)]
struct Values<'a> {
    username: Option<&'a [u8]>,
    priority: Option<&'a [u8]>,
    controlling: Option<&'a [u8]>,
    controlled: Option<&'a [u8]>,
    use_candidate: bool,
}

impl<'a> Values<'a> {
    fn note(&mut self, kind: u16, value: &'a [u8]) {
        let place = match kind {
            USERNAME => &mut self.username,
            PRIORITY => &mut self.priority,
            ICE_CONTROLLING => &mut self.controlling,
            ICE_CONTROLLED => &mut self.controlled,
            USE_CANDIDATE => {
                self.use_candidate = true;
                return;
            }
            _ => return,
        };
        place.get_or_insert(value);
    }
}

fn request(datagram: &[u8], transaction_id: [u8; 12]) -> Result<BindingRequest<'_>, Drop> {
    let mut found = BindingRequest {
        transaction_id,
        username: &[],
        local_ufrag: "",
        remote_ufrag: "",
        priority: 0,
        use_candidate: false,
        controlling: None,
        controlled: None,
        integrity_at: 0,
        fingerprint: false,
        unknown: [0; MAX_UNKNOWN],
        unknown_count: 0,
    };
    let values = attributes(datagram, &mut found)?;
    found.username = values.username.unwrap_or_default();
    if found.username.len() > MAX_USERNAME {
        return Err(Drop::BadAttribute);
    }
    if let Some(priority) = values.priority {
        found.priority = u32::from_be_bytes(priority.try_into().map_err(|_| Drop::BadAttribute)?);
    }
    found.controlling = tie_breaker(values.controlling)?;
    found.controlled = tie_breaker(values.controlled)?;
    found.use_candidate = values.use_candidate;
    // ice-char is a subset of ASCII, RFC 8839 5.4
    let text = if found.username.is_ascii() { std::str::from_utf8(found.username).unwrap_or("") } else { "" };
    if let Some((local, remote)) = text.split_once(':') {
        found.local_ufrag = local;
        found.remote_ufrag = remote;
    }
    Ok(found)
}

fn tie_breaker(value: Option<&[u8]>) -> Result<Option<u64>, Drop> {
    value.map(|octets| octets.try_into().map(u64::from_be_bytes).map_err(|_| Drop::BadAttribute)).transpose()
}

/// Walk the attributes: notes MESSAGE-INTEGRITY, FINGERPRINT and unknown types in `found`, returns the values.
fn attributes<'a>(datagram: &'a [u8], found: &mut BindingRequest<'a>) -> Result<Values<'a>, Drop> {
    let mut values = Values::default();
    let (mut offset, size, mut count) = (HEADER_SIZE, datagram.len(), 0);
    while offset < size {
        // both sizes are multiples of 4: four bytes are there
        let (kind, length) = (read_u16(datagram, offset), usize::from(read_u16(datagram, offset + 2)));
        let end = offset + 4 + length;
        if end > size {
            return Err(Drop::TruncatedAttribute);
        }
        count += 1;
        if count > MAX_ATTRIBUTES {
            return Err(Drop::TooManyAttributes);
        }
        if kind == FINGERPRINT {
            if length != 4 || end != size {
                return Err(Drop::BadFingerprint);
            }
            if read_u32(datagram, offset + 4) != crc32fast::hash(&datagram[..offset]) ^ FINGERPRINT_XOR {
                return Err(Drop::BadFingerprint);
            }
            found.fingerprint = true;
        } else if found.integrity_at == 0 {
            // what follows MESSAGE-INTEGRITY is not protected: ignored, RFC 8489 14.5
            if kind == MESSAGE_INTEGRITY {
                if length != 20 {
                    return Err(Drop::BadAttribute);
                }
                found.integrity_at = offset;
            } else if kind < 0x8000 && !is_understood(kind) {
                let known = found.unknown().contains(&kind);
                if found.unknown_count < MAX_UNKNOWN && !known {
                    found.unknown[found.unknown_count] = kind;
                    found.unknown_count += 1;
                }
            } else {
                values.note(kind, &datagram[offset + 4..end]);
            }
        }
        offset = end.next_multiple_of(4);
    }
    Ok(values)
}

fn hmac_sha1(password: &[u8], head: &[u8; 4], rest: &[u8]) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password);
    let mut context = hmac::Context::with_key(&key);
    context.update(head);
    context.update(rest);
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// Whether MESSAGE-INTEGRITY is HMAC-SHA1 of `datagram` under `password` (RFC 8489 14.5). Constant time.
pub fn verify_integrity(datagram: &[u8], request: &BindingRequest<'_>, password: &[u8]) -> bool {
    let at = request.integrity_at;
    if at == 0 || datagram.len() < at + 24 {
        return false;
    }
    let [high, low] = ((at + 4) as u16).to_be_bytes();
    let expected = hmac_sha1(password, &[datagram[0], datagram[1], high, low], &datagram[4..at]);
    verify_slices_are_equal(&expected, &datagram[at + 4..at + 24]).is_ok()
}

/// 400 when the request cannot be authenticated at all or contradicts itself, else 0 (RFC 8489 9.1.3).
pub fn refusal_before_integrity(request: &BindingRequest<'_>) -> u16 {
    let unsigned = request.integrity_at == 0 || request.local_ufrag.is_empty() || request.remote_ufrag.is_empty();
    let both_roles = request.controlling.is_some() && request.controlled.is_some();
    if unsigned || both_roles { 400 } else { 0 }
}

/// 420 for unknown required attributes, 487 when the peer thinks it is controlled, else 0.
///
/// We are lite and so always the controlled end (RFC 8445 6.1.1); a peer without a role attribute is an old one whose
/// conflict cannot be seen (7.3.1.1).
pub fn refusal_after_integrity(request: &BindingRequest<'_>) -> u16 {
    if request.unknown_count > 0 {
        return 420;
    }
    if request.controlled.is_some() { 487 } else { 0 }
}

/// A message that is written to the end of a buffer.
struct Message<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Message<'a> {
    fn begin(out: &'a mut Vec<u8>, kind: u16, transaction_id: &[u8; 12]) -> Self {
        let start = out.len();
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(transaction_id);
        Self { out, start }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.out.extend_from_slice(value);
        let padding = value.len().next_multiple_of(4) - value.len();
        self.out.extend_from_slice(&[0; 3][..padding]);
    }

    /// Set the header's length field to what is there and `more` bytes.
    fn set_length(&mut self, more: usize) {
        let length = (self.out.len() - self.start - HEADER_SIZE + more) as u16;
        self.out[self.start + 2..self.start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// MESSAGE-INTEGRITY (when there is a password) and FINGERPRINT.
    fn seal(mut self, password: Option<&[u8]>) {
        if let Some(password) = password {
            self.set_length(24);
            let message = &self.out[self.start..];
            let head = [message[0], message[1], message[2], message[3]];
            let tag = hmac_sha1(password, &head, &message[4..]);
            self.attribute(MESSAGE_INTEGRITY, &tag);
        }
        self.set_length(8);
        let checksum = crc32fast::hash(&self.out[self.start..]) ^ FINGERPRINT_XOR;
        self.attribute(FINGERPRINT, &checksum.to_be_bytes());
    }
}

/// Append the answer: XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT. An IPv4-mapped address is answered as IPv4.
pub fn binding_success(transaction_id: &[u8; 12], source: SocketAddr, password: &[u8], out: &mut Vec<u8>) {
    let mut value = [0; 20];
    let xport = source.port() ^ (MAGIC_COOKIE >> 16) as u16;
    value[2..4].copy_from_slice(&xport.to_be_bytes());
    let length = match source.ip().to_canonical() {
        IpAddr::V4(address) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&(u32::from(address) ^ MAGIC_COOKIE).to_be_bytes());
            8
        }
        IpAddr::V6(address) => {
            value[1] = 2;
            let mut mask = [0; 16];
            mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            mask[4..].copy_from_slice(transaction_id);
            value[4..].copy_from_slice(&(u128::from(address) ^ u128::from_be_bytes(mask)).to_be_bytes());
            20
        }
    };
    let mut message = Message::begin(out, BINDING_SUCCESS, transaction_id);
    message.attribute(XOR_MAPPED_ADDRESS, &value[..length]);
    message.seal(Some(password));
}

/// Append an error answer (300..699). Give `password` only after the request's integrity was verified.
///
/// 400 and 401 go without MESSAGE-INTEGRITY (RFC 8489 9.1.3); `unknown` fills UNKNOWN-ATTRIBUTES of a 420.
pub fn binding_error(
    transaction_id: &[u8; 12],
    code: u16,
    password: Option<&[u8]>,
    unknown: &[u16],
    out: &mut Vec<u8>,
) {
    let reason: &[u8] = match code {
        400 => b"Bad Request",
        401 => b"Unauthenticated",
        420 => b"Unknown Attribute",
        487 => b"Role Conflict",
        500 => b"Server Error",
        _ => b"",
    };
    let mut value = [0; 32];
    value[2] = (code / 100) as u8;
    value[3] = (code % 100) as u8;
    value[4..4 + reason.len()].copy_from_slice(reason);
    let mut message = Message::begin(out, BINDING_ERROR, transaction_id);
    message.attribute(ERROR_CODE, &value[..4 + reason.len()]);
    if !unknown.is_empty() {
        let mut kinds = [0; 2 * MAX_UNKNOWN];
        let count = unknown.len().min(MAX_UNKNOWN);
        for (place, kind) in kinds.chunks_exact_mut(2).zip(unknown) {
            place.copy_from_slice(&kind.to_be_bytes());
        }
        message.attribute(UNKNOWN_ATTRIBUTES, &kinds[..2 * count]);
    }
    message.seal(password);
}
