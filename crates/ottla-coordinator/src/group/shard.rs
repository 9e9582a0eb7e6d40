//! The state machine of one partition of `__consumer_offsets`. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset, Timestamp};
use ottla_protocol::messages::delete_groups_response::DeletableGroupResult;
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
};
use ottla_protocol::records::{GroupMetadataKey, GroupRecord};

use super::classic::ClassicGroup;
use super::sweep::{GROUPS_AT_ONCE, SWEEP_AGAIN_MS, Sweeps, SweptPart, Task};
use super::turn::Turn;
use super::{
    CommitOffsets, DescribeGroups, JoinGroup, LeaveGroup, Next, Query, Reply, Request, Settings,
    Stored, Timer, offsets,
};
use crate::shard::{Outcome, ReplyTo, Shard};
use crate::timeline::Timeline;

/// Commits of consumers are told this instead of ILLEGAL_GENERATION from this version on.
const GROUP_ID_NOT_FOUND_IN_COMMIT_SINCE: i16 = 9;
/// Describing a group that is not there is an error from this version on.
const GROUP_ID_NOT_FOUND_IN_DESCRIBE_SINCE: i16 = 6;

/// How many protocols a member may know; clients know a handful. Apache Kafka has no bound: each takes some bytes in a request,
/// and hundreds in a member.
const PROTOCOLS_MAX: usize = 1_000;

/// See [`crate::group`].
#[derive(Debug)]
pub struct GroupShard {
    settings: Settings,
    stored: Timeline<Stored>,
    groups: BTreeMap<ByteString, ClassicGroup>,
    sweeps: Sweeps,
    is_loaded: bool,
}

