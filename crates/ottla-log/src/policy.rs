//! When to begin a new segment and which old ones to delete: plans, carried out elsewhere. Pure.
//!
//! Compaction's plan (which records survive) will live here too.

pub mod retention;
pub mod roll;
