//! Events in, and the exact commands out.

use super::*;
use Command::{AdvanceHighWatermark, AlterPartition};

const LEADER: BrokerId = BrokerId(1);
const EPOCH: LeaderEpoch = LeaderEpoch(3);
const PARTITION_EPOCH: i32 = 7;
const LAG_MAX: Duration = Duration::from_secs(30);

/// A leader with three replicas and one that counts as its test goes on.
struct Fixture {
    progress: Progress,
    now: Duration,
}

fn ids(brokers: &[i32]) -> BTreeSet<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

fn leadership(replicas: &[i32], isr: &[i32]) -> Leadership {
    Leadership {
        leader: LEADER,
        broker_epoch: 100,
        leader_epoch: EPOCH,
        partition_epoch: PARTITION_EPOCH,
        replicas: ids(replicas),
        isr: ids(isr),
        min_insync_replicas: 1,
        lag_max: LAG_MAX,
        high_watermark: Offset::ZERO,
        flushed: Offset::ZERO,
        log_end: Offset::ZERO,
        now: Duration::from_secs(1000),
    }
}

impl Fixture {
    fn new(isr: &[i32]) -> Self {
        Self::begin(leadership(&[1, 2, 3], isr))
    }

    fn begin(leadership: Leadership) -> Self {
        let now = leadership.now;
        Self { progress: Progress::new(leadership), now }
    }

    fn commands(&mut self) -> Vec<Command> {
        self.progress.take_commands().collect()
    }

    /// The leader appends up to an offset, and has it on disk.
    fn write(&mut self, end: i64) {
        self.progress.on_append(Offset(end));
        self.progress.on_flushed(Offset(end));
    }

    fn fetched(&self, replica: i32, offset: i64) -> Fetched {
        Fetched {
            replica: BrokerId(replica),
            broker_epoch: i64::from(replica) * 100,
            is_eligible: true,
            fetch_offset: Offset(offset),
            log_start_offset: Offset::ZERO,
            reports_flushes: true,
            now: self.now,
        }
    }

    fn fetch(&mut self, replica: i32, offset: i64) {
        let fetched = self.fetched(replica, offset);
        self.progress.on_fetch(fetched).unwrap();
    }

    fn flush(&mut self, replica: i32, flushed: i64) {
        self.progress.on_follower_flushed(FollowerFlushed {
            replica: BrokerId(replica),
            broker_epoch: i64::from(replica) * 100,
            leader_epoch: EPOCH,
            flushed: Offset(flushed),
        });
    }

    /// A follower asks for more, having everything up to an offset on disk.
    fn catch_up(&mut self, replica: i32, offset: i64) {
        self.fetch(replica, offset);
        self.flush(replica, offset);
    }

    fn commit(&mut self, isr: &[i32], partition_epoch: i32) {
        let isr = ids(isr);
        self.progress.on_isr_committed(CommittedIsr { leader_epoch: EPOCH, partition_epoch, isr });
    }

    fn refuse(&mut self, number: u64, error: ErrorCode) {
        self.progress.on_alter_refused(id(number), error, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.progress.on_time(self.now);
    }

    fn high_watermark(&self) -> i64 {
        self.progress.high_watermark().0
    }
}

fn id(number: u64) -> ProposalId {
    Proposal { number, leader_epoch: EPOCH, partition_epoch: 0, isr: Vec::new() }.id()
}

/// Members are written as (broker, broker epoch).
fn proposal(number: u64, partition_epoch: i32, isr: &[(i32, i64)]) -> Command {
    let member = |(broker, broker_epoch): &(i32, i64)| IsrMember {
        broker: BrokerId(*broker),
        broker_epoch: *broker_epoch,
    };
    let isr = isr.iter().map(member).collect();
    AlterPartition(Proposal { number, leader_epoch: EPOCH, partition_epoch, isr })
}

#[test]
fn an_append_is_visible_only_once_it_is_on_disk() {
    let mut leader = Fixture::begin(leadership(&[1], &[1]));
    leader.progress.on_append(Offset(10));
    assert_eq!(leader.commands(), []);

    leader.progress.on_flushed(Offset(7));
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(7))]);
    assert_eq!(leader.progress.deadline(), None, "who is alone waits for nobody");
}

