//! Questions to one node, in Kafka's protocol: who leads, who is there, who coordinates (shell).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ottla_base::{ErrorCode, TopicId};
use ottla_protocol::Request;
use ottla_protocol::frame::{decode_response, encode_request};
use ottla_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use ottla_protocol::messages::elect_leaders_request::TopicPartitions;
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::{
    AlterPartitionReassignmentsRequest, CreateTopicsRequest, DescribeClusterRequest,
    DescribeQuorumRequest, ElectLeadersRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, alter_partition_reassignments_request,
    describe_quorum_request, describe_quorum_response,
};

use crate::side_by_side::connection::{Connection, Reply};

/// A node that is paused takes connections and does not answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// What changes the cluster takes longer.
const CHANGE_LIMIT: Duration = Duration::from_secs(40);
/// All replicas of a partition, where the cluster's default says how many.
const DEFAULT_REPLICATION: i16 = -1;
const BY_ASSIGNMENT: i32 = -1;
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// A connection to one node.
#[derive(Debug)]
pub(crate) struct Caller {
    connection: Connection,
    correlation_id: i32,
}

impl Caller {
    pub(crate) fn open(address: &str, limit: Duration) -> Result<Self> {
        let connection = Connection::open(address)?;
        connection.wait_at_most(limit)?;
        Ok(Self { connection, correlation_id: 0 })
    }

    pub(crate) fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        self.correlation_id += 1;
        let frame = encode_request(version, self.correlation_id, Some("cluster".into()), request)?;
        self.connection.send(&frame.bytes);
        let (header, response) = match self.connection.receive()? {
            Reply::Frame(frame) => decode_response::<R>(frame, version)?,
            Reply::Closed => bail!("{}: the node hung up", R::NAME),
            Reply::Nothing => bail!("{}: no answer in time", R::NAME),
        };
        ensure!(header.correlation_id == self.correlation_id, "an answer to another request");
        Ok(response)
    }
}

fn ask<R: Request>(address: &str, version: i16, request: &R) -> Result<R::Response> {
    Caller::open(address, ANSWER_LIMIT)?.call(version, request)
}

/// What a node believes of the cluster and of one topic.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct View {
    /// Where the brokers are that are not fenced.
    pub(crate) brokers: BTreeMap<i32, String>,
    pub(crate) partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// None while nobody leads.
    pub(crate) leader: Option<i32>,
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: BTreeSet<i32>,
}

impl View {
    /// Whether every partition is led by the replica that its assignment names first.
    pub(crate) fn is_preferred(&self) -> bool {
        self.partitions.values().all(|it| it.leader == it.replicas.first().copied())
    }

    /// Whether so many brokers are there, and every partition has all replicas in its ISR.
    pub(crate) fn is_whole(&self, brokers: usize) -> bool {
        let all_in = |it: &Partition| it.leader.is_some() && it.isr.len() == it.replicas.len();
        self.brokers.len() == brokers && self.partitions.values().all(all_in)
    }
}

pub(crate) fn view(address: &str, topic: Option<&str>) -> Result<View> {
    view_through(&mut Caller::open(address, ANSWER_LIMIT)?, topic)
}

pub(crate) fn view_through(caller: &mut Caller, topic: Option<&str>) -> Result<View> {
    let named = |name: &str| MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let topics = topic.map(named).into_iter().collect();
    let request = MetadataRequest {
        topics: Some(topics),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let answer = caller.call(12, &request)?;
    let address = |host: &str, port: i32| format!("{host}:{port}");
    let brokers = answer.brokers.iter().map(|it| (it.node_id, address(&it.host, it.port)));
    let mut view = View { brokers: brokers.collect(), ..View::default() };
    for topic in answer.topics {
        ensure!(topic.error_code == ErrorCode::NONE, "topic: {:?}", topic.error_code);
        view.partitions.extend(topic.partitions.into_iter().map(|it| {
            let leader = Some(it.leader_id).filter(|id| *id >= 0);
            let (leader_epoch, replicas) = (it.leader_epoch, it.replica_nodes);
            let isr = it.isr_nodes.into_iter().collect();
            (it.partition_index, Partition { leader, leader_epoch, replicas, isr })
        }));
    }
    Ok(view)
}

/// The brokers that are not fenced, as a node tells it.
pub(crate) fn unfenced(address: &str) -> Result<BTreeSet<i32>> {
    let answer =
        ask(address, 1, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() })?;
    ensure!(answer.error_code == ErrorCode::NONE, "DescribeCluster: {:?}", answer.error_code);
    Ok(answer.brokers.iter().map(|broker| broker.broker_id).collect())
}

