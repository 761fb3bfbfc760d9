//! In steady state a packet that goes to viewers on another shard allocates nothing, on either side.

#[path = "../examples/core_cost.rs"]
mod core_cost;

#[test]
fn a_round_across_shards_does_not_allocate() {
    let (_, sent, allocations) = core_cost::measure_across(20);
    assert_eq!(sent, 20 * 64 * 40);
    assert_eq!(allocations, 0);
}
