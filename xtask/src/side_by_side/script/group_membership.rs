//! Members of the classic protocol: joining, assigning, living, leaving, in every version, and each way to be refused.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::leave_group_request::MemberIdentity;
use ottla_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use ottla_protocol::messages::{
    ConsumerProtocolSubscription, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use ottla_protocol::records::encode_versioned;

use super::super::both::{Both, Pair};
use super::versions;

const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
const INSTANCES_SINCE: i16 = 5;
const SESSION_MS: i32 = 30_000;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.set_up(super::find_coordinator::wait_for_a_coordinator)?;
    for version in versions::<JoinGroupRequest>() {
        alone(both, version)?;
        together(both, version)?;
        refusals(both, version)?;
        if version >= INSTANCES_SINCE {
            instances(both, version)?;
        }
    }
    Ok(())
}

/// What a consumer tells of itself.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|topic| (*topic).into()).collect();
    let subscription = ConsumerProtocolSubscription { topics, ..Default::default() };
    encode_versioned(&subscription, 1).expect("a subscription can be said in version 1")
}

/// A conversation with one group, in one version of JoinGroup and the other requests of its time.
pub(super) struct Talk<'a> {
    pub(super) both: &'a mut Both,
    pub(super) version: i16,
    pub(super) group: String,
}

/// A member's ids, Apache Kafka's and ours.
pub(super) type Ids = [String; 2];

pub(super) fn nobody() -> Ids {
    Default::default()
}

fn id(ids: &Ids, index: usize) -> bytestring::ByteString {
    ids.get(index).map(String::as_str).unwrap_or_default().into()
}

impl<'a> Talk<'a> {
    pub(super) fn new(both: &'a mut Both, version: i16, what: &str) -> Self {
        Self { both, version, group: format!("{what}-{version}") }
    }

    fn sync_version(&self) -> i16 {
        self.version.min(*versions::<SyncGroupRequest>().end())
    }

    fn heartbeat_version(&self) -> i16 {
        self.version.min(*versions::<HeartbeatRequest>().end())
    }

    fn leave_version(&self) -> i16 {
        self.version.min(*versions::<LeaveGroupRequest>().end())
    }

