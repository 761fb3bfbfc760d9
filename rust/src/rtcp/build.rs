//! Builders: each appends a whole RTCP packet of whole words.

use super::{
    BLOCK, BYE, PSFB, PSFB_FIR, PSFB_PLI, PSFB_REMB, RR, RTPFB, RTPFB_NACK, RTPFB_TRANSPORT_CC, ReportBlock, SDES, SR,
    SenderInfo,
};

/// Blocks of one report: the count has five bits.
pub const MAX_BLOCKS: usize = 31;

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
