//! Members of groups: consumers without records. They join, assign, commit, leave, fall silent for longer than their session,
//! and go on as if nothing had happened.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode, PartitionIndex, Uuid};
use ottla_coordinator::group::{
    Caller, CommitOffsets, FetchOffsets, JoinGroup, LeaveGroup, Query, Reply, Request,
    group_partition,
};
use ottla_metadata::topic_name::CONSUMER_OFFSETS;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    ConsumerProtocolSubscription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetCommitResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use ottla_protocol::records::encode_versioned;

use super::coordinating::{Ask, Asker, RETENTION};
use super::network::{Body, Place};
use super::world::{Event, World};
use crate::law::{Checked, law};

/// Their groups; where `__consumer_offsets` has two partitions, each has one.
pub(super) const GROUPS: [&str; 2] = ["g", "h"];
/// Which group each member is in.
pub(super) const MEMBERS: [usize; 5] = [0, 0, 0, 1, 1];
/// What they read. Whether there is such a topic is nothing to coordinators.
pub(super) const TOPIC: &str = "t";
const PARTITIONS: i32 = 4;
const SESSION: Duration = Duration::from_millis(1_300);
const REBALANCE: Duration = Duration::from_millis(1_500);
const TIMEOUT: Duration = Duration::from_millis(1_000);
const JOIN_TIMEOUT: Duration = Duration::from_millis(3_000);

/// A member's part of an assignment.
#[derive(Debug)]
pub(super) struct Assignment {
    /// Made from those who were told to the leader: other members, another number.
    pub(super) number: u64,
    pub(super) partitions: Vec<i32>,
}

impl Assignment {
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let number = bytes.try_get_u64().ok()?;
        Some(Self { number, partitions: bytes.iter().map(|byte| i32::from(*byte)).collect() })
    }

    fn write(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(self.number);
        bytes.extend(self.partitions.iter().map(|partition| *partition as u8));
        bytes.freeze()
    }
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: &'static str,
    client_id: ByteString,
    id: ByteString,
    pub(super) generation: i32,
    owned: Vec<i32>,
    coordinator: Option<BrokerId>,
    phase: Phase,
    waiting: Option<Waiting>,
    /// It was silent for long, and believes to be the member still that it was.
    is_zombie: bool,
    /// It commits what it has done before it joins again.
    commits_first: bool,
    /// What it has to do at last, when all is at rest.
    pub(super) owes: Option<Owes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owes {
    Commit,
    Fetch,
    /// It is a member, and does nothing else any more.
    Nothing,
}

#[derive(Debug)]
enum Phase {
    Joins,
    /// With what it assigns, if it leads.
    Syncs(Vec<SyncGroupRequestAssignment>),
    Fetches,
    Works,
    /// Silent until then.
    Away(Duration),
    /// It deletes its group, and joins it.
    Deletes,
}

#[derive(Debug)]
struct Waiting {
    attempt: u64,
    asks: Asks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Join,
    Sync,
    Heartbeat,
    Commit,
    Fetch,
    FetchCommitted,
    Leave,
    Delete,
}

impl Member {
    pub(super) fn new(at: usize) -> Self {
        Self {
            group: GROUPS[MEMBERS[at]],
            client_id: format!("c{at}").into(),
            id: ByteString::new(),
            generation: -1,
            owned: Vec::new(),
            coordinator: None,
            phase: Phase::Joins,
            waiting: None,
            is_zombie: false,
            commits_first: false,
            owes: None,
        }
    }

    pub(super) fn works(&self) -> bool {
        matches!(self.phase, Phase::Fetches | Phase::Works)
    }

    /// It joins, under the id that it has.
    fn rejoin(&mut self) {
        self.phase = Phase::Joins;
    }

    fn forget_what_it_does(&mut self) {
        (self.is_zombie, self.commits_first) = (false, false);
    }

    /// It joins as somebody new.
    fn forget_itself(&mut self) {
        self.id = ByteString::new();
        self.generation = -1;
        self.rejoin();
    }

    fn question(&self, asks: Asks, value: i64) -> Ask {
        let (group_id, member_id) = (ByteString::from(self.group), self.id.clone());
        Ask::Request(match asks {
            Asks::Join => Request::Join(self.join()),
            Asks::Sync => Request::Sync(SyncGroupRequest {
                group_id,
                member_id,
                generation_id: self.generation,
                protocol_type: Some("consumer".into()),
                protocol_name: Some("range".into()),
                assignments: match &self.phase {
                    Phase::Syncs(assignments) => assignments.clone(),
                    _ => Vec::new(),
                },
                ..Default::default()
            }),
            Asks::Heartbeat => Request::Heartbeat(HeartbeatRequest {
                group_id,
                member_id,
                generation_id: self.generation,
                ..Default::default()
            }),
            Asks::Commit => Request::Commit(self.commit(value)),
            Asks::Fetch => Request::FetchStable(self.fetch()),
            Asks::FetchCommitted => return Ask::Query(Query::Fetch(self.fetch())),
            Asks::Delete => Request::DeleteGroups(vec![group_id]),
            Asks::Leave => {
                let members = vec![MemberIdentity { member_id, ..Default::default() }];
                let request = LeaveGroupRequest { group_id, members, ..Default::default() };
                Request::Leave(LeaveGroup { request })
            }
        })
    }

