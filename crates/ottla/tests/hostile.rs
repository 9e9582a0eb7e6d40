//! Requests that no broker and no client sends: a node refuses them, its memory stays in bounds, and it answers the next one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod nodes;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use nodes::Nodes;
use ottla_base::ErrorCode;
use ottla_protocol::frame::{Incoming, decode_response, encode_request};
use ottla_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ottla_protocol::messages::elect_leaders_request::TopicPartitions;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AlterPartitionReassignmentsRequest, BrokerHeartbeatRequest,
    DescribeQuorumRequest, ElectLeadersRequest, EnvelopeRequest, FetchRequest,
    FindCoordinatorRequest, JoinGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};
use ottla_protocol::peer::{PeerKey, PeerRequest};
use ottla_protocol::{Encoder, Request};

/// More than any stack has room for, in a request of two megabytes.
const NESTED: usize = 100_000;

/// A request as it is carried, without its length.
fn inside<R: Request>(request: &R) -> Vec<u8> {
    let version = *R::KEY.stable_versions().end();
    encode_request(version, 7, None, request).unwrap().bytes[4..].to_vec()
}

/// This request in so many envelopes, each in the next. Written from the outermost to the innermost, since each holds the
/// length of all that are in it.
fn in_envelopes(times: usize, innermost: &[u8]) -> Vec<u8> {
    let template = inside(&envelope(b""));
    let header_len = header_len(&template);
    let (header, rest) = template.split_at(header_len);
    // Behind the length of what is carried, of which there is none.
    let rest = &rest[1..];
    let mut beginnings = Vec::with_capacity(times);
    let mut len = innermost.len();
    for _ in 0..times {
        let mut beginning = header.to_vec();
        beginning.extend(compact_length(len));
        len += beginning.len() + rest.len();
        beginnings.push(beginning);
    }
    let mut frame: Vec<u8> = beginnings.into_iter().rev().flatten().collect();
    frame.extend_from_slice(innermost);
    frame.extend(rest.repeat(times));
    frame
}

fn header_len(frame: &[u8]) -> usize {
    let incoming = Incoming::decode(frame.to_vec().into()).unwrap();
    incoming.body.position()
}

fn compact_length(len: usize) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.unsigned_varint(u32::try_from(len + 1).unwrap());
    encoder.into_bytes().to_vec()
}

fn envelope(data: &[u8]) -> EnvelopeRequest {
    EnvelopeRequest {
        request_data: data.to_vec().into(),
        request_principal: None,
        client_host_address: vec![127, 0, 0, 1].into(),
    }
}

fn lone_node() -> Nodes {
    lone_node_with("offsets.topic.replication.factor=1")
}

fn lone_node_with(property: &str) -> Nodes {
    let mut nodes = Nodes::new(1);
    let voters = nodes.voters(1);
    nodes.write(1, "broker,controller", &[&*voters, property]);
    nodes.start(1);
    nodes.ready(&[1]);
    nodes
}

/// What is forwardable is by Apache Kafka's own list (`ApiKeys.forwardable`), and so is what the others are answered.
#[test]
fn a_controller_opens_an_envelope_only_for_what_brokers_carry() {
    let nodes = lone_node();
    let controller = nodes.controllers[0].clone();
    let code = |data: &[u8]| nodes::ask(&controller, &envelope(data)).error_code;

    let quorum = inside(&DescribeQuorumRequest::default());
    assert_eq!(code(&quorum), ErrorCode::NONE);
    assert_eq!(code(&inside(&AllocateProducerIdsRequest::default())), ErrorCode::NONE);
    for times in [1, 2, NESTED] {
        assert_eq!(code(&in_envelopes(times, &quorum)), ErrorCode::INVALID_REQUEST, "{times}");
    }
    let heartbeat = BrokerHeartbeatRequest { broker_id: 1, ..Default::default() };
    assert_eq!(code(&inside(&heartbeat)), ErrorCode::INVALID_REQUEST);
    assert_eq!(code(&inside(&FetchRequest::default())), ErrorCode::INVALID_REQUEST);
    // What nodes tell each other that Apache Kafka has no message for.
    let peer = PeerRequest { key: PeerKey::Standing, correlation_id: 7, body: Vec::new().into() };
    let peer = peer.encode();
    assert_eq!(code(&peer[4..]), ErrorCode::UNSUPPORTED_VERSION);
    // What cannot be read.
    let [mut unknown_key, mut unknown_version] = [quorum.clone(), quorum.clone()];
    unknown_key[..2].copy_from_slice(&9_999_i16.to_be_bytes());
    unknown_version[2..4].copy_from_slice(&99_i16.to_be_bytes());
    for data in [&quorum[..3], &quorum[..quorum.len() - 1], &unknown_key, &unknown_version] {
        assert_eq!(code(data), ErrorCode::UNSUPPORTED_VERSION);
    }
    assert_eq!(code(&quorum), ErrorCode::NONE);
}

