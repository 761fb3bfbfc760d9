//! RTCP: a tolerant reader of decrypted compound packets, and the builders a relay needs.
//!
//! The twin of `relay/plane/reference/rtcp.py`. RFC 3550 (SR, RR, SDES, BYE), RFC 4585 (generic NACK, PLI), RFC 5104
//! (FIR), RFC 5506 (reduced size: any packet may come first), draft-alvestrand-rmcat-remb-03, transport-cc handed on
//! as bytes. A malformed packet ends the reading, and what was read before it stays good. Packets are views of the
//! datagram.

use crate::rtp::{read_u16, read_u32};

mod build;
mod ntp;

pub use build::{
    MAX_BLOCKS, build_bye, build_fir, build_nack, build_pli, build_remb, build_rr, build_sdes, build_sr,
    build_transport_cc,
};
pub use ntp::{ntp_from_wall_us, ntp_middle, rtt_us, wall_us_from_ntp};

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const RTPFB: u8 = 205;
const PSFB: u8 = 206;
const RTPFB_NACK: u8 = 1;
const RTPFB_TRANSPORT_CC: u8 = 15;
const PSFB_PLI: u8 = 1;
const PSFB_FIR: u8 = 4;
const PSFB_REMB: u8 = 15;

/// Per compound; a client sends fewer than ten.
pub const MAX_PACKETS: usize = 64;
/// Sequence numbers per NACK packet; a history holds about as many.
pub const MAX_NACKED: usize = 1024;
pub const MAX_FIR_ENTRIES: usize = 64;
/// REMB can say 2**81; saturate to what a signed 64-bit number holds.
pub const MAX_BITRATE: i64 = i64::MAX;
const BLOCK: usize = 24;

/// RFC 3550 6.4.1. `fraction_lost` in 1/256; `cumulative_lost` signed 24 bits; `jitter` in clock units; `lsr` middle
/// 32 bits of NTP; `dlsr` in 1/65536 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    pub fraction_lost: u8,
    pub cumulative_lost: i32,
    pub highest_sequence: u32,
    pub jitter: u32,
    pub lsr: u32,
    pub dlsr: u32,
}

impl ReportBlock {
    fn read(octets: &[u8]) -> Self {
        let loss = read_u32(octets, 4);
        Self {
            ssrc: read_u32(octets, 0),
            fraction_lost: (loss >> 24) as u8,
            cumulative_lost: (loss << 8) as i32 >> 8,
            highest_sequence: read_u32(octets, 8),
            jitter: read_u32(octets, 12),
            lsr: read_u32(octets, 16),
            dlsr: read_u32(octets, 20),
        }
    }
}

/// `ntp` is the 64-bit NTP timestamp that belongs to `rtp_timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: u32,
    pub ntp: u64,
    pub rtp_timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

