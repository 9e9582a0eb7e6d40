//! A group shard with a log in memory and a clock that only moves when told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use ottla_base::{ErrorCode, Offset, Timestamp, Uuid};
use ottla_coordinator::group::{
    Caller, CommitOffsets, DescribeGroups, FetchOffsets, GroupShard, JoinGroup, LeaveGroup,
    ListGroups, Query, Reply, Request, Settings,
};
use ottla_coordinator::{Loading, Log, Now, Replies, ReplyTo, Runtime, StoredRecord};
use ottla_protocol::messages::describe_groups_response::DescribedGroup;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::list_groups_response::ListedGroup;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, SyncGroupRequest, SyncGroupResponse,
};
use ottla_protocol::records::{GroupRecord, encode_versioned};

pub const GROUP: &str = "group";
pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;
/// Of one batch.
pub const BYTES_MAX: usize = 1024 * 1024;
pub const STORE_TIMEOUT_MS: i64 = 5_000;
pub const STORE_TIMEOUT: Duration = Duration::from_millis(STORE_TIMEOUT_MS.unsigned_abs());

/// The log: records as they are on disk.
#[derive(Debug, Default)]
pub struct MemoryLog {
    pub records: Vec<(Bytes, Option<Bytes>)>,
    /// What the next append is refused with.
    pub refuses: Option<ErrorCode>,
}

impl Log<GroupRecord> for MemoryLog {
    fn fitting(&self, _: &[GroupRecord]) -> usize {
        2
    }

    fn bytes_max(&self) -> usize {
        BYTES_MAX
    }

    fn append(&mut self, records: &[GroupRecord]) -> Result<Range<Offset>, ErrorCode> {
        assert!(!records.is_empty(), "nothing is no batch");
        if let Some(error) = self.refuses.take() {
            return Err(error);
        }
        let start = self.end();
        let encoded = records.iter().map(|record| StoredRecord::encode(record).unwrap());
        self.records.extend(encoded);
        Ok(start..self.end())
    }
}

impl MemoryLog {
    pub fn end(&self) -> Offset {
        Offset(self.records.len() as i64)
    }

    pub fn decoded(&self) -> Vec<GroupRecord> {
        let decode = |(key, value): &(Bytes, Option<Bytes>)| {
            GroupRecord::decode(key.clone(), value.clone()).unwrap()
        };
        self.records.iter().map(decode).collect()
    }
}

pub struct Context {
    pub runtime: Runtime<GroupShard>,
    pub log: MemoryLog,
    pub now: Now,
    pub settings: Settings,
    /// Whether everything is committed as soon as it is appended.
    pub commits_at_once: bool,
    given: BTreeMap<ReplyTo, Result<Reply, ErrorCode>>,
    waiting: BTreeSet<ReplyTo>,
    /// How many records are committed.
    committed: usize,
    asked: u64,
}

/// So long after the beginning of a test.
pub fn after(elapsed: Duration) -> Now {
    let ms = i64::try_from(elapsed.as_millis()).expect("tests are short");
    Now { time: Timestamp(1_000_000 + ms), monotonic: elapsed }
}

pub fn settings() -> Settings {
    Settings { initial_rebalance_delay_ms: 0, ..Settings::default() }
}

