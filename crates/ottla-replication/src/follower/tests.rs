//! Answers in, and the exact commands out.

use super::*;
use Command::*;

const EPOCH: LeaderEpoch = LeaderEpoch(7);
const BACKOFF: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::from_secs(1000);

fn log(log_start: i64, log_end: i64, flushed: i64, last_epoch: i32) -> LocalLog {
    LocalLog {
        log_start: Offset(log_start),
        log_end: Offset(log_end),
        flushed: Offset(flushed),
        last_epoch: (last_epoch >= 0).then_some(LeaderEpoch(last_epoch)),
    }
}

fn begin(log: LocalLog, high_watermark: i64) -> Follower {
    let high_watermark = Offset(high_watermark);
    Follower::new(Start { leader_epoch: EPOCH, log, high_watermark, backoff: BACKOFF })
}

/// A log of 0..20 in epoch 5, of which 15 are on disk and 10 are visible.
fn follower() -> Follower {
    begin(log(0, 20, 15, 5), 10)
}

fn answer(follower: &mut Follower, answer: Answer) -> Vec<Command> {
    let asked = follower.fetch(NOW).unwrap();
    follower.on_answer(&asked, answer, NOW);
    follower.take_commands()
}

fn records(is_empty: bool, high_watermark: i64, log_start: i64) -> Answer {
    let (high_watermark, log_start) = (Offset(high_watermark), Offset(log_start));
    Answer::Records { is_empty, high_watermark, log_start }
}

fn end(epoch: i32, end_offset: i64) -> EpochEnd {
    EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(end_offset) }
}

fn report(flushed: i64) -> Command {
    ReportFlushed(FlushReport { leader_epoch: EPOCH, flushed: Offset(flushed) })
}

#[test]
fn a_fetch_asks_for_what_follows_and_tells_what_was_fetched_last() {
    let expected = Fetch {
        current_leader_epoch: EPOCH,
        fetch_offset: Offset(20),
        last_fetched_epoch: Some(LeaderEpoch(5)),
        log_start_offset: Offset(0),
    };
    assert_eq!(follower().fetch(NOW), Some(expected));
}

#[test]
fn records_are_appended_and_then_the_leader_s_watermarks_hold_as_far_as_the_log_goes() {
    let mut follower = follower();
    let commands = answer(&mut follower, records(false, 40, 3));
    assert_eq!(commands, [DeleteRecordsTo(Offset(3)), report(15), Append { up_to: EPOCH }]);
    assert_eq!(follower.fetch(NOW), None, "one answer at a time");
    follower.on_appended(log(3, 30, 15, 7));
    assert_eq!(follower.take_commands(), [SetHighWatermark(Offset(30))]);
    let fetch = follower.fetch(NOW).unwrap();
    assert_eq!((fetch.fetch_offset, fetch.last_fetched_epoch), (Offset(30), Some(EPOCH)));
    assert_eq!(fetch.log_start_offset, Offset(3));
}

#[test]
fn a_flush_is_reported_once_the_logs_are_known_to_agree_and_only_if_it_is_news() {
    let mut follower = follower();
    follower.on_flushed(Offset(17));
    assert_eq!((follower.take_commands(), follower.report()), (vec![], None));
    assert_eq!(answer(&mut follower, records(true, 10, 0)), [report(17)]);
    follower.on_flushed(Offset(16));
    assert_eq!(follower.take_commands(), []);
    follower.on_flushed(Offset(20));
    assert_eq!(follower.take_commands(), [report(20)]);
    assert_eq!(follower.report().map(|report| report.flushed), Some(Offset(20)));
}

#[test]
fn a_flush_of_what_is_being_appended_is_reported_when_that_is_known() {
    let mut follower = begin(log(0, 20, 20, 5), 20);
    assert_eq!(answer(&mut follower, records(false, 20, 0)), [report(20), Append { up_to: EPOCH }]);
    follower.on_flushed(Offset(30));
    assert_eq!(follower.take_commands(), []);
    follower.on_appended(log(0, 30, 30, 7));
    assert_eq!(follower.take_commands(), [report(30)]);
}