    pub(super) fn join_request(&self, ids: &Ids, index: usize) -> JoinGroupRequest {
        let protocol = |name: &str| JoinGroupRequestProtocol {
            name: name.into(),
            metadata: subscription(&["groups"]),
        };
        JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: if self.version == 0 { -1 } else { 20_000 },
            member_id: id(ids, index),
            group_instance_id: None,
            protocol_type: "consumer".into(),
            protocols: vec![protocol("range"), protocol("sticky")],
            reason: (self.version >= 8).then(|| "because".into()),
        }
    }

    pub(super) fn join(
        &mut self,
        what: &str,
        ids: &Ids,
        change: impl Fn(&mut JoinGroupRequest),
    ) -> Result<Pair<JoinGroupResponse>> {
        let (plain, version) = (self.join_request(ids, 0), self.version);
        self.both.ask_each(version, what, |_, index| {
            let mut request = JoinGroupRequest { member_id: id(ids, index), ..plain.clone() };
            change(&mut request);
            request
        })
    }

    /// A new member's ids: as MEMBER_ID_REQUIRED hands them out, or as they come with the first join.
    fn new_member(&mut self, name: &str, change: impl Fn(&mut JoinGroupRequest)) -> Result<Ids> {
        let answers = self.join(&format!("{name} comes"), &nobody(), change)?;
        self.named(name, answers)
    }

    fn named(&mut self, name: &str, answers: Pair<JoinGroupResponse>) -> Result<Ids> {
        let [Some(kafka), Some(ottla)] = answers else { anyhow::bail!("a join is answered") };
        let ids = [kafka.member_id.to_string(), ottla.member_id.to_string()];
        self.both.name_member(&ids, name);
        Ok(ids)
    }

    /// Alone in a generation: joined, and not synced.
    pub(super) fn first(&mut self, name: &str) -> Result<Ids> {
        let ids = self.new_member(name, |_| ())?;
        if self.version >= MEMBER_ID_REQUIRED_SINCE {
            self.join(&format!("{name} joins"), &ids, |_| ())?;
        }
        Ok(ids)
    }

    pub(super) fn sync(
        &mut self,
        what: &str,
        ids: &Ids,
        generation_id: i32,
        change: impl Fn(&mut SyncGroupRequest),
    ) -> Result<()> {
        let request = self.sync_request(generation_id);
        self.both.ask_each(self.sync_version(), what, |_, index| {
            let mut request = SyncGroupRequest { member_id: id(ids, index), ..request.clone() };
            change(&mut request);
            request
        })?;
        Ok(())
    }

    fn sync_request(&self, generation_id: i32) -> SyncGroupRequest {
        let names = self.sync_version() >= 5;
        SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id,
            protocol_type: names.then(|| "consumer".into()),
            protocol_name: names.then(|| "range".into()),
            ..SyncGroupRequest::default()
        }
    }

    /// A leader's sync: every member gets its name.
    fn lead(&mut self, ids: &Ids, generation: i32, members: &[(&Ids, &'static str)]) -> Result<()> {
        let request = self.lead_request(generation, members);
        self.both.ask_each(self.sync_version(), "the leader assigns", |_, index| {
            SyncGroupRequest { member_id: id(ids, index), ..request(index) }
        })?;
        Ok(())
    }

    fn lead_request<'b>(
        &self,
        generation: i32,
        members: &'b [(&'b Ids, &'static str)],
    ) -> impl Fn(usize) -> SyncGroupRequest + 'b {
        let request = self.sync_request(generation);
        move |index| {
            let assignments = members.iter().map(|(ids, part)| SyncGroupRequestAssignment {
                member_id: id(ids, index),
                assignment: Bytes::from_static(part.as_bytes()),
            });
            SyncGroupRequest { assignments: assignments.collect(), ..request.clone() }
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        what: &str,
        ids: &Ids,
        generation_id: i32,
        change: impl Fn(&mut HeartbeatRequest),
    ) -> Result<()> {
        let group_id: bytestring::ByteString = self.group.as_str().into();
        self.both.ask_each(self.heartbeat_version(), what, |_, index| {
            let mut request = HeartbeatRequest {
                group_id: group_id.clone(),
                generation_id,
                member_id: id(ids, index),
                group_instance_id: None,
            };
            change(&mut request);
            request
        })?;
        Ok(())
    }

    /// Waits until a member is told to join again: others have come.
    fn wait_for_rebalance(&mut self, ids: &Ids, generation_id: i32) -> Result<()> {
        let (group, version) = (self.group.clone(), self.heartbeat_version());
        let mut index = 0;
        self.both.set_up(|subject| {
            let member_id = id(ids, index);
            index += 1;
            let request = HeartbeatRequest {
                group_id: group.as_str().into(),
                generation_id,
                member_id,
                group_instance_id: None,
            };
            subject.wait_for("a rebalance", |subject| {
                let answer = subject.expect(version, &request)?;
                Ok(answer.error_code == ErrorCode::REBALANCE_IN_PROGRESS)
            })
        })
    }

    fn leave(&mut self, what: &str, members: &[(&Ids, Option<&str>)]) -> Result<()> {
        let (group, version) = (self.group.clone(), self.leave_version());
        self.both.ask_each(version, what, |_, index| {
            let identity = |(ids, instance): &(&Ids, Option<&str>)| MemberIdentity {
                member_id: id(ids, index),
                group_instance_id: instance.map(Into::into),
                reason: (version >= 5).then(|| "enough".into()),
            };
            let mut request = LeaveGroupRequest {
                group_id: group.as_str().into(),
                ..LeaveGroupRequest::default()
            };
            if version < 3 {
                request.member_id =
                    members.first().map(|(ids, _)| id(ids, index)).unwrap_or_default();
            } else {
                request.members = members.iter().map(identity).collect();
            }
            request
        })?;
        Ok(())
    }

    pub(super) fn describe(&mut self, what: &str) -> Result<()> {
        let version = self.version.min(*versions::<DescribeGroupsRequest>().end());
        let groups = vec![self.group.as_str().into()];
        self.both.ask(version, what, |_| DescribeGroupsRequest {
            groups: groups.clone(),
            ..DescribeGroupsRequest::default()
        })?;
        Ok(())
    }
}