#[test]
fn a_late_report_of_an_older_flush_changes_nothing() {
    let mut leader = Fixture::begin(leadership(&[1], &[1]));
    leader.write(10);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(10))]);

    leader.progress.on_flushed(Offset(4));
    assert_eq!(leader.commands(), []);
    assert_eq!(leader.high_watermark(), 10);
}

#[test]
fn the_whole_isr_must_hold_a_record_on_disk_before_it_is_visible() {
    let mut leader = Fixture::new(&[1, 2, 3]);
    leader.write(10);
    leader.catch_up(2, 10);
    leader.fetch(3, 10);
    assert_eq!(leader.commands(), [], "copied is not flushed");

    leader.flush(3, 7);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(7))]);
}

#[test]
fn the_leader_s_own_flush_may_be_the_last_one() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.progress.on_append(Offset(10));
    leader.catch_up(2, 10);
    assert_eq!(leader.commands(), []);
    leader.progress.on_flushed(Offset(10));
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(10))]);
}

#[test]
fn the_fetch_offset_counts_of_a_follower_that_reports_no_flushes() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(10);
    let fetched = Fetched { reports_flushes: false, ..leader.fetched(2, 6) };
    let standing = leader.progress.on_fetch(fetched).unwrap();
    assert_eq!(standing, FetchStanding { high_watermark: Offset(6), log_end: Offset(10) });
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(6))]);
}

#[test]
fn a_report_counts_in_its_leader_epoch_and_of_the_incarnation_that_fetches() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(10);
    let report = FollowerFlushed {
        replica: BrokerId(2),
        broker_epoch: 200,
        leader_epoch: EPOCH,
        flushed: Offset(5),
    };
    leader.progress.on_follower_flushed(report);
    assert_eq!(leader.high_watermark(), 0, "it has not fetched: who knows what it has");
    leader.fetch(2, 10);
    for wrong in [
        FollowerFlushed { leader_epoch: LeaderEpoch(EPOCH.0 - 1), ..report },
        FollowerFlushed { broker_epoch: 199, ..report },
        FollowerFlushed { flushed: Offset(11), ..report },
        FollowerFlushed { replica: BrokerId(9), ..report },
    ] {
        leader.progress.on_follower_flushed(wrong);
        assert_eq!(leader.high_watermark(), 0, "{wrong:?}");
    }
    leader.progress.on_follower_flushed(report);
    assert_eq!(leader.high_watermark(), 5);
}

#[test]
fn the_high_watermark_stands_still_while_the_committed_isr_is_too_small() {
    let mut leader =
        Fixture::begin(Leadership { min_insync_replicas: 2, ..leadership(&[1, 2], &[1]) });
    leader.write(5);
    assert_eq!(leader.commands(), []);
    assert!(!leader.progress.has_enough_replicas());

    // That somebody is about to join does not make the ISR larger yet.
    leader.catch_up(2, 5);
    assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100), (2, 200)])]);
    assert!(!leader.progress.has_enough_replicas());
    leader.commit(&[1, 2], 8);
    assert!(leader.progress.has_enough_replicas());
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5))]);

    leader.progress.on_min_insync_replicas_changed(9);
    assert_eq!(leader.progress.min_isr(), 2, "there are no more replicas than that");
    leader.progress.on_replicas_changed(&ids(&[1, 2, 3]));
    leader.write(6);
    leader.catch_up(2, 6);
    assert_eq!(leader.high_watermark(), 5);
}

#[test]
fn what_a_new_leader_finds_on_its_disk_is_visible_at_once_when_it_is_the_whole_isr() {
    let (high_watermark, end) = (Offset(3), Offset(9));
    let alone = leadership(&[1], &[1]);
    let alone = Leadership { high_watermark, flushed: end, log_end: end, ..alone };
    assert_eq!(Progress::new(alone.clone()).high_watermark(), end);
    let others = Leadership { isr: ids(&[1, 2]), replicas: ids(&[1, 2]), ..alone };
    assert_eq!(Progress::new(others.clone()).high_watermark(), high_watermark);
    let known_of_more = Leadership { high_watermark: Offset(12), ..others };
    assert_eq!(Progress::new(known_of_more).high_watermark(), end);
}