/// What a request in this version is answered, or `None` where the connection is closed.
fn exchange<R: Request>(address: &str, version: i16, request: &R) -> Option<R::Response> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(nodes::LIMIT)).unwrap();
    socket.write_all(&encode_request(version, 7, None, request).unwrap().bytes).unwrap();
    let mut len = [0; 4];
    match socket.read_exact(&mut len).map_err(|error| error.kind()) {
        Ok(()) => {}
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        Err(other) => panic!("{}: {other}", R::KEY.name()),
    }
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(len)).unwrap()];
    socket.read_exact(&mut frame).unwrap();
    Some(decode_response::<R>(frame.into(), version).unwrap().1)
}

/// An answer that is given up takes its 64 MiB, and its parts some times as much before.
const GROWTH_MIB_MAX: usize = 384;

/// Sends a request whose answer would take hundreds of megabytes: the connection is closed instead.
fn refused_within_bounds<R: Request>(nodes: &Nodes, version: i16, request: &R) {
    let answer = exchange_within_bounds(nodes, version, request);
    assert!(answer.is_none(), "{} v{version} was answered", R::KEY.name());
}

fn exchange_within_bounds<R: Request>(
    nodes: &Nodes,
    version: i16,
    request: &R,
) -> Option<R::Response> {
    let (name, node) = (R::KEY.name(), &nodes.running[&1]);
    node.forget_peak();
    let before = node.memory_mib("VmRSS");
    let answer = exchange(&nodes.clients[0], version, request);
    let growth = node.memory_mib("VmHWM").saturating_sub(before);
    assert!(growth <= GROWTH_MIB_MAX, "{name} v{version} took {growth} MiB");
    assert!(!nodes::quorum(&nodes.clients[0]).error_code.is_error());
    answer
}

/// Each partition is refused in words that name the topic, and costs four bytes.
#[test]
fn partitions_of_a_topic_with_a_long_name_are_not_refused_one_by_one() {
    let nodes = lone_node();
    let (name, partitions) = ("x".repeat(32_000), 0..20_000);
    let topic =
        TopicPartitions { topic: name.clone().into(), partitions: partitions.clone().collect() };
    let request = ElectLeadersRequest { topic_partitions: Some(vec![topic]), ..Default::default() };
    refused_within_bounds(&nodes, 2, &request);
    let partition =
        |partition_index| ReassignablePartition { partition_index, ..Default::default() };
    let partitions = partitions.map(partition).collect();
    let topics = vec![ReassignableTopic { name: name.into(), partitions }];
    let request = AlterPartitionReassignmentsRequest { topics, ..Default::default() };
    refused_within_bounds(&nodes, 1, &request);
}

#[test]
fn a_group_that_is_named_again_and_again_is_not_answered_as_often() {
    let nodes = lone_node();
    nodes.succeed(&["topic", "create", "orders"]);
    commit_with_long_metadata(&nodes);
    let ask = |topics, times| OffsetFetchRequest {
        groups: vec![
            OffsetFetchRequestGroup { group_id: "g".into(), topics, ..Default::default() };
            times
        ],
        ..Default::default()
    };
    let of_all = ask(None, 1);
    let found = exchange(&nodes.clients[0], 8, &of_all).unwrap();
    assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, 5);
    refused_within_bounds(&nodes, 8, &ask(None, 100_000));
    let topic = OffsetFetchRequestTopics {
        name: "orders".into(),
        partition_indexes: vec![0; 100_000],
        ..Default::default()
    };
    refused_within_bounds(&nodes, 8, &ask(Some(vec![topic]), 1));
}

