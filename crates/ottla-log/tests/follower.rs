//! What a follower's log takes from its leader's, and what it keeps across restarts and truncations.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ottla_base::{LeaderEpoch, Offset, ProducerId};
use ottla_log::{FollowError, Log, LogConfig, StorageError};
use ottla_records::ControlType;
use support::{Directory, Draft, batch, marker, read_all};

const CHECKPOINT: &str = "replication-offset-checkpoint";
const NEWEST: LeaderEpoch = LeaderEpoch(i32::MAX);

/// All that a log holds from an offset on, as an answer to a Fetch.
fn answer(leader: &Log, from: i64) -> Bytes {
    let mut bytes = BytesMut::new();
    for batch in read_all(leader).iter().filter(|it| it.header().last_offset() >= from) {
        bytes.extend_from_slice(batch.bytes());
    }
    bytes.freeze()
}

fn epochs(log: &Log) -> Vec<(i32, i64)> {
    log.epoch_entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect()
}

/// A log in two epochs, with a producer's records and a transaction that was aborted.
fn fill(leader: &Log) {
    for n in 0..10 {
        leader.append_produced(Draft::new(n, 1).build(), LeaderEpoch(3)).unwrap();
    }
    let open = Draft { id: 2, in_transaction: true, ..Draft::new(0, 3) };
    leader.append_produced(open.build(), LeaderEpoch(5)).unwrap();
    leader.append_batch(marker(ControlType::Abort, 2, 0, 0, 1_000), LeaderEpoch(5)).unwrap();
    leader.append_batch(batch(2, 10), LeaderEpoch(5)).unwrap();
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 400, index_interval_bytes: 50, ..LogConfig::default() }
}

#[test]
fn a_follower_s_log_holds_the_same_bytes_and_knows_the_same_of_them() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    let answer = answer(&leader, 0);
    let appended = follower.append_as_follower(answer.clone(), NEWEST).unwrap();
    assert_eq!(appended, answer.len() as u64);
    assert!(follower.segment_count() > 2, "one answer fills several segments");
    let compare = |leader: &Log, follower: &Log| {
        assert_eq!(read_all(follower), read_all(leader));
        assert_eq!(follower.log_end_offset(), Offset(16));
        assert_eq!(epochs(follower), [(3, 0), (5, 10)]);
        assert_eq!(follower.producers(), leader.producers());
        assert_eq!(follower.producers().get(ProducerId(1)).unwrap().last_sequence(), 9);
        let whole = Offset(0)..Offset(16);
        let aborted = follower.aborted_transactions(&whole).unwrap();
        assert_eq!(aborted, leader.aborted_transactions(&whole).unwrap());
        assert_eq!(aborted.len(), 1);
    };
    compare(&leader, &follower);
    drop((leader, follower, open.close()));
    let open = directory.open(small_segments());
    compare(&open.log("leader", 0), &open.log("follower", 0));
}

#[test]
fn an_open_transaction_holds_a_follower_s_last_stable_offset_back() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    let draft = Draft { in_transaction: true, ..Draft::new(0, 3) };
    leader.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    leader.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
    follower.append_as_follower(answer(&leader, 0), NEWEST).unwrap();
    assert_eq!(follower.last_stable_offset(Offset(5)), Offset(2));
    follower.delete_records_to(Offset(3)).unwrap();
    assert_eq!(follower.last_stable_offset(Offset(5)), Offset(3), "what is before is gone");
    leader.append_batch(marker(ControlType::Commit, 1, 0, 0, 1_000), LeaderEpoch(0)).unwrap();
    follower.append_as_follower(answer(&leader, 5), NEWEST).unwrap();
    assert_eq!(follower.last_stable_offset(Offset(5)), Offset(3), "the marker may be cut off yet");
    assert_eq!(follower.last_stable_offset(Offset(6)), Offset(6));
}

#[test]
fn a_batch_that_is_cut_off_at_the_end_of_an_answer_is_passed_over() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    let whole = answer(&leader, 0);
    let mut end = 0;
    for size in 0..=whole.len() {
        let from = follower.log_end_offset().0;
        let rest = answer(&leader, from).slice(..size - end);
        end += follower.append_as_follower(rest, NEWEST).unwrap() as usize;
        assert!(end <= size);
    }
    assert_eq!(read_all(&follower), read_all(&leader));
}

