//! Whatever brokers, clients and operators do in whatever order: no decision breaks what all brokers rely on.
//!
//! The cluster is a model of processes: each has a disk, may be killed, come back, or come back with an empty disk.
//! After every decision all partitions are compared with what they were before it.
//!
//! Who has all that was acknowledged is followed, too: a leader acknowledges at every moment at which the ISR is as large as
//! `min.insync.replicas` asks, and then whoever is not in the ISR lacks something. Where the page cache counts as safe, whoever
//! was killed does. Nobody is elected who lacks something, but where that is asked for or said of the leader.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Offset, PartitionIndex, TopicId, Uuid};
use ottla_metadata::controller::{
    self, BrokerEpoch, ConfigChange, Draw, Liveness, Operation, Policy, Rounds, Situation, Via,
    alter_configs, alter_partition, alter_partition_reassignments, assign_replicas_to_dirs,
    create_topics, delete_topics, elect_leaders, unregister_broker, update_features,
};
use ottla_metadata::{ConfigResource, Delta, Image, MetadataRecord, Partition, feature, record};
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::update_features_request::FeatureUpdateKey;
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionRequest, AssignReplicasToDirsRequest,
    BrokerHeartbeatRequest, BrokerRegistrationRequest, CreateTopicsRequest, DeleteTopicsRequest,
    ElectLeadersRequest, UnregisterBrokerRequest, UpdateFeaturesRequest, alter_partition_request,
    assign_replicas_to_dirs_request, elect_leaders_request,
};
use ottla_protocol::records::ConfigRecord;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// A process starts, after the one before it was killed if there was one.
    Start {
        node: usize,
        new_disk: bool,
    },
    Kill(usize),
    Heartbeat {
        node: usize,
        wants: Wants,
        is_behind: bool,
        fails_disk: bool,
    },
    ConnectionLost(usize),
    AssignDirectories(usize),
    Pass(u64),
    NewController,
    /// The leader says who is in sync: those of the replicas whose bit is set.
    Report {
        partition: usize,
        members: u8,
        knows_epoch: bool,
    },
    Elect {
        partition: usize,
        unclean: bool,
    },
    Reassign {
        partition: usize,
        to: Option<Vec<usize>>,
    },
    Create {
        topic: u8,
        partitions: i32,
        factor: i16,
    },
    Delete(u8),
    AllowUnclean {
        topic: u8,
        allow: bool,
    },
    /// `min.insync.replicas` of a topic, or of all.
    MinIsr {
        topic: Option<u8>,
        value: u8,
    },
    /// Of eligible leader replicas.
    Level(i16),
    Unregister(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    Fence,
    ShutDown,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..5_usize;
    let partition = 0..12_usize;
    let wants = prop_oneof![
        8 => Just(Wants::Nothing),
        1 => Just(Wants::Fence),
        2 => Just(Wants::ShutDown)
    ];
    let elsewhere = proptest::sample::subsequence(vec![0, 1, 2, 3, 4_usize], 1..=3).prop_shuffle();
    prop_oneof![
        6 => (node.clone(), proptest::bool::weighted(0.2))
            .prop_map(|(node, new_disk)| Step::Start { node, new_disk }),
        2 => node.clone().prop_map(Step::Kill),
        14 => (node.clone(), wants, proptest::bool::weighted(0.1), proptest::bool::weighted(0.1))
            .prop_map(|(node, wants, is_behind, fails_disk)| {
                Step::Heartbeat { node, wants, is_behind, fails_disk }
            }),
        2 => node.clone().prop_map(Step::ConnectionLost),
        2 => node.clone().prop_map(Step::AssignDirectories),
        4 => prop_oneof![1..400_u64, 1000..10_000_u64, Just(300_000)].prop_map(Step::Pass),
        1 => Just(Step::NewController),
        14 => (partition.clone(), any::<u8>(), proptest::bool::weighted(0.9)).prop_map(
            |(partition, members, knows_epoch)| Step::Report { partition, members, knows_epoch }
        ),
        3 => (partition.clone(), proptest::bool::weighted(0.3))
            .prop_map(|(partition, unclean)| Step::Elect { partition, unclean }),
        4 => (partition, proptest::option::weighted(0.8, elsewhere))
            .prop_map(|(partition, to)| Step::Reassign { partition, to }),
        4 => (0..3_u8, 1..4_i32, 1..4_i16)
            .prop_map(|(topic, partitions, factor)| Step::Create { topic, partitions, factor }),
        1 => (0..3_u8).prop_map(Step::Delete),
        1 => (0..3_u8, any::<bool>())
            .prop_map(|(topic, allow)| Step::AllowUnclean { topic, allow }),
        1 => node.prop_map(Step::Unregister),
        2 => (proptest::option::weighted(0.7, 0..3_u8), 1..4_u8)
            .prop_map(|(topic, value)| Step::MinIsr { topic, value }),
    ]
}