/// The whole life of a group with one member.
fn alone(both: &mut Both, version: i16) -> Result<()> {
    let mut talk = Talk::new(both, version, "alone");
    talk.describe("a group that is not there")?;
    let ids = talk.first("first")?;
    talk.describe("a group that waits for an assignment")?;
    talk.heartbeat("before the assignment", &ids, 1, |_| ())?;
    talk.join("joining again before the assignment", &ids, |_| ())?;
    talk.lead(&ids, 1, &[(&ids, "everything")])?;
    talk.describe("a stable group")?;
    talk.heartbeat("a stable member lives", &ids, 1, |_| ())?;
    talk.sync("asking for the assignment again", &ids, 1, |_| ())?;
    talk.join("the leader joins again", &ids, |_| ())?;
    talk.heartbeat("the old generation", &ids, 1, |_| ())?;
    talk.sync("no assignment at all", &ids, 2, |_| ())?;
    talk.join("joining with less", &ids, |request| request.protocols.truncate(1))?;
    talk.lead(&ids, 3, &[(&ids, "less")])?;
    talk.leave("the last one leaves", &[(&ids, None)])?;
    talk.describe("an empty group")?;
    talk.heartbeat("who has left", &ids, 3, |_| ())?;
    talk.leave("leaving twice", &[(&ids, None)])?;
    talk.join("joining an empty group with an old id", &ids, |_| ())?;
    talk.sync("a sync with an empty group", &ids, 4, |_| ())?;
    let again = talk.first("again")?;
    talk.lead(&again, 5, &[(&again, "everything")])?;
    talk.leave("leaving again", &[(&again, None)])
}

/// Two members: one joins later, both get their parts, one leaves.
fn together(both: &mut Both, version: i16) -> Result<()> {
    let mut talk = Talk::new(both, version, "together");
    let first = talk.first("first")?;
    talk.lead(&first, 1, &[(&first, "everything")])?;
    // The second one waits for the first.
    let plain = talk.join_request(&nobody(), 0);
    let second = if version >= MEMBER_ID_REQUIRED_SINCE {
        talk.new_member("second", |_| ())?
    } else {
        nobody()
    };
    talk.both.send_from("second", version, |_, index| JoinGroupRequest {
        member_id: id(&second, index),
        ..plain.clone()
    })?;
    talk.wait_for_rebalance(&first, 1)?;
    talk.describe("a group that prepares")?;
    talk.sync("a sync while the group prepares", &first, 1, |_| ())?;
    talk.join("the first one joins again", &first, |_| ())?;
    let answers =
        talk.both.answer_to::<JoinGroupRequest>("second", version, "the second one is in")?;
    let second = talk.named("second", answers)?;
    let sync = talk.sync_request(2);
    let sync_version = talk.sync_version();
    talk.both.send_from("second", sync_version, |_, index| SyncGroupRequest {
        member_id: id(&second, index),
        ..sync.clone()
    })?;
    talk.heartbeat("before the leader has assigned", &second, 2, |_| ())?;
    talk.lead(&first, 2, &[(&first, "left"), (&second, "right")])?;
    talk.both.answer_to::<SyncGroupRequest>("second", sync_version, "the second one's part")?;
    talk.describe("two members")?;
    talk.join("a follower joins again", &second, |_| ())?;
    talk.join("a stranger with other protocols", &nobody(), |request| {
        request.protocols.truncate(1);
        request.protocols.iter_mut().for_each(|it| it.name = "other".into());
    })?;
    talk.leave("the second one leaves", &[(&second, None)])?;
    talk.heartbeat("the first one must join again", &first, 2, |_| ())?;
    talk.join("the first one joins alone", &first, |_| ())?;
    talk.lead(&first, 3, &[(&first, "everything")])?;
    talk.leave("nobody is left", &[(&first, None)])?;
    talk.both.set_up(|subject| {
        subject.hang_up("second");
        Ok(())
    })
}

