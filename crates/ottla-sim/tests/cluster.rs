//! A cluster in which everything goes wrong, and loses nothing that it has acknowledged.
//!
//! `OTTLA_SIM_SEED=n` plays one seed and prints what happened; `OTTLA_SIM_SEEDS=n` plays so many, and then each of the faults
//! and rare states must have occurred.

use ottla_sim::Law;
use ottla_sim::cluster::{Bug, run};
use ottla_sim::seeds::{find_planted, hold_to_laws, hold_to_repetition};

/// What ordinary tests have time for.
const SEEDS: u64 = 300;
/// From so many on nothing may be left out.
const SEEDS_FOR_ALL: u64 = 300;

/// What must have happened in a night: each fault, and each state that is hard to reach.
const ALL: &[&str] = &[
    "AlterPartition refused: FENCED_LEADER_EPOCH",
    "AlterPartition refused: INELIGIBLE_REPLICA",
    "AlterPartition refused: INVALID_UPDATE_VERSION",
    "AlterPartition refused: NEW_LEADER_ELECTED",
    "AlterPartition refused: UNKNOWN_TOPIC_ID",
    "AlterPartition unanswered",
    "ISR of one",
    "acks=all acknowledged",
    "all disks lost that counted",
    "another ISR",
    "answer of the controller that nobody waits for any more",
    "answer that nobody waits for any more",
    "append never acknowledged: leads no longer",
    "append never acknowledged: too few by then",
    "assignment told",
    "broker fenced",
    "clean end",
    "clean end that nobody has allowed",
    "client gives up a batch",
    "clock jumped",
    "committed offsets fetched",
    "committed offsets fetched before all that was loaded is",
    "controller failed over",
    "controller left alone",
    "coordinator does not answer",
    "coordinator ends amid a rebalance",
    "coordinator ends late",
    "coordinator ends while a commit waits",
    "coordinator ends while it loads",
    "coordinator goes on in a later epoch",
    "coordinator is late",
    "crash amid a call of the disk",
    "disk failed",
    "disk wiped",
    "duplicate refused",
    "fetch refused: FENCED_LEADER_EPOCH",
    "fetch refused: UNKNOWN_LEADER_EPOCH",
    "fetch refused: UNKNOWN_TOPIC_ID",
    "fetch unanswered",
    "flush reported of an earlier epoch",
    "flush reported of an earlier life",
    "group deleted",
    "group falls silent",
    "group loaded with members",
    "group stable at rest",
    "group: COORDINATOR_LOAD_IN_PROGRESS",
    "group: COORDINATOR_NOT_AVAILABLE",
    "group: NOT_COORDINATOR",
    "joiner proposed",
    "joiner proposed while the high watermark waits",
    "last leader had everything",
    "last leader had less than was committed",
    "last leader leads again",
    "leader appends that is none any more",
    "leader elected",
    "leader from outside the ISR",
    "leaver proposed",
    "link cut",
    "link cut one way",
    "links healed",
    "log of an earlier topic of this name set aside",
    "logs compared anew",
    "member falls silent",
    "member hears of a rebalance",
    "member left",
    "message doubled",
    "message late",
    "message lost",
    "message on a cut link",
    "metadata learned late",
    "min.insync.replicas lowered",
    "min.insync.replicas raised",
    "nobody leads",
    "node cut off",
    "node cut off from clients",
    "offsets committed",
    "offsets expired",
    "offsets fetched",
    "power lost",
    "preferred election",
    "process ends between two messages",
    "process killed",
    "process paused",
    "process paused for longer than its session",
    "process started",
    "produce answered",
    "produce refused: NOT_ENOUGH_REPLICAS",
    "produce refused: NOT_LEADER_OR_FOLLOWER",
    "produce refused: OUT_OF_ORDER_SEQUENCE_NUMBER",
    "produce unanswered",
    "reassignment",
    "reassignment cancelled",
    "records become visible in the last moment of a process",
    "records cut off in a new epoch",
    "records cut off in more than one step",
    "records cut off up to an epoch that the leader does not name",
    "registration refused: the process before is not over",
    "replica on a disk that is gone",
    "report of a flush very late",
    "silent member was missed by nobody",
    "slow disk",
    "smaller ISR and larger minimum learned at once",
    "stray log set aside",
    "topic created",
    "topic deleted",
    "topic of the cluster's own got its copies",
    "two lead in turn",
    "wall clock set back",
    "zombie appends",
    "zombie's append never acknowledged",
    "zombie's append refused",
    "zombie's commit refused",
];