/// Levels change as well.
fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![30 => step(), 1 => (0..=1_i16).prop_map(Step::Level)]
}

/// A machine that a broker runs on, or not.
#[derive(Debug)]
struct Node {
    id: i32,
    /// How many processes there have been.
    starts: u32,
    /// How many times it got an empty disk.
    disks: u32,
    /// Whether the last of them is not registered yet.
    has_unknown_disk: bool,
    /// Of the running process.
    epoch: Option<i64>,
    /// Of the one before, if it ended cleanly.
    ended: Option<i64>,
}

impl Node {
    /// The last two have two log directories.
    fn directories(&self) -> Vec<Uuid> {
        let directory = |number: u32| {
            let disk = u128::from(self.disks * 10 + number);
            Uuid::from_u128(1_000_000 * u128::from(self.id.unsigned_abs()) + 1000 + disk)
        };
        if self.id > 3 { vec![directory(0), directory(1)] } else { vec![directory(0)] }
    }
}

type Key = (TopicId, PartitionIndex);

struct Cluster {
    image: Image,
    policy: Policy,
    liveness: Liveness,
    rounds: Rounds,
    now: Duration,
    next_offset: Offset,
    nodes: Vec<Node>,
    topics_drawn: u128,
    /// Replicas whose data is gone, though they were in sync with it.
    lost: BTreeSet<(Key, BrokerId)>,
    /// Who has all that was acknowledged since somebody last had: empty where all of it is lost.
    complete: BTreeMap<Key, BTreeSet<BrokerId>>,
    /// What a process has written outlives it, however it ends.
    is_safe: bool,
    reason: Reason,
}

/// Why somebody may join an ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The leader says so.
    Report,
    /// An operator accepts that data is lost.
    UncleanElection,
    /// Nobody is eligible from outside the ISR any more.
    Level,
    /// Only where the topic accepts that.
    Other,
}

struct Counter<'a>(&'a mut u128);

impl Draw for Counter<'_> {
    fn topic_id(&mut self) -> TopicId {
        *self.0 += 1;
        TopicId::from_u128(*self.0 << 64)
    }

    fn placement_seed(&mut self) -> u64 {
        u64::try_from(*self.0).unwrap()
    }
}

impl Cluster {
    fn new(level: i16, is_safe: bool) -> Self {
        let policy = Policy::default();
        let levels = BTreeMap::from([(feature::ELIGIBLE_LEADER_REPLICAS.to_owned(), level)]);
        let mut image = Image::new("cluster");
        for record in controller::format(&image, &policy, &levels).records {
            image.apply(&record).unwrap();
        }
        let node = |id| Node {
            id,
            starts: 0,
            disks: 0,
            has_unknown_disk: false,
            epoch: None,
            ended: None,
        };
        let mut cluster = Self {
            liveness: Liveness::new(&image, &policy, Duration::ZERO),
            rounds: Rounds::new(&policy, Duration::ZERO),
            image,
            policy,
            now: Duration::ZERO,
            next_offset: Offset(1),
            nodes: (1..=5).map(node).collect(),
            topics_drawn: 0,
            lost: BTreeSet::new(),
            complete: BTreeMap::new(),
            is_safe,
            reason: Reason::Other,
        };
        (0..5).for_each(|node| cluster.start(node, false));
        (0..5).for_each(|node| cluster.heartbeat(node, Wants::Nothing, false, false));
        cluster
    }