#[test]
fn a_follower_joins_once_it_has_on_disk_what_readers_may_have_seen_and_earlier_leaders_acknowledged()
 {
    let mut leader = Fixture::begin(Leadership {
        high_watermark: Offset(4),
        flushed: Offset(8),
        log_end: Offset(8),
        ..leadership(&[1, 2, 3], &[1, 3])
    });
    leader.fetch(2, 8);
    leader.flush(2, 7);
    assert_eq!(leader.commands(), [], "7 is above the high watermark and below the leader epoch");
    leader.flush(2, 8);
    assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100), (3, -1), (2, 200)])]);
}

#[test]
fn whoever_may_not_be_elected_is_not_proposed() {
    let mut leader = Fixture::new(&[1]);
    leader.write(5);
    let fenced = Fetched { is_eligible: false, ..leader.fetched(2, 5) };
    leader.progress.on_fetch(fenced).unwrap();
    leader.flush(2, 5);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5))]);
    leader.progress.on_eligibility_changed(BrokerId(3), true);
    assert_eq!(leader.commands(), [], "it has never fetched");
    leader.progress.on_eligibility_changed(BrokerId(2), true);
    assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100), (2, 200)])]);
}

#[test]
fn whoever_has_left_the_isr_joins_again_when_it_has_fetched_and_not_because_its_broker_is_back() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.catch_up(2, 5);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5))]);
    // Its disk is full, and it does not fetch. Then its broker is fenced, and comes back.
    leader.commit(&[1], PARTITION_EPOCH + 1);
    for is_eligible in [true, false, true] {
        leader.progress.on_eligibility_changed(BrokerId(2), is_eligible);
        assert_eq!(leader.commands(), []);
    }
    leader.write(9);
    assert_eq!(leader.high_watermark(), 9, "it is not waited for");
    let _ = leader.commands();

    leader.catch_up(2, 9);
    assert_eq!(leader.commands(), [proposal(1, 8, &[(1, 100), (2, 200)])]);
}

#[test]
fn whoever_was_fenced_while_it_fetched_joins_once_its_broker_is_back() {
    let mut leader = Fixture::new(&[1, 3]);
    leader.write(5);
    leader.catch_up(2, 0);
    assert_eq!(leader.commands().len(), 1, "the high watermark is where 2 is");
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    leader.progress.on_eligibility_changed(BrokerId(2), true);
    assert_eq!(leader.commands(), [], "what was refused is not proposed again before it fetches");
    leader.progress.on_eligibility_changed(BrokerId(2), false);
    let fenced = Fetched { is_eligible: false, ..leader.fetched(2, 5) };
    leader.progress.on_fetch(fenced).unwrap();
    leader.flush(2, 5);
    assert_eq!(leader.commands(), []);
    leader.progress.on_eligibility_changed(BrokerId(2), true);
    assert_eq!(leader.commands(), [proposal(2, 7, &[(1, 100), (3, -1), (2, 200)])]);
}

#[test]
fn a_proposed_joiner_counts_at_once_and_whoever_is_to_leave_counts_until_it_has_left() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.catch_up(2, 5);
    leader.catch_up(3, 5);
    let joins = proposal(1, 7, &[(1, 100), (2, 200), (3, 300)]);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5)), joins]);
    leader.write(9);
    leader.catch_up(2, 9);
    assert_eq!(leader.high_watermark(), 5, "3 may be in the ISR already");
    leader.commit(&[1, 2, 3], 8);

    leader.pass(LAG_MAX);
    leader.catch_up(2, 9);
    assert_eq!(leader.commands(), []);
    leader.pass(Duration::from_millis(1));
    assert_eq!(leader.commands(), [proposal(2, 8, &[(1, 100), (2, 200)])]);
    assert_eq!(leader.high_watermark(), 5, "3 may be elected still");
    leader.commit(&[1, 2], 9);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(9))]);
}

#[test]
fn the_high_watermark_waits_for_a_follower_that_is_nearly_there_but_not_for_ever() {
    let mut leader = Fixture::new(&[1]);
    leader.write(4);
    leader.catch_up(2, 4);
    assert_eq!(leader.commands().len(), 2);
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    leader.write(5);
    assert_eq!(leader.high_watermark(), 5, "whoever may not join is not waited for");
    // It was caught up a moment ago, may join, and is behind. If nobody waited, it would always be.
    leader.fetch(2, 5);
    leader.write(8);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5))]);
    let over = leader.now + LAG_MAX + TICK;
    assert_eq!(leader.progress.deadline(), Some(over));
    leader.progress.on_time(over - TICK);
    assert_eq!(leader.high_watermark(), 5);
    leader.progress.on_time(over);
    assert_eq!(leader.high_watermark(), 8);
    assert_eq!(leader.progress.deadline(), None);
}