/// One packet; the bytes it holds are checked, and read by the functions of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport { info: SenderInfo, reports: &'a [u8] },
    ReceiverReport { ssrc: u32, reports: &'a [u8] },
    SourceDescription { body: &'a [u8], count: u8 },
    Bye { ssrcs: &'a [u8] },
    Nack { sender_ssrc: u32, media_ssrc: u32, pairs: &'a [u8] },
    Pli { sender_ssrc: u32, media_ssrc: u32 },
    Fir { sender_ssrc: u32, entries: &'a [u8] },
    Remb { sender_ssrc: u32, bitrate: i64, ssrcs: &'a [u8] },
    TransportFeedback { sender_ssrc: u32, media_ssrc: u32, fci: &'a [u8] },
}

/// The blocks of a report.
pub fn report_blocks(reports: &[u8]) -> impl Iterator<Item = ReportBlock> {
    reports.chunks_exact(BLOCK).map(ReportBlock::read)
}

/// The SSRCs of a BYE or REMB.
pub fn ssrcs(octets: &[u8]) -> impl Iterator<Item = u32> {
    octets.chunks_exact(4).map(|octets| read_u32(octets, 0))
}

/// The 16-bit sequence numbers of a NACK in the order of its PID/BLP pairs.
pub fn nacked(pairs: &[u8]) -> impl Iterator<Item = u16> {
    pairs.chunks_exact(4).flat_map(|pair| {
        let (pid, blp) = (read_u16(pair, 0), read_u16(pair, 2));
        let following = (0..16).filter(move |bit| blp >> bit & 1 != 0).map(move |bit| pid.wrapping_add(bit + 1));
        std::iter::once(pid).chain(following)
    })
}

/// The (ssrc, 8-bit command number) of a FIR; a repeated number is the same request (RFC 5104 4.3.1.1).
pub fn fir_entries(entries: &[u8]) -> impl Iterator<Item = (u32, u8)> {
    entries.chunks_exact(8).map(|entry| (read_u32(entry, 0), entry[4]))
}

/// The (ssrc, CNAME) of each chunk of a source description that has a CNAME.
pub fn cnames(body: &[u8], count: u8) -> Vec<(u32, &[u8])> {
    let mut found = Vec::new();
    // What does not read was refused before.
    let _ = walk_chunks(body, count, |ssrc, name| found.push((ssrc, name)));
    found
}

/// The second byte says RTCP when it is 192..223 (RFC 5761 4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.len() >= 8 && (128..192).contains(&datagram[0]) && (192..=223).contains(&datagram[1])
}

/// Reads a decrypted compound packet of any content, packet by packet.
#[derive(Debug)]
pub struct Compound<'a> {
    data: &'a [u8],
    offset: usize,
    taken: usize,
    /// Well-formed packets of unknown kinds.
    pub skipped: usize,
    /// Why reading stopped; empty while all is well.
    pub error: &'static str,
}

impl<'a> Compound<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, offset: 0, taken: 0, skipped: 0, error: "" }
    }

    /// The packet at the offset, or None of an unknown kind; moves on.
    fn step(&mut self) -> Result<Option<Packet<'a>>, &'static str> {
        if self.taken + self.skipped >= MAX_PACKETS {
            return Err("too many packets");
        }
        let rest = &self.data[self.offset..];
        if rest.len() < 4 {
            return Err("truncated header");
        }
        let end = 4 + 4 * usize::from(read_u16(rest, 2));
        if rest[0] >> 6 != 2 {
            return Err("wrong version");
        }
        if end > rest.len() {
            return Err("length past the end");
        }
        let mut body_end = end;
        if rest[0] & 0x20 != 0 {
            let padding = usize::from(rest[end - 1]);
            if padding == 0 || padding > end - 4 {
                return Err("wrong padding");
            }
            body_end -= padding;
        }
        let (body, count) = (&rest[4..body_end], rest[0] & 0x1F);
        let packet = match rest[1] {
            SR => Some(read_sr(body, count)?),
            RR => Some(read_rr(body, count)?),
            SDES => Some(read_sdes(body, count)?),
            BYE => Some(read_bye(body, count)?),
            RTPFB => read_rtpfb(body, count)?,
            PSFB => read_psfb(body, count)?,
            _ => None,
        };
        self.offset += end;
        Ok(packet)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.offset < self.data.len() && self.error.is_empty() {
            match self.step() {
                Ok(Some(packet)) => {
                    self.taken += 1;
                    return Some(packet);
                }
                Ok(None) => self.skipped += 1,
                Err(error) => self.error = error,
            }
        }
        None
    }
}

fn read_sr(body: &[u8], count: u8) -> Result<Packet<'_>, &'static str> {
    let end = 24 + BLOCK * usize::from(count);
    if body.len() < end {
        return Err("short sender report");
    }
    let info = SenderInfo {
        ssrc: read_u32(body, 0),
        ntp: u64::from(read_u32(body, 4)) << 32 | u64::from(read_u32(body, 8)),
        rtp_timestamp: read_u32(body, 12),
        packets: read_u32(body, 16),
        octets: read_u32(body, 20),
    };
    Ok(Packet::SenderReport { info, reports: &body[24..end] })
}

fn read_rr(body: &[u8], count: u8) -> Result<Packet<'_>, &'static str> {
    let end = 4 + BLOCK * usize::from(count);
    if body.len() < end {
        return Err("short receiver report");
    }
    Ok(Packet::ReceiverReport { ssrc: read_u32(body, 0), reports: &body[4..end] })
}

fn read_sdes(body: &[u8], count: u8) -> Result<Packet<'_>, &'static str> {
    walk_chunks(body, count, |_, _| ())?;
    Ok(Packet::SourceDescription { body, count })
}

fn walk_chunks<'a>(body: &'a [u8], count: u8, mut note: impl FnMut(u32, &'a [u8])) -> Result<(), &'static str> {
    let (mut offset, size) = (0, body.len());
    for _ in 0..count {
        if offset + 4 > size {
            return Err("short source description");
        }
        let ssrc = read_u32(body, offset);
        offset += 4;
        while offset < size && body[offset] != 0 {
            if offset + 2 > size || offset + 2 + usize::from(body[offset + 1]) > size {
                return Err("short source description item");
            }
            let end = offset + 2 + usize::from(body[offset + 1]);
            if body[offset] == 1 {
                note(ssrc, &body[offset + 2..end]);
            }
            offset = end;
        }
        offset = (offset + 4) & !3; // at least one zero ends the items, then up to the next word
    }
    Ok(())
}

fn read_bye(body: &[u8], count: u8) -> Result<Packet<'_>, &'static str> {
    let ssrcs = body.get(..4 * usize::from(count)).ok_or("short bye")?;
    Ok(Packet::Bye { ssrcs })
}

fn read_rtpfb(body: &[u8], fmt: u8) -> Result<Option<Packet<'_>>, &'static str> {
    if body.len() < 8 {
        return Err("short transport feedback");
    }
    let (sender_ssrc, media_ssrc, rest) = (read_u32(body, 0), read_u32(body, 4), &body[8..]);
    match fmt {
        RTPFB_TRANSPORT_CC => Ok(Some(Packet::TransportFeedback { sender_ssrc, media_ssrc, fci: rest })),
        RTPFB_NACK if body.len() & 3 != 0 => Err("ragged nack"),
        RTPFB_NACK if nacked(rest).nth(MAX_NACKED).is_some() => Err("too many sequence numbers in a nack"),
        RTPFB_NACK => Ok(Some(Packet::Nack { sender_ssrc, media_ssrc, pairs: rest })),
        _ => Ok(None),
    }
}

fn read_psfb(body: &[u8], fmt: u8) -> Result<Option<Packet<'_>>, &'static str> {
    if body.len() < 8 {
        return Err("short payload feedback");
    }
    let (sender_ssrc, media_ssrc) = (read_u32(body, 0), read_u32(body, 4));
    match fmt {
        PSFB_PLI => Ok(Some(Packet::Pli { sender_ssrc, media_ssrc })),
        PSFB_FIR if body.len() & 7 != 0 || body.len() > 8 + 8 * MAX_FIR_ENTRIES => Err("wrong size of fir"),
        PSFB_FIR => Ok(Some(Packet::Fir { sender_ssrc, entries: &body[8..] })),
        PSFB_REMB if body[8..].starts_with(b"REMB") => {
            let end = 16 + 4 * body.get(12).map_or(0, |count| usize::from(*count));
            if body.len() < end {
                return Err("short remb");
            }
            let word = read_u32(body, 12) & 0xFF_FFFF;
            let wide = u128::from(word & 0x3_FFFF) << (word >> 18);
            let bitrate = i64::try_from(wide).unwrap_or(MAX_BITRATE);
            Ok(Some(Packet::Remb { sender_ssrc, bitrate, ssrcs: &body[16..end] }))
        }
        _ => Ok(None),
    }
}
