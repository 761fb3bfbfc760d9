//! No datagram, however made, makes a parser panic.

use _native::descriptors::{Codec, inspect};
use _native::rtcp::{self, Packet};
use _native::srtp::{Profile, Srtp};
use _native::transport_cc::{Feedback, Recorder, parse_feedback};
use _native::{rtp, stun};
use proptest::collection::vec;
use proptest::prelude::*;

fn datagrams() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), vec(prop_oneof![Just(0u8), Just(0xFF), Just(0x80), any::<u8>()], 0..64)]
}

/// Datagrams that begin with `head`.
fn behind(head: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    datagrams().prop_map(move |rest| [head, &rest].concat())
}

proptest! {
    #[test]
    fn rtp_parser(mut data in prop_oneof![datagrams(), behind(&[0xB1, 0x60])], id in any::<u8>()) {
        if let Some(packet) = rtp::parse(&data, 0) {
            let payload = packet.payload(&data).len();
            prop_assert_eq!(payload, packet.payload_size());
            let _ = packet.extension(&data, id);
            for (_, offset, length) in packet.extensions.elements(&data) {
                prop_assert!(offset + length <= packet.payload_offset as usize);
            }
            let _ = rtp::decapsulate_rtx(&mut data, &packet, 1, 2);
        }
    }

    #[test]
    fn descriptors(data in datagrams(), start in 0usize..250, end in 0usize..250) {
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let told = inspect(codec, &data, start, end);
            prop_assert!(!told.is_keyframe_start || told.is_frame_start);
        }
    }

    #[test]
    fn stun_parser(data in prop_oneof![datagrams(), datagrams().prop_map(|rest| {
        let length = (rest.len() / 4 * 4) as u8;
        [&[0, 1, 0, length, 0x21, 0x12, 0xA4, 0x42], &[0; 12][..], &rest[..usize::from(length)]].concat()
    })]) {
        if let stun::Parsed::Request(request) = stun::parse(&data) {
            let _ = stun::verify_integrity(&data, &request, b"password");
            prop_assert!(request.unknown().len() <= stun::MAX_UNKNOWN);
        }
    }

    #[test]
    fn rtcp_reader(data in prop_oneof![datagrams(), behind(&[0x81, 202, 0, 9]), behind(&[0x8F, 206, 0, 5])]) {
        let mut feedback = Feedback::default();
        for packet in rtcp::Compound::new(&data) {
            match packet {
                Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                    prop_assert!(rtcp::report_blocks(reports).count() <= rtcp::MAX_BLOCKS);
                }
                Packet::SourceDescription { body, count } => drop(rtcp::cnames(body, count)),
                Packet::Nack { pairs, .. } => prop_assert!(rtcp::nacked(pairs).count() <= rtcp::MAX_NACKED),
                Packet::Fir { entries, .. } => prop_assert!(rtcp::fir_entries(entries).count() <= 64),
                Packet::Remb { ssrcs, .. } | Packet::Bye { ssrcs } => prop_assert!(rtcp::ssrcs(ssrcs).count() <= 255),
                Packet::TransportFeedback { fci, .. } => { let _ = parse_feedback(fci, &mut feedback); }
                Packet::Pli { .. } => {}
            }
        }
    }

    #[test]
    fn transport_feedback(data in prop_oneof![datagrams(), behind(&[0, 1, 0, 30, 0, 0, 1, 0])]) {
        let mut feedback = Feedback::default();
        if parse_feedback(&data, &mut feedback) {
            prop_assert!(!feedback.packets.is_empty());
        }
    }

    /// What the recorder writes is read back as it was recorded.
    #[test]
    fn recorded_arrivals_are_read_back(steps in vec((1u16..20, 0i64..9_000), 1..300)) {
        let (mut recorder, mut feedback) = (Recorder::default(), Feedback::default());
        let (mut seq, mut now, mut recorded) = (65_000u16, 1_000_000i64, Vec::new());
        for (ahead, passed) in steps {
            seq = seq.wrapping_add(ahead);
            now += passed;
            recorder.record(seq, now);
            recorded.push((seq, now / 250 * 250));
        }
        let mut read = Vec::new();
        recorder.feedback(|fci| {
            assert!(parse_feedback(fci, &mut feedback));
            let arrivals = feedback.packets.iter().filter_map(|&(seq, at)| Some((seq, at? + feedback.reference_us)));
            read.extend(arrivals);
        });
        prop_assert_eq!(read, recorded);
    }

    #[test]
    fn unprotection(data in datagrams(), profile in 0usize..3) {
        let profile = [Profile::Aes128Gcm, Profile::Aes256Gcm, Profile::AesCm128HmacSha1][profile];
        let key = vec![7; profile.key_length() + profile.salt_length()];
        let mut srtp = Srtp::new(profile, &key, &key).expect("a good key");
        let mut buffer = [&data[..], &[0; 20]].concat();
        prop_assert!(srtp.unprotect_rtp(&mut buffer, data.len()).is_err());
        buffer[..data.len()].copy_from_slice(&data);
        prop_assert!(srtp.unprotect_rtcp(&mut buffer, data.len()).is_err());
        let _ = srtp.protect_rtcp(&mut buffer, data.len());
        let _ = srtp.protect_rtp(&mut buffer, data.len());
    }
}