#[test]
fn a_damaged_answer_changes_nothing() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    let sound = answer(&leader, 0);
    for at in [16, 20, 40, sound.len() - 1] {
        let mut damaged = BytesMut::from(&sound[..]);
        damaged[at] ^= 0x40;
        let error = follower.append_as_follower(damaged.freeze(), NEWEST).unwrap_err();
        assert!(matches!(error, FollowError::Damaged { .. }), "byte {at}: {error}");
        assert!(error.is_passing());
        assert_eq!((follower.log_end_offset(), epochs(&follower)), (Offset(0), vec![]));
    }
    // Neither the offset nor the epoch is covered by the checksum.
    let mut backwards = BytesMut::from(&answer(&leader, 9)[..]);
    backwards.extend_from_slice(&answer(&leader, 8));
    let error = follower.append_as_follower(backwards.freeze(), NEWEST).unwrap_err();
    assert!(
        matches!(error, FollowError::OutOfOrder { end: Offset(16), found: Offset(8) }),
        "{error}"
    );
    assert_eq!(follower.log_end_offset(), Offset(0));
}

#[test]
fn an_answer_that_begins_before_the_log_s_end_is_refused() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    follower.append_as_follower(answer(&leader, 0), NEWEST).unwrap();
    let error = follower.append_as_follower(answer(&leader, 14), NEWEST).unwrap_err();
    assert!(matches!(error, FollowError::OutOfOrder { end: Offset(16), .. }), "{error}");
    assert_eq!(follower.log_end_offset(), Offset(16));
}

#[test]
fn batches_of_a_later_epoch_than_the_one_that_was_asked_in_are_left_out() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    follower.append_as_follower(answer(&leader, 0), LeaderEpoch(4)).unwrap();
    assert_eq!((follower.log_end_offset(), epochs(&follower)), (Offset(10), vec![(3, 0)]));
    assert_eq!(follower.append_as_follower(answer(&leader, 10), LeaderEpoch(4)).unwrap(), 0);
}

#[test]
fn a_follower_of_a_log_that_begins_within_a_batch_begins_with_the_whole_batch() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    for _ in 0..4 {
        leader.append_batch(batch(10, 10), LeaderEpoch(0)).unwrap();
    }
    leader.delete_records_to(Offset(25)).unwrap();
    follower.truncate_fully_and_start_at(Offset(25)).unwrap();
    let from = leader.read(Offset(25), 1 << 20, Offset(40), true).unwrap();
    let records = from.source.unwrap().read().unwrap();
    follower.append_as_follower(records, NEWEST).unwrap();
    assert_eq!((follower.log_start_offset(), follower.log_end_offset()), (Offset(20), Offset(40)));
    follower.delete_records_to(Offset(25)).unwrap();
    assert_eq!(read_all(&follower), read_all(&leader));
}

#[test]
fn gaps_that_compaction_has_left_are_no_mistake() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    fill(&leader);
    let mut gap = BytesMut::from(&read_all(&leader)[2].bytes()[..]);
    gap.extend_from_slice(read_all(&leader)[7].bytes());
    follower.append_as_follower(gap.freeze(), NEWEST).unwrap();
    assert_eq!(follower.log_end_offset(), Offset(8));
}

#[test]
fn a_truncation_at_the_log_s_end_forgets_an_epoch_without_records() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(5, 10), LeaderEpoch(2)).unwrap();
    log.assign_epoch(LeaderEpoch(4)).unwrap();
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(4)));
    log.truncate_to(Offset(7)).unwrap();
    assert_eq!((log.log_end_offset(), epochs(&log)), (Offset(5), vec![(2, 0)]));
    drop((log, open.close()));
    assert_eq!(epochs(&directory.open(LogConfig::default()).log("t", 0)), [(2, 0)]);
}

/// An append that fails has noted the epochs of its batches before; those that come again may begin with an older one.
#[test]
fn an_epoch_that_a_failed_append_has_noted_hides_no_older_one() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    for epoch in [5, 5, 7] {
        leader.append_batch(batch(5, 10), LeaderEpoch(epoch)).unwrap();
    }
    let batches = read_all(&leader);
    follower.append_as_follower(batches[0].bytes().clone(), NEWEST).unwrap();
    follower.assign_epoch(LeaderEpoch(7)).unwrap();
    let mut rest = BytesMut::from(&batches[1].bytes()[..]);
    rest.extend_from_slice(batches[2].bytes());
    follower.append_as_follower(rest.freeze(), NEWEST).unwrap();
    assert_eq!(epochs(&follower), [(5, 0), (7, 10)]);
}