    fn take(&mut self, step: Step) {
        self.reason = Reason::Other;
        match step {
            Step::Start { node, new_disk } => self.start(node, new_disk),
            Step::Kill(node) => {
                self.connection_lost(node);
                self.kill(node);
            }
            Step::Heartbeat { node, wants, is_behind, fails_disk } => {
                self.heartbeat(node, wants, is_behind, fails_disk);
            }
            Step::ConnectionLost(node) => self.connection_lost(node),
            Step::AssignDirectories(node) => self.assign_directories(node),
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Step::NewController => {
                self.liveness = Liveness::new(&self.image, &self.policy, self.now);
                self.rounds = Rounds::new(&self.policy, self.now);
            }
            Step::Report { partition, members, knows_epoch } => {
                self.report(partition, members, knows_epoch);
            }
            Step::Elect { partition, unclean } => self.elect(partition, unclean),
            Step::Reassign { partition, to } => self.reassign(partition, to),
            Step::Create { topic, partitions, factor } => self.create(topic, partitions, factor),
            Step::Delete(topic) => {
                let topic_names = vec![format!("t{topic}").into()];
                let request = DeleteTopicsRequest { topic_names, ..Default::default() };
                let outcome = delete_topics(&self.image, &self.policy, &request, 5);
                self.append(&outcome.records);
            }
            Step::AllowUnclean { topic, allow } => {
                let record = ConfigRecord {
                    resource_type: ConfigResource::TOPIC,
                    resource_name: format!("t{topic}").into(),
                    name: "unclean.leader.election.enable".into(),
                    value: Some(allow.to_string().into()),
                };
                self.append(&[record.into()]);
            }
            Step::Unregister(node) => self.unregister(node),
            Step::MinIsr { topic, value } => self.set_min_isr(topic, value),
            Step::Level(level) => self.set_level(level),
        }
    }

    /// What was in the page cache may be gone.
    fn kill(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let id = BrokerId(this.id);
        if this.epoch.take().is_some() && !self.is_safe {
            self.complete.values_mut().for_each(|brokers| brokers.retain(|it| *it != id));
        }
    }

    fn set_min_isr(&mut self, topic: Option<u8>, value: u8) {
        let name = topic.map(|topic| format!("t{topic}"));
        let set = Operation {
            key: "min.insync.replicas".into(),
            code: Operation::SET,
            value: Some(value.to_string().into()),
        };
        let change = ConfigChange {
            kind: if topic.is_some() { ConfigResource::TOPIC } else { ConfigResource::BROKER },
            name: name.unwrap_or_default().into(),
            operations: vec![set],
            replaces_all: false,
        };
        let outcome =
            alter_configs(&self.image, &self.policy, &[], &[change], Via::Controller, false);
        self.append(&outcome.records);
    }

    fn set_level(&mut self, max_version_level: i16) {
        let is_rise =
            self.image.feature(feature::ELIGIBLE_LEADER_REPLICAS) < Some(max_version_level);
        let key = FeatureUpdateKey {
            feature: feature::ELIGIBLE_LEADER_REPLICAS.into(),
            max_version_level,
            upgrade_type: if is_rise { 1 } else { 2 },
            ..Default::default()
        };
        let request = UpdateFeaturesRequest { feature_updates: vec![key], ..Default::default() };
        let outcome = update_features(&self.image, &self.policy, &[], 0, &request, 2);
        assert_eq!(outcome.reply.error_code, ErrorCode::NONE);
        self.reason = Reason::Level;
        self.append(&outcome.records);
    }

    fn start(&mut self, node: usize, new_disk: bool) {
        let keys = self.keys();
        self.kill(node);
        let this = &mut self.nodes[node];
        let id = BrokerId(this.id);
        let ended = this.ended.take().filter(|_| !new_disk);
        this.starts += 1;
        this.disks += u32::from(new_disk);
        this.has_unknown_disk |= new_disk;
        // Until the disk is registered, new replicas are meant to be on the one before.
        if this.has_unknown_disk {
            let replicas = keys
                .iter()
                .filter(|key| self.image.partition(key.0, key.1).unwrap().replicas.contains(&id));
            self.lost.extend(replicas.map(|key| (*key, id)));
            self.complete.values_mut().for_each(|brokers| brokers.retain(|it| *it != id));
        }
        let this = &self.nodes[node];
        let request = BrokerRegistrationRequest {
            broker_id: this.id,
            cluster_id: "cluster".into(),
            incarnation_id: Uuid::from_u128(
                u128::from(this.starts) << 32 | u128::from(this.id.unsigned_abs()),
            ),
            features: feature::of_registration(),
            log_dirs: this.directories(),
            previous_broker_epoch: ended.unwrap_or(-1),
            ..Default::default()
        };
        let situation = Situation {
            image: &self.image,
            policy: &self.policy,
            next_offset: self.next_offset,
            now: self.now,
        };
        match self.liveness.on_registration(situation, &request) {
            Ok(outcome) => {
                self.nodes[node].epoch = Some(outcome.reply.0);
                self.nodes[node].has_unknown_disk = false;
                self.append(&outcome.records);
            }
            Err(rejection) => {
                assert_eq!(rejection.code, ErrorCode::DUPLICATE_BROKER_REGISTRATION);
            }
        }
    }

