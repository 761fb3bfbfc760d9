//! SRTP and SRTCP of one session (RFC 3711, RFC 7714), in place and without allocation per packet.
//!
//! The twin of `relay/plane/reference/srtp.py`, which calls libsrtp; where the RFCs leave a choice (what a window
//! holds, in which order a packet is judged) this file does as libsrtp 2 does. Ciphers come from aws-lc-rs.

use std::collections::HashMap;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::error::UsageError;
use crate::rtp::{read_u16, read_u32};

/// Bytes: MAX_SEALED less the longest tag. GStreamer fills packets of 1400 bytes before SRTP.
pub const MAX_PLAIN: usize = 1484;
/// Bytes: nothing longer arrives in one Ethernet frame.
pub const MAX_SEALED: usize = 1500;
/// Packets: half a second at 2,000 packets/s, so that a retransmission is not taken for a replay.
pub const REPLAY_WINDOW: usize = 1024;
/// Bytes that protection adds at most: the tag, and in RTCP the index.
pub const MAX_TRAILER: usize = 16 + 4;

const RTCP_HEADER: usize = 8;
const RTCP_INDEX: usize = 4;
const ENCRYPTED: u32 = 0x8000_0000;
const CM_TAG: usize = 10;
const GCM_TAG: usize = 16;
const SALT: usize = 14;

/// A protection profile (RFC 5764 4.1.2, RFC 7714 14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Aes128Gcm,
    Aes256Gcm,
    AesCm128HmacSha1,
}

impl Profile {
    /// By its name in DTLS, as OpenSSL spells it.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "SRTP_AEAD_AES_128_GCM" => Self::Aes128Gcm,
            "SRTP_AEAD_AES_256_GCM" => Self::Aes256Gcm,
            "SRTP_AES128_CM_SHA1_80" => Self::AesCm128HmacSha1,
            _ => return None,
        })
    }

    pub fn key_length(self) -> usize {
        if self == Self::Aes256Gcm { 32 } else { 16 }
    }

    pub fn salt_length(self) -> usize {
        if self == Self::AesCm128HmacSha1 { SALT } else { 12 }
    }

    pub fn tag_length(self) -> usize {
        if self == Self::AesCm128HmacSha1 { CM_TAG } else { GCM_TAG }
    }
}

/// Why a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Auth,
    Replay,
    Oversize,
    Malformed,
    Closed,
}

/// AES in counter mode with one key.
struct CounterMode(EncryptingKey);

impl CounterMode {
    fn new(key: &[u8]) -> Result<Self, UsageError> {
        let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
        UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .map(Self)
            .map_err(|_| UsageError::new("an AES key was refused"))
    }

    fn apply(&self, iv: [u8; 16], data: &mut [u8]) {
        // Fails only for a context of another mode.
        let done = self.0.less_safe_encrypt(data, EncryptionContext::Iv128(iv.into()));
        debug_assert!(done.is_ok());
    }
}

/// The key derivation of RFC 3711 4.3.1 with a key derivation rate of 0; a 96-bit salt ends in zeros (RFC 7714 11).
fn derive(master: &CounterMode, salt: &[u8], label: u8, out: &mut [u8]) {
    let mut iv = [0; 16];
    iv[..salt.len()].copy_from_slice(salt);
    iv[7] ^= label;
    out.zeroize();
    master.apply(iv, out);
}

/// What protects one kind of packet in one direction.
enum Cipher {
    Gcm { key: Box<LessSafeKey>, salt: [u8; 12] },
    CmHmac { key: Box<CounterMode>, salt: [u8; 16], auth: Box<hmac::Key> },
}

