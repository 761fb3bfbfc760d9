//! The golden vectors of `tests/vectors`, which the reference passes too.

use std::path::Path;

use _native::descriptors::{self, Codec, Descriptor, OPAQUE};
use _native::rewrite::Rewriter;
use _native::rtp;
use _native::srtp::{MAX_TRAILER, Profile, Srtp};
use _native::stun;
use _native::transport_cc::{Feedback, parse_feedback};
use serde_json::Value;

fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("the vectors are there")).expect("the vectors are JSON")
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex: String = hex.as_str().expect("hex digits").split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not an integer: {value}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

#[test]
fn rtp_is_parsed_as_the_vectors() {
    for vector in list(&load("rtp.json")["parse"]) {
        let datagram = bytes(&vector["datagram"]);
        let packet = rtp::parse(&datagram, 0);
        let expected = &vector["packet"];
        assert_eq!(packet.is_none(), expected.is_null(), "{vector}");
        let Some(packet) = packet else { continue };
        assert_eq!(Value::from(packet.marker), expected["marker"], "{vector}");
        for (field, value) in [
            ("payload_type", i64::from(packet.payload_type)),
            ("seq", i64::from(packet.seq)),
            ("timestamp", i64::from(packet.timestamp)),
            ("ssrc", i64::from(packet.ssrc)),
        ] {
            assert_eq!(value, int(&expected[field]), "{vector}");
        }
        assert_eq!(Value::from(vec![packet.payload_offset, packet.payload_end]), expected["payload"], "{vector}");
        let extensions = expected["extensions"].as_object().expect("a table");
        for id in 0..=255u8 {
            let found = packet.extensions.elements(&datagram).filter(|element| element.0 == id).last();
            let place = found.map(|(_, offset, length)| Value::from(vec![offset, length]));
            assert_eq!(place.as_ref(), extensions.get(&id.to_string()), "{vector}");
        }
    }
}

#[test]
fn rtp_headers_are_built_as_the_vectors() {
    for vector in list(&load("rtp.json")["build"]) {
        let fields = list(&vector["fields"]);
        let elements: Vec<(u8, Vec<u8>)> =
            list(&vector["extensions"]).iter().map(|element| (int(&element[0]) as u8, bytes(&element[1]))).collect();
        let mut out = [0; 2048];
        let elements = elements.iter().map(|(id, value)| (*id, &value[..]));
        let length = rtp::build_extensions(elements, &mut out[12..]).expect("it can be written");
        let marker = if fields[1].as_bool().expect("a marker") { 0x80 } else { 0 };
        let numbers = (int(&fields[2]) as u16, int(&fields[3]) as u32, int(&fields[4]) as u32);
        rtp::build_header(&mut out, length > 0, int(&fields[0]) as u8 | marker, numbers.0, numbers.1, numbers.2);
        assert_eq!(out[..12 + length], bytes(&vector["header"])[..], "{vector}");
    }
}

#[test]
fn retransmissions_are_unpacked_as_the_vectors() {
    for vector in list(&load("rtp.json")["rtx"]) {
        let mut datagram = bytes(&vector["datagram"]);
        let packet = rtp::parse(&datagram, 0).expect("it is RTP");
        let original = list(&vector["original"]);
        let found = rtp::decapsulate_rtx(&mut datagram, &packet, int(&original[0]) as u32, int(&original[1]) as u8);
        assert_eq!(found.is_none(), vector["rebuilt"].is_null(), "{vector}");
        if let Some(found) = found {
            assert_eq!(datagram[..found.payload_end as usize], bytes(&vector["rebuilt"])[..], "{vector}");
        }
    }
}

fn expected_descriptor(table: &Value) -> Descriptor {
    let mut told = OPAQUE;
    for (name, value) in table.as_object().expect("a table") {
        match name.as_str() {
            "is_keyframe_start" => told.is_keyframe_start = value.as_bool().expect("a flag"),
            "is_frame_start" => told.is_frame_start = value.as_bool().expect("a flag"),
            "is_layer_sync" => told.is_layer_sync = value.as_bool().expect("a flag"),
            "has_parameters" => told.has_parameters = value.as_bool().expect("a flag"),
            "is_dtx" => told.is_dtx = value.as_bool().expect("a flag"),
            "temporal_id" => told.temporal_id = int(value) as u8,
            "spatial_id" => told.spatial_id = int(value) as u8,
            "picture_id" => told.picture_id = int(value) as i32,
            "picture_id_bits" => told.picture_id_bits = int(value) as u8,
            "tl0_pic_idx" => told.tl0_pic_idx = int(value) as i16,
            "layer_octet" => told.layer_octet = int(value) as i16,
            "patch_offset" => told.patch_offset = int(value) as u8,
            "width" => told.width = int(value) as u16,
            "height" => told.height = int(value) as u16,
            other => panic!("unknown field {other}"),
        }
    }
    told
}

