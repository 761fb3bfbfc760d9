//! SRTP and SRTCP of one session (RFC 3711, RFC 7714), in place and without allocation per packet.
//!
//! The twin of `relay/plane/reference/srtp.py`, which calls libsrtp; where the RFCs leave a choice (what a window
//! holds, in which order a packet is judged) this file does as libsrtp 2 does. Ciphers come from aws-lc-rs.

mod cipher;
mod window;

use std::collections::HashMap;

use aws_lc_rs::aead::Aad;
use aws_lc_rs::constant_time::verify_slices_are_equal;

pub use cipher::Profile;
use cipher::{CM_TAG, Cipher, CounterMode, GCM_TAG, counter_iv, gcm_rtcp_nonce, gcm_rtp_nonce, sign};
use window::{RtcpWindow, RtpWindow};

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
/// SSRCs that one peer can make us remember; a browser uses two per layer. Packets of others are refused: to forget one
/// would forget which of its packets were seen.
pub const MAX_STREAMS: usize = 256;

const RTP_HEADER: usize = 12;
const RTCP_HEADER: usize = 8;
const RTCP_INDEX: usize = 4;
const ENCRYPTED: u32 = 0x8000_0000;

/// Why a packet was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Auth,
    Replay,
    Oversize,
    Malformed,
    Closed,
    Streams,
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

    /// Whether a packet of this SSRC would have to be remembered and cannot be.
    fn is_full(&mut self, ssrc: u32) -> bool {
        self.streams.len() >= MAX_STREAMS && self.find(ssrc).is_none()
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
    pub refused: [u64; 6],
}

impl Srtp {
    /// Keys are master key + master salt. UsageError for wrong lengths.
    pub fn new(profile: Profile, tx_key: &[u8], rx_key: &[u8]) -> Result<Self, UsageError> {
        Ok(Self {
            tx: Some(Direction::new(profile, tx_key)?),
            rx: Some(Direction::new(profile, rx_key)?),
            refused: [0; 6],
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
    if packet.len() >= RTP_HEADER && rx.is_full(read_u32(packet, 8)) {
        return Err(Refusal::Streams);
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
    if packet.len() >= RTCP_HEADER && rx.is_full(read_u32(packet, 4)) {
        return Err(Refusal::Streams);
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