#[test]
fn after_a_restart_the_end_of_a_transaction_above_the_high_watermark_may_be_cut_off() {
    let directory = Directory::new();
    let open = directory.open(small_segments());
    let log = open.create("t", 0);
    let begin = |id| {
        let draft = Draft { id, in_transaction: true, ..Draft::new(0, 2) };
        log.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
    };
    let end = |control, id| {
        log.append_batch(marker(control, id, 0, 0, 1_000), LeaderEpoch(0)).unwrap();
    };
    log.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    begin(1);
    end(ControlType::Commit, 1);
    begin(2);
    log.roll().unwrap();
    end(ControlType::Abort, 2);
    begin(3);
    drop((log, open.close()));
    let open = directory.open(small_segments());
    let log = open.log("t", 0);
    let stable = |at| log.last_stable_offset(Offset(at)).0;
    for high_watermark in [10, 4] {
        log.unsettle_transactions(Offset(high_watermark)).unwrap();
    }
    // Markers at 4 and at 7; the third transaction begins at 8.
    let expected = [(4, 2), (5, 5), (6, 5), (7, 5), (8, 8), (9, 8)];
    assert_eq!(expected.map(|(at, _)| (at, stable(at))), expected);
    log.unsettle_transactions(Offset(5)).unwrap();
    assert_eq!((stable(5), stable(7)), (5, 5));
    log.truncate_to(Offset(7)).unwrap();
    assert_eq!(stable(7), 5, "without its marker it is open");
}

#[test]
fn a_high_watermark_within_a_batch_hides_no_transaction() {
    let directory = Directory::new();
    let open = directory.open(LogConfig::default());
    let log = open.create("t", 0);
    log.append_batch(batch(2, 10), LeaderEpoch(0)).unwrap();
    for id in [1, 2] {
        let draft = Draft { id, in_transaction: true, ..Draft::new(0, 3) };
        log.append_produced(draft.build(), LeaderEpoch(0)).unwrap();
    }
    log.append_batch(marker(ControlType::Commit, 1, 0, 0, 1_000), LeaderEpoch(0)).unwrap();
    drop((log, open.close()));
    let open = directory.open(LogConfig::default());
    let log = open.log("t", 0);
    // Where the log starts, if nobody has noted more: within the first transaction's batch, and then the second's.
    assert_eq!(log.delete_records_to(Offset(3)).unwrap(), Offset(3));
    let stable = |at| log.last_stable_offset(Offset(at)).0;
    log.unsettle_transactions(Offset(7)).unwrap();
    assert_eq!(stable(8), 3, "the first one may be open again, from before the log's start");
    log.unsettle_transactions(Offset(3)).unwrap();
    assert_eq!(stable(8), 3);
    assert_eq!(stable(9), 5, "the second one is open");
}

fn checkpoint(directory: &Directory) -> String {
    fs::read_to_string(directory.path().join(CHECKPOINT)).unwrap_or_default()
}

fn three_logs(directory: &Directory) -> (support::Open, [Arc<Log>; 3]) {
    let open = directory.open(LogConfig::default());
    let logs = [0, 1, 2].map(|partition| open.create("t", partition));
    for log in &logs {
        for _ in 0..4 {
            log.append_batch(batch(5, 10), LeaderEpoch(0)).unwrap();
        }
        log.flush().unwrap();
    }
    logs[0].note_high_watermark(Offset(12));
    logs[1].note_high_watermark(Offset(20));
    (open, logs)
}

#[test]
fn the_high_watermarks_of_a_directory_are_in_kafka_s_file_after_a_clean_stop_and_are_read_at_start()
{
    let directory = Directory::new();
    let (open, logs) = three_logs(&directory);
    assert_eq!(logs[2].noted_high_watermark(), None);
    drop((logs, open.close()));
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 20\n");
    let open = directory.open(LogConfig::default());
    let noted = |partition| open.log("t", partition).noted_high_watermark();
    assert_eq!([0, 1, 2].map(noted), [Some(Offset(12)), Some(Offset(20)), None]);
}