impl Cipher {
    /// `labels` starts at 0 for RTP and 3 for RTCP: encryption, authentication, salt (RFC 3711 4.3.2).
    fn new(profile: Profile, master: &CounterMode, master_salt: &[u8], labels: u8) -> Result<Self, UsageError> {
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..profile.key_length()];
        derive(master, master_salt, labels, key);
        if profile == Profile::AesCm128HmacSha1 {
            let mut auth = Zeroizing::new([0; 20]);
            derive(master, master_salt, labels + 1, &mut auth[..]);
            let mut salt = [0; 16];
            derive(master, master_salt, labels + 2, &mut salt[..SALT]);
            let auth = Box::new(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth[..]));
            return Ok(Self::CmHmac { key: Box::new(CounterMode::new(key)?), salt, auth });
        }
        let mut salt = [0; 12];
        derive(master, master_salt, labels + 2, &mut salt);
        let algorithm = if profile == Profile::Aes256Gcm { &aead::AES_256_GCM } else { &aead::AES_128_GCM };
        let key = UnboundKey::new(algorithm, key).map_err(|_| UsageError::new("an AES-GCM key was refused"))?;
        Ok(Self::Gcm { key: Box::new(LessSafeKey::new(key)), salt })
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        match self {
            Self::Gcm { salt, .. } => salt.zeroize(),
            Self::CmHmac { salt, .. } => salt.zeroize(),
        }
    }
}

/// RFC 7714 8.1: 00 00, SSRC, rollover counter, sequence number, over the salt.
fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(iv)
}

/// RFC 7714 9.1: 00 00, SSRC, 00 00, SRTCP index, over the salt.
fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    let mut iv = *salt;
    xor(&mut iv[2..6], &ssrc.to_be_bytes());
    xor(&mut iv[8..12], &index.to_be_bytes());
    Nonce::assume_unique_for_key(iv)
}

/// RFC 3711 4.1.1: salt * 2^16 XOR SSRC * 2^64 XOR index * 2^16.
fn counter_iv(salt: &[u8; 16], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = *salt;
    xor(&mut iv[4..8], &ssrc.to_be_bytes());
    xor(&mut iv[8..16], &(index << 16).to_be_bytes());
    iv
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (octet, other) in into.iter_mut().zip(with) {
        *octet ^= other;
    }
}

fn sign(key: &hmac::Key, message: &[u8], tail: &[u8]) -> [u8; CM_TAG] {
    let mut context = hmac::Context::with_key(key);
    context.update(message);
    context.update(tail);
    let mut tag = [0; CM_TAG];
    tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG]);
    tag
}

/// Packet index and replay window of one SSRC's RTP (RFC 3711 3.3.1, 3.3.2), as libsrtp's rdbx keeps them.
#[derive(Clone)]
struct RtpWindow {
    index: u64,
    bits: [u64; REPLAY_WINDOW / 64],
}

impl RtpWindow {
    fn new() -> Self {
        Self { index: 0, bits: [0; REPLAY_WINDOW / 64] }
    }

    /// How far the packet is ahead of the newest one.
    fn delta(&self, seq: u16) -> i64 {
        let seq = i64::from(seq);
        let local = (self.index & 0xFFFF) as i64;
        // Near the start a rollover counter below zero could be guessed; so there it is 0.
        if self.index <= 0x8000 {
            return seq - local;
        }
        if local < 0x8000 && seq - local > 0x8000 {
            seq - local - 0x10000
        } else if local >= 0x8000 && local - 0x8000 > seq {
            seq - local + 0x10000
        } else {
            seq - local
        }
    }

    fn is_set(&self, index: u64) -> bool {
        let place = index as usize % REPLAY_WINDOW;
        self.bits[place / 64] >> (place % 64) & 1 != 0
    }

    fn set(&mut self, index: u64, value: bool) {
        let place = index as usize % REPLAY_WINDOW;
        let bit = 1 << (place % 64);
        if value {
            self.bits[place / 64] |= bit;
        } else {
            self.bits[place / 64] &= !bit;
        }
    }

    /// `repeats` lets through what was seen before, as long as the window remembers it.
    fn check(&self, delta: i64, repeats: bool) -> Result<(), Refusal> {
        if delta > 0 {
            return Ok(());
        }
        let too_old = delta <= -(REPLAY_WINDOW as i64);
        if too_old || (!repeats && self.is_set(self.index.wrapping_add_signed(delta))) {
            return Err(Refusal::Replay);
        }
        Ok(())
    }

    fn add(&mut self, delta: i64) {
        if delta > 0 {
            if delta >= REPLAY_WINDOW as i64 {
                self.bits.fill(0);
            } else {
                for passed in 1..delta as u64 {
                    self.set(self.index + passed, false);
                }
            }
            self.index += delta as u64;
            self.set(self.index, true);
        } else {
            self.set(self.index.wrapping_add_signed(delta), true);
        }
    }
}

