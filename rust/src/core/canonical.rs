//! Tapped packets with the header extension ids of injected ones.

use super::contract::{ExtensionIds, INJECT_EXTENSIONS};
use crate::rtp::{EXTENSIONS, HEADER_LENGTH, Packet, build_extensions};

/// Bytes of the longest block of known extensions: every one, with its longest value.
const BLOCK: usize = (4 + EXTENSIONS.len() * (2 + 255)).next_multiple_of(4);

/// The packet with canonical extension ids, in their order; unknown extensions are left out. `into` is a buffer
/// that only grows.
pub fn rewrite<'a>(data: &[u8], packet: &Packet, ids: &ExtensionIds, into: &'a mut Vec<u8>) -> &'a [u8] {
    let fixed = HEADER_LENGTH + 4 * usize::from(data[0] & 0x0F);
    if into.len() < data.len() + BLOCK {
        into.resize(data.len() + BLOCK, 0);
    }
    into[..fixed].copy_from_slice(&data[..fixed]);
    let known = INJECT_EXTENSIONS.0.into_iter().zip(ids.0).filter(|&(_, id)| id != 0);
    let elements = known.filter_map(|(number, id)| packet.extension(data, id).map(|value| (number, value)));
    // Every id is 1 to 15, every value fitted a packet, and the buffer has room for all.
    let block = build_extensions(elements, &mut into[fixed..]).unwrap_or(0);
    if block == 0 {
        into[0] &= 0xEF;
    }
    let rest = &data[packet.payload_offset as usize..];
    let start = fixed + block;
    into[start..start + rest.len()].copy_from_slice(rest);
    &into[..start + rest.len()]
}