/// Each way to be refused.
fn refusals(both: &mut Both, version: i16) -> Result<()> {
    let mut talk = Talk::new(both, version, "refusals");
    let stranger = ["stranger".to_owned(), "stranger".to_owned()];
    talk.join("an unknown id, and no group", &stranger, |_| ())?;
    talk.sync("no group", &stranger, 1, |_| ())?;
    talk.heartbeat("no group", &stranger, 1, |_| ())?;
    talk.leave("no group", &[(&stranger, None)])?;
    let ids = talk.first("first")?;
    talk.lead(&ids, 1, &[(&ids, "everything")])?;
    talk.join("no group id", &nobody(), |request| request.group_id = "".into())?;
    for timeout in [5_999, 6_000, 1_800_001, 0, -1] {
        let what = format!("a session of {timeout} ms");
        talk.join(&what, &stranger, |request| request.session_timeout_ms = timeout)?;
    }
    talk.join("an unknown id", &stranger, |_| ())?;
    talk.join("no protocols", &nobody(), |request| request.protocols.clear())?;
    talk.join("no protocol type", &nobody(), |request| request.protocol_type = "".into())?;
    talk.join("another protocol type", &nobody(), |it| it.protocol_type = "connect".into())?;
    talk.sync("an unknown id", &stranger, 1, |_| ())?;
    talk.sync("an older generation", &ids, 0, |_| ())?;
    talk.sync("a newer generation", &ids, 2, |_| ())?;
    talk.sync("no group id", &ids, 1, |request| request.group_id = "".into())?;
    if talk.sync_version() >= 5 {
        talk.sync("no protocol type", &ids, 1, |request| request.protocol_type = None)?;
        talk.sync("no protocol name", &ids, 1, |request| request.protocol_name = None)?;
        talk.sync("another type", &ids, 1, |it| it.protocol_type = Some("connect".into()))?;
        talk.sync("another name", &ids, 1, |it| it.protocol_name = Some("sticky".into()))?;
    }
    talk.heartbeat("an unknown id", &stranger, 1, |_| ())?;
    talk.heartbeat("an older generation", &ids, 0, |_| ())?;
    talk.heartbeat("a newer generation", &ids, 2, |_| ())?;
    talk.heartbeat("no generation", &ids, -1, |_| ())?;
    talk.heartbeat("no group id", &ids, 1, |request| request.group_id = "".into())?;
    talk.leave("an unknown id", &[(&stranger, None)])?;
    talk.leave("no id", &[(&nobody(), None)])?;
    if talk.leave_version() >= 3 {
        talk.leave("nobody", &[])?;
        talk.leave("an unknown instance", &[(&nobody(), Some("instance"))])?;
        talk.leave("two strangers", &[(&stranger, None), (&stranger, Some("instance"))])?;
    }
    let group = std::mem::take(&mut talk.group);
    talk.leave("no group id", &[(&ids, None)])?;
    talk.group = group;
    talk.leave("who is there", &[(&ids, None)])
}

/// Static members.
fn instances(both: &mut Both, version: i16) -> Result<()> {
    let mut talk = Talk::new(both, version, "instances");
    let instance = |request: &mut JoinGroupRequest| request.group_instance_id = Some("a".into());
    let first = talk.new_member("first", instance)?;
    talk.lead(&first, 1, &[(&first, "everything")])?;
    talk.describe("a static member")?;
    let second = talk.new_member("second", instance)?;
    talk.describe("a static member that came back")?;
    talk.heartbeat("the id before", &first, 1, |_| ())?;
    let with_instance = |request: &mut HeartbeatRequest| {
        request.group_instance_id = Some("a".into());
    };
    talk.heartbeat("the id before, with its instance", &first, 1, with_instance)?;
    talk.heartbeat("the new id, with its instance", &second, 1, with_instance)?;
    talk.heartbeat("the new id, with another instance", &second, 1, |request| {
        request.group_instance_id = Some("b".into());
    })?;
    talk.sync("the new id's assignment", &second, 1, |it| it.group_instance_id = Some("a".into()))?;
    talk.sync("the id before", &first, 1, |it| it.group_instance_id = Some("a".into()))?;
    talk.join("the id before joins", &first, instance)?;
    talk.join("the new id joins", &second, instance)?;
    talk.lead(&second, 2, &[(&second, "everything")])?;
    let other = talk.new_member("other protocol", |request| {
        instance(request);
        request.protocols.reverse();
    })?;
    talk.sync("with another protocol", &other, 3, |it| {
        it.protocol_name = it.protocol_name.take().map(|_| "sticky".into())
    })?;
    talk.leave("the id before, with its instance", &[(&first, Some("a"))])?;
    talk.leave(
        "the instance without an id, and an unknown one",
        &[(&nobody(), Some("a")), (&nobody(), Some("b"))],
    )
    .context("leaving")?;
    talk.describe("after the instance was sent away")
}