/// Replay window of one SSRC's RTCP, of 128 packets, as libsrtp's rdb keeps it. A sender uses `start` as its index.
#[derive(Clone, Default)]
struct RtcpWindow {
    start: u32,
    bits: u128,
}

impl RtcpWindow {
    fn check(&self, index: u32) -> Result<(), Refusal> {
        match index.checked_sub(self.start) {
            None => Err(Refusal::Replay),
            Some(ahead) if ahead < 128 && self.bits >> ahead & 1 != 0 => Err(Refusal::Replay),
            Some(_) => Ok(()),
        }
    }

    fn add(&mut self, index: u32) {
        let ahead = index - self.start;
        if ahead < 128 {
            self.bits |= 1 << ahead;
            return;
        }
        let shift = ahead - 127;
        self.bits = if shift < 128 { self.bits >> shift } else { 0 } | 1 << 127;
        self.start += shift;
    }
}

struct Stream {
    ssrc: u32,
    rtp: RtpWindow,
    rtcp: RtcpWindow,
}

/// The streams of one direction, which share its keys.
struct Direction {
    rtp: Cipher,
    rtcp: Cipher,
    streams: Vec<Stream>,
    places: HashMap<u32, usize>,
    latest: usize,
}

impl Direction {
    fn new(profile: Profile, key: &[u8]) -> Result<Self, UsageError> {
        let expected = profile.key_length() + profile.salt_length();
        if key.len() != expected {
            return Err(UsageError::new(format!("{profile:?} needs {expected} key bytes, not {}", key.len())));
        }
        let (master, salt) = key.split_at(profile.key_length());
        let master = CounterMode::new(master)?;
        Ok(Self {
            rtp: Cipher::new(profile, &master, salt, 0)?,
            rtcp: Cipher::new(profile, &master, salt, 3)?,
            streams: Vec::new(),
            places: HashMap::new(),
            latest: 0,
        })
    }

    fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.streams.get(self.latest).is_some_and(|stream| stream.ssrc == ssrc) {
            return Some(self.latest);
        }
        let place = *self.places.get(&ssrc)?;
        self.latest = place;
        Some(place)
    }

    fn find_or_add(&mut self, ssrc: u32) -> &mut Stream {
        let place = self.find(ssrc).unwrap_or_else(|| {
            self.streams.push(Stream { ssrc, rtp: RtpWindow::new(), rtcp: RtcpWindow::default() });
            self.latest = self.streams.len() - 1;
            self.places.insert(ssrc, self.latest);
            self.latest
        });
        &mut self.streams[place]
    }
}

/// Where the payload of an RTP packet begins; Malformed when header or extension run over the end.
fn payload_start(packet: &[u8]) -> Result<usize, Refusal> {
    let first = *packet.first().ok_or(Refusal::Malformed)?;
    let mut start = 12 + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        start += 4;
    }
    if packet.len() < start {
        return Err(Refusal::Malformed);
    }
    if first & 0x10 != 0 {
        start += 4 * usize::from(read_u16(packet, start - 2));
    }
    if packet.len() < start { Err(Refusal::Malformed) } else { Ok(start) }
}

/// Protection of both directions of one session.
///
/// Every method works on `buffer[..length]` in place and returns the new length; `refused` counts what it refuses.
pub struct Srtp {
    tx: Option<Direction>,
    rx: Option<Direction>,
    /// By `Refusal`, in its order.
    pub refused: [u64; 5],
}

impl Srtp {
    /// Keys are master key + master salt. UsageError for wrong lengths.
    pub fn new(profile: Profile, tx_key: &[u8], rx_key: &[u8]) -> Result<Self, UsageError> {
        Ok(Self {
            tx: Some(Direction::new(profile, tx_key)?),
            rx: Some(Direction::new(profile, rx_key)?),
            refused: [0; 5],
        })
    }

