//! What is handed on to other shards when there is no slot to hold it in.

use crate::core::Core;
use crate::core::contract::*;
use crate::io::pages::Memory;
use crate::lanes::What;
use crate::machine::Machine;

fn config(slab_packets: u32) -> PlaneConfig {
    PlaneConfig {
        keyframe_interval_us: 500_000,
        layer_silence_us: 1_500_000,
        history_video: 64,
        history_audio: 64,
        estimate_start: 1_000_000,
        estimate_min: 50_000,
        estimate_max: 20_000_000,
        transport_cc_interval_us: 50_000,
        report_interval_us: 1_000_000,
        address_stale_us: 2_000_000,
        max_addresses: 8,
        wall_offset_us: 0,
        seed: 1,
        slab_packets,
        pad_video: 8,
        slab_memory: Memory::Plain,
    }
}

fn shared_track(slab_packets: u32) -> Core {
    let mut core = Core::new(config(slab_packets)).expect("a good configuration");
    let opus = PayloadType { number: 111, codec: "opus".into(), clock_hz: 48_000, apt: None, profile: String::new() };
    let layers = vec![LayerSpec { rid: String::new(), ssrc: None, rtx_ssrc: None }];
    let media = Media { mid: String::new(), payload_types: vec![opus], layers, feedback: Feedback::default() };
    core.apply(Command::AddTrack { track: 1, session: None, kind: Kind::Audio, media }, 0).expect("a new track");
    core.apply(Command::ShareTrack { track: 1, shard: 1, generation: 0 }, 0).expect("its track");
    core
}

fn packet(seq: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 111, 0, seq, 0, 0, 0, seq, 0, 0, 0, 9];
    packet.extend(std::iter::repeat_n(seq, 20 + usize::from(seq)));
    packet
}

#[test]
fn packets_of_one_batch_are_handed_on_whole_although_none_can_be_held() {
    let mut core = shared_track(1);
    for round in 0..3 {
        let batch: Vec<Vec<u8>> = (0..5).map(|index| packet(10 * round + index)).collect();
        for one in &batch {
            core.inject(1, 0, one, 0).expect("its track");
        }
        let mut given = Vec::new();
        Machine::notes(&mut core, |shards, note, data| {
            if let What::Packet { .. } = note.what {
                assert_eq!(shards, 1 << 1);
                given.push(data.to_vec());
            }
            0
        });
        assert_eq!(given, batch);
        assert_eq!(core.stats().unkept, 4 * (u64::from(round) + 1), "the first one found the slot free again");
    }
}

#[test]
fn shards_divide_the_slab() {
    let shares = |slab, shards| {
        let configs = config(slab).among(shards);
        configs.map(|all| all.iter().map(|one| one.slab_packets).collect::<Vec<_>>())
    };
    assert_eq!(shares(7, 3), Ok(vec![3, 2, 2]));
    assert_eq!(shares(64, 64), Ok(vec![1; 64]));
    assert_eq!(shares(5, 1), Ok(vec![5]));
    assert!(shares(2, 3).is_err());
    assert!(shares(u32::MAX, 2).is_err());
}
