//! A cluster's life as requests to its controller, and what came of each: answers, and records in the log.
//!
//! The same requests go to the decisions of this room and to Apache Kafka's controller; see `kafka_agrees.rs`. Not in
//! here is what is decided otherwise on purpose: a second move that keeps what the first was adding, disks that were
//! replaced, directories that fail where nobody else is in sync or before a replica is known to be in them, several
//! brokers that fall silent together, and new registrations of fenced brokers that were heard from lately. Nor, where replicas
//! are eligible from outside the ISR: failed directories, partitions that nobody leads when `min.insync.replicas` or the
//! feature changes, and topics whose partitions have different numbers of replicas.

mod eligible;

use std::collections::BTreeMap;

use ottla_base::{ErrorCode, TopicId, Uuid};
use ottla_metadata::controller::Policy;
use ottla_metadata::{Image, MetadataRecord, Partition, controller, feature};
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    CreateTopicsRequest, CreateTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
    UpdateFeaturesRequest, UpdateFeaturesResponse, alter_partition_request,
    assign_replicas_to_dirs_request, broker_registration_request, elect_leaders_request,
};

pub(crate) const CLUSTER_ID: &str = "Interop-Cluster-Id-000";

/// Who decides.
pub(crate) trait Decider {
    fn register(&mut self, request: &BrokerRegistrationRequest) -> Result<i64, ErrorCode>;
    fn heartbeat(&mut self, request: &BrokerHeartbeatRequest) -> BrokerHeartbeatResponse;
    fn create_topics(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse;
    fn alter_partition(
        &mut self,
        request: &AlterPartitionRequest,
        version: i16,
    ) -> AlterPartitionResponse;
    fn elect_leaders(&mut self, request: &ElectLeadersRequest) -> ElectLeadersResponse;
    fn reassign(
        &mut self,
        request: &AlterPartitionReassignmentsRequest,
    ) -> AlterPartitionReassignmentsResponse;
    fn list_reassignments(
        &mut self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse;
    fn assign(&mut self, request: &AssignReplicasToDirsRequest) -> AssignReplicasToDirsResponse;
    fn unregister(&mut self, request: &UnregisterBrokerRequest) -> UnregisterBrokerResponse;
    fn alter_configs(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
    ) -> Vec<(ErrorCode, Option<String>)>;
    fn update_features(&mut self, request: &UpdateFeaturesRequest) -> UpdateFeaturesResponse;
    /// Lets a session pass in which only these are heard from.
    fn pass_a_session(&mut self, living: &[BrokerHeartbeatRequest]);
    /// What was appended since it was last asked.
    fn records(&mut self) -> Vec<MetadataRecord>;
}

/// More than any offset of these logs.
const KNOWS_ALL: i64 = 1_000_000;

type Edit = fn(&mut alter_partition_request::PartitionData);

struct Story<'a> {
    decider: &'a mut dyn Decider,
    image: Image,
    /// Of the running processes.
    epochs: BTreeMap<i32, i64>,
    starts: u32,
    transcript: String,
}

/// Which cluster it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Begun without eligible leader replicas.
    Plain,
    Eligible,
}

impl Kind {
    pub(crate) fn levels(self) -> BTreeMap<String, i16> {
        let level = i16::from(self == Self::Eligible);
        BTreeMap::from([(feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), level)])
    }
}

pub(crate) fn tell(decider: &mut dyn Decider, kind: Kind) -> String {
    let mut image = Image::new(CLUSTER_ID);
    let first = controller::format(&image, &Policy::default(), &kind.levels()).records;
    first.iter().for_each(|record| image.apply(record).unwrap());
    decider.records();
    let mut story =
        Story { decider, image, epochs: BTreeMap::new(), starts: 0, transcript: String::new() };
    match kind {
        Kind::Plain => story.is_told(),
        Kind::Eligible => story.of_eligible_leader_replicas(),
    }
    story.transcript
}

