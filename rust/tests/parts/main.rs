//! Tests of parts from outside, in one program: linking each takes longer than running all.

mod no_panic;
mod shared_ring;
mod vectors;