impl GroupShard {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            stored: Timeline::default(),
            groups: BTreeMap::new(),
            sweeps: Sweeps::default(),
            is_loaded: false,
        }
    }

    /// What the log says.
    #[must_use]
    pub const fn stored(&self) -> &Stored {
        self.stored.current()
    }

    /// What is known of a group while it is coordinated.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&ClassicGroup> {
        self.groups.get(id)
    }

    /// Panics where an invariant does not hold. Walks over everything: for tests.
    pub fn check(&self) {
        for (id, _) in self.stored().groups() {
            assert!(self.groups.contains_key(id), "{id}");
        }
        self.groups.values().for_each(ClassicGroup::check);
    }

    fn join(&mut self, turn: &mut Turn<'_>, to: ReplyTo, join: &JoinGroup) {
        let request = &join.request;
        let timeouts = turn.settings.session_timeout_min_ms..=turn.settings.session_timeout_max_ms;
        let refusal = if request.group_id.is_empty() {
            Some(ErrorCode::INVALID_GROUP_ID)
        } else if !timeouts.contains(&request.session_timeout_ms) {
            Some(ErrorCode::INVALID_SESSION_TIMEOUT)
        } else if request.protocols.len() > PROTOCOLS_MAX {
            Some(ErrorCode::INVALID_REQUEST)
        } else if !request.member_id.is_empty() && !self.groups.contains_key(&request.group_id) {
            Some(ErrorCode::UNKNOWN_MEMBER_ID)
        } else {
            None
        };
        if let Some(error_code) = refusal {
            let member_id = request.member_id.clone();
            let answer = JoinGroupResponse { error_code, member_id, ..Default::default() };
            return turn.reply(to, answer);
        }
        let id = ByteString::from(&*request.group_id);
        let is_new = !self.groups.contains_key(&id);
        let group = self
            .groups
            .entry(id.clone())
            .or_insert_with(|| ClassicGroup::new(id.clone(), turn.now));
        group.join(turn, to, join);
        if is_new && !turn.has_records() {
            // Stored at once: from now on the group exists.
            turn.append(group.to_empty_record());
            turn.then(Next::GroupCreated { group: id });
        }
    }

    fn sync(&mut self, turn: &mut Turn<'_>, to: ReplyTo, request: &SyncGroupRequest) {
        let refuse = super::classic::sync_refused;
        if request.group_id.is_empty() {
            return turn.reply(to, refuse(ErrorCode::INVALID_GROUP_ID));
        }
        match self.groups.get_mut(&request.group_id) {
            Some(group) if !group.is_empty() => group.sync(turn, to, request),
            Some(_) | None => turn.reply(to, refuse(ErrorCode::UNKNOWN_MEMBER_ID)),
        }
    }

    fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let group = self.groups.get_mut(&request.group_id);
        group.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?.heartbeat(turn, request)
    }

    fn leave(&mut self, turn: &mut Turn<'_>, leave: &LeaveGroup) -> LeaveGroupResponse {
        let request = &leave.request;
        if request.group_id.is_empty() {
            let error_code = ErrorCode::INVALID_GROUP_ID;
            return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
        }
        let members = match self.groups.get_mut(&request.group_id) {
            Some(group) => group.leave(turn, &request.members),
            None => super::classic::unknown_members(&request.members),
        };
        LeaveGroupResponse { members, ..LeaveGroupResponse::default() }
    }

    fn commit(&mut self, turn: &mut Turn<'_>, to: ReplyTo, commit: &CommitOffsets) {
        let answer =
            self.admit_commit(turn, commit).map(|()| offsets::commit(turn, &commit.request));
        turn.reply(to, answer);
    }

    fn admit_commit(&self, turn: &mut Turn<'_>, commit: &CommitOffsets) -> Result<(), ErrorCode> {
        let request = &commit.request;
        let generation = request.generation_id_or_member_epoch;
        match self.groups.get(&request.group_id) {
            Some(group) => {
                let instance = request.group_instance_id.as_ref();
                group.check_commit(&request.member_id, instance, generation)?;
                if let Some((member, timeout_ms)) = group.session_kept_by_commit(&request.member_id)
                {
                    turn.set_session(&group.id, member, timeout_ms);
                }
                Ok(())
            }
            // Replaying the offsets makes the group.
            None if generation < 0 => Ok(()),
            None if commit.version >= GROUP_ID_NOT_FOUND_IN_COMMIT_SINCE => {
                Err(ErrorCode::GROUP_ID_NOT_FOUND)
            }
            None => Err(ErrorCode::ILLEGAL_GENERATION),
        }
    }

    fn delete_offsets(
        &self,
        turn: &mut Turn<'_>,
        request: &OffsetDeleteRequest,
    ) -> Result<OffsetDeleteResponse, ErrorCode> {
        if request.group_id.is_empty() {
            return Err(ErrorCode::INVALID_GROUP_ID);
        }
        let group = self.groups.get(&request.group_id).ok_or(ErrorCode::GROUP_ID_NOT_FOUND)?;
        group.check_offset_delete()?;
        Ok(offsets::delete(turn, self.stored(), group, request))
    }

    fn delete_groups(
        &self,
        turn: &mut Turn<'_>,
        ids: Vec<ByteString>,
    ) -> Vec<DeletableGroupResult> {
        let delete = |group_id: ByteString| {
            let group = self.groups.get(&group_id).ok_or(ErrorCode::GROUP_ID_NOT_FOUND);
            let error_code = match group.and_then(ClassicGroup::check_delete) {
                Ok(()) => {
                    self.delete_group(turn, &ByteString::from(&*group_id));
                    ErrorCode::NONE
                }
                Err(error) => error,
            };
            DeletableGroupResult { group_id, error_code }
        };
        ids.into_iter().map(delete).collect()
    }

    fn delete_group(&self, turn: &mut Turn<'_>, id: &ByteString) {
        offsets::delete_all(turn, self.stored(), id);
        turn.append(tombstone(id));
    }

    fn begin_sweep(&mut self, turn: &mut Turn<'_>, task: Task) {
        self.sweeps.begin(task);
        turn.set_timer(Timer::Sweep, 0);
    }

    /// The next part of the walks over all groups.
    fn sweep(&mut self, turn: &mut Turn<'_>) {
        let Some(part) = self.sweeps.current() else { return };
        let from = part.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut seen = None;
        let mut groups = self.groups.range::<str, _>((from, Bound::Unbounded));
        for (id, group) in groups.by_ref().take(GROUPS_AT_ONCE) {
            match &part.task {
                Task::Expire => self.expire(turn, group),
                Task::Forget(topics) => offsets::forget_topics(turn, self.stored(), id, topics),
            }
            seen = Some(id.clone());
        }
        let is_over = groups.next().is_none();
        turn.outcome.is_divisible = true;
        if turn.has_records() {
            turn.then(Next::Swept(part));
        }
        if self.sweeps.advance(seen.filter(|_| !is_over)) {
            turn.set_timer(Timer::Sweep, 0);
        }
    }

    /// Nothing of a part was stored, or not all of it.
    fn sweep_again(&mut self, turn: &mut Turn<'_>, part: SweptPart, error: ErrorCode) {
        // What never can be stored would keep the rest from its turn.
        if error != ErrorCode::UNKNOWN_SERVER_ERROR {
            self.sweeps.go_back(part);
            turn.set_timer(Timer::Sweep, SWEEP_AGAIN_MS);
        }
    }

    fn expire(&self, turn: &mut Turn<'_>, group: &ClassicGroup) {
        if offsets::expire(turn, self.stored(), group) && group.is_empty() {
            turn.append(tombstone(&group.id));
        }
    }

    fn describe(&self, asked: &DescribeGroups) -> Vec<DescribedGroup> {
        let describe = |id: &ByteString| match self.committed_group(id) {
            Some(group) if asked.last_rebalance => group.describe_with_last_rebalance(),
            Some(group) => group.describe(),
            None => not_found(id, asked.version),
        };
        asked.groups.iter().map(describe).collect()
    }

    /// A group that is not committed does not exist for others.
    fn committed_group(&self, id: &str) -> Option<&ClassicGroup> {
        self.groups.get(id).filter(|_| self.stored.committed().has_group(id))
    }

    /// Runs one event with the settings at hand.
    fn turn(
        &mut self,
        now: Timestamp,
        event: impl FnOnce(&mut Self, &mut Turn<'_>),
    ) -> Outcome<Self> {
        let settings = self.settings.clone();
        let mut turn = Turn::new(now, &settings);
        event(self, &mut turn);
        turn.outcome
    }
}