/// Whether every partition that a node knows of has a leader.
pub(crate) fn are_all_led(address: &str) -> Result<bool> {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let answer = ask(address, 12, &request)?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(partitions.all(|it| it.leader_id >= 0))
}

/// The active controller, as a node tells it.
pub(crate) fn active_controller(address: &str) -> Result<i32> {
    Ok(metadata_quorum(address)?.leader_id)
}

/// How often a controller has been elected, about.
pub(crate) fn controller_epoch(address: &str) -> Result<i32> {
    Ok(metadata_quorum(address)?.leader_epoch)
}

fn metadata_quorum(address: &str) -> Result<describe_quorum_response::PartitionData> {
    let partition = describe_quorum_request::PartitionData { partition_index: 0 };
    let topic = describe_quorum_request::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![partition],
    };
    let answer = ask(address, 2, &DescribeQuorumRequest { topics: vec![topic] })?;
    ensure!(answer.error_code == ErrorCode::NONE, "DescribeQuorum: {:?}", answer.error_code);
    let mut partitions = answer.topics.into_iter().flat_map(|topic| topic.partitions);
    let partition = partitions.next().context("DescribeQuorum tells of no partition")?;
    ensure!(partition.error_code == ErrorCode::NONE, "{:?}", partition.error_code);
    ensure!(partition.leader_id >= 0, "there is no active controller");
    Ok(partition)
}

/// The id of a topic.
pub(crate) fn topic_id(address: &str, name: &str) -> Result<TopicId> {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    let answer = ask(address, 12, &request)?;
    let topic = answer.topics.first().context("Metadata tells of no topic")?;
    ensure!(topic.error_code == ErrorCode::NONE, "topic: {:?}", topic.error_code);
    Ok(topic.topic_id)
}

pub(crate) fn coordinator(address: &str, group: &str) -> Result<i32> {
    let keys = vec![group.into()];
    let request = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
    let answer = ask(address, 4, &request)?;
    let found = answer.coordinators.first().context("FindCoordinator tells of nobody")?;
    ensure!(found.error_code == ErrorCode::NONE, "FindCoordinator: {:?}", found.error_code);
    Ok(found.node_id)
}

/// Asks for other replicas of one partition, whether they are there or not.
pub(crate) fn reassign(address: &str, topic: &str, partition: i32, replicas: &[i32]) -> Result<()> {
    let partition = alter_partition_reassignments_request::ReassignablePartition {
        partition_index: partition,
        replicas: Some(replicas.to_vec()),
    };
    let topic = alter_partition_reassignments_request::ReassignableTopic {
        name: topic.into(),
        partitions: vec![partition],
    };
    let request = AlterPartitionReassignmentsRequest {
        timeout_ms: 10_000,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = Caller::open(address, CHANGE_LIMIT)?.call(0, &request)?;
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let codes = partitions.map(|it| it.error_code).chain([answer.error_code]);
    let refusal = codes.into_iter().find(|code| *code != ErrorCode::NONE);
    ensure!(refusal.is_none(), "AlterPartitionReassignments: {refusal:?}");
    Ok(())
}

/// Makes a topic of so many partitions, with as many replicas as the cluster's default says.
pub(crate) fn create_topic(address: &str, name: &str, partitions: i32) -> Result<()> {
    create(
        address,
        CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: DEFAULT_REPLICATION,
            ..Default::default()
        },
    )
}