fn directory(broker: i32, number: u128) -> Uuid {
    Uuid::from_u128(10_000 * u128::try_from(broker).unwrap() + number)
}

/// The fifth has two.
fn directories(broker: i32) -> Vec<Uuid> {
    let count = if broker == 5 { 2 } else { 1 };
    (0..count).map(|number| directory(broker, 1000 + number)).collect()
}

impl Story<'_> {
    fn is_told(&mut self) {
        self.brokers_come();
        self.leaders_report();
        self.a_broker_falls_silent();
        self.leaders_are_elected();
        self.a_broker_shuts_down();
        self.partitions_move();
        self.directories_fail();
        self.a_broker_is_forgotten();
    }

    fn chapter(&mut self, title: &str) {
        self.transcript.push_str(&format!("\n# {title}\n"));
    }

    /// Writes down what was asked and answered, and what the records that came of it say, in an order that does not
    /// tell which came first: Kafka changes partitions before registrations, because it may split what it appends.
    /// Records that change nothing are left out: it fences brokers that are fenced.
    fn note(&mut self, asked: &str, answered: &str) {
        self.transcript.push_str(&format!("{asked}\n  -> {answered}\n"));
        let mut lines: Vec<String> = Vec::new();
        for record in self.decider.records() {
            // What another release finalizes is not of interest here.
            let is_known = |name: &str| feature::supported().any(|(known, _)| known == name);
            if !matches!(&record, MetadataRecord::FeatureLevel(it) if !is_known(&it.name)) {
                let before = self.image.clone();
                self.image.apply(&record).unwrap();
                lines.extend(self.line(&record).filter(|_| self.image != before));
            }
        }
        lines.sort();
        lines.iter().for_each(|line| self.transcript.push_str(&format!("     {line}\n")));
    }

    fn topic(&self, id: TopicId) -> String {
        self.image.topic(id).map_or_else(|| "?".to_owned(), |topic| topic.name.to_string())
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "records that say nothing of brokers or partitions"
    )]
    fn line(&self, record: &MetadataRecord) -> Option<String> {
        Some(match record {
            MetadataRecord::Topic(it) => format!("topic {}", it.name),
            MetadataRecord::Partition(it) => format!(
                "partition {}-{} replicas {:?} isr {:?} leader {} directories {:?}",
                self.topic(it.topic_id),
                it.partition_id,
                it.replicas,
                it.isr,
                it.leader,
                it.directories
            ),
            MetadataRecord::PartitionChange(it) => {
                let mut line = format!("change {}-{}", self.topic(it.topic_id), it.partition_id);
                let mut add = |name: &str, list: &Option<Vec<i32>>| {
                    if let Some(list) = list {
                        line.push_str(&format!(" {name} {list:?}"));
                    }
                };
                add("isr", &it.isr);
                add("replicas", &it.replicas);
                add("removing", &it.removing_replicas);
                add("adding", &it.adding_replicas);
                add("elr", &it.eligible_leader_replicas);
                add("last known", &it.last_known_elr);
                if it.leader != -2 {
                    line.push_str(&format!(" leader {}", it.leader));
                }
                if it.leader_recovery_state != -1 {
                    line.push_str(&format!(" recovering {}", it.leader_recovery_state));
                }
                if let Some(directories) = &it.directories {
                    line.push_str(&format!(" directories {directories:?}"));
                }
                line
            }
            MetadataRecord::RegisterBroker(it) => {
                let is_current = self.epochs.get(&it.broker_id) == Some(&it.broker_epoch);
                format!(
                    "register {} fenced {} shutting down {} directories {:?} with the epoch answered {is_current}",
                    it.broker_id, it.fenced, it.in_controlled_shutdown, it.log_dirs
                )
            }
            MetadataRecord::BrokerRegistrationChange(it) => format!(
                "broker {} fenced {} shutting down {} directories {:?} cordoned {:?}",
                it.broker_id,
                it.fenced,
                it.in_controlled_shutdown,
                it.log_dirs,
                it.cordoned_log_dirs
            ),
            MetadataRecord::UnregisterBroker(it) => format!("unregister {}", it.broker_id),
            MetadataRecord::Config(it) if matches!(it.resource_type, 2 | 4) => {
                format!("config {} {} {:?}", it.resource_name, it.name, it.value)
            }
            MetadataRecord::ClearElr(it) => format!("clear elr {}", it.topic_name),
            MetadataRecord::FeatureLevel(it) => {
                format!("level {} of {}", it.feature_level, it.name)
            }
            _ => return None,
        })
    }

    fn register(&mut self, id: i32) {
        self.starts += 1;
        self.register_incarnation(id, self.starts, -1);
    }

    /// `previous` is the epoch in which the process before this one ended cleanly.
    fn register_incarnation(&mut self, id: i32, incarnation: u32, previous: i64) {
        let feature = |(name, max): (&str, i16)| broker_registration_request::Feature {
            name: name.into(),
            min_supported_version: if name == "metadata.version" { 7 } else { 0 },
            max_supported_version: max,
        };
        let features = [
            ("metadata.version", 30),
            ("kraft.version", 1),
            ("group.version", 1),
            ("transaction.version", 2),
            ("share.version", 1),
            ("streams.version", 1),
            ("eligible.leader.replicas.version", 1),
        ];
        let request = BrokerRegistrationRequest {
            broker_id: id,
            cluster_id: CLUSTER_ID.into(),
            incarnation_id: Uuid::from_u128(u128::from(incarnation) << 64 | 1000),
            listeners: vec![broker_registration_request::Listener {
                name: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                security_protocol: 0,
            }],
            features: features.into_iter().map(feature).collect(),
            log_dirs: directories(id),
            rack: None,
            previous_broker_epoch: previous,
            ..Default::default()
        };
        let answer = self.decider.register(&request);
        if let Ok(epoch) = answer {
            self.epochs.insert(id, epoch);
        }
        let answer = answer.map_or_else(|code| code.to_string(), |_| "an epoch".to_owned());
        let how = if previous == -1 { "" } else { ", after a clean end" };
        self.note(&format!("register {id} incarnation {incarnation}{how}"), &answer);
    }

    fn alive(&self, id: i32) -> BrokerHeartbeatRequest {
        BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: self.epochs.get(&id).copied().unwrap_or(-1),
            current_metadata_offset: KNOWS_ALL,
            ..Default::default()
        }
    }

    fn heartbeat(&mut self, what: &str, request: &BrokerHeartbeatRequest) {
        let answer = self.decider.heartbeat(request);
        let answer = format!(
            "{} caught up {} fenced {} should shut down {}",
            answer.error_code, answer.is_caught_up, answer.is_fenced, answer.should_shut_down
        );
        self.note(&format!("heartbeat of {}, {what}", request.broker_id), &answer);
    }

    fn come(&mut self, id: i32) {
        self.register(id);
        self.heartbeat("ready", &self.alive(id));
    }

    fn create(&mut self, name: &str, assignments: &[&[i32]], configs: &[(&str, &str)]) {
        let assignment = |(partition_index, broker_ids): (i32, &&[i32])| {
            CreatableReplicaAssignment { partition_index, broker_ids: broker_ids.to_vec() }
        };
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: (0..).zip(assignments).map(assignment).collect(),
            configs: configs.iter().map(config).collect(),
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        let answer = self.decider.create_topics(&request);
        let answer = &answer.topics[0];
        let text = format!("{} {:?}", answer.error_code, answer.error_message);
        // A topic's id is known before its records are looked at.
        self.note(&format!("create {name} {assignments:?}"), &text);
    }

    fn partition(&self, topic: &str, index: i32) -> &Partition {
        self.image.topic_by_name(topic).unwrap().partition(index.into()).unwrap()
    }

    /// What the leader of a partition asks for.
    fn report(&self, topic: &str, index: i32, isr: &[i32]) -> AlterPartitionRequest {
        let partition = self.partition(topic, index);
        let member = |id: &i32| alter_partition_request::BrokerState {
            broker_id: *id,
            broker_epoch: self.epochs.get(id).copied().unwrap_or(-1),
        };
        let partitions = vec![alter_partition_request::PartitionData {
            partition_index: index,
            leader_epoch: partition.leader_epoch.0,
            new_isr: Vec::new(),
            new_isr_with_epochs: isr.iter().map(member).collect(),
            leader_recovery_state: 0,
            partition_epoch: partition.partition_epoch,
        }];
        let topic_id = self.image.topic_by_name(topic).unwrap().id;
        let leader = partition.leader.0;
        AlterPartitionRequest {
            broker_id: leader,
            broker_epoch: self.epochs.get(&leader).copied().unwrap_or(-1),
            topics: vec![alter_partition_request::TopicData { topic_id, partitions }],
        }
    }

    fn alter(&mut self, topic: &str, index: i32, isr: &[i32]) {
        self.alter_as("as it should", self.report(topic, index, isr), 3);
    }

    fn alter_as(&mut self, what: &str, request: AlterPartitionRequest, version: i16) {
        let answer = self.decider.alter_partition(&request, version);
        let topic = self.topic(request.topics[0].topic_id);
        let asked = &request.topics[0].partitions[0];
        let members: Vec<i32> =
            asked.new_isr_with_epochs.iter().map(|member| member.broker_id).collect();
        let members = if version < 3 { &asked.new_isr } else { &members };
        let text = match answer.topics.first().map(|topic| &topic.partitions[0]) {
            None => answer.error_code.to_string(),
            Some(it) => format!(
                "{} leader {} epoch {} isr {:?} recovering {} partition epoch {}",
                it.error_code,
                it.leader_id,
                it.leader_epoch,
                it.isr,
                it.leader_recovery_state,
                it.partition_epoch
            ),
        };
        let asked = format!("alter {topic}-{} isr {members:?}, {what}", asked.partition_index);
        self.note(&asked, &text);
    }

    fn elect(&mut self, election_type: i8, topic: &str, partitions: &[i32]) {
        let asked = elect_leaders_request::TopicPartitions {
            topic: topic.into(),
            partitions: partitions.to_vec(),
        };
        let request = ElectLeadersRequest {
            election_type,
            topic_partitions: Some(vec![asked]),
            timeout_ms: 10_000,
        };
        let answer = self.decider.elect_leaders(&request);
        let results = answer.replica_election_results.iter().flat_map(|it| &it.partition_result);
        let results: Vec<String> = results
            .map(|it| format!("{} {} {:?}", it.partition_id, it.error_code, it.error_message))
            .collect();
        let text = format!("{} {results:?}", answer.error_code);
        self.note(&format!("elect {election_type} {topic} {partitions:?}"), &text);
    }

    fn reassign(&mut self, topic: &str, index: i32, replicas: Option<&[i32]>, may_change: bool) {
        let partition = ReassignablePartition {
            partition_index: index,
            replicas: replicas.map(<[i32]>::to_vec),
        };
        let topics = vec![ReassignableTopic { name: topic.into(), partitions: vec![partition] }];
        let request = AlterPartitionReassignmentsRequest {
            topics,
            timeout_ms: 10_000,
            allow_replication_factor_change: may_change,
        };
        let answer = self.decider.reassign(&request);
        let result = &answer.responses[0].partitions[0];
        let text = format!("{} {:?}", result.error_code, result.error_message);
        let asked = format!("move {topic}-{index} to {replicas:?}, factor may change {may_change}");
        self.note(&asked, &text);
        let all = ListPartitionReassignmentsRequest { topics: None, timeout_ms: 10_000 };
        let mut listed = self.decider.list_reassignments(&all);
        listed.topics.sort_by(|one, other| one.name.cmp(&other.name));
        self.note("list what moves", &format!("{} {:?}", listed.error_code, listed.topics));
    }

    fn brokers_come(&mut self) {
        self.chapter("Brokers come");
        self.register(1);
        self.heartbeat(
            "knows nothing",
            &BrokerHeartbeatRequest { current_metadata_offset: 0, ..self.alive(1) },
        );
        self.heartbeat(
            "wants to be fenced",
            &BrokerHeartbeatRequest { want_fence: true, ..self.alive(1) },
        );
        self.heartbeat("ready", &self.alive(1));
        self.heartbeat("still there", &self.alive(1));
        self.heartbeat(
            "of another epoch",
            &BrokerHeartbeatRequest { broker_epoch: 1, ..self.alive(1) },
        );
        self.heartbeat("not registered", &self.alive(99));
        (2..=5).for_each(|id| self.come(id));
        self.register_incarnation(2, 77, -1);
        self.register_incarnation(2, 2, -1);
        self.create("t", &[&[1, 2, 3], &[2, 3, 1]], &[]);
        self.create("s", &[&[3]], &[]);
        self.create("p", &[&[1, 2], &[1, 2], &[4, 3]], &[]);
        self.create("u", &[&[3, 4], &[4, 3]], &[("unclean.leader.election.enable", "true")]);
        self.create("v", &[&[5, 1], &[1, 5]], &[]);
    }

    fn leaders_report(&mut self) {
        self.chapter("Leaders report who is in sync");
        self.alter("t", 0, &[1]);
        self.alter("t", 0, &[1]);
        self.alter("t", 0, &[1, 2, 3]);
        self.alter("t", 0, &[3, 2, 1]);
        let edit = |story: &Self, edit: Edit| {
            let mut request = story.report("t", 0, &[1, 2]);
            edit(&mut request.topics[0].partitions[0]);
            request
        };
        let cases: [(&str, Edit); 12] = [
            ("with an older leader epoch", |it| it.leader_epoch -= 1),
            ("with a newer leader epoch", |it| it.leader_epoch += 1),
            ("with an older partition epoch", |it| it.partition_epoch -= 1),
            ("with a newer partition epoch", |it| it.partition_epoch += 1),
            ("with two older epochs", |it| (it.leader_epoch, it.partition_epoch) = (-1, 0)),
            ("without itself", |it| it.new_isr_with_epochs.retain(|member| member.broker_id != 1)),
            ("with nobody", |it| it.new_isr_with_epochs.clear()),
            ("with a stranger", |it| it.new_isr_with_epochs[1].broker_id = 4),
            ("with somebody twice", |it| it.new_isr_with_epochs[1].broker_id = 1),
            ("with another epoch of a member", |it| it.new_isr_with_epochs[1].broker_epoch += 1),
            ("recovering", |it| it.leader_recovery_state = 1),
            ("of another partition", |it| it.partition_index = 17),
        ];
        for (what, change) in cases {
            self.alter_as(what, edit(self, change), 3);
        }
        let mut request = self.report("t", 0, &[1, 2]);
        request.broker_id = 2;
        request.broker_epoch = self.epochs[&2];
        self.alter_as("by a follower", request.clone(), 3);
        request.broker_epoch = 1;
        self.alter_as("of another registration", request, 3);
        let mut request = self.report("t", 0, &[1, 2]);
        request.topics[0].topic_id = TopicId::from_u128(4711);
        self.alter_as("of another topic", request, 3);
        let mut request = self.report("t", 0, &[]);
        request.topics[0].partitions[0].new_isr = vec![1, 2, 3];
        self.alter_as("in version 2", request, 2);
        self.heartbeat(
            "wants to be fenced",
            &BrokerHeartbeatRequest { want_fence: true, ..self.alive(4) },
        );
        self.alter("u", 0, &[3, 4]);
        self.alter("u", 1, &[3, 4]);
        self.heartbeat("is back", &self.alive(4));
        self.alter("u", 0, &[3, 4]);
        self.alter("u", 0, &[3]);
        self.alter("p", 2, &[3]);
    }

    /// Of all that run but these.
    fn living(&self, silent: &[i32]) -> Vec<BrokerHeartbeatRequest> {
        let ids = self.epochs.keys().filter(|id| !silent.contains(id));
        ids.map(|id| self.alive(*id)).collect()
    }

    fn fall_silent(&mut self, id: i32) {
        self.fall_silent_after(id, &[]);
    }

    /// Others are silent already.
    fn fall_silent_after(&mut self, id: i32, others: &[i32]) {
        let silent: Vec<i32> = others.iter().copied().chain([id]).collect();
        let living = self.living(&silent);
        self.decider.pass_a_session(&living);
        self.note(&format!("{id} is silent"), "time passes");
    }

    fn a_broker_falls_silent(&mut self) {
        self.chapter("A broker falls silent, and comes back");
        self.fall_silent(3);
        self.come(3);
        self.alter("u", 0, &[4, 3]);
        self.alter_as(
            "still recovering",
            {
                let mut request = self.report("u", 0, &[4]);
                request.topics[0].partitions[0].leader_recovery_state = 1;
                request
            },
            3,
        );
        self.alter("t", 0, &[1, 2, 3]);
        self.alter("t", 1, &[2, 3, 1]);
        self.alter("p", 0, &[1]);
        self.fall_silent(1);
        self.come(1);
    }

    fn leaders_are_elected(&mut self) {
        self.chapter("Leaders are elected on request");
        self.elect(0, "t", &[0, 1]);
        self.elect(0, "p", &[0, 1, 2]);
        self.alter("t", 0, &[2, 3, 1]);
        self.elect(0, "t", &[0, 17]);
        self.elect(0, "x", &[0]);
        self.elect(1, "t", &[0]);
        self.elect(1, "p", &[0]);
        self.elect(7, "t", &[0]);
        self.alter("p", 2, &[3]);
        self.fall_silent(3);
        self.elect(1, "s", &[0]);
        self.elect(1, "p", &[2]);
        self.elect(0, "u", &[0, 1]);
        self.come(3);
        self.alter("t", 0, &[1, 2, 3]);
        self.alter("p", 0, &[1, 2]);
    }

    fn a_broker_shuts_down(&mut self) {
        self.chapter("A broker shuts down");
        let leaves =
            |story: &Self| BrokerHeartbeatRequest { want_shut_down: true, ..story.alive(1) };
        for id in [2, 3, 4, 5] {
            self.heartbeat("still there", &self.alive(id));
        }
        self.heartbeat(
            "behind",
            &BrokerHeartbeatRequest { current_metadata_offset: 1, ..self.alive(2) },
        );
        self.heartbeat("wants to go", &leaves(self));
        self.create("w", &[&[1, 2]], &[]);
        self.create("w2", &[&[1]], &[]);
        self.alter("t", 0, &[2, 3, 1]);
        self.heartbeat("still wants to go", &leaves(self));
        self.heartbeat("not behind", &self.alive(2));
        self.heartbeat("still wants to go", &leaves(self));
        self.heartbeat("would be gone", &leaves(self));
        self.fall_silent(1);
        self.come(1);
        self.alter("t", 0, &[2, 3, 1]);
        self.alter("p", 0, &[2, 1]);
    }

    fn partitions_move(&mut self) {
        self.chapter("Partitions move");
        for id in 1..=5 {
            self.heartbeat("still there", &self.alive(id));
        }
        self.reassign("t", 0, Some(&[1, 2, 3]), true);
        self.reassign("t", 0, Some(&[3, 2, 1]), true);
        self.reassign("t", 0, Some(&[2, 4, 5]), true);
        self.alter("t", 0, &[2, 3, 1, 4]);
        self.alter("t", 0, &[2, 3, 1, 4, 5]);
        self.reassign("p", 0, Some(&[4, 3]), true);
        self.alter("p", 0, &[2, 1, 3]);
        self.alter("p", 0, &[2, 1, 3, 4]);
        self.reassign("t", 1, Some(&[2, 3, 4]), true);
        self.alter("t", 1, &[2, 3, 4, 1]);
        self.reassign("t", 1, Some(&[5, 1]), true);
        self.reassign("t", 1, None, true);
        self.reassign("t", 1, None, true);
        self.reassign("t", 1, Some(&[4]), false);
        self.reassign("t", 1, Some(&[2, 3, 4, 5]), false);
        self.reassign("t", 1, Some(&[2, 3, 5]), false);
        self.alter("t", 1, &[2, 3, 5]);
        self.reassign("t", 1, Some(&[2]), true);
        self.reassign("s", 0, Some(&[1]), true);
        self.alter("s", 0, &[3, 1]);
        for replicas in [&[][..], &[9], &[2, 2], &[-1]] {
            self.reassign("p", 1, Some(replicas), true);
        }
        self.reassign("t", 17, Some(&[1]), true);
        self.reassign("x", 0, Some(&[1]), true);
        // A broker that is not in the ISR is given up for another.
        self.reassign("p", 2, Some(&[3, 2]), true);
        self.alter("p", 2, &[3, 2]);
        self.reassign("u", 1, Some(&[1, 2]), true);
        self.reassign("u", 1, None, true);
    }

    /// The fifth broker says where it has a replica.
    fn assign(&mut self, directory: Uuid, topic: &str, index: i32) {
        use assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
        let partitions = vec![PartitionData { partition_index: index }];
        let topic_id = self.image.topic_by_name(topic).map_or(TopicId::from_u128(4711), |it| it.id);
        let topics = vec![TopicData { topic_id, partitions }];
        let request = AssignReplicasToDirsRequest {
            broker_id: 5,
            broker_epoch: self.epochs[&5],
            directories: vec![DirectoryData { id: directory, topics }],
        };
        let answer = self.decider.assign(&request);
        let code = answer
            .directories
            .first()
            .map_or(answer.error_code, |it| it.topics[0].partitions[0].error_code);
        self.note(&format!("assign {topic}-{index} to {directory}"), &code.to_string());
    }

    fn directories_fail(&mut self) {
        self.chapter("Directories fail");
        for id in 1..=5 {
            self.heartbeat("still there", &self.alive(id));
        }
        let [first, second] = [0, 1].map(|number| directory(5, 1000 + number));
        self.alter("v", 0, &[5, 1]);
        self.alter("v", 1, &[5, 1]);
        self.assign(first, "v", 0);
        self.assign(first, "v", 0);
        self.assign(second, "v", 1);
        self.assign(second, "s", 0);
        self.assign(second, "x", 0);
        self.assign(second, "v", 17);
        self.heartbeat(
            "with a failed directory",
            &BrokerHeartbeatRequest { offline_log_dirs: vec![first], ..self.alive(5) },
        );
        self.heartbeat(
            "with the same failed directory",
            &BrokerHeartbeatRequest { offline_log_dirs: vec![first], ..self.alive(5) },
        );
        self.elect(0, "v", &[0]);
    }

    fn a_broker_is_forgotten(&mut self) {
        self.chapter("A broker is forgotten");
        for id in 1..=5 {
            self.heartbeat("still there", &self.alive(id));
        }
        for _ in 0..2 {
            let answer = self.decider.unregister(&UnregisterBrokerRequest { broker_id: 4 });
            let text = format!("{} {:?}", answer.error_code, answer.error_message);
            self.note("unregister 4", &text);
        }
        self.heartbeat("was forgotten", &self.alive(4));
        self.come(4);
    }
}
