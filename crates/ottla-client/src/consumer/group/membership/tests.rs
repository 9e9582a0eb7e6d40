//! One member against a coordinator that says whatever a test wants, at times that a test decides.

use std::ops::{Deref, DerefMut};

use ottla_protocol::messages::join_group_response::JoinGroupResponseMember;

use super::*;

const SESSION: Duration = Duration::from_secs(9);
const REBALANCE: Duration = Duration::from_secs(60);
const COMMIT: Duration = Duration::from_secs(1);
const RECOUNT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

struct Context {
    membership: Membership,
    now: Instant,
}

impl Deref for Context {
    type Target = Membership;

    fn deref(&self) -> &Membership {
        &self.membership
    }
}

impl DerefMut for Context {
    fn deref_mut(&mut self) -> &mut Membership {
        &mut self.membership
    }
}

impl Context {
    /// A member whose first JoinGroup is on its way.
    fn new() -> Self {
        let settings = Settings {
            group: "g".to_owned(),
            topics: vec!["t".into()],
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            commit_interval: COMMIT,
            recount_interval: RECOUNT,
            patience: PATIENCE,
        };
        let now = Instant::now();
        let mut context = Self { membership: Membership::new(settings, now), now };
        assert_eq!(context.take_commands(), [join("", None)]);
        context
    }

    /// A follower with these partitions in generation 1.
    fn following(partitions: &[i32]) -> Self {
        let mut context = Self::new();
        let now = context.now;
        context.on_joined(now, Ok(joined("m", "other")));
        assert_eq!(context.take_commands(), [sync(&[])]);
        context.on_synced(now, Ok(synced(partitions)));
        assert_eq!(context.take_commands(), [assigned(1, partitions)]);
        context
    }

    /// The only member, which leads; its topic has two partitions.
    fn leading() -> Self {
        let mut context = Self::new();
        let now = context.now;
        context.on_joined(now, Ok(joined("m", "m")));
        assert_eq!(context.take_commands(), [Command::Count(["t".into()].into())]);
        context.on_counted(now, Ok(counts(2)));
        assert_eq!(context.take_commands(), [sync(&[("m", &[0, 1])])]);
        context.on_synced(now, Ok(synced(&[0, 1])));
        assert_eq!(context.take_commands(), [assigned(1, &[0, 1])]);
        context
    }

    /// Goes on in time, waking the member when it wants to be woken, until it has something to say.
    fn sleep(&mut self, duration: Duration) -> Vec<Command> {
        let until = self.now + duration;
        while let Some(deadline) = self.deadline().filter(|it| *it <= until) {
            self.now = deadline.max(self.now);
            let now = self.now;
            self.on_time(now);
            let commands = self.take_commands();
            if !commands.is_empty() {
                return commands;
            }
        }
        self.now = until;
        Vec::new()
    }

    fn heartbeat_is(&mut self, result: Result<(), ClientError>) -> Vec<Command> {
        let (now, assignment) = (self.now, self.assignment);
        self.on_heartbeat(now, assignment, result);
        self.take_commands()
    }

    fn commit_is(&mut self, code: ErrorCode) -> Vec<Command> {
        let (now, assignment) = (self.now, self.assignment);
        let what = "w".to_owned();
        let outcomes = BTreeMap::from([(partition(0), check(what, code, None))]);
        self.on_committed(now, assignment, Ok(outcomes));
        self.take_commands()
    }

    fn done(&mut self, offset: i64) -> Vec<Command> {
        let (now, assignment) = (self.now, self.assignment);
        self.on_done(now, assignment, partition(0), Offset(offset));
        self.take_commands()
    }

    fn release(&mut self) -> Vec<Command> {
        let (now, assignment) = (self.now, self.assignment);
        self.on_released(now, assignment);
        self.take_commands()
    }

    fn leave(&mut self) -> Vec<Command> {
        let now = self.now;
        self.on_leave(now, "enough");
        self.take_commands()
    }

    fn fails_with(&mut self, code: ErrorCode) {
        assert!(self.is_over());
        let failure = self.take_failure();
        assert!(matches!(failure, Some(ClientError::Refused { code: it, .. }) if it == code));
    }
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("t", index)
}

fn partitions(indexes: &[i32]) -> Vec<TopicPartition> {
    indexes.iter().copied().map(partition).collect()
}

fn counts(partitions: i32) -> BTreeMap<Arc<str>, i32> {
    BTreeMap::from([("t".into(), partitions)])
}

fn refused<T>(code: ErrorCode) -> Result<T, ClientError> {
    Err(ClientError::refused("w", code))
}

/// The connection broke.
fn unheard<T>() -> Result<T, ClientError> {
    Err(ClientError::Unreachable(Vec::new()))
}