#[test]
fn nothing_that_was_acknowledged_is_lost_whatever_happens_to_brokers_and_network() {
    hold_to_laws(|seed, traced| run(seed, None, traced), SEEDS, ALL, SEEDS_FOR_ALL);
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    hold_to_repetition(|seed, traced| run(seed, None, traced), 1_000..1_004);
}

#[test]
fn records_that_are_answered_before_the_followers_have_flushed_are_found_missing() {
    find_planted(run, Bug::AnsweredBeforeFlush, 20, &[Law::ReliedOn]);
}

#[test]
fn a_joiner_that_does_not_count_is_found_out() {
    find_planted(run, Bug::JoinerNotCounted, 50, &[Law::ReliedOn]);
}

#[test]
fn a_leaver_that_is_not_awaited_is_found_out() {
    find_planted(run, Bug::LeaverNotAwaited, 20, &[Law::ReliedOn]);
}

#[test]
fn logs_that_are_not_cut_off_are_found_out() {
    find_planted(run, Bug::NoTruncation, 50, &[Law::Committed, Law::ReliedOn]);
}

#[test]
fn an_epoch_that_is_taken_for_another_one_is_found_out() {
    find_planted(run, Bug::EndOfAnotherEpoch, 100, &[Law::Committed, Law::ReliedOn]);
}

#[test]
fn a_leader_of_yesterday_whose_isr_is_taken_is_found_out() {
    find_planted(run, Bug::StaleLeaderAccepted, 100, &[Law::LeaderInSync, Law::ReliedOn]);
}

#[test]
fn an_empty_disk_that_passes_for_the_one_before_is_found_out() {
    find_planted(run, Bug::WipedDiskCounted, 20, &[Law::ReliedOn]);
}

#[test]
fn a_kill_that_passes_for_a_clean_end_is_found_out() {
    find_planted(run, Bug::UncleanEndHidden, 20, &[Law::ReliedOn]);
}

#[test]
fn metadata_that_is_older_than_the_logs_is_found_out() {
    find_planted(run, Bug::MetadataReplayed, 100, &[Law::ReliedOn]);
}

#[test]
fn an_isr_that_counts_before_the_minimum_beside_it_is_found_out() {
    find_planted(run, Bug::IsrBeforeMinimum, 100, &[Law::Enough, Law::ReliedOn]);
}

#[test]
fn a_commit_that_is_answered_before_it_is_safe_is_found_out() {
    // Assignments are answered like commits.
    let by = [Law::Acknowledged, Law::FetchedCommitted, Law::OneAssignment];
    find_planted(run, Bug::CommitNotAwaited, 20, &by);
}

#[test]
fn a_coordinator_that_goes_by_the_high_watermark_of_the_next_leader_is_found_out() {
    find_planted(run, Bug::FollowersWatermark, 100, &[Law::Coordinates, Law::Acknowledged]);
}

#[test]
fn a_partition_that_is_not_read_to_its_end_is_found_out() {
    find_planted(run, Bug::LoadEndsEarly, 50, &[Law::GroupsOfLog]);
}

#[test]
fn a_coordinator_that_does_not_end_is_found_out() {
    find_planted(run, Bug::CoordinatorNotPutDown, 50, &[Law::Coordinates]);
}