    fn join(&self) -> JoinGroup {
        let subscription =
            ConsumerProtocolSubscription { topics: vec![TOPIC.into()], ..Default::default() };
        let metadata = encode_versioned(&subscription, 0).unwrap();
        let caller = Caller {
            version: 9,
            client_id: self.client_id.clone(),
            client_host: ByteString::from_static("/::1"),
        };
        let request = JoinGroupRequest {
            group_id: self.group.into(),
            session_timeout_ms: SESSION.as_millis() as i32,
            rebalance_timeout_ms: REBALANCE.as_millis() as i32,
            member_id: self.id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata }],
            ..Default::default()
        };
        JoinGroup { caller, request, random: Uuid::ZERO }
    }

    fn commit(&self, value: i64) -> CommitOffsets {
        let of_one = |partition: &i32| OffsetCommitRequestPartition {
            partition_index: *partition,
            committed_offset: value,
            ..Default::default()
        };
        let partitions = self.owned.iter().map(of_one).collect();
        let topic =
            OffsetCommitRequestTopic { name: TOPIC.into(), partitions, ..Default::default() };
        let request = OffsetCommitRequest {
            group_id: self.group.into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.id.clone(),
            topics: vec![topic],
            ..Default::default()
        };
        CommitOffsets { version: 9, request }
    }

    /// Of all that its group has committed.
    fn fetch(&self) -> FetchOffsets {
        let group = OffsetFetchRequestGroup { group_id: self.group.into(), ..Default::default() };
        FetchOffsets { group: OffsetFetchRequestGroup { topics: None, ..group } }
    }

    /// The leader gives each member its part.
    fn assign(answer: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        let mut ids: Vec<_> =
            answer.members.iter().map(|member| member.member_id.clone()).collect();
        ids.sort();
        let letters = ids.iter().flat_map(|id| id.bytes());
        let number = letters.fold(14_695_981_039_346_656_037, |hash: u64, letter| {
            (hash ^ u64::from(letter)).wrapping_mul(1_099_511_628_211)
        });
        let count = ids.len() as i32;
        let part = |(at, member_id)| {
            let mine = (0..PARTITIONS).filter(|partition| partition % count == at as i32);
            let assignment = Assignment { number, partitions: mine.collect() }.write();
            SyncGroupRequestAssignment { member_id, assignment }
        };
        ids.into_iter().enumerate().map(part).collect()
    }
}

impl World {
    /// A member does what it has to do next.
    pub(super) fn act_as_member(&mut self, member: usize) -> Checked {
        if self.members[member].waiting.is_some() {
            return Ok(());
        }
        match self.members[member].phase {
            Phase::Away(until) if self.now < until => return Ok(()),
            Phase::Away(_) => self.come_back(member),
            _ => {}
        }
        let Some(coordinator) = self.coordinator_of(member)? else {
            self.after(Duration::from_millis(100), Event::Member(member));
            return Ok(());
        };
        let commits_first = std::mem::take(&mut self.members[member].commits_first);
        let asks = match &self.members[member].phase {
            Phase::Joins if commits_first => Asks::Commit,
            Phase::Joins => Asks::Join,
            Phase::Syncs(_) => Asks::Sync,
            Phase::Fetches => Asks::Fetch,
            Phase::Deletes => Asks::Delete,
            Phase::Works | Phase::Away(_) => match self.work(member) {
                Some(asks) => asks,
                None => return Ok(()),
            },
        };
        let attempt = self.number();
        let this = &mut self.members[member];
        // With more members than partitions it may have none.
        let is_idle = asks == Asks::Commit && this.owned.is_empty();
        let asks = if is_idle { Asks::Heartbeat } else { asks };
        this.waiting = Some(Waiting { attempt, asks });
        let ask = this.question(asks, attempt as i64);
        let (group, asker) = (this.group, Asker { member, attempt });
        let to = Place::Node(coordinator.0 as usize - 1);
        self.send(Place::Clients, to, Body::Ask { asker, group, ask: Box::new(ask) });
        let timeout = if asks == Asks::Join { JOIN_TIMEOUT } else { TIMEOUT };
        self.after(timeout, Event::MemberTimeout { member, attempt });
        Ok(())
    }

