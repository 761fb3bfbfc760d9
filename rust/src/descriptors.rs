//! What a payload's first bytes tell: where a frame, and where a decodable frame, starts; layers; picture ids.
//!
//! The twin of `relay/plane/reference/descriptors.py`. `inspect` looks at one packet alone and keeps no state. A
//! descriptor that is truncated or against the rules is OPAQUE, which is forwarded and never taken for a place to
//! begin.

/// A codec that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

impl Codec {
    /// By the name in a command, lower case.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "opus" => Self::Opus,
            "vp8" => Self::Vp8,
            "vp9" => Self::Vp9,
            "h264" => Self::H264,
            "av1" => Self::Av1,
            _ => return None,
        })
    }

    /// Whether it has picture ids that must stay continuous.
    pub fn is_patched(self) -> bool {
        matches!(self, Self::Vp8 | Self::Vp9)
    }
}

/// What one payload tells; -1 stands for "not told", 0 for an unknown width or height.
///
/// `patch_offset` is where, in the payload, the picture id (else TL0PICIDX) stands; `layer_octet` is VP9's octet
/// between the two. `picture_id_bits` is 0, 7 or 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub is_keyframe_start: bool,
    pub is_frame_start: bool,
    pub temporal_id: u8,
    pub spatial_id: u8,
    pub is_layer_sync: bool,
    pub picture_id: i32,
    pub picture_id_bits: u8,
    pub tl0_pic_idx: i16,
    pub layer_octet: i16,
    pub patch_offset: u8,
    pub width: u16,
    pub height: u16,
    pub has_parameters: bool,
    pub is_dtx: bool,
}

pub const OPAQUE: Descriptor = Descriptor {
    is_keyframe_start: false,
    is_frame_start: false,
    temporal_id: 0,
    spatial_id: 0,
    is_layer_sync: false,
    picture_id: -1,
    picture_id_bits: 0,
    tl0_pic_idx: -1,
    layer_octet: -1,
    patch_offset: 0,
    width: 0,
    height: 0,
    has_parameters: false,
    is_dtx: false,
};
const MIDDLE: Descriptor = OPAQUE;
const FRAME_START: Descriptor = Descriptor { is_frame_start: true, ..OPAQUE };
const KEYFRAME_START: Descriptor = Descriptor { is_keyframe_start: true, ..FRAME_START };
const PARAMETERS: Descriptor = Descriptor { has_parameters: true, ..KEYFRAME_START };
const AUDIO: Descriptor = KEYFRAME_START;
const AUDIO_DTX: Descriptor = Descriptor { is_dtx: true, ..KEYFRAME_START };

const VP8_START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];

/// What the payload `data[start..end]` tells; OPAQUE when it is empty, truncated or malformed.
///
/// Like its twin, the VP8 and VP9 readers may look at padding behind `end` before they find the payload too short.
pub fn inspect(codec: Codec, data: &[u8], start: usize, end: usize) -> Descriptor {
    if end <= start {
        return OPAQUE;
    }
    let found = match codec {
        Codec::Opus => Some(if end - start > 2 { AUDIO } else { AUDIO_DTX }),
        _ if end > data.len() => None,
        Codec::Vp8 => inspect_vp8(data, start, end),
        Codec::Vp9 => inspect_vp9(data, start, end),
        Codec::H264 => inspect_h264(&data[start..end]),
        Codec::Av1 => inspect_av1(&data[start..end]),
    };
    found.unwrap_or(OPAQUE)
}

/// Takes octets one after the other.
struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl Cursor<'_> {
    fn take(&mut self) -> Option<u8> {
        let octet = *self.data.get(self.position)?;
        self.position += 1;
        Some(octet)
    }

    /// A picture id of 7 or 15 bits, and how many they are.
    fn picture_id(&mut self) -> Option<(i32, u8)> {
        let first = i32::from(self.take()?);
        if first & 0x80 == 0 {
            return Some((first, 7));
        }
        Some(((first & 0x7F) << 8 | i32::from(self.take()?), 15))
    }
}