/// The longest that `offset.metadata.max.bytes` lets pass.
fn commit_with_long_metadata(nodes: &Nodes) {
    let partition = OffsetCommitRequestPartition {
        committed_offset: 5,
        committed_metadata: Some("m".repeat(4096).into()),
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    };
    let group = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let committed = nodes::wait_for(|| {
        // Whoever asks makes the topic that groups are in.
        nodes::ask(&nodes.clients[0], &group);
        let answer = exchange(&nodes.clients[0], 8, &request).unwrap();
        !answer.topics[0].partitions[0].error_code.is_error()
    });
    assert!(committed, "no offset is committed:\n{}", nodes.running[&1].log());
}

/// Each takes fourteen bytes, and its record hundreds; what a batch has room for is a fraction of them.
#[test]
fn a_partition_that_is_committed_again_and_again_is_refused_before_it_is_written_as_often() {
    let nodes = lone_node();
    nodes.succeed(&["topic", "create", "orders"]);
    commit_with_long_metadata(&nodes);
    let topic = OffsetCommitRequestTopic {
        name: "orders".into(),
        partitions: vec![OffsetCommitRequestPartition::default(); 2_000_000],
        ..Default::default()
    };
    let request =
        OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
    let answer = exchange_within_bounds(&nodes, 5, &request).unwrap();
    let partitions = &answer.topics[0].partitions;
    assert_eq!(partitions.len(), 2_000_000);
    assert!(partitions.iter().all(|it| it.error_code == ErrorCode::UNKNOWN_SERVER_ERROR));
}

#[test]
fn an_offset_that_is_deleted_again_and_again_is_deleted_once() {
    let nodes = lone_node();
    nodes.succeed(&["topic", "create", "orders"]);
    commit_with_long_metadata(&nodes);
    let topic = OffsetDeleteRequestTopic {
        name: "orders".into(),
        partitions: vec![OffsetDeleteRequestPartition::default(); 4_000_000],
    };
    let request = OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] };
    let answer = exchange_within_bounds(&nodes, 0, &request).unwrap();
    assert_eq!(answer.error_code, ErrorCode::NONE);
    assert_eq!(answer.topics[0].partitions.len(), 1);
}

/// Each takes some bytes, and hundreds for as long as its member has a session.
#[test]
fn a_member_of_millions_of_protocols_is_none() {
    let nodes = lone_node();
    nodes.succeed(&["topic", "create", "orders"]);
    commit_with_long_metadata(&nodes);
    let protocol = |number: u32| JoinGroupRequestProtocol {
        name: format!("{number:x}").into(),
        ..Default::default()
    };
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: (0..2_000_000).map(protocol).collect(),
        ..Default::default()
    };
    let answer = exchange_within_bounds(&nodes, 3, &request).unwrap();
    assert_eq!(answer.error_code, ErrorCode::INVALID_REQUEST);
}

/// The topic that groups are in can't have three replicas on one node.
#[test]
fn however_many_keys_there_are_the_controller_is_asked_once_for_their_topic() {
    let nodes = lone_node_with("offsets.topic.replication.factor=3");
    let coordinator_keys = vec!["g".into(); 100];
    let request = FindCoordinatorRequest { coordinator_keys, ..Default::default() };
    let answer = exchange(&nodes.clients[0], 6, &request).unwrap();
    let codes = answer.coordinators.iter().map(|found| found.error_code);
    assert!(codes.eq([ErrorCode::COORDINATOR_NOT_AVAILABLE; 100]));
    let log = nodes.running[&1].log();
    assert_eq!(log.matches("topic was not created automatically").count(), 1, "{log}");
}

/// The key of each takes a byte, and what is said about it thirty.
#[test]
fn keys_without_a_letter_are_not_all_answered() {
    let nodes = lone_node();
    let coordinator_keys = vec!["".into(); 2_000_000];
    let request = FindCoordinatorRequest { key_type: 9, coordinator_keys, ..Default::default() };
    refused_within_bounds(&nodes, 6, &request);
}
