//! One member of a group of the classic protocol: joins, leads if told to, shows that it lives, lets go, leaves. Pure.
//!
//! ```text
//! AwaitingPause ─► AwaitingJoin ─┬─ leads: AwaitingCounts ─┬─► AwaitingSync ─► Stable
//!       ▲                        └─ follows ───────────────┘                     │ others join or leave
//!       │                                                                        ▼
//!       └─ AwaitingLastCommit ◄── the application has let go, or its time is up ─ AwaitingRelease
//! ```
//! The group may forget a member in any state; then what it had belongs to others, and it joins anew. Leaving is
//! possible in any state, too: with a last commit where something is assigned.
//!
//! Everybody lets go of everything before a rebalance (Kafka calls this eager): nobody reads what somebody else still
//! has, and what was done is committed before somebody else goes on from there.
//!
//! Answers carry the number of the assignment that they were asked in: one that comes after it is old news.
//!
//! Invariants, checked after every event by [`Membership::check`]:
//! - something is assigned only in `Stable`, `AwaitingRelease` and `AwaitingLastCommit`
//! - nothing is left to commit where nothing is assigned
//! - who is assigned something has a member id and a generation

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset, TopicPartition};
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
    SyncGroupResponse,
};
use tokio::time::Instant;

use super::progress::{Offsets, Progress};
use super::range::{self, Subscriber};
use crate::admin::check;
use crate::consumer::Trouble;
use crate::error::ClientError;
use crate::groups::Outcomes;

/// What does not change while a member lives.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) group: String,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) commit_interval: Duration,
    /// How often the leader looks whether topics have other partitions.
    pub(super) recount_interval: Duration,
    /// How long nothing may succeed before it is given up.
    pub(super) patience: Duration,
}

#[derive(Debug)]
pub(super) struct Membership {
    settings: Settings,
    state: State,
    /// Empty until the coordinator has given one out.
    member_id: ByteString,
    /// −1 outside of any.
    generation: i32,
    /// How many assignments there were: the number of the present one.
    assignment: u64,
    /// Why it joins, for whoever wonders.
    reason: String,
    progress: Progress,
    heartbeat: Heartbeat,
    /// Partitions by topic as they were when this member, the leader, assigned them.
    counts: Option<BTreeMap<Arc<str>, i32>>,
    recount_at: Instant,
    trouble: Option<Trouble>,
    /// Of commits alone: a coordinator may be alive and unable to store.
    commit_trouble: Option<Trouble>,
    failure: Option<ClientError>,
    commands: Vec<Command>,
}

/// Named after what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    AwaitingPause { until: Instant },
    AwaitingJoin,
    AwaitingCounts { members: Vec<Subscriber> },
    AwaitingSync,
    Stable,
    AwaitingRelease { until: Instant },
    AwaitingLastCommit { until: Instant, then: Then },
    AwaitingLeave,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    Join,
    Leave(String),
}

#[derive(Debug)]
struct Heartbeat {
    in_flight: bool,
    due: Instant,
}

/// What must happen next. Each request is answered by the event of its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Join(JoinGroupRequest),
    /// How many partitions these topics have.
    Count(BTreeSet<Arc<str>>),
    Sync(SyncGroupRequest),
    Heartbeat {
        assignment: u64,
        request: HeartbeatRequest,
    },
    Commit(Commit),
    Leave(LeaveGroupRequest),
    /// The coordinator may be another one: find it before the next request.
    ForgetCoordinator,
    Tell(Notice),
}

/// How far the member is done, as its group is to remember it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) assignment: u64,
    pub(super) member_id: ByteString,
    pub(super) generation: i32,
    pub(super) offsets: Offsets,
}

/// What the application is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    Assigned {
        assignment: u64,
        partitions: Vec<TopicPartition>,
    },
    /// To be let go: [`Membership::on_released`].
    Revoked,
    /// Gone already, for this reason.
    Lost {
        reason: String,
    },
}

/// What the coordinator's refusal says about the member.
enum Meaning {
    Rebalancing,
    /// It does not know the member: join as a new one.
    Forgotten,
    /// It knows the member, and the generation has passed.
    Outdated,
    MayPass,
    Fatal,
}