    fn heartbeat(&mut self, node: usize, wants: Wants, is_behind: bool, fails_disk: bool) {
        let this = &self.nodes[node];
        let Some(epoch) = this.epoch else { return };
        let directories = this.directories();
        let offset = if is_behind { epoch - 1 } else { self.next_offset.0 - 1 };
        let request = BrokerHeartbeatRequest {
            broker_id: this.id,
            broker_epoch: epoch,
            current_metadata_offset: offset,
            want_fence: wants == Wants::Fence,
            want_shut_down: wants == Wants::ShutDown,
            offline_log_dirs: directories[..usize::from(fails_disk)].to_vec(),
            cordoned_log_dirs: None,
        };
        let situation = Situation {
            image: &self.image,
            policy: &self.policy,
            next_offset: self.next_offset,
            now: self.now,
        };
        match self.liveness.on_heartbeat(situation, &request) {
            Ok(outcome) => {
                self.append(&outcome.records);
                let broker = self.image.broker(BrokerId(request.broker_id)).unwrap();
                assert_eq!(broker.fenced, outcome.reply.is_fenced);
                if outcome.reply.should_shut_down {
                    assert!(outcome.reply.is_fenced);
                    self.nodes[node].epoch = None;
                    self.nodes[node].ended = Some(epoch);
                }
            }
            Err(rejection) => {
                assert_eq!(rejection.code, ErrorCode::STALE_BROKER_EPOCH);
                self.nodes[node].epoch = None;
            }
        }
    }

    fn connection_lost(&mut self, node: usize) {
        let Node { id, epoch: Some(epoch), .. } = self.nodes[node] else { return };
        self.liveness.on_connection_lost(BrokerId(id), BrokerEpoch(epoch), self.now);
    }

    /// A broker says where its logs are; of a log that is lost there is nothing to say.
    fn assign_directories(&mut self, node: usize) {
        use assign_replicas_to_dirs_request::{DirectoryData, PartitionData, TopicData};
        let this = &self.nodes[node];
        let (id, Some(broker_epoch)) = (BrokerId(this.id), this.epoch) else { return };
        let directory = this.directories()[0];
        let has_unassigned = |key: &Key| {
            let assigned = self.image.partition(key.0, key.1).unwrap().directory_of(id);
            assigned == Some(Uuid::UNASSIGNED_DIR) && !self.lost.contains(&(*key, id))
        };
        let topic = |(topic_id, index): Key| TopicData {
            topic_id,
            partitions: vec![PartitionData { partition_index: index.0 }],
        };
        let topics = self.keys().into_iter().filter(has_unassigned).map(topic).collect();
        let directories = vec![DirectoryData { id: directory, topics }];
        let request = AssignReplicasToDirsRequest { broker_id: id.0, broker_epoch, directories };
        if let Ok(outcome) = assign_replicas_to_dirs(&self.image, &self.policy, &request) {
            self.append(&outcome.records);
        }
    }

    fn pass(&mut self, elapsed: Duration) {
        self.now += elapsed;
        while self.liveness.deadline().is_some_and(|deadline| deadline <= self.now) {
            let situation = Situation {
                image: &self.image,
                policy: &self.policy,
                next_offset: self.next_offset,
                now: self.now,
            };
            let outcome = self.liveness.on_deadline(situation);
            self.append(&outcome.records);
        }
        while self.rounds.deadline(&self.image).is_some_and(|deadline| deadline <= self.now) {
            let situation = Situation {
                image: &self.image,
                policy: &self.policy,
                next_offset: self.next_offset,
                now: self.now,
            };
            let outcome = self.rounds.on_deadline(situation);
            self.append(&outcome.records);
        }
    }

