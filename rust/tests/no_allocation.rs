//! In steady state the core allocates nothing: not per packet, not per report, not per timer.

#[path = "../examples/core_cost.rs"]
mod core_cost;

#[test]
fn a_round_of_forwarding_does_not_allocate() {
    let (_, sent, allocations) = core_cost::measure(20);
    assert_eq!(sent, 20 * 64 * 40);
    assert_eq!(allocations, 0);
}
