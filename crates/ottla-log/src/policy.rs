//! When to begin a new segment, which old ones to delete, and what compaction leaves of them: plans, carried out
//! elsewhere. Pure.

pub mod compaction;
pub mod retention;
pub mod roll;
