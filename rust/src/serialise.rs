//! Outgoing RTP packets of one slot: a header template that is filled in per packet.
//!
//! The twin of `relay/plane/reference/serialise.py`. The fixed extensions (mid) and the stamped ones (transport-wide
//! sequence number, send time) sit in the template. Those passed on from the publisher (audio level, orientation, ...)
//! are re-numbered once per ingress packet and `Forwarding`: the caller keeps the `Block`.

use crate::error::UsageError;
use crate::rtp::{HEADER_LENGTH, ONE_BYTE_MAX_LENGTH, Packet, build_extensions, build_header, fits_one_byte};

/// How many extensions can be passed on; the relay passes on five.
pub const MAX_FORWARDED: usize = 16;
/// How many fixed extensions a stream can have; the relay writes mid.
const MAX_FIXED: usize = 4;
const MAX_BLOCK: usize = MAX_FORWARDED * (1 + ONE_BYTE_MAX_LENGTH);
const MAX_TEMPLATE: usize = HEADER_LENGTH + 4 + (MAX_FIXED + 2) * (1 + ONE_BYTE_MAX_LENGTH) + 2;

/// Which extension elements of an ingress packet are passed on, and under which id.
#[derive(Debug, Clone, Copy, Eq, Default)]
pub struct Forwarding {
    ids: [(u8, u8); MAX_FORWARDED],
    count: u8,
    allow_mixed: bool,
}

/// The elements of one packet in one-byte form, padded to 32 bits; `fits` is false when they need the two-byte form.
#[derive(Debug, Clone)]
pub struct Block {
    bytes: [u8; MAX_BLOCK],
    length: usize,
    fits: bool,
}

impl Default for Block {
    fn default() -> Self {
        Self { bytes: [0; MAX_BLOCK], length: 0, fits: true }
    }
}

impl PartialEq for Forwarding {
    /// Asked for every packet out, so that it looks at no more than there is.
    fn eq(&self, other: &Self) -> bool {
        self.allow_mixed == other.allow_mixed && self.ids() == other.ids()
    }
}

impl Forwarding {
    /// `ids` are (id in, id out) pairs, written in this order. Out ids are 1..255.
    ///
    /// Elements that need the two-byte form are left out unless the viewer agreed to `a=extmap-allow-mixed`.
    pub fn new(ids: &[(u8, u8)], allow_mixed: bool) -> Result<Self, UsageError> {
        if ids.len() > MAX_FORWARDED || ids.iter().any(|pair| pair.1 == 0) {
            return Err(UsageError::new("header extensions that cannot be passed on"));
        }
        let mut found = Self { allow_mixed, count: ids.len() as u8, ..Self::default() };
        found.ids[..ids.len()].copy_from_slice(ids);
        Ok(found)
    }

    pub fn ids(&self) -> &[(u8, u8)] {
        &self.ids[..usize::from(self.count)]
    }

    /// The (id out, value) pairs of the elements of a packet that are passed on.
    fn elements<'a>(&'a self, data: &'a [u8], packet: &'a Packet) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let mixed = self.allow_mixed;
        self.ids().iter().filter_map(move |&(id_in, id_out)| {
            let value = packet.extension(data, id_in)?;
            (mixed || fits_one_byte(id_out, value)).then_some((id_out, value))
        })
    }

    /// Write the packet's block to `block`.
    pub fn block(&self, data: &[u8], packet: &Packet, block: &mut Block) {
        block.length = 0;
        block.fits = true;
        if packet.extensions.is_empty() {
            return;
        }
        let mut at = 0;
        for (id, value) in self.elements(data, packet) {
            if !fits_one_byte(id, value) {
                block.fits = false;
                return;
            }
            block.bytes[at] = id << 4 | (value.len() - 1) as u8;
            block.bytes[at + 1..at + 1 + value.len()].copy_from_slice(value);
            at += 1 + value.len();
        }
        block.length = at.next_multiple_of(4);
        block.bytes[at..block.length].fill(0);
    }
}