#[test]
fn a_follower_that_flushes_more_slowly_than_it_fetches_stays_in_sync() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(10);
    let mut flushed = 0;
    for round in 1..200 {
        // A fetch each second, and each flush five seconds late: never where the last fetch found the leader.
        leader.pass(Duration::from_secs(1));
        leader.fetch(2, round * 10);
        leader.write((round + 1) * 10);
        if round > 5 {
            flushed = (round - 5) * 10;
            leader.flush(2, flushed);
        }
        assert!(leader.commands().iter().all(|command| matches!(command, AdvanceHighWatermark(_))));
    }
    assert_eq!(leader.high_watermark(), flushed);
}

#[test]
fn whoever_is_silent_or_behind_for_too_long_leaves_and_whoever_has_everything_stays() {
    let mut leader = Fixture::new(&[1, 2, 3]);
    leader.catch_up(2, 0);
    leader.catch_up(3, 0);
    assert_eq!(leader.progress.deadline(), None, "nobody is behind");
    leader.pass(LAG_MAX * 3);
    assert_eq!(leader.commands(), [], "silence is no sign while there is nothing to fetch");

    leader.write(10);
    leader.catch_up(2, 10);
    // 3 keeps fetching, and its disk hangs.
    leader.fetch(3, 10);
    let due = leader.progress.deadline().unwrap();
    assert!(due <= leader.now, "it was caught up long ago");
    leader.pass(Duration::ZERO);
    let leaves = proposal(1, 7, &[(1, 100), (2, 200)]);
    assert_eq!(leader.commands(), [leaves]);
    assert_eq!(leader.progress.deadline(), None, "one proposal at a time");
}

#[test]
fn a_late_or_repeated_answer_changes_nothing() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.catch_up(2, 5);
    leader.catch_up(3, 5);
    assert_eq!(leader.commands().len(), 2);
    leader.commit(&[1, 2], 7);
    leader.commit(&[1], 6);
    assert!(leader.progress.is_in_maximal_isr(BrokerId(3)), "the proposal is under way");
    leader.commit(&[1, 2, 3], 8);
    for _ in 0..2 {
        leader.commit(&[1, 2, 3], 8);
        leader.commit(&[1, 2], 7);
        leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    }
    assert_eq!(leader.progress.isr(), &ids(&[1, 2, 3]));
    assert_eq!(leader.progress.partition_epoch, 8);
    let elsewhere =
        CommittedIsr { leader_epoch: LeaderEpoch(EPOCH.0 + 1), partition_epoch: 9, isr: ids(&[1]) };
    leader.progress.on_isr_committed(elsewhere);
    assert_eq!(leader.progress.isr(), &ids(&[1, 2, 3]));
}

#[test]
fn an_isr_without_the_leader_ends_its_proposals() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.catch_up(3, 5);
    assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100), (2, -1), (3, 300)])]);
    leader.commit(&[2, 3], 8);
    leader.pass(LAG_MAX * 2);
    assert_eq!(leader.commands(), []);
    assert_eq!(leader.progress.isr(), &ids(&[1, 2]));
}

