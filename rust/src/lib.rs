//! The native packet plane: the twin of `relay/plane/reference`, file by file. This file only binds.

pub mod arithmetic;
pub mod audio_level;
pub mod cluster;
pub mod core;
pub mod delay_trend;
pub mod descriptors;
pub mod error;
pub mod estimate;
pub mod handle;
pub mod history;
pub mod io;
pub mod lanes;
pub mod machine;
pub mod nack;
pub mod out;
pub mod panics;
pub mod plane;
pub mod rate;
pub mod rewrite;
pub mod ring_set;
pub mod rings;
pub mod router;
pub mod rtcp;
pub mod rtp;
pub mod scaling;
pub mod serialise;
pub mod shard;
pub mod srtp;
pub mod stun;
pub mod transport_cc;
pub mod watch;

#[cfg(feature = "python")]
mod python;