/// What is written over the input packet. `patch` replaces payload bytes from `patch_offset` on.
///
/// `type_and_marker` is the second octet; `send_time` has 24 bits (6.18 fixed point seconds).
#[derive(Debug, Clone, Copy, Default)]
pub struct Fields<'a> {
    pub type_and_marker: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub patch_offset: usize,
    pub patch: &'a [u8],
    pub transport_seq: u16,
    pub send_time: u32,
}

/// Writes the packets of one output stream (one SSRC).
#[derive(Debug, Clone)]
pub struct Serialiser {
    pub ssrc: u32,
    fixed_count: usize,
    fixed: [(u8, u8, [u8; ONE_BYTE_MAX_LENGTH]); MAX_FIXED],
    transport_id: u8,
    send_time_id: u8,
    forwarding: Forwarding,
    template: [u8; MAX_TEMPLATE],
    length: usize,
    transport_at: usize,
    send_time_at: usize,
}

impl Serialiser {
    /// `fixed` are (id, value) pairs of every packet. An id of 0 means that the extension was not agreed on.
    ///
    /// Fixed and stamped ids are 1..14 with values of 1..16 bytes; UsageError otherwise.
    pub fn new(
        ssrc: u32,
        fixed: &[(u8, &[u8])],
        transport_cc_id: u8,
        abs_send_time_id: u8,
        forwarding: Option<Forwarding>,
    ) -> Result<Self, UsageError> {
        let fits = fixed.len() <= MAX_FIXED
            && fixed.iter().all(|&(id, value)| id != 0 && fits_one_byte(id, value))
            && fits_one_byte(transport_cc_id, &[0; 2])
            && fits_one_byte(abs_send_time_id, &[0; 3]);
        if !fits {
            return Err(UsageError::new("the relay's own header extensions must fit the one-byte form"));
        }
        let mut made = Self {
            ssrc,
            fixed_count: fixed.len(),
            fixed: [(0, 0, [0; ONE_BYTE_MAX_LENGTH]); MAX_FIXED],
            transport_id: transport_cc_id,
            send_time_id: abs_send_time_id,
            forwarding: forwarding.unwrap_or_default(),
            template: [0; MAX_TEMPLATE],
            length: HEADER_LENGTH,
            transport_at: 0,
            send_time_at: 0,
        };
        let mut position = HEADER_LENGTH + 4;
        for (slot, &(id, value)) in made.fixed.iter_mut().zip(fixed) {
            slot.0 = id;
            slot.1 = value.len() as u8;
            slot.2[..value.len()].copy_from_slice(value);
            position += 1 + value.len();
        }
        made.fill_template(position)?;
        Ok(made)
    }

    fn fill_template(&mut self, after_fixed: usize) -> Result<(), UsageError> {
        let mut block = [0; MAX_TEMPLATE - HEADER_LENGTH];
        let mut length = build_extensions(self.own_elements(&[0; 2], &[0; 3]), &mut block)?;
        if length == 0 && self.forwarding.count > 0 {
            block[..4].copy_from_slice(&[0xBE, 0xDE, 0, 0]);
            length = 4;
        }
        build_header(&mut self.template, length > 0, 0, 0, 0, self.ssrc);
        self.template[HEADER_LENGTH..HEADER_LENGTH + length].copy_from_slice(&block[..length]);
        self.length = HEADER_LENGTH + length;
        let mut position = after_fixed;
        if self.transport_id != 0 {
            self.transport_at = position + 1;
            position += 3;
        }
        if self.send_time_id != 0 {
            self.send_time_at = position + 1;
        }
        Ok(())
    }

