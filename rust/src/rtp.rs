//! RTP packets: parse, build, serial arithmetic (RFC 3550), header extensions (RFC 8285), retransmission (RFC 4588).
//!
//! The twin of `relay/plane/reference/rtp.py`. A `Packet` holds the places of a datagram's parts and not the bytes;
//! whoever holds the bytes passes both. A bad header costs the packet; a bad extension block costs only the
//! extensions of that packet.

use crate::error::UsageError;

pub const HEADER_LENGTH: usize = 12;
pub const ONE_BYTE_PROFILE: u16 = 0xBEDE;
pub const TWO_BYTE_PROFILE: u16 = 0x1000;
/// The low four bits are "appbits", free for the application (RFC 8285 4.3).
pub const TWO_BYTE_MASK: u16 = 0xFFF0;
pub const ONE_BYTE_MAX_ID: u8 = 14;
pub const ONE_BYTE_MAX_LENGTH: usize = 16;

/// The names of `rtp.EXTENSIONS` in Python, in its order: a name's place, counted from 1, is its id in injected packets.
pub const EXTENSIONS: [&str; 15] = [
    "mid",
    "rid",
    "rrid",
    "audio_level",
    "abs_send_time",
    "transport_cc",
    "toffset",
    "orientation",
    "playout_delay",
    "content_type",
    "timing",
    "color_space",
    "dependency_descriptor",
    "abs_capture_time",
    "framemarking",
];

/// How far 16-bit `a` is ahead of `b` (RFC 1982).
pub fn seq_delta(a: u16, b: u16) -> i32 {
    i32::from(a.wrapping_sub(b) as i16)
}

/// Whether sequence number `a` comes after `b` (RFC 3550 A.1). Half a turn apart counts as older.
pub fn is_newer(a: u16, b: u16) -> bool {
    let ahead = a.wrapping_sub(b);
    0 < ahead && ahead < 0x8000
}

/// How far 32-bit timestamp `a` is ahead of `b`.
pub fn timestamp_delta(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b) as i32)
}

/// Whether 32-bit timestamp `a` comes after `b`.
pub fn is_newer_timestamp(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    0 < ahead && ahead < 0x8000_0000
}

/// The form of a header extension block (RFC 8285 4.2, 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    #[default]
    None,
    OneByte,
    TwoByte,
}

/// A checked extension block: every element lies within `start..end` of the packet.
///
/// Elements are looked up by walking the block. It holds a handful of them, and so any number needs no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    form: Form,
    start: u32,
    end: u32,
}

/// The (id, offset, length) of the elements of one block, in their order; an id may come again.
pub struct Elements<'a> {
    data: &'a [u8],
    form: Form,
    position: usize,
    end: usize,
}

impl Iterator for Elements<'_> {
    type Item = (u8, usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.position < self.end {
            let octet = *self.data.get(self.position)?;
            self.position += 1;
            if octet == 0 {
                continue;
            }
            let (id, length) = if self.form == Form::OneByte {
                let id = octet >> 4;
                // id 15, and id 0 with a length, end the block; what came before them counts (RFC 8285 4.2)
                if id == 15 || id == 0 {
                    self.position = self.end;
                    return None;
                }
                (id, usize::from(octet & 0x0F) + 1)
            } else {
                let Some(&length) = self.data.get(self.position).filter(|_| self.position < self.end) else {
                    self.position = self.end + 1; // runs over the end
                    return None;
                };
                self.position += 1;
                (octet, usize::from(length))
            };
            let offset = self.position;
            self.position += length;
            return Some((id, offset, length));
        }
        None
    }
}

impl Extensions {
    /// Check the elements in `data[start..end]`. Empty for an unknown profile and when any runs over the end.
    pub fn parse(data: &[u8], profile: u16, start: usize, end: usize) -> Self {
        let form = match profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            _ if profile & TWO_BYTE_MASK == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => return Self::default(),
        };
        let mut elements = Elements { data, form, position: start, end };
        while elements.next().is_some() {}
        if elements.position > end {
            return Self::default();
        }
        Self { form, start: start as u32, end: end as u32 }
    }

    pub fn is_empty(&self) -> bool {
        self.form == Form::None
    }

    pub fn elements<'a>(&self, data: &'a [u8]) -> Elements<'a> {
        let (position, end) = if self.is_empty() { (0, 0) } else { (self.start as usize, self.end as usize) };
        Elements { data, form: self.form, position, end }
    }

    /// The value of an element; of a repeated id the last one counts.
    pub fn find<'a>(&self, data: &'a [u8], id: u8) -> Option<&'a [u8]> {
        let (_, offset, length) = self.elements(data).filter(|element| element.0 == id).last()?;
        data.get(offset..offset + length)
    }
}

/// The places of one plaintext RTP packet's parts. `payload_offset..payload_end` is the payload without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// Monotonic microseconds.
    pub arrival: i64,
    pub ssrc: u32,
    pub timestamp: u32,
    pub seq: u16,
    pub marker: bool,
    pub payload_type: u8,
    pub payload_offset: u32,
    pub payload_end: u32,
    pub extensions: Extensions,
}

