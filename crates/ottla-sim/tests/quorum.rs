//! Controllers that elect each other on disks and a network that lose what they may, and never take back what they have
//! answered.
//!
//! `OTTLA_SIM_SEED=n` plays one seed and prints what happened; `OTTLA_SIM_SEEDS=n` plays so many, and then each of the faults
//! and rare states must have occurred.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test says what it has seen")]

use ottla_sim::planted;
use ottla_sim::quorum::{Bug, run};
use ottla_sim::seeds::hold_to_laws;

/// What ordinary tests have time for.
const SEEDS: u64 = 16;
/// From so many on nothing may be left out.
const SEEDS_FOR_ALL: u64 = 300;

/// What must have happened in a night: each fault, and each state that is hard to reach.
const ALL: &[&str] = &[
    "EIO at a Sync",
    "EIO at a SyncDirectory",
    "active controller crashed",
    "cached pages that a failed sync had lost",
    "came to rest",
    "clean end",
    "clean end that the disk did not allow",
    "clock jumped",
    "connection to the leader broken",
    "controller elected",
    "crash amid a call of the disk",
    "crash at a Create",
    "crash at a Name",
    "crash at a Open",
    "crash at a Read",
    "crash at a Sync",
    "crash at a SyncDirectory",
    "crash at a Write",
    "decision answered",
    "decision refused: NOT_CONTROLLER",
    "decision refused: stopped",
    "disk failed",
    "disk of an observer replaced",
    "end of a file lost",
    "links cut",
    "links healed",
    "log begins after a snapshot",
    "look answered",
    "message doubled",
    "message late",
    "message lost",
    "message on a cut link",
    "more voters than at first",
    "name change lost",
    "node held up",
    "page torn",
    "power lost",
    "process killed",
    "slow disk",
    "snapshot kept",
    "unsynced file survived",
    "voter added",
    "voter change refused",
    "voter change timed out",
    "voter not added: behind",
    "voter removed",
];

#[test]
fn nothing_that_was_answered_is_lost_whatever_happens_to_controllers_and_network() {
    hold_to_laws(|seed, traced| run(seed, None, traced), SEEDS, ALL, SEEDS_FOR_ALL);
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    for seed in 1_000..1_002 {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        assert!(first.trace.len() > 100, "{}", first.trace.len());
        let pairs = first.trace.iter().zip(&second.trace);
        pairs.for_each(|(first, second)| assert_eq!(first, second));
        assert_eq!(first.trace.len(), second.trace.len());
        assert_eq!(first.counts, second.counts);
    }
}

/// In how many seeds a planted bug is found: by a law, and not only because not everything goes on in the end.
fn found_within(bug: Bug, seeds: u64) {
    let breaks = |seed: &u64| {
        let broken = run(*seed, Some(bug), false).result.err()?;
        (!broken.0.contains("at rest")).then_some((*seed, broken))
    };
    let found = (0..seeds).find_map(|seed| breaks(&seed));
    println!("{bug:?} is found: {found:?}");
    assert!(found.is_some(), "{bug:?} is not found in {seeds} seeds");
}

#[test]
fn votes_that_do_not_get_to_the_disk_are_found_out() {
    found_within(Bug::Disk(planted::Bug::VoteForgotten), 50);
}

#[test]
fn decisions_that_are_answered_before_they_are_on_the_disks_are_found_missing() {
    found_within(Bug::Disk(planted::Bug::NoSync), 50);
}

#[test]
fn names_that_are_not_synced_are_found_out() {
    found_within(Bug::Disk(planted::Bug::DirectoryNotSynced), 50);
}

#[test]
fn an_empty_disk_that_passes_for_the_one_before_is_found_out() {
    found_within(Bug::WipedDiskCounted, 50);
}