    /// What somebody with a part of the assignment does; nothing for a while, perhaps.
    fn work(&mut self, member: usize) -> Option<Asks> {
        let (is_zombie, owes) = (self.members[member].is_zombie, self.members[member].owes);
        if is_zombie {
            return Some(Asks::Commit);
        }
        match owes {
            Some(Owes::Commit) => return Some(Asks::Commit),
            Some(Owes::Fetch) => return Some(Asks::Fetch),
            Some(Owes::Nothing) => return Some(Asks::Heartbeat),
            None => {}
        }
        match self.work.below(100) {
            0..2 if !self.is_healing => Some(Asks::Leave),
            2..6 if !self.is_healing => {
                self.fall_silent(member);
                None
            }
            6..12 => Some(Asks::Fetch),
            12..16 => Some(Asks::FetchCommitted),
            16..50 => Some(Asks::Commit),
            _ => Some(Asks::Heartbeat),
        }
    }

    /// For longer than its session; or its whole group, for longer than anybody needs its offsets.
    fn fall_silent(&mut self, member: usize) {
        let group = self.members[member].group;
        let is_alone = self.work.happens(6_000);
        self.counts.add(if is_alone { "member falls silent" } else { "group falls silent" });
        for at in 0..self.members.len() {
            let this = &self.members[at];
            if at != member && (is_alone || this.group != group) {
                continue;
            }
            let least = if is_alone { SESSION } else { SESSION + RETENTION };
            let silence = least + Duration::from_millis(self.work.below(4_000) as u64);
            let this = &mut self.members[at];
            if !matches!(this.phase, Phase::Away(_)) {
                (this.phase, this.waiting) = (Phase::Away(self.now + silence), None);
                self.after(silence, Event::Member(at));
            }
        }
    }

    /// As whom it was, or as somebody new.
    fn come_back(&mut self, member: usize) {
        let (is_zombie, deletes) = (self.work.happens(5_000), self.work.happens(4_000));
        let this = &mut self.members[member];
        this.forget_what_it_does();
        // Who has not heard its part of this generation has nothing to go on with.
        if is_zombie && this.generation >= 0 && !this.owned.is_empty() {
            (this.phase, this.is_zombie) = (Phase::Works, true);
        } else {
            this.forget_itself();
            if deletes && !self.is_healing {
                this.phase = Phase::Deletes;
            }
        }
    }

    /// Whom some broker calls the leader of the group's partition, unless the member knows one.
    fn coordinator_of(&mut self, member: usize) -> Checked<Option<BrokerId>> {
        if let Some(known) = self.members[member].coordinator {
            return Ok(Some(known));
        }
        // Whoever is asked for a coordinator makes the topic.
        let is_there = self.controller.image.topic_by_name(CONSUMER_OFFSETS).is_some();
        if !is_there && (self.is_healing || self.work.happens(2_000)) {
            self.create_topic(CONSUMER_OFFSETS)?;
        }
        let at = self.work.below(self.nodes.len());
        let group = self.members[member].group;
        let find = |image: &ottla_metadata::Image| {
            let topic = image.topic_by_name(CONSUMER_OFFSETS)?;
            let index = group_partition(group, topic.partition_count() as i32);
            Some(topic.partition(PartitionIndex(index))?.leader)
        };
        let found = self.nodes[at].process.as_ref().and_then(|process| find(&process.image));
        let found = found.filter(|leader| *leader != BrokerId::NONE);
        self.members[member].coordinator = found;
        Ok(found)
    }

    pub(super) fn give_up_asking(&mut self, member: usize, attempt: u64) -> Checked {
        let this = &mut self.members[member];
        if this.waiting.as_ref().is_none_or(|waiting| waiting.attempt != attempt) {
            return Ok(());
        }
        this.waiting = None;
        this.coordinator = None;
        self.counts.add("coordinator does not answer");
        self.act_as_member(member)
    }

    /// A coordinator has answered.
    pub(super) fn hear_coordinator(
        &mut self,
        asker: Asker,
        result: Result<Reply, ErrorCode>,
    ) -> Checked {
        let Asker { member, attempt } = asker;
        let longest = if self.is_healing { 300 } else { 900 };
        let pause = Duration::from_millis(20 + self.work.below(longest) as u64);
        let this = &mut self.members[member];
        let Some(waiting) = this.waiting.take_if(|waiting| waiting.attempt == attempt) else {
            return Ok(());
        };
        let is_zombie = std::mem::take(&mut this.is_zombie);
        let (result, part) = told(result);
        let pause = match (waiting.asks, &result) {
            (Asks::Join | Asks::Sync, Ok(())) => Duration::ZERO,
            _ => pause,
        };
        if is_zombie && waiting.asks == Asks::Commit {
            match result {
                Ok(()) => self.counts.add("silent member was missed by nobody"),
                Err(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::ILLEGAL_GENERATION) => {
                    self.counts.add("zombie's commit refused");
                }
                Err(_) => {}
            }
        }
        match result {
            Ok(()) => self.go_on(member, waiting.asks, part)?,
            Err(code) => self.heed(member, waiting.asks, code, part),
        }
        self.after(pause, Event::Member(member));
        Ok(())
    }