impl Shard for GroupShard {
    type Request = Request;
    type Query = Query;
    type Reply = Reply;
    type Record = GroupRecord;
    type Timer = Timer;
    type Next = Next;

    fn handle(&mut self, now: Timestamp, to: ReplyTo, request: Request) -> Outcome<Self> {
        self.turn(now, |shard, turn| match request {
            Request::Join(join) => shard.join(turn, to, &join),
            Request::Sync(request) => shard.sync(turn, to, &request),
            Request::Heartbeat(request) => {
                let error_code = shard.heartbeat(turn, &request).err().unwrap_or_default();
                let answer = HeartbeatResponse { error_code, ..HeartbeatResponse::default() };
                turn.reply(to, answer);
            }
            Request::Leave(leave) => {
                let answer = shard.leave(turn, &leave);
                turn.reply(to, answer);
            }
            Request::Commit(commit) => shard.commit(turn, to, &commit),
            Request::FetchStable(fetch) => {
                let answer = offsets::fetch(shard.stored(), &fetch.group);
                turn.reply(to, answer);
            }
            Request::DeleteOffsets(request) => {
                let answer = shard.delete_offsets(turn, &request).unwrap_or_else(|error_code| {
                    OffsetDeleteResponse { error_code, ..OffsetDeleteResponse::default() }
                });
                turn.reply(to, answer);
            }
            Request::DeleteGroups(ids) => {
                let answer = shard.delete_groups(turn, ids);
                turn.reply(to, answer);
            }
            Request::TopicsDeleted(topics) => shard.begin_sweep(turn, Task::Forget(topics)),
        })
    }

    fn records_bytes_min(&self, request: &Request) -> usize {
        match request {
            Request::Commit(commit) => offsets::records_bytes_min(&commit.request, &self.settings),
            // A record or two, or as many as there are offsets to delete.
            Request::Join(_)
            | Request::Sync(_)
            | Request::Heartbeat(_)
            | Request::Leave(_)
            | Request::FetchStable(_)
            | Request::DeleteOffsets(_)
            | Request::DeleteGroups(_)
            | Request::TopicsDeleted(_) => 0,
        }
    }

    fn on_timer(&mut self, now: Timestamp, timer: Timer) -> Outcome<Self> {
        self.turn(now, |shard, turn| {
            let mut with_group =
                |id: &ByteString, event: &dyn Fn(&mut ClassicGroup, &mut Turn<'_>)| {
                    if let Some(group) = shard.groups.get_mut(id) {
                        event(group, turn);
                    }
                };
            match timer {
                Timer::Session { group, member } => {
                    with_group(&group, &|group, turn| group.on_session_timer(turn, &member));
                }
                Timer::Join { group } => with_group(&group, &ClassicGroup::on_join_timer),
                Timer::Sync { group } => with_group(&group, &ClassicGroup::on_sync_timer),
                Timer::Expiry => {
                    shard.begin_sweep(turn, Task::Expire);
                    let interval_ms = turn.settings.offsets_retention_check_interval_ms;
                    turn.set_timer(Timer::Expiry, interval_ms);
                }
                Timer::Sweep => shard.sweep(turn),
            }
        })
    }