#[test]
fn a_refusal_is_taken_as_kafka_takes_it() {
    let proposed = || {
        let mut leader = Fixture::new(&[1]);
        leader.write(5);
        leader.catch_up(2, 5);
        assert_eq!(leader.commands().len(), 2);
        leader
    };
    for error in [ErrorCode::INELIGIBLE_REPLICA, ErrorCode::OPERATION_NOT_ATTEMPTED] {
        let mut leader = proposed();
        leader.refuse(1, error);
        assert!(!leader.progress.is_in_maximal_isr(BrokerId(2)));
        assert_eq!(leader.commands(), [], "not at once");
        leader.fetch(2, 5);
        assert_eq!(leader.commands(), [proposal(2, 7, &[(1, 100), (2, 200)])]);
    }
    for error in [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::FENCED_LEADER_EPOCH,
        ErrorCode::INVALID_UPDATE_VERSION,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::NEW_LEADER_ELECTED,
    ] {
        let mut leader = proposed();
        leader.refuse(1, error);
        leader.pass(LAG_MAX * 2);
        assert_eq!(leader.commands(), [], "{error:?}");
        assert!(leader.progress.is_in_maximal_isr(BrokerId(2)), "it may have been applied");
        leader.commit(&[1], 9);
        assert_eq!(leader.commands(), [proposal(2, 9, &[(1, 100), (2, 200)])]);
    }
    for error in [ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode::NETWORK_EXCEPTION] {
        let mut leader = proposed();
        leader.refuse(1, error);
        leader.refuse(1, error);
        assert_eq!(leader.commands(), []);
        assert_eq!(leader.progress.deadline(), Some(leader.now + RETRY_BACKOFF));
        leader.pass(RETRY_BACKOFF);
        assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100), (2, 200)])]);
        assert_eq!(leader.progress.deadline(), None);
    }
}

#[test]
fn a_refused_leave_is_not_asked_for_again_at_once() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.pass(LAG_MAX + TICK);
    assert_eq!(leader.commands(), [proposal(1, 7, &[(1, 100)])]);
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    leader.pass(Duration::ZERO);
    assert_eq!(leader.commands(), []);
    assert_eq!(leader.progress.deadline(), Some(leader.now + LAG_MAX / 2));
    leader.pass(LAG_MAX / 2);
    assert_eq!(leader.commands(), [proposal(2, 7, &[(1, 100)])]);
}

const TICK: Duration = Duration::from_millis(1);

#[test]
fn a_new_incarnation_of_a_follower_begins_with_nothing_and_the_old_one_is_not_heard() {
    let mut leader = Fixture::new(&[1]);
    leader.write(5);
    leader.catch_up(2, 5);
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    let _ = leader.commands();
    // Its disk was replaced.
    let empty = Fetched { broker_epoch: 250, ..leader.fetched(2, 0) };
    leader.progress.on_fetch(empty).unwrap();
    leader.flush(2, 5);
    assert_eq!(leader.commands(), [], "what the old one had on disk does not count");
    let old = leader.fetched(2, 5);
    let refusal = leader.progress.on_fetch(old).unwrap_err();
    assert_eq!(
        refusal,
        FetchRefusal::OldBrokerEpoch { replica: BrokerId(2), found: 200, current: 250 }
    );
    assert_eq!(refusal.code(), ErrorCode::NOT_LEADER_OR_FOLLOWER);
    leader.write(6);
    assert_eq!(leader.high_watermark(), 6, "nor is it waited for");
}

#[test]
fn a_follower_whose_log_ends_before_what_it_had_on_disk_has_lost_that() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    leader.catch_up(2, 5);
    leader.fetch(2, 0);
    leader.write(6);
    leader.flush(2, 3);
    assert_eq!(leader.high_watermark(), 5);
    leader.flush(2, 6);
    assert_eq!(leader.high_watermark(), 6);
}

#[test]
fn whoever_is_not_a_replica_or_asks_beyond_the_end_is_refused() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    let refusal = leader.progress.on_fetch(leader.fetched(4, 0)).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::UNKNOWN_LEADER_EPOCH);
    let refusal = leader.progress.on_fetch(leader.fetched(2, 6)).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::OFFSET_OUT_OF_RANGE);
    leader.progress.on_replicas_changed(&ids(&[1, 2, 4]));
    leader.fetch(4, 5);
}

#[test]
fn an_answer_to_what_was_proposed_in_an_earlier_epoch_is_none_to_what_is_proposed_now() {
    let mut leader = Fixture::new(&[1]);
    leader.write(5);
    leader.catch_up(2, 5);
    let join = proposal(1, PARTITION_EPOCH, &[(1, 100), (2, 200)]);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5)), join.clone()]);
    let earlier = LeaderEpoch(EPOCH.0 - 1);
    let before =
        Proposal { number: 1, leader_epoch: earlier, partition_epoch: 0, isr: Vec::new() }.id();
    leader.progress.on_alter_refused(before, ErrorCode::FENCED_LEADER_EPOCH, leader.now);
    leader.progress.on_alter_accepted(before);
    leader.progress.on_alter_unanswered(before, leader.now);
    leader.refuse(1, ErrorCode::NETWORK_EXCEPTION);
    leader.pass(RETRY_BACKOFF);
    assert_eq!(leader.commands(), [join], "it is asked for until its own answer is there");
}