fn join(member_id: &str, reason: Option<&str>) -> Command {
    Command::Join(JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 9_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: range::subscription(&["t".into()]),
        }],
        reason: reason.map(Into::into),
        ..JoinGroupRequest::default()
    })
}

fn joined(member_id: &str, leader: &str) -> JoinGroupResponse {
    let member = JoinGroupResponseMember {
        member_id: member_id.into(),
        metadata: range::subscription(&["t".into()]),
        ..JoinGroupResponseMember::default()
    };
    let leads = member_id == leader;
    JoinGroupResponse {
        generation_id: 1,
        member_id: member_id.into(),
        leader: leader.into(),
        members: if leads { vec![member] } else { Vec::new() },
        ..JoinGroupResponse::default()
    }
}

fn sync(parts: &[(&str, &[i32])]) -> Command {
    let assignment = |(member, indexes): &(&str, &[i32])| SyncGroupRequestAssignment {
        member_id: (*member).into(),
        assignment: range::assignment(&partitions(indexes)),
    };
    Command::Sync(SyncGroupRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: "m".into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: parts.iter().map(assignment).collect(),
        ..SyncGroupRequest::default()
    })
}

fn synced(indexes: &[i32]) -> SyncGroupResponse {
    let assignment = range::assignment(&partitions(indexes));
    SyncGroupResponse { assignment, ..SyncGroupResponse::default() }
}

fn assigned(assignment: u64, indexes: &[i32]) -> Command {
    Command::Tell(Notice::Assigned { assignment, partitions: partitions(indexes) })
}

fn revoked() -> Command {
    Command::Tell(Notice::Revoked)
}

fn heartbeat(assignment: u64) -> Command {
    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: "m".into(),
        group_instance_id: None,
    };
    Command::Heartbeat { assignment, request }
}

fn commit(offset: i64) -> Command {
    Command::Commit(Commit {
        assignment: 1,
        member_id: "m".into(),
        generation: 1,
        offsets: BTreeMap::from([(partition(0), Offset(offset))]),
    })
}

fn leave() -> Command {
    Command::Leave(LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![MemberIdentity {
            member_id: "m".into(),
            group_instance_id: None,
            reason: Some("enough".into()),
        }],
        ..LeaveGroupRequest::default()
    })
}

#[test]
fn a_new_member_is_given_an_id_and_joins_with_it() {
    let mut context = Context::new();
    let now = context.now;
    let given = JoinGroupResponse {
        error_code: ErrorCode::MEMBER_ID_REQUIRED,
        member_id: "m".into(),
        ..JoinGroupResponse::default()
    };
    context.on_joined(now, Ok(given));
    assert_eq!(context.take_commands(), [join("m", None)]);
}

#[test]
fn a_follower_asks_for_its_part_and_begins_with_it() {
    Context::following(&[1]);
}

#[test]
fn a_follower_that_gets_nothing_has_nothing() {
    let mut context = Context::new();
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "other")));
    context.on_synced(now, Ok(SyncGroupResponse::default()));
    assert_eq!(context.take_commands().pop(), Some(assigned(1, &[])));
}

#[test]
fn a_leader_shares_out_the_partitions_of_all_subscribed_topics() {
    Context::leading();
}

#[test]
fn heartbeats_go_out_one_at_a_time() {
    let mut context = Context::following(&[0]);
    assert_eq!(context.sleep(SESSION / 3), [heartbeat(1)]);
    assert_eq!(context.sleep(SESSION), [], "it is not answered yet");
    assert_eq!(context.heartbeat_is(Ok(())), []);
    assert_eq!(context.sleep(SESSION / 3), [heartbeat(1)]);
}

#[test]
fn what_is_done_is_committed_at_once_and_then_once_an_interval() {
    let mut context = Context::following(&[0]);
    assert_eq!(context.done(5), [commit(5)]);
    assert_eq!(context.done(6), []);
    assert_eq!(context.commit_is(ErrorCode::NONE), []);
    assert_eq!(context.sleep(COMMIT), [commit(6)]);
}

#[test]
fn before_a_rebalance_the_application_lets_go_and_what_it_has_done_is_committed() {
    let mut context = Context::following(&[0]);
    context.sleep(SESSION / 3);
    assert_eq!(context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS)), [revoked()]);
    assert_eq!(context.done(7), [], "the commit waits for the last of it");
    assert_eq!(context.release(), [commit(7)]);
    assert_eq!(context.commit_is(ErrorCode::NONE), [join("m", Some("the group rebalances"))]);
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "other")));
    context.on_synced(now, Ok(synced(&[1])));
    assert_eq!(context.take_commands().pop(), Some(assigned(2, &[1])));
}

#[test]
fn with_nothing_left_to_commit_it_joins_as_soon_as_the_application_has_let_go() {
    let mut context = Context::following(&[0]);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(context.release(), [join("m", Some("the group rebalances"))]);
}

