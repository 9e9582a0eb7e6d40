//! The seams between Ottla's logic and the machine it runs on: clock, disk, chance and operating system. Shell.
//!
//! What is absent: Kafka. Nothing here knows what a record, a topic or a request is.

pub mod clock;
mod direct;
pub mod disk;
mod random;
pub mod sys;

pub use clock::{Clock, ManualClock, SystemClock};
pub use direct::DirectFile;
pub use disk::{Disk, DiskLayer, FaultyDisk, OsDisk, Stall};
pub use random::{OsRandom, Random, random_uuid};
