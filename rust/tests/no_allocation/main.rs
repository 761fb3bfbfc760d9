//! In steady state nothing is allocated: not per packet, not per report, not per timer. One program, because linking each
//! takes longer than running all; allocations are counted for each thread, so the tests do not see each other's.

#[path = "../../examples/core_cost.rs"]
mod core_cost;
#[path = "../support/counting.rs"]
mod counting;
mod io;
#[path = "../../examples/ring_cost.rs"]
mod ring_cost;

#[test]
fn a_round_of_forwarding_does_not_allocate() {
    let (_, sent, allocations) = core_cost::measure(20);
    assert_eq!(sent, 20 * 64 * 40);
    assert_eq!(allocations, 0);
}

/// A packet that goes to viewers on another shard: on either side.
#[test]
fn a_round_across_shards_does_not_allocate() {
    let (_, sent, allocations) = core_cost::measure_across(20);
    assert_eq!(sent, 20 * 64 * 40);
    assert_eq!(allocations, 0);
}

/// A tap by a shared-memory ring, and an injected packet.
#[test]
fn a_round_of_tapping_into_a_ring_does_not_allocate() {
    let (_, came, allocations) = ring_cost::measure(true);
    assert_eq!(came, 40 * 1024);
    assert_eq!(allocations, 0);
}
