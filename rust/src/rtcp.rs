//! RTCP: a tolerant reader of decrypted compound packets, and the builders a relay needs.
//!
//! The twin of `relay/plane/reference/rtcp.py`. RFC 3550 (SR, RR, SDES, BYE), RFC 4585 (generic NACK, PLI), RFC 5104
//! (FIR), RFC 5506 (reduced size: any packet may come first), draft-alvestrand-rmcat-remb-03, transport-cc handed on
//! as bytes. A malformed packet ends the reading, and what was read before it stays good. Packets are views of the
//! datagram. Builders append whole RTCP packets of whole words.

use crate::rtp::{read_u16, read_u32};

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
/// Blocks of one report: the count has five bits.
pub const MAX_BLOCKS: usize = 31;

const NTP_UNIX: i128 = 2_208_988_800; // seconds from 1900 to 1970
const RTT_LIMIT: u32 = 60 << 16; // in 1/65536 s; more is a lie or a stale LSR
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

/// The first eight bytes of a packet; `rest` is how many bytes, in whole words, follow the first SSRC.
fn begin(out: &mut Vec<u8>, kind: u8, count: u8, ssrc: u32, rest: usize) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.extend_from_slice(&((1 + rest / 4) as u16).to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
}

fn put_blocks(out: &mut Vec<u8>, reports: &[ReportBlock]) {
    for block in reports {
        let cumulative = block.cumulative_lost.clamp(-0x80_0000, 0x7F_FFFF) as u32 & 0xFF_FFFF;
        let loss = u32::from(block.fraction_lost) << 24 | cumulative;
        for word in [block.ssrc, loss, block.highest_sequence, block.jitter, block.lsr, block.dlsr] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// Sender report with at most 31 blocks.
pub fn build_sr(info: &SenderInfo, reports: &[ReportBlock], out: &mut Vec<u8>) {
    begin(out, SR, reports.len() as u8, info.ssrc, 20 + BLOCK * reports.len());
    out.extend_from_slice(&info.ntp.to_be_bytes());
    for word in [info.rtp_timestamp, info.packets, info.octets] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    put_blocks(out, reports);
}

/// Receiver report with at most 31 blocks.
pub fn build_rr(ssrc: u32, reports: &[ReportBlock], out: &mut Vec<u8>) {
    begin(out, RR, reports.len() as u8, ssrc, BLOCK * reports.len());
    put_blocks(out, reports);
}

/// Source description with a CNAME of at most 255 bytes of UTF-8.
pub fn build_sdes(ssrc: u32, cname: &str, out: &mut Vec<u8>) {
    let item = 2 + cname.len();
    let padding = 4 - item % 4;
    begin(out, SDES, 1, ssrc, item + padding);
    out.extend_from_slice(&[1, cname.len() as u8]);
    out.extend_from_slice(cname.as_bytes());
    out.extend_from_slice(&[0; 4][..padding]);
}

/// Goodbye of 1..31 sources.
pub fn build_bye(ssrcs: &[u32], out: &mut Vec<u8>) {
    let Some((first, others)) = ssrcs.split_first() else { return };
    begin(out, BYE, ssrcs.len() as u8, *first, 4 * others.len());
    for ssrc in others {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

/// Generic NACK; `lost` are 16-bit sequence numbers in ascending order (across a wrap: before, then after).
///
/// Unordered input is still right, only less tightly packed. Keep it to 256 numbers for a packet within an MTU.
pub fn build_nack(sender_ssrc: u32, media_ssrc: u32, lost: &[u16], out: &mut Vec<u8>) {
    let start = out.len();
    begin(out, RTPFB, RTPFB_NACK, sender_ssrc, 0);
    out.extend_from_slice(&media_ssrc.to_be_bytes());
    let mut pair: Option<(u16, u16)> = None;
    for &seq in lost {
        if let Some((pid, blp)) = &mut pair {
            let ahead = seq.wrapping_sub(*pid);
            if (1..=16).contains(&ahead) {
                *blp |= 1 << (ahead - 1);
                continue;
            }
            if ahead == 0 {
                continue;
            }
        }
        put_pair(out, pair.replace((seq, 0)));
    }
    put_pair(out, pair);
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn put_pair(out: &mut Vec<u8>, pair: Option<(u16, u16)>) {
    if let Some((pid, blp)) = pair {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(&blp.to_be_bytes());
    }
}

pub fn build_pli(sender_ssrc: u32, media_ssrc: u32, out: &mut Vec<u8>) {
    begin(out, PSFB, PSFB_PLI, sender_ssrc, 4);
    out.extend_from_slice(&media_ssrc.to_be_bytes());
}

/// FIR for one SSRC; the media source field is 0 (RFC 5104 4.3.1.2).
pub fn build_fir(sender_ssrc: u32, ssrc: u32, number: u8, out: &mut Vec<u8>) {
    begin(out, PSFB, PSFB_FIR, sender_ssrc, 12);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[number, 0, 0, 0]);
}

/// REMB; `bitrate` in bit/s is rounded down to 18 significant bits. At most 255 SSRCs.
pub fn build_remb(sender_ssrc: u32, bitrate: i64, ssrcs: &[u32], out: &mut Vec<u8>) {
    let bitrate = bitrate.max(0) as u64;
    let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
    let word = exponent << 18 | (bitrate >> exponent) as u32;
    begin(out, PSFB, PSFB_REMB, sender_ssrc, 12 + 4 * ssrcs.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(b"REMB");
    out.extend_from_slice(&((ssrcs.len() as u32) << 24 | word).to_be_bytes());
    for ssrc in ssrcs {
        out.extend_from_slice(&ssrc.to_be_bytes());
    }
}

/// Transport-cc feedback; `fci` is padded to whole words, with the padding bit (RFC 3550 6.4.1).
pub fn build_transport_cc(sender_ssrc: u32, media_ssrc: u32, fci: &[u8], out: &mut Vec<u8>) {
    let padding = fci.len().next_multiple_of(4) - fci.len();
    let start = out.len();
    begin(out, RTPFB, RTPFB_TRANSPORT_CC, sender_ssrc, 4 + fci.len() + padding);
    out.extend_from_slice(&media_ssrc.to_be_bytes());
    out.extend_from_slice(fci);
    if padding > 0 {
        out[start] |= 0x20;
        out.extend_from_slice(&[0; 3][..padding - 1]);
        out.push(padding as u8);
    }
}

/// 64-bit NTP timestamp of `us` microseconds since 1970 UTC, modulo 2**64.
pub fn ntp_from_wall_us(us: i64) -> u64 {
    let (seconds, micros) = (i128::from(us.div_euclid(1_000_000)), i128::from(us.rem_euclid(1_000_000)));
    (((seconds + NTP_UNIX) << 32) | ((micros << 32) / 1_000_000)) as u64
}

/// Microseconds since 1970 UTC of a 64-bit NTP timestamp of era 0 (until 2036), rounded to the nearest.
pub fn wall_us_from_ntp(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64 - NTP_UNIX as i64;
    seconds * 1_000_000 + (((ntp & 0xFFFF_FFFF) * 1_000_000 + 0x8000_0000) >> 32) as i64
}

/// The middle 32 bits: unit 1/65536 s (RFC 3550 section 4).
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// Round trip in microseconds from a report block (RFC 3550 6.4.1), None when it says nothing or nonsense.
///
/// Rounding can make a tiny round trip negative; it counts as 0.
pub fn rtt_us(now_ntp: u64, lsr: u32, dlsr: u32) -> Option<i64> {
    if lsr == 0 {
        return None;
    }
    let delta = ntp_middle(now_ntp).wrapping_sub(lsr).wrapping_sub(dlsr);
    if delta >= 0x8000_0000 {
        return (delta >= 0xFFFF_FF00).then_some(0); // within 4 ms below zero
    }
    (delta <= RTT_LIMIT).then_some((i64::from(delta) * 1_000_000) >> 16)
}
