//! The log on a disk that loses everything that it may.
//!
//! `OTTLA_SIM_SEED=n` plays one seed and prints its calls; `OTTLA_SIM_SEEDS=n` plays so many, and then each of the faults
//! and rare states must have occurred.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test says what it has seen")]

use ottla_sim::Law;
use ottla_sim::log::run;
use ottla_sim::planted::Bug;
use ottla_sim::seeds::{find_planted, hold_to_laws};

/// What ordinary tests have time for.
const SEEDS: u64 = 1_000;
/// From so many on nothing may be left out.
const SEEDS_FOR_ALL: u64 = 5_000;

/// What must have happened in a night: each fault, and each state that is hard to reach.
const ALL: &[&str] = &[
    "power lost",
    "power lost with something in the journal",
    "journal emptied for a truncation",
    "process killed",
    "clean close",
    "close failed",
    "unsynced file survived",
    "end of a file lost",
    "page torn",
    "length cut back was longer again",
    "name change lost",
    "unflushed records lost",
    "what had failed or been cut off is there",
    "log gone that was never flushed",
    "leftover set aside",
    "torn tail cut off",
    "index rebuilt",
    "snapshot discarded",
    "segment removed by recovery",
    "leftover removed by recovery",
    "segment deleted by retention",
    "restart interrupted halfway",
    "cached pages that a failed sync had lost",
    "duplicate refused",
    "directory offline",
    "deleted offline",
    "offline after flush",
    "offline after checkpoint",
    "offline after truncate",
    "offline after restart",
    "truncated in part",
    "not truncated",
    "restarted in part",
    "not restarted",
    "recovery failed",
    "crash in append",
    "crash in roll",
    "crash in flush",
    "crash in checkpoint",
    "crash in housekeeping",
    "crash in truncate",
    "crash in restart",
    "crash in delete",
    "crash in delete records",
    "crash in retention",
    "crash in create",
    "crash in close",
    "crash in recovery",
    "crash in assign epoch",
    "crash in read",
    "ENOSPC in append",
    "ENOSPC in roll",
    "ENOSPC in checkpoint",
    "ENOSPC in housekeeping",
    "ENOSPC in truncate",
    "ENOSPC in restart",
    "ENOSPC in delete records",
    "ENOSPC in retention",
    "ENOSPC in create",
    "ENOSPC in close",
    "ENOSPC in recovery",
    "compaction ran",
    "compaction removed records",
    "compaction removed what was aborted",
    "compaction dropped a tombstone",
    "compaction dropped a marker",
    "compaction left a header alone",
    "compaction interrupted by an error",
    "compaction given up for what it has left behind",
    "compaction discarded by recovery",
    "compaction completed by recovery",
    "compaction found done after a crash",
    "crash in compaction",
    "ENOSPC in compaction",
    "offline after compaction",
    "flip stopped a compaction",
    "EIO at a Open",
    "EIO at a Create",
    "EIO at a Name",
    "EIO at a Read",
    "EIO at a Write",
    "EIO at a SetLen",
    "EIO at a Allocate",
    "EIO at a Sync",
    "EIO at a SyncDirectory",
    "EIO at a SyncFileSystem",
    "bit flipped",
    "flip found by recovery",
    "flip found by a reader's checksum",
    "flip found by a reader's checks",
    "flip in what is no longer read",
];

#[test]
fn nothing_that_was_promised_is_lost_whatever_the_disk_does() {
    hold_to_laws(|seed, traced| run(seed, None, traced), SEEDS, ALL, SEEDS_FOR_ALL);
}

#[test]
fn two_runs_of_a_seed_make_the_same_calls() {
    for seed in 1_000..1_010 {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        assert!(first.trace.len() > 100, "{}", first.trace.len());
        let without_root = |lines: &[String]| -> Vec<String> {
            // The root has a random name, which errors tell.
            let line = |line: &String| match line.split_once(" failed: ") {
                Some((activity, _)) => activity.to_owned(),
                None => line.clone(),
            };
            lines.iter().map(line).collect()
        };
        assert_eq!(without_root(&first.trace), without_root(&second.trace));
        assert_eq!(first.counts, second.counts);
    }
}

#[test]
fn records_that_are_answered_before_they_are_synced_are_found_missing() {
    find_planted(run, Bug::NoSync, 20, &[Law::Flushed]);
}

#[test]
fn a_journal_that_is_not_synced_is_found_out() {
    find_planted(run, Bug::JournalNotSynced, 100, &[Law::Flushed]);
}

#[test]
fn a_start_that_does_not_look_into_the_journal_is_found_out() {
    find_planted(run, Bug::JournalIgnored, 100, &[Law::Flushed]);
}

#[test]
fn a_journal_that_keeps_what_must_not_come_back_is_found_out() {
    find_planted(run, Bug::JournalNotEmptied, 100, &[Law::Flushed, Law::Start, Law::Readable]);
}

#[test]
fn directories_that_are_not_synced_are_found_out() {
    find_planted(run, Bug::DirectoryNotSynced, 50, &[Law::Flushed, Law::Start]);
}

#[test]
fn indexes_that_are_believed_after_a_crash_are_found_out() {
    find_planted(run, Bug::IndexTrusted, 50, &[Law::Indexes]);
}

#[test]
fn snapshots_that_are_newer_than_the_log_are_found_out() {
    find_planted(run, Bug::SnapshotNewerThanLog, 100, &[Law::Producers]);
}

#[test]
fn a_page_cache_that_is_believed_after_a_failed_sync_is_found_out() {
    // Segments and indexes alike: it depends on which of their pages the disk has lost.
    find_planted(run, Bug::CacheTrusted, 1_000, &[Law::Readable, Law::Flushed, Law::Indexes]);
}

#[test]
fn compacted_segments_that_are_not_synced_before_they_take_their_place_are_found_out() {
    find_planted(run, Bug::CleanedNotSynced, 50, &[Law::Compaction, Law::Readable, Law::Flushed]);
}

#[test]
fn records_that_are_dropped_before_newer_ones_are_on_the_disk_are_found_missing() {
    find_planted(run, Bug::CleanedAheadOfFlush, 100, &[Law::Compaction, Law::Flushed]);
}

#[test]
fn compactions_that_a_crash_has_interrupted_and_nobody_ends_are_found_out() {
    find_planted(run, Bug::SwapIgnored, 200, &[Law::Start, Law::Compaction]);
}