    fn own_elements<'a>(
        &'a self,
        transport_seq: &'a [u8; 2],
        send_time: &'a [u8; 3],
    ) -> impl Iterator<Item = (u8, &'a [u8])> + Clone {
        let fixed =
            self.fixed[..self.fixed_count].iter().map(|(id, length, value)| (*id, &value[..usize::from(*length)]));
        let transport = (self.transport_id != 0).then_some((self.transport_id, &transport_seq[..]));
        let stamp = (self.send_time_id != 0).then_some((self.send_time_id, &send_time[..]));
        fixed.chain(transport).chain(stamp)
    }

    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// Write the outgoing plaintext packet to the front of `out`; returns its length, None when `out` is too short.
    ///
    /// `block` is what `forwarding().block()` gave for this packet. `prefix` goes before the payload: the original
    /// sequence number of a retransmission (RFC 4588).
    ///
    /// Sealing two packets that differ under one SSRC and sequence number breaks AES-GCM (RFC 7714 8.1), so a repeat
    /// outside RTX must be written with the very values of the first time.
    pub fn write(
        &self,
        data: &[u8],
        packet: &Packet,
        block: &Block,
        fields: &Fields<'_>,
        prefix: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        if self.forwarding.count > 0 && !block.fits {
            return self.write_two_byte(data, packet, fields, prefix, out);
        }
        let passed_on: &[u8] = if self.forwarding.count > 0 { &block.bytes[..block.length] } else { &[] };
        let header = out.get_mut(..self.length)?;
        header.copy_from_slice(&self.template[..self.length]);
        header[1] = fields.type_and_marker;
        header[2..4].copy_from_slice(&fields.seq.to_be_bytes());
        header[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
        if !passed_on.is_empty() {
            let words = (self.length + passed_on.len() - HEADER_LENGTH) / 4 - 1;
            header[14..16].copy_from_slice(&(words as u16).to_be_bytes());
        }
        if self.transport_at != 0 {
            header[self.transport_at..self.transport_at + 2].copy_from_slice(&fields.transport_seq.to_be_bytes());
        }
        if self.send_time_at != 0 {
            header[self.send_time_at..self.send_time_at + 3].copy_from_slice(&fields.send_time.to_be_bytes()[1..]);
        }
        let mut at = self.length;
        put(out, &mut at, passed_on)?;
        put(out, &mut at, prefix)?;
        let (start, end) = (packet.payload_offset as usize, packet.payload_end as usize);
        if fields.patch.is_empty() {
            put(out, &mut at, &data[start..end])?;
            return Some(at);
        }
        let patch_at = start + fields.patch_offset;
        let after = patch_at + fields.patch.len();
        put(out, &mut at, &data[start.min(data.len())..patch_at.min(data.len())])?;
        put(out, &mut at, fields.patch)?;
        put(out, &mut at, data.get(after..end).unwrap_or_default())?;
        Some(at)
    }

    fn write_two_byte(
        &self,
        data: &[u8],
        packet: &Packet,
        fields: &Fields<'_>,
        prefix: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let transport_seq = fields.transport_seq.to_be_bytes();
        let [_, high, middle, low] = fields.send_time.to_be_bytes();
        let send_time = [high, middle, low];
        let elements = self.own_elements(&transport_seq, &send_time).chain(self.forwarding.elements(data, packet));
        let length = build_extensions(elements, out.get_mut(HEADER_LENGTH..)?).ok()?;
        build_header(out, length > 0, fields.type_and_marker, fields.seq, fields.timestamp, self.ssrc);
        let mut at = HEADER_LENGTH + length;
        put(out, &mut at, prefix)?;
        let payload = packet.payload(data);
        put(out, &mut at, &payload[..fields.patch_offset.min(payload.len())])?;
        put(out, &mut at, fields.patch)?;
        put(out, &mut at, &payload[(fields.patch_offset + fields.patch.len()).min(payload.len())..])?;
        Some(at)
    }
}

fn put(out: &mut [u8], at: &mut usize, bytes: &[u8]) -> Option<()> {
    out.get_mut(*at..*at + bytes.len())?.copy_from_slice(bytes);
    *at += bytes.len();
    Some(())
}