    /// Seal an RTP packet of at most MAX_PLAIN bytes. `buffer` has MAX_TRAILER bytes more.
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let done = protect_rtp(self.tx.as_mut(), buffer, length);
        self.count(done)
    }

    /// Open an SRTP packet. A packet opened before, or older than REPLAY_WINDOW, is refused.
    pub fn unprotect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let done = unprotect_rtp(self.rx.as_mut(), &mut buffer[..length]);
        self.count(done)
    }

    /// Seal a compound RTCP packet of at most MAX_PLAIN bytes. `buffer` has MAX_TRAILER bytes more.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let done = protect_rtcp(self.tx.as_mut(), buffer, length);
        self.count(done)
    }

    /// Open an SRTCP packet.
    pub fn unprotect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
        let done = unprotect_rtcp(self.rx.as_mut(), &mut buffer[..length]);
        self.count(done)
    }

    /// Forget the keys, which zeroes them. Repeatable.
    pub fn close(&mut self) {
        self.tx = None;
        self.rx = None;
    }

    fn count(&mut self, done: Result<usize, Refusal>) -> Result<usize, Refusal> {
        if let Err(reason) = done {
            self.refused[reason as usize] += 1;
        }
        done
    }
}

fn protect_rtp(tx: Option<&mut Direction>, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
    let tx = tx.ok_or(Refusal::Closed)?;
    if length > MAX_PLAIN {
        return Err(Refusal::Oversize);
    }
    let start = payload_start(&buffer[..length])?;
    let ssrc = read_u32(buffer, 8);
    let window = &mut tx.find_or_add(ssrc).rtp;
    let delta = window.delta(read_u16(buffer, 2));
    // A repeat that is identical to the first sending is safe; history.SentLog keeps what that takes.
    window.check(delta, true)?;
    let index = window.index.wrapping_add_signed(delta);
    window.add(delta);
    let (header, rest) = buffer.split_at_mut(start);
    let (payload, trailer) = rest.split_at_mut(length - start);
    match &tx.rtp {
        Cipher::Gcm { key, salt } => {
            let nonce = gcm_rtp_nonce(salt, ssrc, index);
            let tag =
                key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload).map_err(|_| Refusal::Malformed)?;
            trailer[..GCM_TAG].copy_from_slice(tag.as_ref());
            Ok(length + GCM_TAG)
        }
        Cipher::CmHmac { key, salt, auth } => {
            key.apply(counter_iv(salt, ssrc, index), payload);
            let tag = sign(auth, &buffer[..length], &((index >> 16) as u32).to_be_bytes());
            buffer[length..length + CM_TAG].copy_from_slice(&tag);
            Ok(length + CM_TAG)
        }
    }
}

fn unprotect_rtp(rx: Option<&mut Direction>, packet: &mut [u8]) -> Result<usize, Refusal> {
    let rx = rx.ok_or(Refusal::Closed)?;
    if packet.len() > MAX_SEALED {
        return Err(Refusal::Oversize);
    }
    let start = payload_start(packet)?;
    let (seq, ssrc) = (read_u16(packet, 2), read_u32(packet, 8));
    let (mut delta, mut index) = (i64::from(seq), u64::from(seq));
    if let Some(place) = rx.find(ssrc) {
        let window = &rx.streams[place].rtp;
        delta = window.delta(seq);
        window.check(delta, false)?;
        index = window.index.wrapping_add_signed(delta);
    }
    let length = match &rx.rtp {
        Cipher::Gcm { key, salt } => {
            // libsrtp calls a packet shorter than the tag a failed authentication.
            let length = packet.len().checked_sub(GCM_TAG).ok_or(Refusal::Auth)?;
            if length < start {
                return Err(Refusal::Malformed);
            }
            let (header, sealed) = packet.split_at_mut(start);
            key.open_in_place(gcm_rtp_nonce(salt, ssrc, index), Aad::from(&*header), sealed)
                .map_err(|_| Refusal::Auth)?;
            length
        }
        Cipher::CmHmac { key, salt, auth } => {
            let length = packet.len().checked_sub(CM_TAG).filter(|&end| start <= end).ok_or(Refusal::Malformed)?;
            let (message, tag) = packet.split_at_mut(length);
            let expected = sign(auth, message, &((index >> 16) as u32).to_be_bytes());
            verify_slices_are_equal(&expected, tag).map_err(|_| Refusal::Auth)?;
            key.apply(counter_iv(salt, ssrc, index), &mut message[start..]);
            length
        }
    };
    rx.find_or_add(ssrc).rtp.add(delta);
    Ok(length)
}