fn meaning(error: &ClientError) -> Meaning {
    let code = match error {
        ClientError::Refused { code, .. } => *code,
        error if error.is_retriable() => return Meaning::MayPass,
        _ => return Meaning::Fatal,
    };
    match code {
        ErrorCode::REBALANCE_IN_PROGRESS => Meaning::Rebalancing,
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND => Meaning::Forgotten,
        // The latter two are said of a group whose newer members have epochs.
        ErrorCode::ILLEGAL_GENERATION
        | ErrorCode::FENCED_MEMBER_EPOCH
        | ErrorCode::STALE_MEMBER_EPOCH => Meaning::Outdated,
        code if code.is_retriable() => Meaning::MayPass,
        _ => Meaning::Fatal,
    }
}

impl Membership {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let mut membership = Self {
            progress: Progress::new(settings.commit_interval),
            settings,
            state: State::AwaitingJoin,
            member_id: ByteString::new(),
            generation: -1,
            assignment: 0,
            reason: String::new(),
            heartbeat: Heartbeat { in_flight: false, due: now },
            counts: None,
            recount_at: now,
            trouble: None,
            commit_trouble: None,
            failure: None,
            commands: Vec::new(),
        };
        membership.join();
        membership
    }

    pub(super) fn take_commands(&mut self) -> Vec<Command> {
        self.check();
        std::mem::take(&mut self.commands)
    }

    /// Why it has ended, if not because it was to leave.
    #[must_use]
    pub(super) fn take_failure(&mut self) -> Option<ClientError> {
        self.failure.take()
    }

    /// Whether it has left, or failed: no further event matters.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// When [`Membership::on_time`] is to be called, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let heartbeat = (!self.heartbeat.in_flight).then_some(self.heartbeat.due);
        match &self.state {
            State::AwaitingPause { until } => Some(*until),
            State::Stable => {
                let recount = self.counts.as_ref().map(|_| self.recount_at);
                [heartbeat, self.progress.deadline(), recount].into_iter().flatten().min()
            }
            State::AwaitingRelease { until } => heartbeat.into_iter().chain([*until]).min(),
            State::AwaitingLastCommit { until, .. } => {
                [heartbeat, self.progress.deadline(), Some(*until)].into_iter().flatten().min()
            }
            State::AwaitingJoin
            | State::AwaitingCounts { .. }
            | State::AwaitingSync
            | State::AwaitingLeave
            | State::Over => None,
        }
    }

    pub(super) fn on_time(&mut self, now: Instant) {
        match &self.state {
            State::AwaitingPause { until } if *until <= now => self.join(),
            State::AwaitingRelease { until } if *until <= now => self.finish(now, Then::Join),
            State::AwaitingLastCommit { until, then } if *until <= now => {
                let then = then.clone();
                self.go_on(then);
            }
            State::AwaitingLastCommit { .. } => self.go_on_if_committed(now),
            _ => {}
        }
        if self.is_assigned() && !self.heartbeat.in_flight && self.heartbeat.due <= now {
            self.send_heartbeat(now);
        }
        if self.state == State::Stable {
            self.commit(now);
            self.recount_if_due(now);
        }
    }

    fn is_assigned(&self) -> bool {
        matches!(
            self.state,
            State::Stable | State::AwaitingRelease { .. } | State::AwaitingLastCommit { .. }
        )
    }

    fn tell(&mut self, notice: Notice) {
        self.commands.push(Command::Tell(notice));
    }

    fn fail(&mut self, error: ClientError) {
        self.progress.forget();
        self.state = State::Over;
        self.failure = Some(error);
    }

    /// Something failed, once more or for the first time, in a way that may pass: when to go on, or `None` when it was
    /// endured for long enough.
    fn endure(
        &mut self,
        earlier: Option<Trouble>,
        now: Instant,
        error: &ClientError,
    ) -> Option<Trouble> {
        let trouble = Trouble::after(earlier, now);
        if self.settings.patience < now.duration_since(trouble.since) {
            self.fail(error.clone());
            return None;
        }
        if matches!(meaning(error), Meaning::MayPass) {
            self.commands.push(Command::ForgetCoordinator);
        }
        Some(trouble)
    }

    fn check(&self) {
        assert!(self.is_assigned() || self.progress.is_committed(), "of others' partitions");
        assert!(!self.is_assigned() || (self.generation >= 0 && !self.member_id.is_empty()));
    }
}

