//! One partition's replication: what its leader knows of its replicas and what readers may see. Pure.
//!
//! Today a partition has one replica, the leader; it goes through the same rules as three would.

mod progress;

pub use progress::{Command, Progress};