fn protect_rtcp(tx: Option<&mut Direction>, buffer: &mut [u8], length: usize) -> Result<usize, Refusal> {
    let tx = tx.ok_or(Refusal::Closed)?;
    if length > MAX_PLAIN {
        return Err(Refusal::Oversize);
    }
    if length < RTCP_HEADER {
        return Err(Refusal::Malformed);
    }
    let ssrc = read_u32(buffer, 4);
    let window = &mut tx.find_or_add(ssrc).rtcp;
    if window.start >= 0x7FFF_FFFF {
        return Err(Refusal::Malformed); // the key is used up (RFC 3711 9.2)
    }
    window.start += 1;
    let index = window.start;
    let trailer = (ENCRYPTED | index).to_be_bytes();
    match &tx.rtcp {
        Cipher::Gcm { key, salt } => {
            let mut aad = [0; RTCP_HEADER + RTCP_INDEX];
            aad[..RTCP_HEADER].copy_from_slice(&buffer[..RTCP_HEADER]);
            aad[RTCP_HEADER..].copy_from_slice(&trailer);
            let nonce = gcm_rtcp_nonce(salt, ssrc, index);
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut buffer[RTCP_HEADER..length])
                .map_err(|_| Refusal::Malformed)?;
            buffer[length..length + GCM_TAG].copy_from_slice(tag.as_ref());
            let end = length + GCM_TAG;
            buffer[end..end + RTCP_INDEX].copy_from_slice(&trailer);
            Ok(end + RTCP_INDEX)
        }
        Cipher::CmHmac { key, salt, auth } => {
            key.apply(counter_iv(salt, ssrc, u64::from(index)), &mut buffer[RTCP_HEADER..length]);
            buffer[length..length + RTCP_INDEX].copy_from_slice(&trailer);
            let end = length + RTCP_INDEX;
            let tag = sign(auth, &buffer[..end], &[]);
            buffer[end..end + CM_TAG].copy_from_slice(&tag);
            Ok(end + CM_TAG)
        }
    }
}

fn unprotect_rtcp(rx: Option<&mut Direction>, packet: &mut [u8]) -> Result<usize, Refusal> {
    let rx = rx.ok_or(Refusal::Closed)?;
    if packet.len() > MAX_SEALED {
        return Err(Refusal::Oversize);
    }
    let tag_length = if matches!(rx.rtcp, Cipher::Gcm { .. }) { GCM_TAG } else { CM_TAG };
    let length = packet
        .len()
        .checked_sub(tag_length + RTCP_INDEX)
        .filter(|&end| end >= RTCP_HEADER)
        .ok_or(Refusal::Malformed)?;
    let ssrc = read_u32(packet, 4);
    let known = rx.find(ssrc);
    let seen = |rx: &Direction, index: u32| known.map_or(Ok(()), |place| rx.streams[place].rtcp.check(index));
    let index = match &rx.rtcp {
        Cipher::Gcm { key, salt } => {
            let word = read_u32(packet, length + GCM_TAG);
            let index = word & !ENCRYPTED;
            seen(rx, index)?;
            // Unencrypted RTCP is authenticated as a whole (RFC 7714 9.3).
            let start = if word & ENCRYPTED != 0 { RTCP_HEADER } else { length };
            let mut aad = [0; MAX_SEALED + RTCP_INDEX];
            aad[..start].copy_from_slice(&packet[..start]);
            aad[start..start + RTCP_INDEX].copy_from_slice(&word.to_be_bytes());
            let aad = Aad::from(&aad[..start + RTCP_INDEX]);
            let nonce = gcm_rtcp_nonce(salt, ssrc, index);
            key.open_in_place(nonce, aad, &mut packet[start..length + GCM_TAG]).map_err(|_| Refusal::Auth)?;
            index
        }
        Cipher::CmHmac { key, salt, auth } => {
            let word = read_u32(packet, length);
            if word & ENCRYPTED == 0 {
                return Err(Refusal::Malformed);
            }
            let index = word & !ENCRYPTED;
            seen(rx, index)?;
            let (message, tag) = packet.split_at_mut(length + RTCP_INDEX);
            let expected = sign(auth, message, &[]);
            verify_slices_are_equal(&expected, tag).map_err(|_| Refusal::Auth)?;
            key.apply(counter_iv(salt, ssrc, u64::from(index)), &mut message[RTCP_HEADER..length]);
            index
        }
    };
    rx.find_or_add(ssrc).rtcp.add(index);
    Ok(length)
}