#[test]
fn high_watermarks_are_written_when_it_is_time_and_only_if_they_have_changed() {
    let mut directory = Directory::new();
    directory.options.threads = false;
    let (open, logs) = three_logs(&directory);
    open.housekeep();
    assert_eq!(checkpoint(&directory), "", "not before it is time");
    directory.clock.advance(Duration::from_millis(5_000));
    open.housekeep();
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 20\n");
    fs::remove_file(directory.path().join(CHECKPOINT)).unwrap();
    directory.clock.advance(Duration::from_millis(5_000));
    open.housekeep();
    assert_eq!(checkpoint(&directory), "", "nothing has changed");
    logs[0].note_high_watermark(Offset(13));
    directory.clock.advance(Duration::from_millis(5_000));
    open.housekeep();
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 13\nt 1 20\n");
}

/// A follower hears of the leader's high watermark before it has flushed. What a loss of power takes from it, a cut that was
/// not flushed either may give back as it was before: another leader's records, which were never visible.
#[test]
fn no_high_watermark_is_written_of_what_is_not_flushed() {
    let directory = Directory::new();
    let (open, logs) = three_logs(&directory);
    logs[1].truncate_to(Offset(10)).unwrap();
    logs[1].append_batch(batch(10, 10), LeaderEpoch(1)).unwrap();
    logs[1].note_high_watermark(Offset(20));
    open.checkpoint_high_watermarks().unwrap();
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 10\n");
    logs[1].flush().unwrap();
    open.checkpoint_high_watermarks().unwrap();
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 20\n");
}

#[test]
fn what_is_cut_off_is_not_visible_whatever_the_checkpoint_said() {
    let directory = Directory::new();
    let (open, logs) = three_logs(&directory);
    open.checkpoint_high_watermarks().unwrap();
    logs[1].truncate_to(Offset(10)).unwrap();
    assert_eq!(logs[1].noted_high_watermark(), Some(Offset(10)));
    // At once: what takes the place of those records may be there after a crash.
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 10\n");
    logs[0].truncate_fully_and_start_at(Offset(7)).unwrap();
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 7\nt 1 10\n");
}

#[test]
fn what_a_crash_has_taken_was_not_visible_in_this_log() {
    let directory = Directory::new();
    let (open, logs) = three_logs(&directory);
    open.checkpoint_high_watermarks().unwrap();
    drop((logs, open));
    let segment = directory.path().join("t-1/00000000000000000000.log");
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    let open = directory.open(LogConfig::default());
    assert_eq!(open.log("t", 1).noted_high_watermark(), Some(Offset(15)));
    assert_eq!(checkpoint(&directory), "0\n2\nt 0 12\nt 1 15\n");
}

#[test]
fn a_log_does_not_inherit_the_high_watermark_of_an_earlier_one_of_its_name() {
    let directory = Directory::new();
    let (open, logs) = three_logs(&directory);
    open.checkpoint_high_watermarks().unwrap();
    open.delete(logs[1].topic_partition()).unwrap();
    let again = open.create("t", 1);
    assert_eq!(checkpoint(&directory), "0\n1\nt 0 12\n");
    again.append_batch(batch(30, 10), LeaderEpoch(0)).unwrap();
    again.flush().unwrap();
    open.checkpoint_high_watermarks().unwrap();
    drop((logs, again, open));
    assert_eq!(directory.open(LogConfig::default()).log("t", 1).noted_high_watermark(), None);
}

#[test]
fn a_disk_without_room_refuses_a_follower_s_records_for_as_long_as_it_is_full() {
    let mut directory = Directory::new();
    directory.options.reserved_bytes = u64::MAX / 2;
    let open = directory.open(LogConfig::default());
    let (leader, follower) = (open.create("leader", 0), open.create("follower", 0));
    leader.append_batch(batch(5, 10), LeaderEpoch(0)).unwrap();
    let error = follower.append_as_follower(answer(&leader, 0), NEWEST).unwrap_err();
    assert!(matches!(error, FollowError::Storage(StorageError::Full { .. })), "{error}");
    assert!(error.is_passing());
    open.set_reserved_bytes(0);
    open.housekeep();
    follower.append_as_follower(answer(&leader, 0), NEWEST).unwrap();
}
