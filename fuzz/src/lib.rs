//! What the fuzzers do with their bytes, one plain function each in a module of its own.
//!
//! `cargo +nightly fuzz run record_batch` runs one under libFuzzer; the tests of the room it
//! belongs to include the same module and feed it seeded mutations on a stable compiler.

pub mod files;
pub mod frame;
pub mod log_directory;
pub mod quorum;
pub mod record_batch;