impl Packet {
    pub fn payload<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.payload_offset as usize..self.payload_end as usize]
    }

    pub fn extension<'a>(&self, data: &'a [u8], id: u8) -> Option<&'a [u8]> {
        self.extensions.find(data, id)
    }

    pub fn payload_size(&self) -> usize {
        (self.payload_end - self.payload_offset) as usize
    }
}

pub(crate) fn read_u16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

pub(crate) fn read_u32(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

/// Parse a decrypted RTP packet (RFC 3550 5.1). None when the header or the padding is malformed.
pub fn parse(datagram: &[u8], now: i64) -> Option<Packet> {
    let size = datagram.len();
    if size < HEADER_LENGTH {
        return None;
    }
    let first = datagram[0];
    if first >> 6 != 2 {
        return None;
    }
    let mut offset = HEADER_LENGTH + 4 * usize::from(first & 0x0F);
    let mut extensions = Extensions::default();
    if first & 0x10 != 0 {
        if offset + 4 > size {
            return None;
        }
        let profile = read_u16(datagram, offset);
        let words = usize::from(read_u16(datagram, offset + 2));
        let start = offset + 4;
        offset = start + 4 * words;
        if offset <= size {
            extensions = Extensions::parse(datagram, profile, start, offset);
        }
    }
    let mut end = size;
    if first & 0x20 != 0 {
        let padding = usize::from(datagram[size - 1]);
        if padding == 0 {
            return None;
        }
        end = end.checked_sub(padding)?;
    }
    if end < offset {
        return None;
    }
    Some(Packet {
        arrival: now,
        ssrc: read_u32(datagram, 8),
        timestamp: read_u32(datagram, 4),
        seq: read_u16(datagram, 2),
        marker: datagram[1] > 0x7F,
        payload_type: datagram[1] & 0x7F,
        payload_offset: offset as u32,
        payload_end: end as u32,
        extensions,
    })
}

/// Whether an element can be written in the one-byte form.
pub fn fits_one_byte(id: u8, value: &[u8]) -> bool {
    id <= ONE_BYTE_MAX_ID && (1..=ONE_BYTE_MAX_LENGTH).contains(&value.len())
}

/// Write a header extension block (profile, length, elements, padding) to the front of `out`; returns its length.
///
/// One-byte form when every id is 1..14 and every length 1..16, else two-byte form (ids 1..255, lengths 0..255; the
/// peer must have agreed to that by `a=extmap-allow-mixed`). No elements give no block.
pub fn build_extensions<'a, I>(elements: I, out: &mut [u8]) -> Result<usize, UsageError>
where
    I: Iterator<Item = (u8, &'a [u8])> + Clone,
{
    let mut one_byte = true;
    let mut size = 4;
    for (id, value) in elements.clone() {
        if id == 0 || value.len() > 255 {
            let length = value.len();
            return Err(UsageError::new(format!("header extension id {id} with {length} bytes cannot be written")));
        }
        one_byte &= fits_one_byte(id, value);
        size += 2 + value.len();
    }
    if size == 4 {
        return Ok(0);
    }
    if size.next_multiple_of(4) > out.len() {
        return Err(UsageError::new("header extensions do not fit the buffer"));
    }
    let mut at = 4;
    for (id, value) in elements {
        if one_byte {
            out[at] = id << 4 | (value.len() - 1) as u8;
            at += 1;
        } else {
            out[at] = id;
            out[at + 1] = value.len() as u8;
            at += 2;
        }
        out[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    let end = at.next_multiple_of(4);
    out[at..end].fill(0);
    let profile = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
    out[0..2].copy_from_slice(&profile.to_be_bytes());
    out[2..4].copy_from_slice(&((end / 4 - 1) as u16).to_be_bytes());
    Ok(end)
}

/// Write the twelve fixed octets, without CSRCs or padding, to the front of `out`.
pub fn build_header(out: &mut [u8], has_extensions: bool, second: u8, seq: u16, timestamp: u32, ssrc: u32) {
    out[0] = if has_extensions { 0x90 } else { 0x80 };
    out[1] = second;
    out[2..4].copy_from_slice(&seq.to_be_bytes());
    out[4..8].copy_from_slice(&timestamp.to_be_bytes());
    out[8..12].copy_from_slice(&ssrc.to_be_bytes());
}

/// Turn a retransmission packet into the original one, in place (RFC 4588 4); the original ends at `payload_end`.
///
/// `ssrc` and `payload_type` are the original stream's. None, and no change, when there is no payload, as in a
/// bandwidth probe.
pub fn decapsulate_rtx(data: &mut [u8], packet: &Packet, ssrc: u32, payload_type: u8) -> Option<Packet> {
    let (start, end) = (packet.payload_offset as usize, packet.payload_end as usize);
    if end - start < 2 {
        return None;
    }
    let seq = read_u16(data, start);
    data.copy_within(start + 2..end, start);
    let first = data[0] & 0xDF;
    let second = if packet.marker { payload_type | 0x80 } else { payload_type };
    build_header(data, false, second, seq, packet.timestamp, ssrc);
    data[0] = first;
    Some(Packet { ssrc, seq, payload_type, payload_end: packet.payload_end - 2, ..*packet })
}