    fn report(&mut self, partition: usize, members_known: u8, knows_epoch: bool) {
        let Some((topic_id, index)) = self.key(partition) else { return };
        let before = self.image.partition(topic_id, index).unwrap().clone();
        let node_of = |id: BrokerId| self.nodes.iter().find(|node| node.id == id.0);
        let Some(broker_epoch) = node_of(before.leader).and_then(|leader| leader.epoch) else {
            return;
        };
        // Nobody follows who does not run; who is in the ISR may stay in it.
        let epoch_of = |id: BrokerId| {
            let running = node_of(id).and_then(|node| node.epoch);
            running.or_else(|| before.is_in_isr(id).then_some(-1))
        };
        let is_meant =
            |(at, id): &(usize, &BrokerId)| **id == before.leader || members_known >> at & 1 == 1;
        let members = before.replicas.iter().enumerate().filter(is_meant);
        // The leader may have heard of a process that is not the member's present one.
        let confuses = |id: BrokerId| members_known & 0x80 != 0 && id != before.leader;
        let members = members.filter_map(|(_, id)| {
            let epoch = epoch_of(*id)?;
            let broker_epoch = if confuses(*id) { epoch + 1 } else { epoch };
            Some(alter_partition_request::BrokerState { broker_id: id.0, broker_epoch })
        });
        let members: Vec<_> = members.collect();
        let is_confused = members
            .iter()
            .any(|member| confuses(BrokerId(member.broker_id)) && member.broker_epoch > 0);
        let partitions = vec![alter_partition_request::PartitionData {
            partition_index: index.0,
            leader_epoch: before.leader_epoch.0 - i32::from(!knows_epoch),
            new_isr: Vec::new(),
            new_isr_with_epochs: members,
            leader_recovery_state: 0,
            partition_epoch: before.partition_epoch,
        }];
        let topics = vec![alter_partition_request::TopicData { topic_id, partitions }];
        let request = AlterPartitionRequest { broker_id: before.leader.0, broker_epoch, topics };
        let outcome = alter_partition(&self.image, &self.policy, &request, 3);
        self.reason = Reason::Report;
        self.append(&outcome.records);
        let Some(topic) = outcome.reply.topics.first() else { return };
        match topic.partitions[0].error_code {
            ErrorCode::NONE | ErrorCode::NEW_LEADER_ELECTED => {
                assert!(knows_epoch && !is_confused);
            }
            ErrorCode::FENCED_LEADER_EPOCH => assert!(!knows_epoch),
            ErrorCode::INELIGIBLE_REPLICA => {}
            other => panic!("{other}"),
        }
    }

    fn elect(&mut self, partition: usize, unclean: bool) {
        let Some((topic_id, index)) = self.key(partition) else { return };
        let topic = (*self.image.topic(topic_id).unwrap().name).into();
        let partitions = vec![index.0];
        let topics = vec![elect_leaders_request::TopicPartitions { topic, partitions }];
        let request = ElectLeadersRequest {
            election_type: unclean.into(),
            topic_partitions: Some(topics),
            ..Default::default()
        };
        let outcome = elect_leaders(&self.image, &self.policy, &request);
        self.reason = if unclean { Reason::UncleanElection } else { Reason::Other };
        self.append(&outcome.records);
        let result = &outcome.reply.replica_election_results[0].partition_result[0];
        assert_eq!(result.error_code == ErrorCode::NONE, !outcome.records.is_empty());
    }

    fn reassign(&mut self, partition: usize, to: Option<Vec<usize>>) {
        let Some((topic_id, index)) = self.key(partition) else { return };
        let to = to.map(|nodes| nodes.into_iter().map(|node| self.nodes[node].id).collect());
        let partitions = vec![ReassignablePartition { partition_index: index.0, replicas: to }];
        let name = (*self.image.topic(topic_id).unwrap().name).into();
        let topics = vec![ReassignableTopic { name, partitions }];
        let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
        let outcome = alter_partition_reassignments(&self.image, &self.policy, &request);
        self.append(&outcome.records);
    }

