//! Kafka's log on disk: segments, indexes, leader epochs, producers, recovery, checkpoints, retention, flushing. Shell,
//! except for [`policy`], [`producers`] and the formats.
//!
//! What is absent: requests, replication and whatever decides the high watermark, which is noted only. A log appends batches that somebody else has
//! validated, hands out ranges of bytes below a bound that somebody else decides, and tells when bytes are on disk.
//!
//! Compaction is a plan in [`policy`], which [`LogCleaner`] carries out.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "tests make small numbers"))]

pub mod adopt;
mod audit;
pub mod checkpoint;
mod cleaner;
mod config;
mod directory;
pub mod dump;
mod environment;
mod epochs;
mod error;
mod files;
mod flusher;
mod health;
mod index;
mod journal;
mod log;
mod moves;
mod names;
mod partition_metadata;
pub mod policy;
pub mod producers;
mod quarantine;
mod recovery;
mod room;
mod scan;
mod scrub;
mod segment;
#[cfg(test)]
mod testing;
mod transactions;
mod txn_index;
pub mod verify;

pub use audit::{Damage, Fault};
pub use cleaner::{CleanableLogs, CleanerOptions, CleanerState, LogCleaner};
pub use config::{DirectoryOptions, LogConfig};
pub use directory::{Leftover, LogDirectory};
pub use epochs::{EpochCache, EpochEntry};
pub use error::{AppendError, CreateError, FollowError, OpenError, ReadError, StorageError};
pub use flusher::FlushListener;
pub use log::{Appended, FileRange, Log, Origin, Removed, Slice, TimestampLookup};
pub use moves::{Copied, Move, MoveError, settle};
pub use scrub::ScrubProgress;
pub use txn_index::AbortedTransaction;
