//! Controllers that elect each other on disks and a network that lose what they may, and never take back what they have
//! answered.
//!
//! `OTTLA_SIM_SEED=n` plays one seed and prints what happened; `OTTLA_SIM_SEEDS=n` plays so many, and then each of the faults
//! and rare states must have occurred.

use ottla_sim::Law;
use ottla_sim::planted;
use ottla_sim::quorum::{Bug, run};
use ottla_sim::seeds::{find_planted, hold_to_laws, hold_to_repetition};

/// What ordinary tests have time for.
const SEEDS: u64 = 300;
/// From so many on nothing may be left out.
const SEEDS_FOR_ALL: u64 = 300;

/// What must have happened in a night: each fault, and each state that is hard to reach.
const ALL: &[&str] = &[
    "EIO at a Sync",
    "EIO at a SyncDirectory",
    "active controller crashed",
    "active controller cut off",
    "active controller stood still",
    "all connections to a stranded leader broken",
    "answer that nobody waits for any more",
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
    "log that ends before its snapshot",
    "look answered",
    "look asked of a stranded leader while another one is active",
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
    "process stood still",
    "slow disk",
    "snapshot kept",
    "unsynced file survived",
    "voter added",
    "voter change refused",
    "voter change timed out",
    "voter not added: behind",
    "voter removed",
    "zombie wakes as active controller while another one is",
];

#[test]
fn nothing_that_was_answered_is_lost_whatever_happens_to_controllers_and_network() {
    hold_to_laws(|seed, traced| run(seed, None, traced), SEEDS, ALL, SEEDS_FOR_ALL);
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    hold_to_repetition(|seed, traced| run(seed, None, traced), 1_000..1_002);
}

#[test]
fn votes_that_do_not_get_to_the_disk_are_found_out() {
    find_planted(run, Bug::Disk(planted::Bug::VoteForgotten), 50, &[Law::VoteKept]);
}

#[test]
fn decisions_that_are_answered_before_they_are_on_the_disks_are_found_missing() {
    // Whoever has lost all of its log says so, and does not start.
    let by = [Law::Starts, Law::AnswersKept, Law::Informed, Law::OneState];
    find_planted(run, Bug::Disk(planted::Bug::RecordsNotSynced), 50, &by);
}

#[test]
fn names_that_are_not_synced_are_found_out() {
    let by = [Law::Starts, Law::OneState, Law::VoteKept];
    find_planted(run, Bug::Disk(planted::Bug::DirectoryNotSynced), 50, &by);
}

#[test]
fn an_empty_disk_that_passes_for_the_one_before_is_found_out() {
    find_planted(run, Bug::WipedDiskCounted, 50, &[Law::OneState, Law::EqualLogs, Law::Informed]);
}

#[test]
fn a_controller_that_answers_without_a_majority_is_found_out() {
    find_planted(run, Bug::AnswersRemembered, 50, &[Law::Informed]);
}