/// Joining.
impl Membership {
    fn join(&mut self) {
        self.generation = -1;
        self.counts = None;
        self.state = State::AwaitingJoin;
        self.commands.push(Command::Join(JoinGroupRequest {
            group_id: self.settings.group.as_str().into(),
            session_timeout_ms: millis(self.settings.session_timeout),
            rebalance_timeout_ms: millis(self.settings.rebalance_timeout),
            member_id: self.member_id.clone(),
            group_instance_id: None,
            protocol_type: range::PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: range::NAME.into(),
                metadata: range::subscription(&self.settings.topics),
            }],
            reason: (!self.reason.is_empty()).then(|| self.reason.as_str().into()),
        }));
    }

    pub(super) fn on_joined(
        &mut self,
        now: Instant,
        result: Result<JoinGroupResponse, ClientError>,
    ) {
        if self.state != State::AwaitingJoin {
            return;
        }
        match result.and_then(|response| self.joined(response)) {
            Ok(()) => self.trouble = None,
            Err(error) => self.join_again(now, &error),
        }
    }

    fn joined(&mut self, response: JoinGroupResponse) -> Result<(), ClientError> {
        if response.error_code == ErrorCode::MEMBER_ID_REQUIRED {
            // From here on the coordinator can tell us from a member that has died (KIP-394).
            self.member_id = response.member_id;
            self.join();
            return Ok(());
        }
        let what = || format!("joining group \"{}\"", self.settings.group);
        check(what(), response.error_code, None)?;
        if response.member_id.is_empty() || response.generation_id < 0 {
            return Err(ClientError::refused(what(), ErrorCode::UNKNOWN_SERVER_ERROR));
        }
        self.member_id = response.member_id;
        self.generation = response.generation_id;
        let leads = response.leader == self.member_id && !response.skip_assignment;
        if leads {
            let members: Vec<_> = response.members.iter().map(Subscriber::new).collect();
            self.commands.push(Command::Count(topics_of(&members)));
            self.state = State::AwaitingCounts { members };
        } else {
            self.sync(&BTreeMap::new());
        }
        Ok(())
    }

    /// Joining, or what follows it, was refused; nothing is assigned.
    fn join_again(&mut self, now: Instant, error: &ClientError) {
        match meaning(error) {
            Meaning::Forgotten => {
                self.member_id = ByteString::new();
                self.wait_to_join(now, error);
            }
            Meaning::Rebalancing | Meaning::Outdated | Meaning::MayPass => {
                self.wait_to_join(now, error);
            }
            Meaning::Fatal => self.fail(error.clone()),
        }
    }

    fn wait_to_join(&mut self, now: Instant, error: &ClientError) {
        if let Some(trouble) = self.endure(self.trouble, now, error) {
            self.trouble = Some(trouble);
            self.state = State::AwaitingPause { until: trouble.not_before };
        }
    }

    /// The leader knows the topics' partitions; or, when it is stable, whether they have changed.
    pub(super) fn on_counted(
        &mut self,
        now: Instant,
        result: Result<BTreeMap<Arc<str>, i32>, ClientError>,
    ) {
        let members = match &self.state {
            State::AwaitingCounts { members } => members.clone(),
            State::Stable => return self.compare_counts(now, result),
            _ => return,
        };
        match result {
            Ok(counts) => {
                let parts = range::assign(&members, &counts);
                self.counts = Some(counts);
                self.recount_at = now + self.settings.recount_interval;
                self.sync(&parts);
            }
            Err(error) => self.join_again(now, &error),
        }
    }

    fn sync(&mut self, parts: &BTreeMap<String, Vec<TopicPartition>>) {
        let assignment = |(id, parts): (&String, &Vec<_>)| SyncGroupRequestAssignment {
            member_id: id.as_str().into(),
            assignment: range::assignment(parts),
        };
        self.state = State::AwaitingSync;
        self.commands.push(Command::Sync(SyncGroupRequest {
            group_id: self.settings.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            protocol_type: Some(range::PROTOCOL_TYPE.into()),
            protocol_name: Some(range::NAME.into()),
            assignments: parts.iter().map(assignment).collect(),
            ..SyncGroupRequest::default()
        }));
    }

    pub(super) fn on_synced(
        &mut self,
        now: Instant,
        result: Result<SyncGroupResponse, ClientError>,
    ) {
        if self.state != State::AwaitingSync {
            return;
        }
        let what = || format!("getting an assignment in group \"{}\"", self.settings.group);
        let answered =
            result.and_then(|response| check(what(), response.error_code, None).map(|()| response));
        match answered {
            Ok(response) => self.begin(now, response.assignment),
            Err(error) => self.join_again(now, &error),
        }
    }

    fn begin(&mut self, now: Instant, assignment: Bytes) {
        // A member to whom the leader gave nothing at all has an empty assignment.
        let partitions = match assignment {
            empty if empty.is_empty() => Ok(Vec::new()),
            written => range::assignment_in(written),
        };
        let Ok(partitions) = partitions else {
            let what = "reading what the group's leader has assigned";
            return self.fail(ClientError::refused(what, ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
        };
        self.trouble = None;
        self.reason = String::new();
        self.state = State::Stable;
        self.progress = Progress::new(self.settings.commit_interval);
        self.commit_trouble = None;
        self.assignment += 1;
        self.heartbeat = Heartbeat { in_flight: false, due: now + self.heartbeat_interval() };
        self.tell(Notice::Assigned { assignment: self.assignment, partitions });
    }
}

/// Living.
impl Membership {
    fn heartbeat_interval(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3);
        (self.settings.session_timeout / 3).min(LONGEST)
    }

    fn send_heartbeat(&mut self, now: Instant) {
        self.heartbeat = Heartbeat { in_flight: true, due: now + self.heartbeat_interval() };
        let request = HeartbeatRequest {
            group_id: self.settings.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
        };
        self.commands.push(Command::Heartbeat { assignment: self.assignment, request });
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Instant,
        assignment: u64,
        result: Result<(), ClientError>,
    ) {
        if !self.is_assigned() || assignment != self.assignment {
            return;
        }
        self.heartbeat.in_flight = false;
        let Err(error) = result else {
            self.trouble = None;
            return;
        };
        match meaning(&error) {
            Meaning::Rebalancing => self.revoke(now, "the group rebalances"),
            Meaning::Forgotten | Meaning::Outdated => self.lose(now, &error),
            Meaning::MayPass => {
                if let Some(trouble) = self.endure(self.trouble, now, &error) {
                    self.trouble = Some(trouble);
                    self.heartbeat.due = trouble.not_before;
                }
            }
            Meaning::Fatal => self.fail(error),
        }
    }

    /// The application is to let go of everything.
    fn revoke(&mut self, now: Instant, reason: &str) {
        if self.state != State::Stable {
            return;
        }
        self.trouble = None;
        self.reason = reason.to_owned();
        // The others do not wait for longer, and the last commit takes some of the time.
        let until = now + self.settings.rebalance_timeout / 2;
        self.state = State::AwaitingRelease { until };
        self.tell(Notice::Revoked);
    }

    /// What was assigned belongs to others.
    fn lose(&mut self, now: Instant, error: &ClientError) {
        let leaves = matches!(self.state, State::AwaitingLastCommit { then: Then::Leave(_), .. });
        self.progress.forget();
        self.tell(Notice::Lost { reason: error.to_string() });
        self.reason = error.to_string();
        if leaves {
            self.state = State::Over;
        } else {
            self.join_again(now, error);
        }
    }

    fn recount_if_due(&mut self, now: Instant) {
        if self.counts.is_some() && self.recount_at <= now {
            self.recount_at = now + self.settings.recount_interval;
            let topics = self.counts.iter().flatten().map(|(topic, _)| Arc::clone(topic));
            let topics = topics.chain(self.settings.topics.iter().cloned()).collect();
            self.commands.push(Command::Count(topics));
        }
    }

    fn compare_counts(
        &mut self,
        now: Instant,
        result: Result<BTreeMap<Arc<str>, i32>, ClientError>,
    ) {
        // That the cluster does not answer shows in the heartbeats.
        let (Some(before), Ok(counts)) = (&self.counts, result) else { return };
        let changed = counts.iter().find(|(topic, count)| before.get(*topic) != Some(*count));
        if let Some((topic, count)) = changed {
            let reason = format!("topic \"{topic}\" has {count} partitions now");
            self.revoke(now, &reason);
        }
    }
}