/// RFC 7741 4.2 (descriptor) and 4.3 (payload header); RFC 6386 9.1 (key frame: start code, width, height).
fn inspect_vp8(data: &[u8], start: usize, end: usize) -> Option<Descriptor> {
    let first = data[start];
    let mut cursor = Cursor { data, position: start + 1 };
    let mut found = Descriptor { patch_offset: 2, ..OPAQUE };
    if first & 0x80 != 0 {
        let flags = cursor.take()?;
        if flags & 0x80 != 0 {
            (found.picture_id, found.picture_id_bits) = cursor.picture_id()?;
        }
        if flags & 0x40 != 0 {
            found.tl0_pic_idx = i16::from(cursor.take()?);
        }
        if flags & 0x30 != 0 {
            // Without T the octet is stepped over unread, which is no error even at the very end.
            if flags & 0x20 != 0 {
                let octet = *data.get(cursor.position)?;
                found.temporal_id = octet >> 6;
                found.is_layer_sync = octet & 0x20 != 0;
            }
            cursor.position += 1;
        }
    }
    let position = cursor.position;
    if position >= end {
        return None;
    }
    found.is_frame_start = first & 0x17 == 0x10;
    if found.is_frame_start && data[position] & 1 == 0 && end - position >= 10 {
        let head = &data[position..position + 10];
        if head[3..6] == VP8_START_CODE {
            found.is_keyframe_start = true;
            found.width = u16::from_le_bytes([head[6], head[7]]) & 0x3FFF;
            found.height = u16::from_le_bytes([head[8], head[9]]) & 0x3FFF;
        }
    }
    Some(found)
}

/// RFC 9628 4.2: I P L F B E V Z, picture id, layer indices, reference indices, scalability structure.
fn inspect_vp9(data: &[u8], start: usize, end: usize) -> Option<Descriptor> {
    let first = data[start];
    let mut cursor = Cursor { data, position: start + 1 };
    let mut found = OPAQUE;
    if first & 0x80 != 0 {
        (found.picture_id, found.picture_id_bits) = cursor.picture_id()?;
    }
    let flexible = first & 0x10 != 0;
    if first & 0x20 != 0 {
        let octet = cursor.take()?;
        found.layer_octet = i16::from(octet);
        found.temporal_id = octet >> 5;
        found.spatial_id = octet >> 1 & 7;
        found.is_layer_sync = octet & 0x10 != 0;
        if !flexible {
            found.tl0_pic_idx = i16::from(cursor.take()?);
        }
    }
    if flexible && first & 0x40 != 0 {
        skip_vp9_references(&mut cursor)?;
    }
    if first & 0x02 != 0 {
        (found.width, found.height) = read_vp9_structure(&mut cursor)?;
    }
    if cursor.position >= end {
        return None;
    }
    found.is_frame_start = first & 0x08 != 0 && found.spatial_id == 0;
    found.is_keyframe_start = found.is_frame_start && first & 0x40 == 0;
    found.patch_offset = if found.picture_id_bits == 0 && found.tl0_pic_idx >= 0 { 2 } else { 1 };
    Some(found)
}

/// Step over at most three P_DIFF octets, the last of which has its N bit clear; None for a fourth.
fn skip_vp9_references(cursor: &mut Cursor<'_>) -> Option<()> {
    for _ in 0..3 {
        if cursor.take()? & 1 == 0 {
            return Some(());
        }
    }
    None
}

/// Width and height of the highest spatial layer of a scalability structure.
fn read_vp9_structure(cursor: &mut Cursor<'_>) -> Option<(u16, u16)> {
    let head = cursor.take()?;
    let mut size = (0, 0);
    if head & 0x10 != 0 {
        let last = cursor.position + 4 * usize::from(head >> 5);
        let octets = cursor.data.get(last..last + 4)?;
        size = (u16::from_be_bytes([octets[0], octets[1]]), u16::from_be_bytes([octets[2], octets[3]]));
        cursor.position = last + 4;
    }
    if head & 0x08 != 0 {
        for _ in 0..cursor.take()? {
            let references = cursor.take()? >> 2 & 3;
            cursor.position += usize::from(references);
        }
    }
    Some(size)
}