impl Context {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let log = MemoryLog::default();
        Self::load(settings, log, after(Duration::ZERO))
    }

    fn load(settings: Settings, mut log: MemoryLog, now: Now) -> Self {
        let shard = GroupShard::new(settings.clone());
        let mut loading = Loading::new(shard, Offset(0), STORE_TIMEOUT);
        loading.next_batch(log.end(), log.end());
        for (offset, record) in log.decoded().iter().enumerate() {
            loading.replay(Offset(offset as i64), record);
        }
        let mut runtime = loading.finish(now, &mut log);
        assert!(runtime.on_committed(now, log.end(), &mut log).is_empty());
        let committed = log.records.len();
        Self {
            runtime,
            log,
            now,
            settings,
            commits_at_once: true,
            given: BTreeMap::new(),
            waiting: BTreeSet::new(),
            committed,
            asked: 0,
        }
    }

    /// The machine loses its power: what was not committed is gone, and so is everybody who waits.
    pub fn crash(mut self) -> Self {
        self.log.records.truncate(self.committed);
        self.restart()
    }

    /// How many have asked and were not answered.
    pub fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Another coordinator takes over from what is in the log.
    pub fn restart(self) -> Self {
        Self { asked: self.asked, ..Self::load(self.settings, self.log, self.now) }
    }

    pub fn ask(&mut self, request: Request) -> ReplyTo {
        self.asked += 1;
        let to = ReplyTo(self.asked);
        // Nobody waits for what is merely told.
        if !matches!(request, Request::TopicsDeleted(_)) {
            self.waiting.insert(to);
        }
        let replies = self.runtime.request(self.now, to, request, &mut self.log);
        self.settle(replies);
        to
    }

    /// Commits everything that was appended.
    pub fn commit(&mut self) {
        self.committed = self.log.records.len();
        let replies = self.runtime.on_committed(self.now, self.log.end(), &mut self.log);
        self.note(replies);
    }

    /// Lets time pass, timer by timer.
    pub fn sleep(&mut self, ms: i64) {
        let until = self.now.monotonic + Duration::from_millis(ms.unsigned_abs());
        while let Some(deadline) = self.runtime.next_deadline().filter(|it| *it <= until) {
            self.now = after(deadline.max(self.now.monotonic));
            let replies = self.runtime.on_time(self.now, &mut self.log);
            self.settle(replies);
        }
        self.now = after(until);
    }

    fn settle(&mut self, replies: Replies<Reply>) {
        self.note(replies);
        while self.commits_at_once {
            self.committed = self.log.records.len();
            let replies = self.runtime.on_committed(self.now, self.log.end(), &mut self.log);
            if replies.is_empty() {
                break;
            }
            self.note(replies);
        }
        self.runtime.shard().check();
    }

    fn note(&mut self, replies: Replies<Reply>) {
        for (to, reply) in replies {
            assert!(self.waiting.remove(&to), "{to:?} is answered twice, or has not asked");
            self.given.insert(to, reply);
        }
    }

    /// The reply, if there is one by now.
    pub fn take(&mut self, to: ReplyTo) -> Option<Result<Reply, ErrorCode>> {
        self.given.remove(&to)
    }

    pub fn reply<T: TryFrom<Reply, Error = Reply>>(&mut self, to: ReplyTo) -> T {
        let reply = self.take(to).expect("it is answered by now").expect("it is not refused");
        reply.try_into().expect("the answer fits the question")
    }

    pub fn query<T: TryFrom<Reply, Error = Reply>>(&self, query: Query) -> T {
        self.runtime.query(query).try_into().expect("the answer fits the question")
    }

    pub fn last_record(&self) -> GroupRecord {
        self.log.decoded().pop().expect("something was stored")
    }

    // Requests, in the shortest form that a test can read.

    pub fn join(&mut self, join: &Join) -> ReplyTo {
        let request = join.request(self.asked);
        self.ask(Request::Join(request))
    }

    pub fn joined(&mut self, to: ReplyTo) -> JoinGroupResponse {
        self.reply(to)
    }

    pub fn sync(
        &mut self,
        member: &str,
        generation: i32,
        assignments: &[(&str, &'static str)],
    ) -> ReplyTo {
        let assignment = |(member, part): &(&str, &'static str)| SyncGroupRequestAssignment {
            member_id: (*member).into(),
            assignment: Bytes::from_static(part.as_bytes()),
        };
        self.ask(Request::Sync(SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member.into(),
            assignments: assignments.iter().map(assignment).collect(),
            ..SyncGroupRequest::default()
        }))
    }

    pub fn synced(&mut self, to: ReplyTo) -> SyncGroupResponse {
        self.reply(to)
    }

    pub fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let to = self.ask(Request::Heartbeat(HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: generation,
            member_id: member.into(),
            group_instance_id: None,
        }));
        self.reply::<HeartbeatResponse>(to).error_code
    }

    /// Like [`Self::heartbeat`] while something before it is not committed: gives up on that.
    pub fn heartbeat_later(&mut self, member: &str, generation: i32) -> ErrorCode {
        self.commits_at_once = true;
        self.heartbeat(member, generation)
    }

    /// Members by id, or by instance id.
    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let identity = |(member, instance): &(&str, Option<&str>)| MemberIdentity {
            member_id: (*member).into(),
            group_instance_id: instance.map(Into::into),
            reason: None,
        };
        let request = LeaveGroupRequest {
            group_id: GROUP.into(),
            members: members.iter().map(identity).collect(),
            ..LeaveGroupRequest::default()
        };
        let to = self.ask(Request::Leave(LeaveGroup { request }));
        let response: LeaveGroupResponse = self.reply(to);
        response.members.iter().map(|member| member.error_code).collect()
    }

    pub fn commit_offset(&mut self, commit: &Commit<'_>) -> ReplyTo {
        let request = commit.request();
        self.ask(Request::Commit(CommitOffsets { version: commit.version, request }))
    }

    /// The code of the only partition, or of the whole.
    pub fn committed(&mut self, to: ReplyTo) -> ErrorCode {
        match self.reply::<Result<OffsetCommitResponse, _>>(to) {
            Ok(response) => response.topics[0].partitions[0].error_code,
            Err(error) => error,
        }
    }

    /// What is committed for one partition, −1 if nothing is.
    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> i64 {
        let topics = vec![OffsetFetchRequestTopics {
            name: topic.into(),
            partition_indexes: vec![partition],
            ..Default::default()
        }];
        let group = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(topics),
            ..Default::default()
        };
        let found: OffsetFetchResponseGroup = self.query(Query::Fetch(FetchOffsets { group }));
        found.topics[0].partitions[0].committed_offset
    }

    pub fn describe(&self) -> DescribedGroup {
        self.describe_as_asked(false)
    }

    /// Kafka's description, or with why and when the group last rebalanced.
    pub fn describe_as_asked(&self, last_rebalance: bool) -> DescribedGroup {
        let asked = DescribeGroups { version: 6, groups: vec![GROUP.into()], last_rebalance };
        self.query::<Vec<DescribedGroup>>(Query::Describe(asked)).remove(0)
    }

    pub fn state(&self) -> String {
        self.describe().group_state.to_string()
    }

    pub fn list(&self, asked: ListGroups) -> Vec<String> {
        let groups: Vec<ListedGroup> = self.query(Query::List(asked.into()));
        groups.iter().map(|group| format!("{} {}", group.group_id, group.group_state)).collect()
    }

    /// Brings dynamic members all the way into a stable group. Returns their ids, the leader's first.
    pub fn stable(&mut self, count: usize) -> Vec<ByteString> {
        let ids: Vec<_> = (0..count).map(|_| self.member_id()).collect();
        let joins: Vec<_> = ids.iter().map(|id| self.join(&Join::new().member(id))).collect();
        self.sleep(2);
        let mut answers: Vec<_> = joins.into_iter().map(|to| self.joined(to)).collect();
        let generation = answers[0].generation_id;
        answers.sort_by_key(|answer| answer.member_id != answer.leader);
        let ids: Vec<_> = answers.into_iter().map(|answer| answer.member_id).collect();
        let syncs: Vec<_> = ids.iter().map(|id| self.sync(id, generation, &[])).collect();
        for to in syncs {
            assert_eq!(self.synced(to).error_code, ErrorCode::NONE);
        }
        ids
    }

    /// What a new member is told to join with.
    pub fn member_id(&mut self) -> ByteString {
        let to = self.join(&Join::new());
        let answer = self.joined(to);
        assert_eq!(answer.error_code, ErrorCode::MEMBER_ID_REQUIRED);
        answer.member_id
    }
}