#[test]
fn payloads_are_inspected_as_the_vectors() {
    for vector in list(&load("descriptors.json")) {
        let name = vector["codec"].as_str().expect("a codec").to_lowercase();
        let payload = bytes(&vector["payload"]);
        let codec = Codec::by_name(&name).expect("a known codec");
        let told = descriptors::inspect(codec, &payload, 0, payload.len());
        assert_eq!(told, expected_descriptor(&vector["descriptor"]), "{vector}");
    }
}

#[test]
fn sequences_are_rewritten_as_the_vectors() {
    for vector in list(&load("rewrite.json")) {
        let first = list(&vector["first"]);
        let mut rewriter = Rewriter::new(int(&first[0]) as u16, int(&first[1]) as u32);
        for step in list(&vector["steps"]) {
            let step = list(step);
            let number = |at: usize| int(&step[at]);
            match step[0].as_str() {
                Some("splice") => {
                    let alignment = step.get(5).and_then(Value::as_i64);
                    let (seq, timestamp, clock) = (number(1) as u16, number(2) as u32, number(4) as u32);
                    rewriter.splice(seq, timestamp, number(3), clock, alignment);
                }
                Some("rewrite") => {
                    let mapped = rewriter.rewrite(number(1) as u16, number(2) as u32, number(3));
                    let expected = step[4].as_array().map(|pair| (int(&pair[0]) as u16, int(&pair[1]) as u32));
                    assert_eq!(mapped, expected, "{step:?} in {}", vector["name"]);
                }
                Some("timestamp_out") => assert_eq!(i64::from(rewriter.timestamp_out(number(1))), number(2)),
                Some("drop") => rewriter.drop(number(1) as u16),
                other => panic!("unknown step {other:?}"),
            }
        }
    }
}

#[test]
fn packets_are_sealed_as_the_vectors() {
    for vector in list(&load("srtp.json")["sessions"]) {
        let profile = match vector["profile"].as_str() {
            Some("AES_128_GCM") => Profile::Aes128Gcm,
            Some("AES_256_GCM") => Profile::Aes256Gcm,
            Some("AES_CM_128_HMAC_SHA1_80") => Profile::AesCm128HmacSha1,
            other => panic!("unknown profile {other:?}"),
        };
        let key = bytes(&vector["key"]);
        let mut sender = Srtp::new(profile, &key, &key).expect("a good key");
        let mut receiver = Srtp::new(profile, &key, &key).expect("a good key");
        let (plain, sealed) = (bytes(&vector["rtp"]), bytes(&vector["srtp"]));
        let mut buffer = [plain.clone(), vec![0; MAX_TRAILER]].concat();
        let length = sender.protect_rtp(&mut buffer, plain.len()).expect("it is sealed");
        assert_eq!(buffer[..length], sealed[..], "{vector}");
        let length = receiver.unprotect_rtp(&mut buffer, length).expect("it is opened");
        assert_eq!(buffer[..length], plain[..], "{vector}");
        let (plain, sealed) = (bytes(&vector["rtcp"]), bytes(&vector["srtcp"]));
        let mut buffer = [plain.clone(), vec![0; MAX_TRAILER]].concat();
        let length = sender.protect_rtcp(&mut buffer, plain.len()).expect("it is sealed");
        assert_eq!(buffer[..length], sealed[..], "{vector}");
        let length = receiver.unprotect_rtcp(&mut buffer, length).expect("it is opened");
        assert_eq!(buffer[..length], plain[..], "{vector}");
    }
}

#[test]
fn transport_feedback_is_read_as_the_vectors() {
    for vector in list(&load("rtcp.json")["transport_cc"]) {
        let mut feedback = Feedback::default();
        assert!(parse_feedback(&bytes(&vector["fci"]), &mut feedback), "{vector}");
        assert_eq!(i64::from(feedback.count), int(&vector["count"]), "{vector}");
        assert_eq!(feedback.reference_us, int(&vector["reference_us"]), "{vector}");
        let expected: Vec<(u16, Option<i64>)> =
            list(&vector["packets"]).iter().map(|pair| (int(&pair[0]) as u16, pair[1].as_i64())).collect();
        assert_eq!(feedback.packets, expected, "{vector}");
    }
}

#[test]
fn the_request_of_rfc_5769_is_verified() {
    let vector = load("stun_rfc5769.json");
    let mut datagram = bytes(&vector["request"]);
    let password = vector["password"].as_str().expect("a password").as_bytes();
    let stun::Parsed::Request(request) = stun::parse(&datagram) else { panic!("not a request") };
    assert!(request.fingerprint);
    assert!(stun::verify_integrity(&datagram, &request, password));
    assert!(!stun::verify_integrity(&datagram, &request, b"another"));
    datagram[30] ^= 1;
    assert_eq!(stun::parse(&datagram), stun::Parsed::Dropped(stun::Drop::BadFingerprint));
}