const H264_IDR: u8 = 5;
const H264_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// RFC 6184 5.6 (single NAL unit), 5.7.1 (STAP-A), 5.8 (FU-A).
///
/// A decodable start is an SPS or the first slice of an IDR picture. Many encoders send SPS, PPS and IDR as packets of
/// their own with one timestamp, so a caller that takes the first start of a timestamp begins at the SPS.
fn inspect_h264(payload: &[u8]) -> Option<Descriptor> {
    let (&first, rest) = payload.split_first()?;
    let head = *rest.first()?;
    let kind = first & 0x1F;
    if kind == FU_A {
        let octet = *rest.get(1)?;
        if head & 0xC0 == 0xC0 {
            return None;
        }
        return Some(if head & 0x80 != 0 { h264_unit(head & 0x1F, octet) } else { MIDDLE });
    }
    if kind == STAP_A {
        return inspect_stap_a(rest);
    }
    Some(h264_unit(kind, head))
}

/// Judge a NAL unit by its type and its first octet, whose top bit says first_mb_in_slice = 0 in a slice.
fn h264_unit(kind: u8, octet: u8) -> Descriptor {
    let first_slice = octet & 0x80 != 0;
    match kind {
        H264_IDR if first_slice => KEYFRAME_START,
        H264_SPS => PARAMETERS,
        1 | 2 if first_slice => FRAME_START,
        // SEI and access unit delimiter come before the picture they belong to; so does a PPS
        6 | 8 | 9 => FRAME_START,
        _ => MIDDLE,
    }
}

/// An SPS counts as a start unless slices of a picture that is not IDR come with it.
fn inspect_stap_a(mut units: &[u8]) -> Option<Descriptor> {
    let mut best = MIDDLE;
    let (mut has_sps, mut other_slice) = (false, false);
    while !units.is_empty() {
        let size = usize::from(u16::from_be_bytes([units[0], *units.get(1)?]));
        let unit = units.get(2..2 + size)?;
        if size < 2 {
            return None;
        }
        let kind = unit[0] & 0x1F;
        let told = h264_unit(kind, unit[1]);
        has_sps |= kind == H264_SPS;
        other_slice |= kind == 1;
        if told.is_keyframe_start || (told.is_frame_start && !best.is_frame_start) {
            best = told;
        }
        units = &units[2 + size..];
    }
    if other_slice && best.is_keyframe_start {
        return Some(FRAME_START);
    }
    Some(if has_sps { PARAMETERS } else { best })
}

/// AV1 RTP payload format 4.4: aggregation header Z Y W N; N begins a coded video sequence.
///
/// `is_frame_start` means that the packet does not begin inside an OBU.
fn inspect_av1(payload: &[u8]) -> Option<Descriptor> {
    if payload.len() < 2 {
        return None;
    }
    let head = payload[0];
    let keyframe_start = head & 0x08 != 0;
    if head & 0x80 != 0 {
        return if keyframe_start { None } else { Some(MIDDLE) };
    }
    let position = if head & 0x30 != 0x10 { skip_leb128(payload)? } else { 1 };
    let octet = *payload.get(position)?;
    if octet & 0x80 != 0 {
        return None;
    }
    let (mut temporal_id, mut spatial_id) = (0, 0);
    if octet & 0x04 != 0 {
        let extension = *payload.get(position + 1)?;
        (temporal_id, spatial_id) = (extension >> 5, extension >> 3 & 3);
    }
    Some(Descriptor { is_keyframe_start: keyframe_start, temporal_id, spatial_id, ..FRAME_START })
}

/// The position after an OBU element's length, None when it is truncated or longer than 5 octets.
fn skip_leb128(payload: &[u8]) -> Option<usize> {
    let last = payload[1..].iter().take(5).position(|octet| octet & 0x80 == 0)?;
    Some(last + 2)
}
