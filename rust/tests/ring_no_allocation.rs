//! In steady state a tap by a shared-memory ring allocates nothing, and neither does an injected packet.

#[path = "../examples/ring_cost.rs"]
mod ring_cost;

#[test]
fn a_round_of_tapping_into_a_ring_does_not_allocate() {
    let (_, came, allocations) = ring_cost::measure(true);
    assert_eq!(came, 40 * 1024);
    assert_eq!(allocations, 0);
}