    fn on_committed(&mut self, now: Timestamp, next: Next) -> Outcome<Self> {
        self.turn(now, |shard, turn| match next {
            Next::GroupCreated { .. } | Next::Swept(_) => {}
            Next::AssignmentStored { group, generation, assignments } => {
                if let Some(group) = shard.groups.get_mut(&group) {
                    group.on_assignment_stored(turn, generation, &assignments);
                }
            }
            Next::StaticMemberReplaced(replaced) => {
                if let Some(group) = shard.groups.get_mut(&replaced.group) {
                    group.on_static_member_stored(turn, &replaced);
                }
            }
        })
    }

    fn on_refused(&mut self, now: Timestamp, next: Next, error: ErrorCode) -> Outcome<Self> {
        self.turn(now, |shard, turn| match next {
            Next::GroupCreated { group } => {
                if let Some(group) = shard.groups.remove(&group) {
                    group.refuse_all(turn, error);
                }
            }
            Next::AssignmentStored { group, generation, .. } => {
                if let Some(group) = shard.groups.get_mut(&group) {
                    group.on_assignment_not_stored(turn, generation, error);
                }
            }
            Next::StaticMemberReplaced(replaced) => {
                if let Some(group) = shard.groups.get_mut(&replaced.group) {
                    group.on_static_member_not_stored(turn, *replaced, error);
                }
            }
            Next::Swept(part) => shard.sweep_again(turn, part, error),
        })
    }

    fn on_overdue(&mut self, now: Timestamp, next: Next, error: ErrorCode) -> Outcome<Self> {
        match next {
            // It is in the log: the group exists, or will, and so do the tombstones.
            Next::GroupCreated { .. } | Next::Swept(_) => Outcome::default(),
            next @ (Next::AssignmentStored { .. } | Next::StaticMemberReplaced(_)) => {
                self.on_refused(now, next, error)
            }
        }
    }

    fn on_loaded(&mut self, now: Timestamp) -> Outcome<Self> {
        self.is_loaded = true;
        self.turn(now, |shard, turn| {
            for (id, value) in shard.stored.current().groups() {
                let group = match value {
                    Some(value) => ClassicGroup::from_stored(id.clone(), value),
                    None => ClassicGroup::new(id.clone(), turn.now),
                };
                shard.groups.insert(id.clone(), group);
            }
            shard.groups.values_mut().for_each(|group| group.on_loaded(turn));
            turn.set_timer(Timer::Expiry, turn.settings.offsets_retention_check_interval_ms);
        })
    }

    fn query(&self, query: Query) -> Reply {
        match query {
            Query::Fetch(fetch) => {
                Reply::Fetch(offsets::fetch(self.stored.committed(), &fetch.group))
            }
            Query::Describe(asked) => Reply::Describe(self.describe(&asked)),
            Query::List(asked) => {
                let is_committed =
                    |group: &&ClassicGroup| self.committed_group(&group.id).is_some();
                let groups = self.groups.values().filter(is_committed);
                let groups = groups.filter(|group| group.passes(&asked));
                Reply::List(groups.map(ClassicGroup::list).collect())
            }
        }
    }

    fn replay(&mut self, _offset: Offset, record: &GroupRecord) {
        self.stored.replay().replay(record);
        if !self.is_loaded {
            return;
        }
        if let GroupRecord::OffsetCommit(key, Some(value)) = record {
            // A consumer that assigns its partitions itself: a group without members or protocol.
            let group = || ClassicGroup::new(key.group.clone(), Timestamp(value.commit_timestamp));
            if !self.groups.contains_key(&key.group) {
                self.groups.insert(key.group.clone(), group());
            }
        } else if let GroupRecord::GroupMetadata(key, None) = record {
            self.groups.remove(&key.group);
        }
    }

    fn appended(&mut self, end: Offset) {
        self.stored.appended(end);
    }

    fn committed(&mut self, end: Offset) {
        self.stored.commit(end);
    }
}

fn tombstone(group: &ByteString) -> GroupRecord {
    GroupRecord::GroupMetadata(GroupMetadataKey { group: group.clone() }, None)
}

fn not_found(id: &ByteString, version: i16) -> DescribedGroup {
    let plain = DescribedGroup {
        group_id: id.clone(),
        group_state: ByteString::from_static("Dead"),
        ..DescribedGroup::default()
    };
    if version < GROUP_ID_NOT_FOUND_IN_DESCRIBE_SINCE {
        return plain;
    }
    DescribedGroup {
        error_code: ErrorCode::GROUP_ID_NOT_FOUND,
        error_message: Some(format!("Group {id} not found.").into()),
        ..plain
    }
}