#[test]
fn a_commit_in_flight_is_waited_for_and_what_was_done_since_follows_it() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.done(6);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(context.release(), []);
    assert_eq!(context.commit_is(ErrorCode::NONE), [commit(6)]);
    assert_eq!(context.commit_is(ErrorCode::NONE), [join("m", Some("the group rebalances"))]);
}

#[test]
fn while_it_lets_go_it_shows_that_it_lives_and_does_not_wait_for_ever() {
    let mut context = Context::following(&[0]);
    context.sleep(SESSION / 3);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    for _ in 0..9 {
        assert_eq!(context.sleep(SESSION / 3), [heartbeat(1)]);
        assert_eq!(context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS)), []);
    }
    assert_eq!(context.sleep(SESSION / 3), [join("m", Some("the group rebalances"))]);
    assert_eq!(context.release(), [], "too late to matter");
    assert_eq!(context.done(9), [], "others have it");
}

#[test]
fn a_member_that_was_forgotten_drops_everything_and_joins_as_a_new_one() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.sleep(SESSION / 3);
    let commands = context.heartbeat_is(refused(ErrorCode::UNKNOWN_MEMBER_ID));
    let reason = "w: UNKNOWN_MEMBER_ID".to_owned();
    assert_eq!(commands, [Command::Tell(Notice::Lost { reason: reason.clone() })]);
    assert_eq!(context.sleep(COMMIT), [join("", Some(&*reason))]);
    assert_eq!(context.commit_is(ErrorCode::NONE), [], "old news");
}

#[test]
fn a_member_of_a_past_generation_keeps_its_id() {
    let mut context = Context::following(&[0]);
    context.heartbeat_is(refused(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(context.sleep(COMMIT), [join("m", Some("w: ILLEGAL_GENERATION"))]);
}

#[test]
fn a_commit_that_tells_of_a_rebalance_begins_it_as_a_heartbeat_does() {
    let mut context = Context::following(&[0]);
    context.done(5);
    assert_eq!(context.commit_is(ErrorCode::REBALANCE_IN_PROGRESS), [revoked()]);
    assert_eq!(context.release(), [commit(5)]);
    let joined = join("m", Some("the group rebalances"));
    assert_eq!(context.commit_is(ErrorCode::REBALANCE_IN_PROGRESS), [joined], "once is enough");
}

#[test]
fn a_commit_is_sent_again_while_the_coordinator_cannot_take_it_and_given_up_in_the_end() {
    let mut context = Context::following(&[0]);
    assert_eq!(context.done(5), [commit(5)]);
    let start = context.now;
    let mut attempts = 0;
    while !context.is_over() {
        attempts += 1;
        context.commit_is(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        while !context.is_over() && !context.sleep(PATIENCE).contains(&commit(5)) {
            context.heartbeat_is(Ok(()));
        }
        context.heartbeat_is(Ok(()));
    }
    assert!(PATIENCE < context.now - start && attempts < 40, "{attempts} attempts");
    context.fails_with(ErrorCode::COORDINATOR_NOT_AVAILABLE);
}

#[test]
fn the_last_commit_is_not_waited_for_for_ever() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    context.release();
    let mut said = Vec::new();
    while !matches!(said.last(), Some(Command::Join(_))) {
        said.extend(context.sleep(REBALANCE));
        assert!(said.iter().all(|it| matches!(it, Command::Heartbeat { .. } | Command::Join(_))));
    }
}

#[test]
fn an_offset_in_a_topic_that_is_gone_is_not_missed() {
    let mut context = Context::following(&[0]);
    context.done(5);
    assert_eq!(context.commit_is(ErrorCode::UNKNOWN_TOPIC_ID), []);
    assert_eq!(context.sleep(COMMIT), []);
}

#[test]
fn a_commit_that_is_not_allowed_ends_it() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.commit_is(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    context.fails_with(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
}

#[test]
fn a_coordinator_that_moves_is_looked_for_and_nothing_is_lost() {
    let mut context = Context::following(&[0]);
    context.sleep(SESSION / 3);
    let commands = context.heartbeat_is(refused(ErrorCode::NOT_COORDINATOR));
    assert_eq!(commands, [Command::ForgetCoordinator]);
    assert_eq!(context.sleep(COMMIT), [heartbeat(1)], "sooner than usual");
    assert_eq!(context.heartbeat_is(unheard()), [Command::ForgetCoordinator]);
    assert_eq!(context.sleep(COMMIT), [heartbeat(1)]);
    assert_eq!(context.heartbeat_is(Ok(())), []);
    assert_eq!(context.done(5), [commit(5)]);
}

#[test]
fn a_coordinator_that_stays_away_ends_it() {
    let mut context = Context::following(&[0]);
    let start = context.now;
    while !context.is_over() {
        assert_eq!(context.sleep(SESSION), [heartbeat(1)]);
        context.heartbeat_is(unheard());
    }
    assert!(PATIENCE < context.now - start);
    assert!(matches!(context.take_failure(), Some(ClientError::Unreachable(_))));
}

#[test]
fn joining_goes_on_while_the_coordinator_is_being_found() {
    let mut context = Context::new();
    for error in [refused(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS), unheard()] {
        let now = context.now;
        context.on_joined(now, error);
        assert_eq!(context.take_commands(), [Command::ForgetCoordinator]);
        assert_eq!(context.sleep(COMMIT), [join("", None)]);
    }
}

#[test]
fn a_group_whose_members_assign_in_another_way_refuses_it() {
    let mut context = Context::new();
    let now = context.now;
    context.on_joined(now, refused(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
    context.fails_with(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error_and_no_panic() {
    for nonsense in [
        JoinGroupResponse { generation_id: -1, ..joined("m", "m") },
        JoinGroupResponse { member_id: "".into(), ..joined("m", "other") },
    ] {
        let mut context = Context::new();
        let now = context.now;
        context.on_joined(now, Ok(nonsense));
        context.fails_with(ErrorCode::UNKNOWN_SERVER_ERROR);
    }
    let mut context = Context::new();
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "other")));
    let assignment = Bytes::from_static(b"\xff");
    context.on_synced(now, Ok(SyncGroupResponse { assignment, ..SyncGroupResponse::default() }));
    context.fails_with(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
}

#[test]
fn a_rebalance_that_overtakes_an_assignment_is_joined() {
    let mut context = Context::new();
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "other")));
    context.take_commands();
    context.on_synced(now, refused(ErrorCode::REBALANCE_IN_PROGRESS));
    assert_eq!(context.take_commands(), []);
    assert_eq!(context.sleep(COMMIT), [join("m", None)]);
}

#[test]
fn a_leader_that_cannot_learn_of_the_topics_joins_again() {
    let mut context = Context::new();
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "m")));
    context.take_commands();
    context.on_counted(now, unheard());
    assert_eq!(context.take_commands(), [Command::ForgetCoordinator]);
    assert_eq!(context.sleep(COMMIT), [join("m", None)]);
}