/// Committing.
impl Membership {
    /// Everything below an offset is done with: it may be committed.
    pub(super) fn on_done(
        &mut self,
        now: Instant,
        assignment: u64,
        partition: TopicPartition,
        offset: Offset,
    ) {
        let is_ours = self.is_assigned() && assignment == self.assignment;
        if !is_ours {
            return;
        }
        self.progress.note(partition, offset);
        if self.state == State::Stable {
            self.commit(now);
        }
    }

    fn commit(&mut self, now: Instant) {
        if let Some(offsets) = self.progress.take(now) {
            self.commands.push(Command::Commit(Commit {
                assignment: self.assignment,
                member_id: self.member_id.clone(),
                generation: self.generation,
                offsets,
            }));
        }
    }

    pub(super) fn on_committed(
        &mut self,
        now: Instant,
        assignment: u64,
        result: Result<Outcomes, ClientError>,
    ) {
        if !self.is_assigned() || assignment != self.assignment {
            return;
        }
        match result.and_then(|outcomes| self.sort_out(outcomes)) {
            Ok(()) => {
                self.commit_trouble = None;
                self.progress.accept();
                self.go_on_if_committed(now);
            }
            Err(error) => self.not_committed(now, error),
        }
    }

    /// The first refusal of all. A partition that is gone is none: nobody will go on there.
    fn sort_out(&mut self, outcomes: Outcomes) -> Result<(), ClientError> {
        for (partition, outcome) in outcomes {
            match outcome {
                Err(ClientError::Refused {
                    code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID,
                    ..
                }) => self.progress.drop_partition(&partition),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn not_committed(&mut self, now: Instant, error: ClientError) {
        match meaning(&error) {
            Meaning::Rebalancing => {
                self.progress.refuse(now);
                match &self.state {
                    State::AwaitingLastCommit { then, .. } => self.go_on(then.clone()),
                    _ => self.revoke(now, "the group rebalances"),
                }
            }
            Meaning::Forgotten | Meaning::Outdated => self.lose(now, &error),
            Meaning::MayPass => {
                if let Some(trouble) = self.endure(self.commit_trouble, now, &error) {
                    self.commit_trouble = Some(trouble);
                    self.progress.refuse(trouble.not_before);
                }
            }
            Meaning::Fatal => self.fail(error),
        }
    }
}

/// Letting go and leaving.
impl Membership {
    /// The application has let go of an assignment; what it has done was told before.
    pub(super) fn on_released(&mut self, now: Instant, assignment: u64) {
        if assignment == self.assignment && matches!(self.state, State::AwaitingRelease { .. }) {
            self.finish(now, Then::Join);
        }
    }

    /// The application wants to leave, and says why.
    pub(super) fn on_leave(&mut self, now: Instant, reason: &str) {
        let then = Then::Leave(reason.to_owned());
        match &mut self.state {
            State::Stable | State::AwaitingRelease { .. } => self.finish(now, then),
            State::AwaitingLastCommit { then: next, .. } => *next = then,
            State::AwaitingPause { .. }
            | State::AwaitingJoin
            | State::AwaitingCounts { .. }
            | State::AwaitingSync => self.go_on(then),
            State::AwaitingLeave | State::Over => {}
        }
    }

    fn finish(&mut self, now: Instant, then: Then) {
        let until = now + self.settings.rebalance_timeout / 4;
        self.state = State::AwaitingLastCommit { until, then };
        self.progress.hurry();
        self.go_on_if_committed(now);
    }

    /// Commits what is left; if nothing is, goes where it was to go.
    fn go_on_if_committed(&mut self, now: Instant) {
        let State::AwaitingLastCommit { then, .. } = &self.state else { return };
        if self.progress.is_committed() {
            let then = then.clone();
            self.go_on(then);
        } else {
            self.commit(now);
        }
    }

    fn go_on(&mut self, then: Then) {
        self.progress.forget();
        match then {
            Then::Join => self.join(),
            Then::Leave(_) if self.member_id.is_empty() => self.state = State::Over,
            Then::Leave(reason) => {
                self.state = State::AwaitingLeave;
                self.commands.push(Command::Leave(LeaveGroupRequest {
                    group_id: self.settings.group.as_str().into(),
                    members: vec![MemberIdentity {
                        member_id: self.member_id.clone(),
                        group_instance_id: None,
                        reason: Some(reason.into()),
                    }],
                    ..LeaveGroupRequest::default()
                }));
            }
        }
    }

    /// Whether it was answered or not: who does not hear of it will miss our heartbeats.
    pub(super) fn on_left(&mut self) {
        self.state = State::Over;
    }
}

fn topics_of(members: &[Subscriber]) -> BTreeSet<Arc<str>> {
    members.iter().flat_map(|member| member.topics.iter().cloned()).collect()
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