#[test]
fn what_the_leader_has_deleted_goes_before_anything_is_shown_or_reported() {
    // Of epoch 5 the leader knows only that it ended before its log begins, where 18 is.
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(5, 18), local: Some(end(5, 20)) };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(18) }]);
    follower.on_truncated(log(0, 18, 15, 5));
    let commands = answer(&mut follower, records(true, 30, 18));
    let start = Offset(18);
    assert_eq!(commands, [DeleteRecordsTo(start), SetHighWatermark(start), report(15)]);
}

#[test]
fn what_relies_on_a_deletion_that_failed_is_commanded_again_with_it() {
    let start = Offset(12);
    let [shown, visible] = [start, Offset(20)].map(SetHighWatermark);
    for is_empty in [true, false] {
        let mut one = follower();
        let commands = answer(&mut one, records(is_empty, 20, 12));
        assert_eq!(commands[..3], [DeleteRecordsTo(start), shown, report(15)]);
        one.on_deletion_failed(log(0, 20, 15, 5), Offset(10), Failure::Passing, NOW);
        // Before the leader's start may be other records than the leader's.
        one.on_flushed(Offset(18));
        assert_eq!((one.take_commands(), one.report()), (vec![], None));
        assert_eq!((one.high_watermark(), one.fetch(NOW)), (Offset(10), None));
        assert_eq!(one.fetch(NOW + BACKOFF).unwrap().log_start_offset, Offset(0));
        let again = answer(&mut one, records(true, 20, 12));
        assert_eq!(again, [DeleteRecordsTo(start), shown, report(18), visible]);
    }
}

#[test]
fn whoever_can_never_delete_what_the_leader_has_deleted_reports_nothing() {
    let mut one = follower();
    answer(&mut one, records(true, 20, 12));
    one.on_deletion_failed(log(0, 20, 15, 5), Offset(10), Failure::Lasting, NOW);
    one.on_flushed(Offset(20));
    assert_eq!((one.take_commands(), one.report()), (vec![], None));
    assert!(one.is_over());
}

#[test]
fn the_leader_is_told_where_the_log_begins_once_retention_has_cut_it() {
    let mut follower = follower();
    answer(&mut follower, records(true, 10, 0));
    for log_start in [5, 5, 0] {
        follower.on_trimmed(Offset(log_start));
        assert_eq!(follower.take_commands(), []);
        assert_eq!(follower.fetch(NOW).unwrap().log_start_offset, Offset(5));
    }
    follower.on_trimmed(Offset(12));
    assert_eq!(follower.take_commands(), [SetHighWatermark(Offset(12))], "it was visible");
}

#[test]
fn a_log_that_takes_a_whole_batch_before_its_start_deletes_it_up_to_there() {
    let mut follower = begin(log(25, 25, 25, -1), 25);
    let commands = answer(&mut follower, records(false, 40, 25));
    assert_eq!(commands, [report(25), Append { up_to: EPOCH }]);
    follower.on_appended(log(20, 40, 20, 7));
    let commands = follower.take_commands();
    assert_eq!(commands, [SetHighWatermark(Offset(40)), DeleteRecordsTo(Offset(25))]);
    follower.on_flushed(Offset(40));
    assert_eq!(follower.take_commands(), [report(40)]);
}

#[test]
fn an_empty_log_reports_that_it_has_nothing() {
    let mut follower = begin(log(0, 0, 0, -1), 0);
    assert_eq!(answer(&mut follower, records(true, 0, 0)), [report(0)]);
}

#[test]
fn the_high_watermark_does_not_fall_when_a_new_leader_does_not_know_it_yet() {
    let mut follower = follower();
    assert_eq!(answer(&mut follower, records(true, 4, 0)), [report(15)]);
    assert_eq!(follower.high_watermark(), Offset(10));
}