    fn go_on(&mut self, member: usize, asks: Asks, part: Part) -> Checked {
        let this = &mut self.members[member];
        match (asks, part) {
            (Asks::Join, Part::Joined(answer)) => {
                this.id = answer.member_id.clone();
                this.generation = answer.generation_id;
                this.owned = Vec::new();
                let leads = answer.leader == answer.member_id;
                this.phase = Phase::Syncs(if leads { Member::assign(&answer) } else { Vec::new() });
            }
            (Asks::Sync, Part::Assigned(answer)) => {
                let assignment = Assignment::read(&answer.assignment);
                law!(OneAssignment, assignment.is_some(), "{} gets no part", this.id);
                this.owned = assignment.map_or_else(Vec::new, |it| it.partitions);
                this.phase = Phase::Fetches;
            }
            (Asks::Commit, _) if this.owes == Some(Owes::Commit) => this.owes = Some(Owes::Fetch),
            (Asks::Fetch, _) => {
                this.phase = Phase::Works;
                if this.owes == Some(Owes::Fetch) {
                    this.owes = Some(Owes::Nothing);
                }
            }
            (Asks::Leave, _) => {
                this.forget_itself();
                self.counts.add("member left");
            }
            (Asks::Delete, _) => {
                this.rejoin();
                self.counts.add("group deleted");
            }
            _ => {}
        }
        Ok(())
    }

    /// What a consumer does about an error.
    fn heed(&mut self, member: usize, asks: Asks, code: ErrorCode, part: Part) {
        let this = &mut self.members[member];
        if asks == Asks::Delete {
            return this.rejoin();
        }
        match code {
            ErrorCode::MEMBER_ID_REQUIRED => {
                if let Part::Joined(answer) = part {
                    this.id = answer.member_id;
                }
            }
            ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => {
                this.coordinator = None;
            }
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND => this.forget_itself(),
            ErrorCode::ILLEGAL_GENERATION => this.rejoin(),
            ErrorCode::REBALANCE_IN_PROGRESS => {
                this.rejoin();
                this.commits_first = asks == Asks::Heartbeat && self.work.happens(5_000);
                self.counts.add("member hears of a rebalance");
            }
            ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => {}
            code => self.counts.add(format!("member hears {code} to {asks:?}")),
        }
    }

    /// At rest: all members of a group are in one generation, and have said their last words.
    pub(super) fn check_group(&mut self, group: &str) -> Checked {
        let members = self.members.iter().filter(|member| member.group == group);
        let states: Vec<_> =
            members.map(|member| (member.works(), member.generation, member.owes)).collect();
        let is_stable = |it: &(bool, i32, Option<Owes>)| {
            it.0 && it.1 == states[0].1 && it.2 == Some(Owes::Nothing)
        };
        law!(AtRest, states.iter().all(is_stable), "at rest {group} is not stable: {states:?}");
        self.counts.add("group stable at rest");
        Ok(())
    }
}

/// What an answer carries beside its error.
#[derive(Debug)]
enum Part {
    Nothing,
    Joined(Box<JoinGroupResponse>),
    Assigned(SyncGroupResponse),
}

/// The error of an answer, wherever it stands.
fn told(result: Result<Reply, ErrorCode>) -> (Result<(), ErrorCode>, Part) {
    let (code, part) = match result {
        Err(code) => (code, Part::Nothing),
        Ok(Reply::Join(answer)) => (answer.error_code, Part::Joined(Box::new(answer))),
        Ok(Reply::Sync(answer)) => (answer.error_code, Part::Assigned(answer)),
        Ok(Reply::Heartbeat(answer)) => (answer.error_code, Part::Nothing),
        Ok(Reply::DeleteGroups(answer)) => (answer[0].error_code, Part::Nothing),
        Ok(Reply::Leave(answer)) => {
            let of_member = answer.members.first().map_or(ErrorCode::NONE, |it| it.error_code);
            let is_refused = answer.error_code.is_error();
            (if is_refused { answer.error_code } else { of_member }, Part::Nothing)
        }
        Ok(Reply::Commit(answer)) => (answer.map_or_else(|code| code, first_error), Part::Nothing),
        Ok(_) => (ErrorCode::NONE, Part::Nothing),
    };
    (if code.is_error() { Err(code) } else { Ok(()) }, part)
}

fn first_error(answer: OffsetCommitResponse) -> ErrorCode {
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let first = partitions.find(|partition| partition.error_code.is_error());
    first.map_or(ErrorCode::NONE, |partition| partition.error_code)
}