/// A JoinGroup request.
#[derive(Debug, Clone)]
pub struct Join {
    pub version: i16,
    pub member: ByteString,
    pub instance: Option<ByteString>,
    pub session_ms: i32,
    pub rebalance_ms: i32,
    pub protocol_type: &'static str,
    pub protocols: Vec<(&'static str, Bytes)>,
    pub reason: Option<ByteString>,
}

impl Join {
    pub fn new() -> Self {
        Self {
            version: 9,
            member: ByteString::new(),
            instance: None,
            session_ms: SESSION_MS,
            rebalance_ms: REBALANCE_MS,
            protocol_type: "consumer",
            protocols: vec![("range", subscription(&["topic"]))],
            reason: None,
        }
    }

    pub fn member(self, id: &str) -> Self {
        Self { member: id.into(), ..self }
    }

    pub fn instance(self, id: &str) -> Self {
        Self { instance: Some(id.into()), ..self }
    }

    pub fn version(self, version: i16) -> Self {
        Self { version, ..self }
    }

    pub fn protocols(self, names: &[&'static str]) -> Self {
        let protocols = names.iter().map(|name| (*name, subscription(&["topic"]))).collect();
        Self { protocols, ..self }
    }

    pub fn topics(self, topics: &[&str]) -> Self {
        Self { protocols: vec![("range", subscription(topics))], ..self }
    }

    fn request(&self, number: u64) -> JoinGroup {
        let protocols = self.protocols.iter().map(|(name, metadata)| JoinGroupRequestProtocol {
            name: (*name).into(),
            metadata: metadata.clone(),
        });
        JoinGroup {
            caller: Caller {
                version: self.version,
                client_id: "client".into(),
                client_host: "/127.0.0.1".into(),
            },
            request: JoinGroupRequest {
                group_id: GROUP.into(),
                session_timeout_ms: self.session_ms,
                rebalance_timeout_ms: self.rebalance_ms,
                member_id: self.member.clone(),
                group_instance_id: self.instance.clone(),
                protocol_type: self.protocol_type.into(),
                protocols: protocols.collect(),
                reason: self.reason.clone(),
            },
            random: Uuid::from_u128(u128::from(number) + 1),
        }
    }
}

/// What a consumer tells of itself.
pub fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|topic| (*topic).into()).collect();
    let subscription = ConsumerProtocolSubscription { topics, ..Default::default() };
    encode_versioned(&subscription, 1).unwrap()
}

/// An OffsetCommit request for one partition.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    pub version: i16,
    pub group: &'a str,
    pub member: &'a str,
    pub generation: i32,
    pub topic: &'a str,
    pub topic_id: Uuid,
    pub partition: i32,
    pub offset: i64,
    pub metadata: &'a str,
    pub retention_ms: i64,
}

impl Default for Commit<'_> {
    fn default() -> Self {
        Self {
            version: 9,
            group: GROUP,
            member: "",
            generation: -1,
            topic: "topic",
            topic_id: Uuid::ZERO,
            partition: 0,
            offset: 42,
            metadata: "",
            retention_ms: -1,
        }
    }
}

impl Commit<'_> {
    fn request(&self) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition {
            partition_index: self.partition,
            committed_offset: self.offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(self.metadata.into()),
        };
        OffsetCommitRequest {
            group_id: self.group.into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member.into(),
            retention_time_ms: self.retention_ms,
            topics: vec![OffsetCommitRequestTopic {
                name: self.topic.into(),
                topic_id: self.topic_id,
                partitions: vec![partition],
            }],
            ..OffsetCommitRequest::default()
        }
    }
}