#[test]
fn what_an_epoch_has_more_here_than_at_the_leader_is_cut_off() {
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(5, 18), local: Some(end(5, 20)) };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(18) }]);
    assert_eq!(follower.fetch(NOW), None);
    follower.on_truncated(log(0, 18, 15, 5));
    assert_eq!(follower.take_commands(), []);
    assert_eq!(follower.fetch(NOW).unwrap().fetch_offset, Offset(18));
}

#[test]
fn an_epoch_ends_where_it_ends_earlier() {
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(4, 18), local: Some(end(4, 12)) };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(12) }]);
}

#[test]
fn where_this_log_does_not_know_the_epoch_all_after_the_next_older_one_is_cut_off() {
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(4, 18), local: Some(end(2, 11)) };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(11) }]);
    follower.on_truncated(log(0, 11, 11, 2));
    assert_eq!(follower.fetch(NOW).unwrap().last_fetched_epoch, Some(LeaderEpoch(2)));
}

#[test]
fn where_this_log_knows_no_epoch_as_old_the_leader_s_word_counts() {
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(1, 6), local: None };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(6) }]);
    follower.on_truncated(log(0, 6, 6, -1));
    assert_eq!(follower.take_commands(), [SetHighWatermark(Offset(6))], "it was cut off below");
}

#[test]
fn an_epoch_without_records_is_forgotten_although_nothing_is_cut_off() {
    let mut follower = begin(log(0, 20, 20, 6), 20);
    let diverged = Answer::Diverged { leader: end(5, 25), local: Some(end(5, 20)) };
    assert_eq!(answer(&mut follower, diverged), [Truncate { to: Offset(20) }]);
    follower.on_truncated(log(0, 20, 20, 5));
    assert_eq!(follower.fetch(NOW).unwrap().last_fetched_epoch, Some(LeaderEpoch(5)));
}

#[test]
fn a_leader_that_can_t_say_where_an_epoch_ended_is_asked_again_later() {
    let mut follower = follower();
    let diverged = Answer::Diverged { leader: end(-1, -1), local: None };
    assert_eq!(answer(&mut follower, diverged), []);
    assert_eq!(follower.deadline(), Some(NOW + BACKOFF));
}

#[test]
fn a_log_without_epochs_keeps_only_what_is_known_to_be_committed() {
    let mut follower = begin(log(0, 20, 20, -1), 10);
    assert_eq!(follower.take_commands(), [Truncate { to: Offset(10) }]);
    assert_eq!(follower.fetch(NOW), None);
    follower.on_truncated(log(0, 10, 10, -1));
    assert_eq!(follower.fetch(NOW).unwrap().last_fetched_epoch, None);
}

#[test]
fn a_leader_whose_log_is_shorter_has_lost_the_rest_for_all() {
    let mut follower = follower();
    let refused = Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE);
    assert_eq!(answer(&mut follower, refused), [AskLeaderOffsets]);
    let offsets = LeaderOffsets { log_start: Offset(0), log_end: Offset(8) };
    follower.on_leader_offsets(Ok(offsets), NOW);
    assert_eq!(follower.take_commands(), [Truncate { to: Offset(8) }]);
}

#[test]
fn a_leader_whose_log_begins_later_is_followed_from_there() {
    let mut follower = follower();
    let refused = Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE);
    assert_eq!(answer(&mut follower, refused), [AskLeaderOffsets]);
    let offsets = LeaderOffsets { log_start: Offset(50), log_end: Offset(80) };
    follower.on_leader_offsets(Ok(offsets), NOW);
    assert_eq!(follower.take_commands(), [RestartAt(Offset(50))]);
    follower.on_truncated(log(50, 50, 50, -1));
    assert_eq!(follower.take_commands(), [SetHighWatermark(Offset(50))]);
    assert_eq!(follower.fetch(NOW).unwrap().fetch_offset, Offset(50));
}