#[test]
fn a_refusal_is_not_believed_while_another_copy_may_be_on_its_way() {
    let mut leader = Fixture::new(&[1]);
    leader.write(5);
    leader.catch_up(2, 5);
    let join = proposal(1, PARTITION_EPOCH, &[(1, 100), (2, 200)]);
    assert_eq!(leader.commands(), [AdvanceHighWatermark(Offset(5)), join.clone()]);
    leader.progress.on_alter_unanswered(id(1), leader.now);
    leader.pass(RETRY_BACKOFF);
    assert_eq!(leader.commands(), std::slice::from_ref(&join));
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    leader.write(6);
    assert_eq!(leader.high_watermark(), 5, "the copy before may make it a member yet");
    leader.pass(DOUBT);
    assert_eq!(leader.commands(), [join]);
    leader.refuse(1, ErrorCode::INELIGIBLE_REPLICA);
    assert_eq!(leader.high_watermark(), 6);
}

#[test]
fn what_is_visible_is_not_enough_once_too_few_are_in_sync() {
    let mut leader =
        Fixture::begin(Leadership { min_insync_replicas: 2, ..leadership(&[1, 2, 3], &[1, 2]) });
    leader.write(5);
    leader.catch_up(2, 5);
    assert_eq!(leader.high_watermark(), 5);
    assert!(leader.progress.is_still_enough());
    leader.commit(&[1], PARTITION_EPOCH + 1);
    assert!(!leader.progress.is_still_enough());
    leader.catch_up(3, 5);
    assert!(leader.progress.is_still_enough(), "who is proposed counts");
    leader.progress.on_min_insync_replicas_changed(3);
    assert!(!leader.progress.is_still_enough());
    leader.progress.on_replicas_changed(&ids(&[1, 3]));
    assert!(leader.progress.is_still_enough(), "no more are asked for than there are");
}

#[test]
fn a_follower_can_be_read_from_that_is_in_sync_and_has_the_offset() {
    let mut leader = Fixture::new(&[1, 2]);
    leader.write(5);
    let readable = |leader: &Fixture, offset| {
        let found = leader.progress.readable_at(Offset(offset));
        found.map(|it| (it.replica.0, it.flushed.0)).collect::<Vec<_>>()
    };
    assert_eq!(readable(&leader, 0), [], "nothing is known of it yet");
    let fetched = Fetched { log_start_offset: Offset(2), ..leader.fetched(2, 4) };
    leader.progress.on_fetch(fetched).unwrap();
    assert_eq!(readable(&leader, 3), [], "it has said nothing of its disk");
    leader.flush(2, 4);
    let found: Vec<_> = (1..6).map(|offset| readable(&leader, offset)).collect();
    assert_eq!(found, [vec![], vec![(2, 4)], vec![(2, 4)], vec![(2, 4)], vec![]]);
    leader.catch_up(3, 5);
    assert_eq!(readable(&leader, 4), [(2, 4)], "a joiner may still be refused");
    leader.commit(&[1, 2, 3], PARTITION_EPOCH + 1);
    assert_eq!(readable(&leader, 4), [(2, 4), (3, 5)]);
}

#[test]
fn records_are_deleted_once_every_replica_that_is_alive_begins_later() {
    let mut leader = Fixture::new(&[1, 2, 3]);
    leader.write(5);
    let low = |leader: &Fixture, alive: &[i32]| {
        leader.progress.low_watermark(Offset(4), |replica| alive.contains(&replica.0))
    };
    assert_eq!(low(&leader, &[]), Some(Offset(4)));
    assert_eq!(low(&leader, &[2]), None);
    let fetched = Fetched { log_start_offset: Offset(2), ..leader.fetched(2, 5) };
    leader.progress.on_fetch(fetched).unwrap();
    assert_eq!(low(&leader, &[2]), Some(Offset(2)));
    assert_eq!(low(&leader, &[2, 3]), None);
}