    fn create(&mut self, topic: u8, num_partitions: i32, replication_factor: i16) {
        let topic = CreatableTopic {
            name: format!("t{topic}").into(),
            num_partitions,
            replication_factor,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let draw = &mut Counter(&mut self.topics_drawn);
        let outcome = create_topics(&self.image, &self.policy, &request, draw);
        self.append(&outcome.records);
    }

    /// Where a broker with several directories has put its logs is not known to all before it says so: once its
    /// registration is gone nobody could tell that its disk is another one.
    fn unregister(&mut self, node: usize) {
        let id = self.nodes[node].id;
        if id > 3 {
            return;
        }
        let request = UnregisterBrokerRequest { broker_id: id };
        let outcome = unregister_broker(&self.image, &self.policy, &request);
        self.append(&outcome.records);
    }

    fn keys(&self) -> Vec<Key> {
        let keys = self
            .image
            .topics()
            .flat_map(|topic| topic.partitions().map(move |(index, _)| (topic.id, index)));
        keys.collect()
    }

    fn key(&self, partition: usize) -> Option<Key> {
        let keys = self.keys();
        keys.get(partition % keys.len().max(1)).copied()
    }

    fn append(&mut self, records: &[MetadataRecord]) {
        let before = self.image.clone();
        let mut delta = Delta::default();
        for record in records {
            let then = self.image.clone();
            self.image.apply_into(record, &mut delta).unwrap();
            self.check_changes(&then);
        }
        if !records.is_empty() {
            check_difference(&before, &self.image, &delta);
        }
        self.next_offset = self.next_offset + i64::try_from(records.len()).unwrap();
        self.image.check();
        for key in self.keys() {
            let now = self.image.partition(key.0, key.1).unwrap().clone();
            self.check(key, &now);
            self.acknowledge(key, &now);
        }
        let image = &self.image;
        self.complete.retain(|(topic, index), _| image.partition(*topic, *index).is_some());
        let image = &self.image;
        self.lost.retain(|((topic, index), id)| {
            image.partition(*topic, *index).is_some_and(|it| it.replicas.contains(id))
        });
    }

    fn min_isr(&self, topic: TopicId) -> usize {
        let resource = ConfigResource::topic(self.image.topic(topic).unwrap().name.clone());
        let of = |it: &ConfigResource| self.image.config_value(it, "min.insync.replicas");
        let value = of(&resource).or_else(|| of(&ConfigResource::default_broker()));
        value.map_or(1, |value| value.parse().unwrap())
    }

    /// Whether the process runs that the controller takes for this broker. If not, it leads in name only, and its next
    /// one registers before it does anything.
    fn is_there(&self, id: BrokerId) -> bool {
        let epoch = self.image.broker(id).map(|broker| broker.epoch);
        epoch.is_some() && self.nodes.iter().any(|node| node.id == id.0 && node.epoch == epoch)
    }

    /// Whatever a leader can acknowledge now, it does.
    fn acknowledge(&mut self, key: Key, now: &Partition) {
        let is_large_enough = now.isr.len() >= now.least_isr(self.min_isr(key.0));
        if self.is_there(now.leader) && is_large_enough {
            self.complete.insert(key, now.isr.iter().copied().collect());
        }
    }

    fn check_eligible(&self, key: Key, partition: &Partition) {
        let Partition { replicas, isr, eligible_leader_replicas: eligible, .. } = partition;
        let is_outside = |id: &BrokerId| replicas.contains(id) && !isr.contains(id);
        assert!(eligible.iter().all(is_outside), "{partition:?}");
        assert!(eligible.is_sorted_by(|one, next| one < next), "{partition:?}");
        let is_too_small = isr.len() < partition.least_isr(self.min_isr(key.0));
        assert!(eligible.is_empty() || isr.is_empty() || is_too_small, "{partition:?}");
        assert!(partition.last_known_elr.is_empty() || partition.leader == BrokerId::NONE);
        if !self.image.has_eligible_leader_replicas() {
            assert!(!isr.is_empty() && eligible.is_empty(), "{partition:?}");
        }
    }

    fn check(&self, key: Key, partition: &Partition) {
        self.check_eligible(key, partition);
        let Partition { replicas, isr, leader, .. } = partition;
        let distinct =
            |brokers: &[BrokerId]| brokers.iter().collect::<BTreeSet<_>>().len() == brokers.len();
        assert!(distinct(replicas) && distinct(isr), "{partition:?}");
        let moving = partition.adding_replicas.iter().chain(&partition.removing_replicas);
        assert!(isr.iter().chain(moving).all(|id| replicas.contains(id)), "{partition:?}");
        let stays = |id: &BrokerId| !partition.removing_replicas.contains(id);
        assert!(partition.adding_replicas.iter().all(stays), "{partition:?}");
        assert_eq!(partition.directories.len(), replicas.len());
        if *leader != BrokerId::NONE {
            assert!(isr.contains(leader), "{partition:?}");
            let broker = self.image.broker(*leader);
            assert!(broker.is_some_and(|broker| broker.is_active()), "{partition:?} {broker:?}");
        }
    }

    /// One decision may elect somebody and depose it again: each record is looked at.
    fn check_changes(&mut self, before: &Image) {
        for key in self.keys() {
            let now = self.image.partition(key.0, key.1).unwrap().clone();
            if let Some(then) = before.partition(key.0, key.1) {
                self.check_change(key, then, &now);
            }
        }
    }

    fn check_change(&mut self, key: Key, then: &Partition, now: &Partition) {
        if then == now {
            return;
        }
        let change = format!("{then:?} became {now:?}");
        assert!(then.partition_epoch < now.partition_epoch, "{change}");
        assert!(then.leader_epoch <= now.leader_epoch, "{change}");
        let removed = then.replicas.iter().any(|id| !now.replicas.contains(id));
        if then.leader != now.leader || removed {
            assert!(then.leader_epoch < now.leader_epoch, "{change}");
        }
        let joined: Vec<BrokerId> =
            now.isr.iter().copied().filter(|id| !then.isr.contains(id)).collect();
        for id in joined.iter().filter(|_| self.reason != Reason::Level) {
            let broker = self.image.broker(*id).unwrap();
            assert!(broker.is_active(), "{change}");
        }
        let is_eligible = |id: &BrokerId| then.eligible_leader_replicas.contains(id);
        let is_sure = joined.iter().all(is_eligible);
        let is_last = joined == then.last_known_elr;
        // Whoever its leader takes into the ISR has copied all that the leader has.
        if self.reason != Reason::Report && self.reason != Reason::Level && !joined.is_empty() {
            let is_asked_for = self.reason == Reason::UncleanElection;
            assert!(is_sure || is_last || is_asked_for || self.accepts_loss(key.0), "{change}");
            assert!(joined == now.isr && joined == [now.leader], "{change}");
            assert!(is_sure || now.leader_is_recovering, "{change}");
        }
        if self.reason == Reason::Level {
            assert!(is_sure || is_last, "{change}");
        }
        let complete = self.complete.entry(key).or_default();
        if self.reason == Reason::Report && complete.contains(&then.leader) {
            complete.extend(&joined);
        }
        self.check_leader(key, then, now, &change);
        if self.reason == Reason::Report || !is_sure && self.reason != Reason::Level {
            for id in joined {
                self.lost.remove(&(key, id));
            }
        }
        // Of a disk that was replaced under a registration the controller cannot know yet.
        let is_known = |node: &&Node| node.id == now.leader.0 && !node.has_unknown_disk;
        if then.leader != now.leader && self.nodes.iter().any(|node| is_known(&node)) {
            assert!(!self.lost.contains(&(key, now.leader)), "leads without its data: {change}");
        }
    }

    /// A leader has all that was acknowledged, or says that it may not. Where what was written is safe, who led last has, too.
    fn check_leader(&mut self, key: Key, then: &Partition, now: &Partition, change: &str) {
        if now.leader == BrokerId::NONE || then.leader == now.leader {
            return;
        }
        let is_there = self.is_there(now.leader);
        let is_unknown = self.nodes.iter().any(|it| it.id == now.leader.0 && it.has_unknown_disk);
        let is_lossy = self.reason == Reason::UncleanElection || self.accepts_loss(key.0);
        let may_lack = now.leader_is_recovering && !now.isr.iter().any(|id| then.is_in_isr(*id));
        let complete = self.complete.entry(key).or_default();
        let has_all = complete.contains(&now.leader) || complete.is_empty();
        // Without eligible leader replicas, the last member of an ISR is believed although it was killed.
        let is_promised = self.is_safe || self.image.has_eligible_leader_replicas();
        let is_excused = has_all || is_unknown || !is_there;
        assert!(is_excused || !is_promised || may_lack, "lacks something: {change}");
        assert!(is_excused || !self.is_safe || is_lossy, "loses something: {change}");
        // Who leads in name only was not chosen over anybody, unless the election itself has given the others up.
        if !has_all && (is_there || is_lossy && may_lack) {
            *complete = BTreeSet::from([now.leader]);
        }
    }

    fn accepts_loss(&self, topic: TopicId) -> bool {
        let resource = ConfigResource::topic(self.image.topic(topic).unwrap().name.clone());
        self.image.config(&resource).any(|(_, value)| value == "true")
    }

    /// All processes run again, and whoever has all the data of a partition can lead it.
    fn recover(&mut self) {
        self.reason = Reason::Other;
        self.pass(Duration::from_secs(20));
        (0..5).for_each(|node| self.start(node, false));
        (0..5).for_each(|node| self.heartbeat(node, Wants::Nothing, false, false));
        for (topic, index) in self.keys() {
            let partition = self.image.partition(topic, index).unwrap();
            let has_data = |id: &BrokerId| !self.lost.contains(&((topic, index), *id));
            let able =
                [&partition.isr, &partition.eligible_leader_replicas, &partition.last_known_elr];
            let able = able.into_iter().find(|brokers| !brokers.is_empty());
            if able.is_some_and(|brokers| brokers.iter().any(has_data)) {
                assert_ne!(partition.leader, BrokerId::NONE, "{partition:?}");
            }
        }
    }
}

/// What is found by comparing two images is what the records between them have told, but for what they have changed
/// back.
fn check_difference(before: &Image, after: &Image, told: &Delta) {
    let found = after.delta_since(before);
    assert_eq!((&found.created, &found.deleted), (&told.created, &told.deleted));
    assert!(found.changed.is_subset(&told.changed), "{found:?} {told:?}");
    let is_changed =
        |(topic, index): &&Key| before.partition(*topic, *index) != after.partition(*topic, *index);
    assert_eq!(found.changed, told.changed.iter().filter(is_changed).copied().collect());
    let is_other = |id: &&BrokerId| before.broker(**id) != after.broker(**id);
    assert_eq!(found.brokers, told.brokers.iter().filter(is_other).copied().collect());
    let config = |image: &Image, resource: &ConfigResource| -> Vec<(String, String)> {
        image.config(resource).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let is_set = |it: &&ConfigResource| config(before, it) != config(after, it);
    assert_eq!(found.configs, told.configs.iter().filter(is_set).cloned().collect());
    assert!(found.features.is_subset(&told.features) && found.controllers == told.controllers);
}

/// What is written of an image, and read back record by record, is that image.
fn check_snapshot(image: &Image) {
    let mut again = Image::new("cluster");
    let mut delta = Delta::default();
    for written in image.records() {
        let (_, read) = MetadataRecord::decode(record::encode(&written).unwrap()).unwrap();
        again.apply_into(&read, &mut delta).unwrap();
    }
    (again.offset, again.epoch) = (image.offset, image.epoch);
    again.check();
    assert_eq!(again, *image);
    assert_eq!(delta, image.delta_since(&Image::new("cluster")));
    assert!(again.delta_since(image).is_empty());
}

fn run(mut cluster: Cluster, steps: Vec<Step>) {
    for step in steps {
        cluster.take(step);
    }
    check_snapshot(&cluster.image);
    cluster.recover();
    check_snapshot(&cluster.image);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_leaders_are_in_sync_and_epochs_rise(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        run(Cluster::new(0, true), steps);
    }

    #[test]
    fn so_it_is_where_replicas_outside_the_isr_may_lead(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        run(Cluster::new(1, true), steps);
    }

    #[test]
    fn whoever_was_killed_is_not_relied_on_where_the_page_cache_counts(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        run(Cluster::new(1, false), steps);
    }

    #[test]
    fn levels_may_go_up_and_down_meanwhile(
        steps in proptest::collection::vec(any_step(), 1..120),
    ) {
        run(Cluster::new(1, true), steps);
    }
}