#[test]
fn a_leader_whose_offsets_have_changed_or_are_not_told_is_asked_again_later() {
    let within = LeaderOffsets { log_start: Offset(0), log_end: Offset(80) };
    for found in [Ok(within), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)] {
        let mut follower = follower();
        answer(&mut follower, Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE));
        follower.on_leader_offsets(found, NOW);
        assert_eq!((follower.take_commands(), follower.fetch(NOW)), (vec![], None));
        assert!(follower.fetch(NOW + BACKOFF).is_some());
    }
    let mut follower = follower();
    answer(&mut follower, Answer::Refused(ErrorCode::OFFSET_OUT_OF_RANGE));
    follower.on_leader_offsets(Err(ErrorCode::FENCED_LEADER_EPOCH), NOW);
    assert!(follower.is_over());
}

#[test]
fn a_newer_leader_epoch_ends_the_conversation_and_other_refusals_delay_it() {
    let mut fenced = follower();
    assert_eq!(answer(&mut fenced, Answer::Refused(ErrorCode::FENCED_LEADER_EPOCH)), []);
    assert!(fenced.is_over());
    assert_eq!((fenced.fetch(NOW + BACKOFF * 9), fenced.deadline()), (None, None));
    for error in [
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::INCONSISTENT_TOPIC_ID,
        ErrorCode::KAFKA_STORAGE_ERROR,
    ] {
        let mut follower = follower();
        assert_eq!(answer(&mut follower, Answer::Refused(error)), [], "{error:?}");
        assert_eq!(follower.fetch(NOW), None);
        assert_eq!(follower.deadline(), Some(NOW + BACKOFF));
        assert!(follower.fetch(NOW + BACKOFF).is_some());
    }
}

#[test]
fn an_answer_to_an_earlier_question_changes_nothing() {
    let mut follower = follower();
    let asked = follower.fetch(NOW).unwrap();
    for wrong in [
        Fetch { fetch_offset: Offset(19), ..asked },
        Fetch { current_leader_epoch: LeaderEpoch(6), ..asked },
        Fetch { last_fetched_epoch: None, ..asked },
    ] {
        follower.on_answer(&wrong, records(false, 20, 0), NOW);
        assert_eq!(follower.take_commands(), []);
    }
    follower.on_answer(&asked, records(false, 20, 0), NOW);
    assert_eq!(follower.take_commands().len(), 2);
    follower.on_answer(&asked, records(false, 20, 0), NOW);
    assert_eq!(follower.take_commands(), [], "a repeated one comes while the first is appended");
}

#[test]
fn damaged_records_are_asked_for_again_and_a_failed_disk_is_given_up() {
    let mut one = follower();
    answer(&mut one, records(false, 40, 0));
    one.on_log_failed(log(0, 25, 15, 5), Failure::Passing, NOW);
    assert_eq!(one.take_commands(), [], "the watermark of an answer holds for all of it");
    assert_eq!(one.fetch(NOW), None);
    assert_eq!(one.fetch(NOW + BACKOFF).unwrap().fetch_offset, Offset(25));

    let mut one = follower();
    answer(&mut one, records(false, 40, 0));
    one.on_log_failed(log(0, 20, 15, 5), Failure::Lasting, NOW);
    assert!(one.is_over());

    let mut one = follower();
    answer(&mut one, Answer::Diverged { leader: end(5, 18), local: Some(end(5, 20)) });
    one.on_log_failed(log(0, 20, 15, 5), Failure::Lasting, NOW);
    assert!(one.is_over(), "what should be gone is there");
}

#[test]
fn what_could_not_be_cut_off_for_want_of_room_is_compared_again_before_anything_is_appended() {
    let mut one = follower();
    answer(&mut one, Answer::Diverged { leader: end(5, 18), local: Some(end(5, 20)) });
    one.on_log_failed(log(0, 20, 15, 5), Failure::Passing, NOW);
    assert_eq!(one.fetch(NOW), None);
    let again = one.fetch(NOW + BACKOFF).unwrap();
    assert_eq!((again.fetch_offset, again.last_fetched_epoch), (Offset(20), Some(LeaderEpoch(5))));

    // Without epochs there is nothing to compare.
    let mut one = begin(log(0, 20, 20, -1), 10);
    assert_eq!(one.take_commands(), [Truncate { to: Offset(10) }]);
    one.on_log_failed(log(0, 20, 20, -1), Failure::Passing, NOW);
    assert!(one.is_over());
}