#[test]
fn a_leader_joins_again_when_a_topic_has_more_partitions() {
    let mut context = Context::leading();
    let count = Command::Count(["t".into()].into());
    let recounted = |context: &mut Context| {
        loop {
            match context.sleep(RECOUNT).pop() {
                Some(Command::Heartbeat { .. }) => drop(context.heartbeat_is(Ok(()))),
                other => break other,
            }
        }
    };
    assert_eq!(recounted(&mut context), Some(count.clone()));
    let now = context.now;
    context.on_counted(now, Ok(counts(2)));
    assert_eq!(context.take_commands(), []);
    assert_eq!(recounted(&mut context), Some(count));
    let now = context.now;
    context.on_counted(now, Ok(counts(3)));
    assert_eq!(context.take_commands(), [revoked()]);
    let reason = "topic \"t\" has 3 partitions now";
    assert_eq!(context.release(), [join("m", Some(reason))]);
}

#[test]
fn a_member_that_leaves_commits_what_is_done_and_says_why_it_goes() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.commit_is(ErrorCode::NONE);
    context.done(6);
    assert_eq!(context.leave(), [commit(6)], "it does not wait for the interval");
    assert_eq!(context.commit_is(ErrorCode::NONE), [leave()]);
    context.on_left();
    assert!(context.is_over() && context.take_failure().is_none());
}

#[test]
fn a_member_leaves_also_while_it_lets_go() {
    let mut context = Context::following(&[0]);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    context.done(5);
    context.release();
    assert_eq!(context.leave(), []);
    assert_eq!(context.commit_is(ErrorCode::NONE), [leave()]);
}

#[test]
fn a_member_leaves_also_while_it_joins() {
    let mut context = Context::following(&[0]);
    context.heartbeat_is(refused(ErrorCode::REBALANCE_IN_PROGRESS));
    context.release();
    assert_eq!(context.leave(), [leave()]);
    let now = context.now;
    context.on_joined(now, Ok(joined("m", "m")));
    assert_eq!(context.take_commands(), [], "it is on its way out");
}

#[test]
fn who_never_was_a_member_just_goes() {
    let mut context = Context::new();
    assert_eq!(context.leave(), []);
    assert!(context.is_over());
}

#[test]
fn who_is_forgotten_while_it_leaves_is_gone() {
    let mut context = Context::following(&[0]);
    context.done(5);
    context.leave();
    context.commit_is(ErrorCode::UNKNOWN_MEMBER_ID);
    assert!(context.is_over() && context.take_failure().is_none());
}