/// Makes a topic whose replicas are where `assignments` says, the preferred leader first.
pub(crate) fn create_assigned(address: &str, name: &str, assignments: &[Vec<i32>]) -> Result<()> {
    let assignment = |(partition_index, broker_ids): (i32, &Vec<i32>)| CreatableReplicaAssignment {
        partition_index,
        broker_ids: broker_ids.clone(),
    };
    create(
        address,
        CreatableTopic {
            name: name.into(),
            num_partitions: BY_ASSIGNMENT,
            replication_factor: DEFAULT_REPLICATION,
            assignments: (0..).zip(assignments).map(assignment).collect(),
            ..Default::default()
        },
    )
}

fn create(address: &str, topic: CreatableTopic) -> Result<()> {
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let answer = Caller::open(address, CHANGE_LIMIT)?.call(7, &request)?;
    let created = answer.topics.first().context("CreateTopics tells of no topic")?;
    // Whoever has to ask again, because the answer was lost, finds it there.
    let codes = [ErrorCode::NONE, ErrorCode::TOPIC_ALREADY_EXISTS];
    ensure!(
        codes.contains(&created.error_code),
        "{:?}: {:?}",
        created.error_code,
        created.error_message
    );
    Ok(())
}

/// Which election is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Election {
    /// Of the preferred replicas.
    Preferred,
    /// Of whoever is there, where nobody else can be.
    Unclean,
}

/// Asks that the preferred replicas lead; those that do already are no error.
pub(crate) fn elect_preferred(address: &str, topic: &str, partitions: &[i32]) -> Result<()> {
    let codes = elect(address, Election::Preferred, topic, partitions)?;
    let is_fine = |code| [ErrorCode::NONE, ErrorCode::ELECTION_NOT_NEEDED].contains(code);
    ensure!(codes.iter().all(is_fine), "ElectLeaders: {codes:?}");
    Ok(())
}

/// Asks for leaders, and gives each partition's answer.
pub(crate) fn elect(
    address: &str,
    election: Election,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<ErrorCode>> {
    let topic = TopicPartitions { topic: topic.into(), partitions: partitions.to_vec() };
    let request = ElectLeadersRequest {
        election_type: match election {
            Election::Preferred => 0,
            Election::Unclean => 1,
        },
        topic_partitions: Some(vec![topic]),
        timeout_ms: 10_000,
    };
    let answer = Caller::open(address, CHANGE_LIMIT)?.call(2, &request)?;
    ensure!(answer.error_code == ErrorCode::NONE, "ElectLeaders: {:?}", answer.error_code);
    let results = answer.replica_election_results.iter().flat_map(|it| &it.partition_result);
    Ok(results.map(|result| result.error_code).collect())
}

/// Sets a property of a topic.
pub(crate) fn configure_topic(address: &str, topic: &str, name: &str, value: &str) -> Result<()> {
    configure(address, TOPIC_RESOURCE, topic, name, Some(value))
}

/// Sets a property of one broker, or of all under the empty name, or takes it back.
pub(crate) fn configure_broker(
    address: &str,
    broker: &str,
    name: &str,
    value: Option<&str>,
) -> Result<()> {
    configure(address, BROKER_RESOURCE, broker, name, value)
}

fn configure(
    address: &str,
    resource_type: i8,
    resource: &str,
    name: &str,
    value: Option<&str>,
) -> Result<()> {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(Into::into),
    };
    let resource = AlterConfigsResource {
        resource_type,
        resource_name: resource.into(),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = Caller::open(address, CHANGE_LIMIT)?.call(1, &request)?;
    let result = answer.responses.first().context("IncrementalAlterConfigs tells of nothing")?;
    ensure!(
        result.error_code == ErrorCode::NONE,
        "{:?}: {:?}",
        result.error_code,
        result.error_message
    );
    Ok(())
}
